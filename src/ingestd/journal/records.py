"""Rows of a package's journal, read as records and written from them."""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ingestd.journal.database import Row
from ingestd.oais import DIP, DIP_USES, Description, DescriptionStatus, Directory, File, FileUse, Section
from ingestd.premis import AgentLink, Digest, DigestAlgorithm, Event, EventOutcome, EventType, Format, Program

FILE_COLUMNS = (
    "row, id, path, original, use, size_bytes, digest_algorithm, digest, digest_at, modified_at,"
    " format_name, format_version, puid, mime, derived_from, label, removed"
)
_TYPES = frozenset(EventType)
_OUTCOMES = frozenset(EventOutcome)
IN_AIP = (
    f" AND NOT (path > CAST('{DIP}/' AS BLOB) AND path < CAST('{DIP}0' AS BLOB)"
    f" AND use IN ({', '.join(repr(str(use)) for use in sorted(DIP_USES))}))"
)
"""What leaves out of the rows of files those that are made for a DIP."""
UPSERT_FILE = (
    "INSERT INTO file (id, path, original, use, size_bytes, digest_algorithm, digest, digest_at, modified_at,"
    " format_name, format_version, puid, mime, derived_from, label, removed)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET path = excluded.path, original = excluded.original, use = excluded.use,"
    " size_bytes = excluded.size_bytes, digest_algorithm = excluded.digest_algorithm, digest = excluded.digest,"
    " digest_at = excluded.digest_at, modified_at = excluded.modified_at, format_name = excluded.format_name,"
    " format_version = excluded.format_version, puid = excluded.puid, mime = excluded.mime,"
    " derived_from = excluded.derived_from, label = excluded.label, removed = excluded.removed"
)
DESCRIPTION_COLUMNS = 'target, kind, pairs, section, xml, reference, status, created_at, "group", standard'
INSERT_DESCRIPTION = f"INSERT INTO description ({DESCRIPTION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  constant

REVISE_DESCRIPTION = 'UPDATE description SET status = ?, "group" = ? WHERE row = ?'


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    """One run of one link. A job that has not ended was interrupted, or is at work."""

    row: int
    link: str
    name: str
    execute: str
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    cursor: int
    files_done: int
    seconds: float
    again: bool = False
    """It had been begun before: it is interrupted work, or a further try."""


def description_values(said: Description) -> tuple[Any, ...]:
    return (
        said.target.bytes,
        said.kind,
        json.dumps(list(said.pairs), ensure_ascii=False),
        said.section,
        zlib.compress(said.xml.encode(), 1) if said.xml else b"",
        said.reference.bytes if said.reference else None,
        said.status,
        said.created_at.isoformat() if said.created_at else None,
        said.group,
        said.standard,
    )


def description_of(columns: Row) -> Description:
    target, kind, pairs, section, xml, reference, status, created_at, group, standard = columns
    return Description(
        target=uuid.UUID(bytes=target),
        kind=kind,
        pairs=[(name, value) for name, value in json.loads(pairs)],
        section=Section(section),
        xml=zlib.decompress(xml).decode() if xml else "",
        reference=uuid.UUID(bytes=reference) if reference else None,
        status=DescriptionStatus(status),
        created_at=datetime.fromisoformat(created_at) if created_at else None,
        group=group,
        standard=bool(standard),
    )


def file_values(file: File) -> tuple[Any, ...]:
    digest, format_ = file.digest, file.format
    return (
        file.id.bytes,
        os.fsencode(file.path),
        os.fsencode(file.original),
        file.use,
        file.size_bytes,
        digest.algorithm if digest else None,
        digest.value if digest else None,
        digest.calculated_at.isoformat() if digest else None,
        file.modified_at.isoformat() if file.modified_at else None,
        format_.name if format_ else None,
        format_.version if format_ else None,
        format_.puid if format_ else None,
        format_.mime if format_ else None,
        file.derived_from.bytes if file.derived_from else None,
        file.label,
        int(file.removed),
    )


def file_of(row: Row) -> File:
    (number, id_, path, original, use, size, algorithm, digest, digest_at, modified) = row[:10]
    (name, version, puid, mime, derived, label, removed) = row[10:]
    return File(
        row=number,
        id=uuid.UUID(bytes=id_),
        path=os.fsdecode(path),
        original=os.fsdecode(original),
        use=FileUse(use),
        size_bytes=size,
        digest=Digest(algorithm=DigestAlgorithm(algorithm), value=digest, calculated_at=time_of(digest_at))
        if digest
        else None,
        modified_at=time_of(modified) if modified else None,
        format=Format(name=name, version=version, puid=puid, mime=mime) if name is not None else None,
        derived_from=uuid.UUID(bytes=derived) if derived else None,
        label=label,
        removed=bool(removed),
    )


def directory_of(row: Row) -> Directory:
    number, id_, path, original, removed = row
    return Directory(
        row=number,
        id=uuid.UUID(bytes=id_) if id_ else None,
        path=os.fsdecode(path),
        original=os.fsdecode(original),
        removed=bool(removed),
    )


def event_values(event: Event) -> tuple[Any, ...]:
    said = (event.type, event.at.isoformat(), event.detail, event.outcome, event.note)
    programs = [(program.name, program.version) for program in event.programs]
    return (event.object.bytes, event.id.bytes, *said, _listed(programs), _listed(event.agents), event.said_at)


def event_of(row: Row) -> Event:
    object_, id_, type_, at, detail, outcome, note, programs, agents, said_at = row
    return Event(
        object=uuid.UUID(bytes=object_),
        id=uuid.UUID(bytes=id_),
        type=EventType(type_) if type_ in _TYPES else type_,
        at=time_of(at),
        detail=detail,
        outcome=EventOutcome(outcome) if outcome in _OUTCOMES else outcome,
        note=note,
        programs=[Program(*words) for words in json.loads(programs)] if programs else (),
        agents=[AgentLink(*words) for words in json.loads(agents)] if agents else (),
        said_at=said_at,
    )


def _listed(items: Sequence[tuple[str, ...]]) -> str:
    return json.dumps(list(items), ensure_ascii=False) if items else ""


def job_of(row: Row) -> JobRecord:
    number, link, name, execute, started, ended, exit_code, cursor, files_done, seconds = row
    return JobRecord(
        row=number,
        link=link,
        name=name,
        execute=execute,
        started_at=time_of(started),
        ended_at=time_of(ended) if ended else None,
        exit_code=exit_code,
        cursor=cursor,
        files_done=files_done,
        seconds=seconds,
    )


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
