"""What is in an AIP, for a person or a program that never saw it: from its METS, without reading every byte."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ingestd.aip.container import FOLDER, shown
from ingestd.aip.manifests import read_tags
from ingestd.aip.reading import Reading, opened
from ingestd.aip.records import Concern, Counted, Description, Entry, EventCount, FormatCount, Inspection, RightsCount
from ingestd.premis import Format

_SAMPLES = 5
_KINDS = 1000
"""At most so many formats, kinds of events and descriptions of the package are told apart."""

_FAILED = (
    "lower(event.outcome) IN ('fail', 'failed', 'warning', 'error', 'infected') OR lower(event.outcome) LIKE 'not %'"
)
_ENTRIES = """
SELECT member.path, coalesce(member.size_bytes, file.size_bytes), file.use, file.identifier, file.original_name,
    file.format_name, file.format_version, file.puid, file.derived_from
FROM member LEFT JOIN file ON file.number = (SELECT min(number) FROM file WHERE file.path = member.path)
ORDER BY member.path
"""


async def inspect(path: Path, *, files: int | None = 100, scratch: Path | None = None) -> Inspection:
    """Say what is in the AIP at `path`, with the first `files` of its files (None: all of them).

    Raises what `reading.opened` raises; a METS that is damaged is told in `troubles`.
    """
    async with opened(path, scratch=scratch) as reading:
        return await reading.run(partial(inspected, reading, files))


def inspected(reading: Reading, files: int | None) -> Inspection:
    """Gather what `inspect` gives. Blocks."""
    facts, summary = reading.facts, reading.summary
    members = facts.count("SELECT count(*) FROM member")
    shown_files = members if files is None else min(files, members)
    container = reading.container
    return Inspection(
        name=reading.name,
        identifier=reading.identifier,
        form=container.form,
        package_bytes=None if container.form == FOLDER else container.path.stat().st_size,
        created_at=summary.created_at if summary else "",
        mets=shown(reading.mets or b""),
        members=members,
        files=facts.count("SELECT count(*) FROM file"),
        size_bytes=facts.count("SELECT sum(size_bytes) FROM file"),
        bag_info=_bag_info(reading),
        agents=[
            dict(zip(("identifier_type", "identifier", "name", "type", "version"), row, strict=True))
            for row in facts.rows("SELECT * FROM agent ORDER BY rowid")
        ],
        by_use=_by_use(reading),
        formats=_formats(reading),
        events=_events(reading),
        descriptions=list(descriptions(reading, whole=True)),
        described=_with_metadata(reading, "dmdSec"),
        sourced=_with_metadata(reading, "sourceMD"),
        rights=_rights(reading),
        concerns=list(_concerns(reading)),
        troubles=reading.troubles,
        notes=reading.notes,
        tree=[entry for entry, _ in zip(entries(reading), range(shown_files), strict=False)],
        not_shown=members - shown_files,
    )


def entries(reading: Reading) -> Iterator[Entry]:
    """Every file of the AIP, in the order of its paths' bytes. Blocks."""
    for path, size_bytes, use, identifier, original, name, version, puid, source in reading.facts.rows(_ENTRIES):
        yield Entry(
            path=shown(path),
            size_bytes=size_bytes,
            use=use or "",
            identifier=identifier or "",
            original_name=original or "",
            format=Format(name=name or "", version=version or "").words,
            puid=puid or "",
            derived_from=source or "",
        )


def descriptions(reading: Reading, *, whole: bool) -> Iterator[Description]:
    """Metadata: with `whole` of the package as a whole, else of everything. Blocks."""
    where = "WHERE path IN (x'', CAST('objects' AS BLOB))" if whole else ""
    limit = f"LIMIT {_KINDS}" if whole else ""
    columns = "path, kind, pairs, section, status, xml, reference"
    for path, kind, pairs, *how in reading.facts.rows(f"SELECT {columns} FROM description {where} {limit}"):  # noqa: S608  fixed texts
        section, status, xml, reference = how
        yield Description(
            path=shown(path),
            kind=kind,
            pairs=[(str(key), str(value)) for key, value in json.loads(pairs)],
            section=section,
            status=status,
            xml=xml,
            reference=reference,
        )


def _with_metadata(reading: Reading, section: str) -> int:
    return reading.facts.count("SELECT count(DISTINCT path) FROM description WHERE section = ?", (section,))


def _rights(reading: Reading) -> Sequence[RightsCount]:
    sql = "SELECT whole, words, count(DISTINCT file) FROM rights GROUP BY 1, 2 ORDER BY 1 DESC, 3 DESC, 2 LIMIT ?"
    return [
        RightsCount(**json.loads(words), whole=bool(whole), files=files)
        for whole, words, files in reading.facts.rows(sql, (_KINDS,))
    ]


def _bag_info(reading: Reading) -> Sequence[tuple[str, str]]:
    return read_tags(reading.local(b"bag-info.txt")) if reading.facts.has(b"bag-info.txt") else ()


def _by_use(reading: Reading) -> Mapping[str, Counted]:
    sql = "SELECT use, count(*), coalesce(sum(size_bytes), 0) FROM file GROUP BY use ORDER BY min(number)"
    return {use: Counted(files=files, size_bytes=size) for use, files, size in reading.facts.rows(sql)}


def _formats(reading: Reading) -> Sequence[FormatCount]:
    sql = """SELECT format_name, format_version, puid, count(*), coalesce(sum(size_bytes), 0) FROM file
        GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2 LIMIT ?"""
    return [
        FormatCount(name=name or "Unknown", version=version, puid=puid, files=files, size_bytes=size)
        for name, version, puid, files, size in reading.facts.rows(sql, (_KINDS,))
    ]


def _events(reading: Reading) -> Sequence[EventCount]:
    sql = """SELECT type, outcome, count(*), min(at), max(at) FROM event GROUP BY 1, 2
        ORDER BY min(at), 1, 2 LIMIT ?"""
    return [
        EventCount(type=kind, outcome=outcome, count=count, first=first, last=last)
        for kind, outcome, count, first, last in reading.facts.rows(sql, (_KINDS,))
    ]


def _concerns(reading: Reading) -> Iterator[Concern]:
    kinds = f"SELECT type, outcome FROM event WHERE {_FAILED} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 50"  # noqa: S608  a constant
    for kind, outcome in list(reading.facts.rows(kinds)):
        where = "file JOIN event ON event.file = file.number WHERE event.type = ? AND event.outcome = ?"
        yield _concern(reading, f"{kind}: {outcome}", where, (kind, outcome))
    for what, where in (
        ("not identified", "file WHERE puid = ''"),
        ("no message digest in the METS", "file WHERE NOT EXISTS (SELECT 1 FROM fixity WHERE file = file.number)"),
    ):
        found = _concern(reading, what, where, ())
        if found.files:
            yield found


def _concern(reading: Reading, what: str, where: str, parameters: Sequence[Any]) -> Concern:
    facts = reading.facts
    files = facts.count(f"SELECT count(DISTINCT file.number) FROM {where}", parameters)  # noqa: S608  texts of this module
    sql = f"SELECT DISTINCT file.path FROM {where} ORDER BY file.path LIMIT {_SAMPLES}"  # noqa: S608  texts of this module
    return Concern(what=what, files=files, samples=[shown(row[0]) for row in facts.rows(sql, parameters)])
