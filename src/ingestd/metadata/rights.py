"""`metadata/rights.csv`: rights of files, folders or the whole package, an act in each row, as Archivematica documents.

A row is a basis and, where it has one, an act. Rows that say the same of the same basis are one statement with several
acts. What Archivematica takes and loses, or writes half, is a *doubt*: `strict` makes a violation of it.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingestd.errors import Violation
from ingestd.metadata.tables import Row, Shape, Table
from ingestd.oais import NOWHERE, RightsClaim
from ingestd.premis import (
    OPEN,
    DocumentationIdentifier,
    Restriction,
    RightsBasis,
    RightsGranted,
    RightsStatement,
)

FILE = "metadata/rights.csv"
OF_REQUEST = "metadata.rights of the request"
EXAMPLE = (
    "file,basis,status,jurisdiction,grant_act,grant_restriction"
    " / objects/letter.txt,copyright,copyrighted,gb,disseminate,Allow"
)
_BASIS_COLUMNS = ("status", "determination_date", "jurisdiction", "start_date", "end_date", "terms", "citation", "note")
_GRANT_COLUMNS = ("grant_act", "grant_restriction", "grant_start_date", "grant_end_date", "grant_note")
_DOC_COLUMNS = ("doc_id_type", "doc_id_value", "doc_id_role")
_DATES = ("determination_date", "start_date", "end_date", "grant_start_date", "grant_end_date")
COLUMNS = ("file", "basis", *_BASIS_COLUMNS, *_GRANT_COLUMNS, *_DOC_COLUMNS)
SHAPE = Shape(name=FILE, example=EXAMPLE, required=("file", "basis"), allowed=COLUMNS)

_COMMON = frozenset({"start_date", "end_date", "note"})
_SAID_BY: Mapping[RightsBasis, frozenset[str]] = {
    RightsBasis.COPYRIGHT: _COMMON | {"status", "jurisdiction", "determination_date"},
    RightsBasis.LICENSE: _COMMON | {"terms"},
    RightsBasis.STATUTE: _COMMON | {"jurisdiction", "citation", "determination_date"},
}
"""The columns that each basis has a place for in PREMIS; the others have the common ones."""
_WANTED: Mapping[RightsBasis, Sequence[str]] = {
    RightsBasis.COPYRIGHT: ("status", "jurisdiction"),
    RightsBasis.STATUTE: ("jurisdiction", "citation"),
}
_EDTF = re.compile(
    r"[0-9]{4}|[0-9]{4}-[0-9]{2}|[0-9X~?%.-]{4,12}|[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+(Z|[+-][0-9:]+)?)?"
)
_SLASHED = re.compile(r"([0-9]{4})/([0-9]{2})/([0-9]{2})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """Something that can be written, but not as it should be."""

    violation: Violation


@dataclass(kw_only=True, slots=True)
class RightsTable:
    """`rights.csv`, read as a stream of claims, violations and doubts. Blocks."""

    path: Path
    strict: bool = False
    table: Table = field(init=False)

    def __post_init__(self) -> None:
        self.table = Table(path=self.path, shape=SHAPE)

    def rows(self) -> Iterator[RightsClaim | Violation | Doubt]:
        """Give each row as a claim, after its doubts; a row that is wrong only as its violations."""
        empty = True
        with contextlib.closing(_Once()) as once:
            for row in self.table.rows():
                empty = False
                yield from [row] if isinstance(row, Violation) else self._row(row, once)
        if empty:
            yield from self._graded([Violation(path=f"{FILE}:2", rule="rows", expected=EXAMPLE, actual="no row")])

    def _row(self, row: Row, once: _Once) -> Iterator[RightsClaim | Violation | Doubt]:
        wrong = list(self._wrong(row))
        doubts = list(self._graded(self._doubtful(row, once)))
        yield from wrong
        yield from doubts
        if not wrong and not any(isinstance(doubt, Violation) for doubt in doubts):
            names = tuple(dict.fromkeys(target_of(name) for name in self.table.names(row.get("file"))))
            yield RightsClaim(line=row.line, paths=names, statement=_statement(row))

    def _graded(self, violations: Iterator[Violation] | Sequence[Violation]) -> Iterator[Violation | Doubt]:
        return (violation if self.strict else Doubt(violation=violation) for violation in violations)

    def _wrong(self, row: Row) -> Iterator[Violation]:
        def wrong(name: str, expected: str) -> Violation:
            return self.table.violation(row, row.column(name), name, expected)

        if not row.get("file"):
            yield wrong("file", "the path of a file or folder, objects/…, or objects for the whole package")
        if row.get("basis").lower() not in _BASES:
            yield wrong("basis", f"one of {', '.join(_BASES)}")
        restriction = row.get("grant_restriction")
        if restriction and restriction.lower() not in _RESTRICTIONS:
            yield wrong("grant_restriction", f"one of {', '.join(Restriction)}")
        if not restriction and row.get("grant_act") and (row.get("grant_start_date") or row.get("grant_end_date")):
            expected = f"one of {', '.join(Restriction)}: else nobody knows whether the dates grant or restrict"
            yield wrong("grant_restriction", expected)

    def _doubtful(self, row: Row, once: _Once) -> Iterator[Violation]:
        doubts = (*_basis_doubts(row), *_grant_doubts(row), *_documentation_doubts(row), *_date_doubts(row))
        for name, expected in doubts:
            yield self.table.violation(row, row.column(name), name, expected)
        words = (target_of(row.get("file")), row.get("basis").lower(), row.get("grant_act").lower())
        if self.strict and not once.first(words):
            expected = "each file, basis and act once: Archivematica keeps only the first"
            yield self.table.violation(row, row.column("grant_act"), "duplicate", expected)


class _Once:
    """Says whether words come for the first time; what came is in a temporary file of SQLite's own."""

    def __init__(self) -> None:
        self._seen = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._seen.execute("CREATE TABLE seen (words TEXT PRIMARY KEY) WITHOUT ROWID")

    def first(self, words: Sequence[str]) -> bool:
        added = self._seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", ("\0".join(words),))
        return added.rowcount == 1

    def close(self) -> None:
        self._seen.close()


def _basis_doubts(row: Row) -> Iterator[tuple[str, str]]:
    basis = _BASES.get(row.get("basis").lower())
    if basis is None:
        return
    for name in _WANTED.get(basis, ()):
        if not row.get(name):
            yield name, f"a {name}: PREMIS wants one for the basis {basis.lower()}"
    for name in _BASIS_COLUMNS:
        if row.get(name) and name not in _SAID_BY.get(basis, _COMMON):
            yield name, f"nothing: PREMIS has no place for it with the basis {basis.lower()}"


def _grant_doubts(row: Row) -> Iterator[tuple[str, str]]:
    more = [name for name in _GRANT_COLUMNS[1:] if row.get(name)]
    if more and not row.get("grant_act"):
        yield "grant_act", f"an act, to which {', '.join(more)} belong, for example disseminate"
    elif row.get("grant_act") and not row.get("grant_restriction"):
        yield "grant_restriction", f"one of {', '.join(Restriction)}"


def _documentation_doubts(row: Row) -> Iterator[tuple[str, str]]:
    if any(map(row.get, _DOC_COLUMNS)):
        for name in _DOC_COLUMNS[:2]:
            if not row.get(name):
                yield name, "both doc_id_type and doc_id_value, for example URL and https://example.org/deed"


def _date_doubts(row: Row) -> Iterator[tuple[str, str]]:
    for name in _DATES:
        end = name.endswith("end_date")
        if not _is_date(row.get(name), open_end=end):
            yield name, "YYYY-MM-DD, YYYY-MM or YYYY" + (", or open" if end else "")
    for prefix in ("", "grant_"):
        start, last = _date(row.get(f"{prefix}start_date")), _date(row.get(f"{prefix}end_date"))
        if start[:4].isdigit() and last[:4].isdigit() and last < start[: len(last)]:
            yield f"{prefix}end_date", f"a date that is not before {start}"


def lost(claim: RightsClaim, number: int = 0) -> Violation:
    """What is wrong with rights of something that is not there; `number` counts those of a request."""
    place = f"{FILE}:{claim.line}:1" if claim.line else f"metadata.rights.{number}.file"
    expected = "the path of a file or folder in the transfer, such as objects/letter.txt"
    return Violation(path=place, rule="file", expected=expected, actual=claim.paths[0][:100])


def target_of(name: str) -> str:
    """The path that a cell names, without what people write around it."""
    return name.removeprefix("./").removeprefix("/").rstrip("/")


def _statement(row: Row) -> RightsStatement:
    basis = _BASES[row.get("basis").lower()]
    said = {name: row.get(name) for name in _SAID_BY.get(basis, _COMMON)}
    kind, value, role = (row.get(name) for name in _DOC_COLUMNS)
    return RightsStatement(
        object=NOWHERE,
        basis=basis,
        status=said.get("status", ""),
        jurisdiction=said.get("jurisdiction", ""),
        determination_date=_date(said.get("determination_date", "")),
        citation=said.get("citation", ""),
        terms=said.get("terms", ""),
        start=_date(said["start_date"]),
        end=_date(said["end_date"]),
        notes=[said["note"]] if said["note"] else [],
        documentation=[DocumentationIdentifier(type=kind, value=value, role=role)] if kind or value or role else [],
        granted=[_granted(row)] if row.get("grant_act") else [],
    )


def _granted(row: Row) -> RightsGranted:
    restriction, note = row.get("grant_restriction"), row.get("grant_note")
    return RightsGranted(
        act=row.get("grant_act"),
        restrictions=[_RESTRICTIONS[restriction.lower()]] if restriction else [],
        start=_date(row.get("grant_start_date")),
        end=_date(row.get("grant_end_date")),
        notes=[note] if note else [],
    )


def _date(text: str) -> str:
    """A date as PREMIS has it: `open` is a word of its own, slashes between the parts of a date become hyphens."""
    if text.lower() == OPEN.lower():
        return OPEN
    return _SLASHED.sub(r"\1-\2-\3", text) if _SLASHED.fullmatch(text) else text


def _is_date(text: str, *, open_end: bool) -> bool:
    date = _date(text)
    return not date or (open_end and date == OPEN) or _EDTF.fullmatch(date) is not None


_BASES = {basis.lower(): basis for basis in RightsBasis}
_RESTRICTIONS = {word.lower(): word for word in Restriction}
