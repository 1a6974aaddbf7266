"""PREMIS 3 as records: events, agents, message digests, formats.

Semantic units are named as in the PREMIS Data Dictionary, version 3.0; event types and outcomes are those of the
Library of Congress vocabulary (id.loc.gov/vocabulary/preservation) and of Archivematica, whose tools read our METS.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum


class EventType(StrEnum):
    """PREMIS eventType (semantic unit 2.2)."""

    INGESTION = "ingestion"
    REGISTRATION = "registration"
    MESSAGE_DIGEST_CALCULATION = "message digest calculation"
    FIXITY_CHECK = "fixity check"
    FILENAME_CHANGE = "filename change"
    FORMAT_IDENTIFICATION = "format identification"
    UNPACKING = "unpacking"
    FILE_REMOVED = "file removed"
    VALIDATION = "validation"
    NORMALIZATION = "normalization"
    CREATION = "creation"
    TRANSCRIPTION = "transcription"
    VIRUS_CHECK = "virus check"
    COMPRESSION = "compression"
    ENCRYPTION = "encryption"
    REPLICATION = "replication"
    REINGESTION = "reingestion"


class EventOutcome(StrEnum):
    """PREMIS eventOutcome (2.5.1) as Archivematica words it, event type by event type."""

    NONE = ""
    PASS = "pass"
    PARTIAL_PASS = "partial pass"
    FAIL = "fail"
    POSITIVE = "Positive"
    NOT_IDENTIFIED = "Not identified"
    TRANSCRIBED = "transcribed"
    NOT_TRANSCRIBED = "not transcribed"
    CLEAN = "Pass"
    INFECTED = "Fail"
    NOT_SCANNED = "Not scanned"


class DigestAlgorithm(StrEnum):
    """PREMIS messageDigestAlgorithm (1.5.2.1), spelled as BagIt manifests spell it (RFC 8493, 2.4)."""

    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"


class AgentType(StrEnum):
    """PREMIS agentType (3.3)."""

    SOFTWARE = "software"
    ORGANIZATION = "organization"
    REQUESTER = "requester"


@dataclass(frozen=True, kw_only=True, slots=True)
class Digest:
    """A message digest in lower-case hexadecimal, and when it was calculated."""

    algorithm: DigestAlgorithm
    value: str
    calculated_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """PREMIS format (1.5.4). An unidentified file has the name `Unknown` and neither version nor PUID."""

    name: str
    version: str = ""
    puid: str = ""
    mime: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """PREMIS agent: identifier (3.1), name (3.2), type (3.3)."""

    identifier_type: str
    identifier: str
    name: str
    type: AgentType


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """PREMIS event about one object (a file, or the package where `object` is its id).

    `at` says when it happened, not when it was written (2.3). `note` is eventOutcomeDetailNote (2.5.2.1).
    """

    object: uuid.UUID
    type: EventType
    at: datetime
    detail: str = ""
    outcome: EventOutcome = EventOutcome.NONE
    note: str = ""
    id: uuid.UUID = field(default_factory=uuid.uuid4)


def now() -> datetime:
    """Give the time in UTC, with its zone."""
    return datetime.now(UTC)


def rfc3339(at: datetime) -> str:
    """Spell a time as RFC 3339 in UTC with milliseconds: `2026-11-20T18:57:41.123Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def program(name: str, version: str, **more: str) -> str:
    """Word an eventDetail as the field does: `program="Siegfried"; version="1.11"`."""
    pairs = {"program": name, "version": version, **more}
    return "; ".join(f'{key}="{value}"' for key, value in pairs.items() if value)
