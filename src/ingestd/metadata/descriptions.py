"""`metadata.csv` and `metadata.json`: Dublin Core and other words on files, folders and the package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestd.errors import Violation
from ingestd.metadata import objects
from ingestd.metadata.tables import Shape, Table

FILE = "metadata/metadata.csv"
JSON_FILE = "metadata/metadata.json"
DC, CUSTOM = "DC", "CUSTOM"
SHAPE = Shape(
    name=FILE,
    example="filename,dc.title,dc.creator / objects/letter.txt,A letter,Ann Keeper",
    first=("filename", "parts"),
    repeatable=True,
)
_JSON_EXAMPLE = '[{"filename": "objects/letter.txt", "dc.title": "A letter", "dc.creator": ["Ann", "Bob"]}]'
_DC_ELEMENT = re.compile(r"(?P<prefix>dc|dcterms)\.(?:[A-Za-z]+\.)*(?P<element>[A-Za-z]+)")
_NOT_WORD = re.compile(r"\W+", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """What is said of one thing: its place in the file, for messages, and its number, which is the cursor; the names
    that it may be meant by, likeliest first; and (kind, element, value) for each text.
    """

    number: int
    place: str
    names: Sequence[str]
    cells: Sequence[tuple[str, str, str]]


def rows(table: Table) -> Iterator[Line | Violation]:
    """Read `metadata.csv`, an open table of the shape `SHAPE`."""
    columns: Sequence[tuple[str, str]] = ()
    for row in table.rows():
        if isinstance(row, Violation):
            yield row
            continue
        columns = columns or [_column(name) for name in table.header[1:]]
        if not row.cells[0]:
            yield table.violation(row, 1, "filename", "what the row describes, such as objects/letter.txt")
            continue
        cells = [(kind, element, value) for (kind, element), value in zip(columns, row.cells[1:], strict=True) if value]
        yield Line(number=row.line, place=f"line {row.line}", names=table.names(row.cells[0]), cells=cells)


def _column(name: str) -> tuple[str, str]:
    """A column's kind and element: `dc.title` → DC; anything else → CUSTOM, as a plain XML name."""
    match = _DC_ELEMENT.fullmatch(name)
    if match:
        return DC, f"{match['prefix']}.{match['element']}"
    plain = _NOT_WORD.sub("_", name).lower()
    return CUSTOM, plain if re.match(r"[a-z_]", plain) else f"_{plain}"


def entries(path: Path) -> Iterator[Line | Violation]:
    """Read `metadata.json`: an array of objects that say what the columns of `metadata.csv` say; a list repeats."""
    for entry in objects.entries(path, JSON_FILE, _JSON_EXAMPLE):
        yield entry if isinstance(entry, Violation) else _said(entry)


def _said(entry: objects.Entry) -> Line | Violation:
    name = next((entry.values[key] for key in ("filename", "parts") if key in entry.values), None)
    if not isinstance(name, str) or not name.strip():
        actual = "none" if name is None else str(name)[:100]
        return Violation(path=f"{JSON_FILE}:{entry.line}", rule="filename", expected=_JSON_EXAMPLE, actual=actual)
    cells = []
    for key, value in entry.values.items():
        for one in value if isinstance(value, list) else [value]:
            text = _text(one)
            if text is None:
                expected, actual = "a text, or a list of texts", f"{key}: {str(one)[:100]}"
                return Violation(path=f"{JSON_FILE}:{entry.line}", rule="value", expected=expected, actual=actual)
            if key not in {"filename", "parts"} and text:
                cells.append((*_column(key.strip()), text))
    place = f"object {entry.number}, line {entry.line},"
    return Line(number=entry.number, place=place, names=[name.strip()], cells=cells)


def _text(value: Any) -> str | None:
    """A value as text: null is empty, what is no single value is None."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value).strip()
    return "" if value is None else None
