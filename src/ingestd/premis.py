"""PREMIS 3 as records: events, agents, rights, identifiers, message digests, formats.

Semantic units are named as in the PREMIS Data Dictionary, version 3.0; event types and outcomes are those of the
Library of Congress vocabulary (id.loc.gov/vocabulary/preservation) and of Archivematica, whose tools read our METS.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple


class EventType(StrEnum):
    """PREMIS eventType (semantic unit 2.2)."""

    INGESTION = "ingestion"
    REGISTRATION = "registration"
    MESSAGE_DIGEST_CALCULATION = "message digest calculation"
    FIXITY_CHECK = "fixity check"
    FILENAME_CHANGE = "filename change"
    FORMAT_IDENTIFICATION = "format identification"
    METADATA_EXTRACTION = "metadata extraction"
    FORENSIC_FEATURE_ANALYSIS = "forensic feature analysis"
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
    DELETION = "deletion"


class EventOutcome(StrEnum):
    """PREMIS eventOutcome (2.5.1) as Archivematica words it, event type by event type; of the types that it has not, in
    the words of id.loc.gov/vocabulary/preservation/eventOutcome: success, warning, fail.
    """

    NONE = ""
    PASS = "pass"
    PARTIAL_PASS = "partial pass"
    FAIL = "fail"
    SUCCESS = "success"
    WARNING = "warning"
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

    @property
    def words(self) -> str:
        """Name and version, the version once: registries say it in the name, too, and `None` where there is none."""
        name, version = (text.replace(" -", "-") for text in (self.name, self.version))
        said = version in {"", "None"} or f" {version} " in f" {name} "
        return self.name if said else f"{self.name} {self.version}"


class RightsBasis(StrEnum):
    """PREMIS rightsBasis (4.1.2) as Archivematica's forms have it: donor and policy are written as `Other`."""

    COPYRIGHT = "Copyright"
    LICENSE = "License"
    STATUTE = "Statute"
    DONOR = "Donor"
    POLICY = "Policy"
    OTHER = "Other"


class Restriction(StrEnum):
    """PREMIS restriction (4.1.6.2), the values that Archivematica knows."""

    ALLOW = "Allow"
    DISALLOW = "Disallow"
    CONDITIONAL = "Conditional"


SYSTEM_AGENT = "preservation system"
"""The agentIdentifierType of the software that preserves: Archivematica's word, linked from every event it records."""

OPEN = "OPEN"
"""An endDate that is not fixed."""

PROGRAM = "program"
"""The agentIdentifierType of a program that acted in an event, beside the software that had it act."""

EXECUTING_PROGRAM = "executing program"
"""linkingAgentRole (2.6.3) of such a program, as id.loc.gov/vocabulary/preservation/eventRelatedAgentRole has it."""


class AgentLink(NamedTuple):
    """linkingAgentIdentifier (2.6): an agent's identifierType and identifierValue, and its role in what links to it."""

    type: str
    identifier: str
    role: str = ""

    @property
    def agent(self) -> AgentLink:
        """The same agent, whatever its role: what agents are looked up by."""
        return self._replace(role="")


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """PREMIS agent: identifier (3.1), name (3.2), type (3.3), version (3.4)."""

    identifier_type: str
    identifier: str
    name: str
    type: str
    version: str = ""

    @property
    def link(self) -> AgentLink:
        return AgentLink(self.identifier_type, self.identifier)


@dataclass(frozen=True, slots=True)
class Program:
    """An external program, or a library treated like one, that acted in an event; `version` is empty if not known."""

    name: str
    version: str = ""

    @property
    def agent(self) -> Agent:
        """The program as an agent, identified as Archivematica identifies itself: `Siegfried-1.11.1`."""
        identifier = "-".join(filter(None, (self.name, self.version)))
        return Agent(
            identifier_type=PROGRAM,
            identifier=identifier,
            name=self.name,
            type=AgentType.SOFTWARE,
            version=self.version,
        )

    @property
    def link(self) -> AgentLink:
        return self.agent.link._replace(role=EXECUTING_PROGRAM)

    def words(self, **more: str) -> str:
        """Word an eventDetail as the field does: `program="Siegfried"; version="1.11"`."""
        pairs = {"program": self.name, "version": self.version, **more}
        return "; ".join(f'{key}="{value}"' for key, value in pairs.items() if value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """PREMIS event about one object (a file, or the package where `object` is its id).

    `at` says when it happened, not when it was written (2.3). `note` is eventOutcomeDetailNote (2.5.2.1). The agents of
    an event of ours are the package's own, and the `programs` that acted. One that somebody else recorded has its own
    `agents` alone, any type and outcome, where ours have those of `EventType` and `EventOutcome`, and `said_at` is its
    time as it was written.
    """

    object: uuid.UUID
    type: str
    at: datetime
    detail: str = ""
    outcome: str = EventOutcome.NONE
    note: str = ""
    programs: Sequence[Program] = ()
    agents: Sequence[AgentLink] = ()
    said_at: str = ""
    id: uuid.UUID = field(default_factory=uuid.uuid4)


def since_reingestion(events: Sequence[Event]) -> Sequence[Event]:
    """What happened to an object since it was last taken up again; everything, where it never was."""
    for at in range(len(events), 0, -1):
        if events[at - 1].type == EventType.REINGESTION:
            return events[at:]
    return events


@dataclass(frozen=True, kw_only=True, slots=True)
class Identifier:
    """A further objectIdentifier (1.1) of a file, a directory or the package, beside its UUID."""

    object: uuid.UUID
    type: str
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentationIdentifier:
    """Where the grounds of a right are documented (4.1.3.5 and its like)."""

    type: str
    value: str
    role: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RightsGranted:
    """An act that is granted or restricted (4.1.6). Dates are as written in EDTF; `end` may be `OPEN`."""

    act: str
    restrictions: Sequence[str] = ()
    start: str = ""
    end: str = ""
    notes: Sequence[str] = ()

    @property
    def words(self) -> str:
        """All of it, as JSON: the same for the same act."""
        said = {"act": self.act, "restrictions": self.restrictions, "start": self.start, "end": self.end}
        return json.dumps({**said, "notes": self.notes}, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class RightsStatement:
    """PREMIS rightsStatement (4.1) about one object: a basis, and the acts that it grants or restricts.

    `status` is for copyright, `citation` for statutes, `terms` for licenses; `other_basis` says which basis where it is
    none of PREMIS's own. Without an identifier of its own, `id` is it.
    """

    object: uuid.UUID
    basis: RightsBasis
    identifier_type: str = ""
    identifier: str = ""
    other_basis: str = ""
    status: str = ""
    jurisdiction: str = ""
    determination_date: str = ""
    citation: str = ""
    terms: str = ""
    start: str = ""
    end: str = ""
    notes: Sequence[str] = ()
    documentation: Sequence[DocumentationIdentifier] = ()
    granted: Sequence[RightsGranted] = ()
    agents: Sequence[AgentLink] = ()

    @property
    def words(self) -> str:
        """Everything but the object and the acts, as JSON: the same for the same words."""
        said = {name: getattr(self, name) for name in _STATEMENT_WORDS}
        said["documentation"] = [{"type": d.type, "value": d.value, "role": d.role} for d in self.documentation]
        # Without a role, as links were before they had any: the identifier stays.
        said["agents"] = [link if link.role else link[:2] for link in self.agents]
        return json.dumps(said, ensure_ascii=False)

    @property
    def id(self) -> uuid.UUID:
        """Made of the words: the same words about the same object are the same statement."""
        return uuid.uuid5(self.object, self.words)


_STATEMENT_WORDS = (
    *("basis", "identifier_type", "identifier", "other_basis", "status", "jurisdiction", "determination_date"),
    *("citation", "terms", "start", "end", "notes"),
)


def with_all_acts(statements: Iterable[RightsStatement]) -> list[RightsStatement]:
    """Bring the acts of the same statement together, each once, in the order in which they come."""
    found: dict[uuid.UUID, RightsStatement] = {}
    acts: dict[uuid.UUID, dict[str, RightsGranted]] = {}
    for statement in statements:
        id_ = statement.id
        found.setdefault(id_, statement)
        known = acts.setdefault(id_, {})
        for act in statement.granted:
            known.setdefault(act.words, act)
    return [replace(statement, granted=list(acts[id_].values())) for id_, statement in found.items()]


def now() -> datetime:
    """Give the time in UTC, with its zone."""
    return datetime.now(UTC)


def time_in(text: str) -> datetime | None:
    """The time that somebody wrote (ISO 8601), in UTC; without a zone it is UTC, as METS and Archivematica have it.

    None for what is none, such as dates that leave open what they do not know, and for one that UTC's calendar lacks.
    """
    try:
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def rfc3339(at: datetime) -> str:
    """Spell a time as RFC 3339 in UTC with milliseconds: `2026-11-20T18:57:41.123Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
