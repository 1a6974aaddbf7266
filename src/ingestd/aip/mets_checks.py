"""What METS and PREMIS say of an AIP's files held against the files: a rule is the unit of the PREMIS Data Dictionary
(3.0, where 2.2 has the same under the same name) or the part of METS that is broken. Blocks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime

from ingestd.aip.container import shown
from ingestd.aip.reading import ALGORITHMS, Reading, uuid_in
from ingestd.errors import Violation
from ingestd.sources.names import NameRefused, split

IDENTIFIER, FIXITY, SIZE, RELATED = "premis.1.1", "premis.1.5.2", "premis.1.5.3", "premis.1.13"
EVENT_IDENTIFIER, EVENT_TYPE, EVENT_TIME = "premis.2.1", "premis.2.2", "premis.2.3"
FILES, ADMINISTERED = "mets.fileSec", "mets.amdSec"

_UNNAMED = """
SELECT path FROM member WHERE path >= ? AND path < ?
    AND NOT EXISTS (SELECT 1 FROM file WHERE file.path = member.path) ORDER BY path
"""
_NOT_THERE = """
SELECT path FROM file WHERE NOT EXISTS (SELECT 1 FROM member WHERE member.path = file.path) ORDER BY path
"""
_UNDESCRIBED = """
SELECT path FROM file WHERE size_bytes IS NULL AND NOT EXISTS (SELECT 1 FROM fixity WHERE fixity.file = file.number)
    AND NOT EXISTS (SELECT 1 FROM event WHERE event.file = file.number) ORDER BY path
"""
_NO_DIGEST = """
SELECT path FROM file WHERE size_bytes IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM fixity WHERE fixity.file = file.number) ORDER BY path
"""
_OTHER_SIZE = """
SELECT file.path, file.size_bytes, member.size_bytes FROM file JOIN member USING (path)
    WHERE file.size_bytes IS NOT NULL AND member.size_bytes IS NOT NULL AND file.size_bytes <> member.size_bytes
    ORDER BY 1
"""
_NO_SOURCE = """
SELECT path, derived_from FROM file WHERE length(derived_from) = 36
    AND NOT EXISTS (SELECT 1 FROM file AS source WHERE source.identifier = file.derived_from) ORDER BY path
"""
_YEAR_AND_MORE = re.compile(r"\d{4}(-\d{2}){0,2}[~?]?")


def check_mets(reading: Reading) -> Iterator[Violation]:
    """Every file both ways, sizes, digests, identifiers, events, derivations."""
    if reading.mets is None:
        if reading.is_bag or not reading.troubles:
            yield Violation(path="", rule="mets.present", expected="data/METS.UUID.xml", actual="no METS")
        return
    if reading.summary is None:
        return  # it could not be read, which has been said
    yield from _accounted(reading)
    yield from _sizes_and_digests(reading)
    yield from _identifiers(reading)
    yield from _events(reading)


def _accounted(reading: Reading) -> Iterator[Violation]:
    facts = reading.facts
    for (path,) in facts.rows(_NOT_THERE):
        actual = "no such file" if _is_plain(path) else "a path that leads out of the AIP"
        yield Violation(path=shown(path), rule=FILES, expected="a file, as the METS says", actual=actual)
    start = os.path.join(reading.payload, b"objects")  # noqa: PTH118  bytes
    for (path,) in facts.rows(_UNNAMED, (start + b"/", start + b"0")):
        yield Violation(path=shown(path), rule=FILES, expected="every object in the METS", actual="not named in it")
    for path, count in facts.rows("SELECT path, count(*) FROM file GROUP BY path HAVING count(*) > 1 ORDER BY path"):
        yield Violation(path=shown(path), rule=FILES, expected="one entry", actual=f"{count} entries")
    for (path,) in facts.rows(_UNDESCRIBED):
        yield Violation(path=shown(path), rule=ADMINISTERED, expected="a PREMIS object", actual="nothing but its path")


def _is_plain(path: bytes) -> bool:
    try:
        return bool(split(path))
    except NameRefused:
        return False


def _sizes_and_digests(reading: Reading) -> Iterator[Violation]:
    facts = reading.facts
    for (path,) in facts.rows(_NO_DIGEST):
        yield Violation(path=shown(path), rule=FIXITY, expected="a message digest", actual="none in the METS")
    for path, expected, actual in facts.rows(_OTHER_SIZE):
        yield Violation(path=shown(path), rule=SIZE, expected=f"{expected} bytes", actual=f"{actual} bytes")
    for algorithm in sorted(ALGORITHMS):
        sql = f"""SELECT file.path, digest, {algorithm} FROM fixity JOIN file ON file.number = fixity.file
            JOIN member USING (path) WHERE algorithm = ? AND {algorithm} IS NOT NULL AND digest <> {algorithm}
            ORDER BY 1"""  # noqa: S608  a column
        for path, expected, actual in facts.rows(sql, (algorithm,)):
            told = f"{algorithm} {expected} (METS)"
            yield Violation(path=shown(path), rule=FIXITY, expected=told, actual=f"{algorithm} {actual}")


def _identifiers(reading: Reading) -> Iterator[Violation]:
    facts = reading.facts
    for (path,) in facts.rows("SELECT path FROM file WHERE identifier = '' ORDER BY path"):
        yield Violation(path=shown(path), rule=IDENTIFIER, expected="an identifier", actual="none")
    sql = "SELECT identifier, min(path), count(*) FROM file WHERE identifier <> '' GROUP BY 1 HAVING count(*) > 1"
    for identifier, path, count in facts.rows(sql):
        actual = f"{identifier} stands for {count} files"
        yield Violation(path=shown(path), rule=IDENTIFIER, expected="an identifier of its own", actual=actual)
    for path, source in facts.rows(_NO_SOURCE):
        yield Violation(path=shown(path), rule=RELATED, expected=f"a file {source} that it was made of", actual="none")
    yield from _package(reading)


def _package(reading: Reading) -> Iterator[Violation]:
    named = uuid_in(reading.name)
    row = reading.facts.row("SELECT identifier FROM entity WHERE path = x'' LIMIT 1")
    said = [shown(reading.mets or b"")] + ([str(row[0])] if row else [])
    for text in said:
        found = uuid_in(text)
        if named and found and found != named:
            yield Violation(path=shown(reading.mets or b""), rule=IDENTIFIER, expected=named, actual=found)


def _events(reading: Reading) -> Iterator[Violation]:
    rows = reading.facts.rows(
        "SELECT file.path, event.identifier, type, at FROM event JOIN file ON file.number = event.file ORDER BY 1"
    )
    for path, identifier, kind, at in rows:
        place = f"{shown(path)}#{identifier}" if identifier else shown(path)
        if not identifier:
            yield Violation(path=place, rule=EVENT_IDENTIFIER, expected="an eventIdentifier", actual="none")
        if not kind:
            yield Violation(path=place, rule=EVENT_TYPE, expected="an eventType", actual="none")
        if not _is_time(at):
            yield Violation(path=place, rule=EVENT_TIME, expected="a time (ISO 8601)", actual=at[:100] or "none")


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text.strip())
    except ValueError:
        return _YEAR_AND_MORE.fullmatch(text.strip()) is not None
    return True
