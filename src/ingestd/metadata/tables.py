"""CSV that people made with whatever they had: rows with their line numbers, or a fault that says where and how.

Read as a stream, so that memory does not grow with the file. Everything here blocks.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingestd.errors import Code, ContentError, Violation
from ingestd.metadata.encodings import Encoding, detect
from ingestd.oais import Warning_

LISTED = 100
"""How many faults of a file are told."""
CELL_CHARACTERS = 1 << 20
"""Longest cell."""
ROW_CHARACTERS = 16 << 20
"""Longest row, with all its lines."""
COLUMNS = 10_000
"""Most columns."""
ENCODING_GUESSED = "content.metadata_encoding"
"""The code of the warning that an encoding was guessed."""

csv.field_size_limit(CELL_CHARACTERS)  # Python's limit is one for the whole process


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a table must look like. Headings are compared without regard to case and to spaces around them.

    `name` is the file's path in the transfer and `example` a right file, both for messages. `first`: what the first
    column may be called. `required`: columns that must be there. `allowed`: all columns that may be there (empty: any).
    `repeatable`: headings may occur more than once. Without `header`, `columns` says how many cells a row has at most.
    """

    name: str
    example: str
    first: Sequence[str] = ()
    required: Sequence[str] = ()
    allowed: Sequence[str] = ()
    repeatable: bool = False
    header: bool = True
    columns: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row: the line it begins on, and its cells without spaces around them, as many as there are columns."""

    line: int
    cells: Sequence[str]
    header: Sequence[str] = ()

    def get(self, name: str) -> str:
        """The cell of a column by its heading in small letters; empty where there is no such column."""
        return self.cells[self.header.index(name)] if name in self.header else ""

    def column(self, name: str) -> int:
        """The number of a column, from 1 on; 1 where there is no such column."""
        return self.header.index(name) + 1 if name in self.header else 1


@dataclass(kw_only=True, slots=True)
class Table:
    """An open table. `header` has the headings as they stand there; it is known once `rows` has begun."""

    path: Path
    shape: Shape
    encoding: Encoding = field(init=False)
    header: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.encoding = detect(self.path)

    def at(self, line: int, column: int = 0) -> str:
        """Name a place in the file: `metadata/metadata.csv:3:2`."""
        return f"{self.shape.name}:{line}:{column}" if column else f"{self.shape.name}:{line}"

    def violation(self, row: Row, column: int, rule: str, expected: str) -> Violation:
        """What is wrong with one cell."""
        return Violation(path=self.at(row.line, column), rule=rule, expected=expected, actual=_said(row, column))

    def warnings(self) -> Sequence[Warning_]:
        """What is to be told of a file that can be read: that its encoding was guessed."""
        if not self.encoding.fallback:
            return ()
        detail = (
            f"line {self.encoding.broken_at} is not UTF-8 (byte {self.encoding.broken_byte:#04x}): the file was read as"
            f" {self.encoding.name}; save it as UTF-8 to be sure of its letters"
        )
        return [Warning_(code=ENCODING_GUESSED, detail=detail, path=self.shape.name)]

    def names(self, cell: str) -> Sequence[str]:
        """The names of files that a cell may mean, likeliest first.

        As it stands; composed and decomposed (macOS decomposes letters with accents); and, of a file that is no UTF,
        the very bytes that stand there, since names on disk are bytes.
        """
        plain = cell.replace("\\", "/") if "/" not in cell else cell
        found = [cell, plain, unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain)]
        if self.encoding.fallback:
            found.append(os.fsdecode(plain.encode(self.encoding.name, "replace")))
        return list(dict.fromkeys(found))

    def rows(self) -> Iterator[Row | Violation]:
        """Read the table row by row; rows that are empty are left out. What cannot be used comes as a violation.

        After a wrong header, and after what is no CSV at all, nothing more comes.
        """
        if self.encoding.broken_at and not self.encoding.fallback:
            byte = f"byte {self.encoding.broken_byte:#04x}"
            yield Violation(
                path=self.at(self.encoding.broken_at), rule="encoding", expected=self.encoding.name, actual=byte
            )
            return
        with self.path.open("rb") as raw, io.TextIOWrapper(raw, encoding=self.encoding.name, newline="") as text:
            yield from self._rows(CsvRows(text, strict=True))

    def faults(self) -> list[Violation]:
        """The first of what is wrong with the whole table."""
        return list(itertools.islice((item for item in self.rows() if isinstance(item, Violation)), LISTED))

    def _rows(self, rows: CsvRows) -> Iterator[Row | Violation]:
        keys: Sequence[str] = ()
        begun = not self.shape.header
        try:
            for cells in rows:
                if not any(cell.strip() for cell in cells):
                    pass
                elif not begun:
                    begun = True
                    self.header = _trimmed(cells)
                    keys = [name.lower() for name in self.header]
                    faults = list(self._header_faults(rows.line, keys))
                    yield from faults
                    if faults:
                        return
                else:
                    yield self._row(rows.line, cells, keys)
        except csv.Error as error:
            yield self._broken(rows.line, str(error))
            return
        if not begun:
            yield Violation(path=self.at(1, 1), rule="header", expected=self._right(), actual="an empty file")

    def _row(self, line: int, cells: Sequence[str], keys: Sequence[str]) -> Row | Violation:
        width = len(keys) if self.shape.header else self.shape.columns
        trimmed = _trimmed(cells)
        if width and len(trimmed) > width:
            return Violation(
                path=self.at(line, width + 1),
                rule="ragged_row",
                expected=f'{width} cells; a text with commas stands in double quotes: "one, two"',
                actual=f"{len(trimmed)} cells, the first too many: {trimmed[width][:100]}",
            )
        for column, cell in enumerate(trimmed, start=1):
            if "\0" in cell:
                return Violation(
                    path=self.at(line, column), rule="nul", expected="text without NUL bytes", actual="a NUL byte"
                )
        return Row(line=line, cells=[*trimmed, *[""] * (width - len(trimmed))], header=keys)

    def _header_faults(self, line: int, keys: Sequence[str]) -> Iterator[Violation]:
        shape = self.shape
        separator = next((sign for sign in (";", "\t", "|") if sign in keys[0]), "")
        if len(keys) > COLUMNS:
            yield self._header_fault(line, COLUMNS + 1, f"{COLUMNS} columns at most", f"{len(keys)} columns")
        elif separator and len(keys) == 1 and (shape.first or shape.required):
            said = f"{self.header[0]}, separated by {separator!r}"
            yield self._header_fault(line, 1, f"cells separated by commas, {self._right()}", said)
        else:
            if shape.first and keys[0] not in shape.first:
                expected = f"{' or '.join(shape.first)} first, {self._right()}"
                yield self._header_fault(line, 1, expected, self.header[0])
            yield from self._heading_faults(line, keys)
            for name in shape.required:
                if name not in keys:
                    expected = f"a column {name}, {self._right()}"
                    yield self._header_fault(line, len(keys) + 1, expected, ", ".join(self.header))

    def _heading_faults(self, line: int, keys: Sequence[str]) -> Iterator[Violation]:
        shape = self.shape
        seen: set[str] = set()
        for column, name in enumerate(keys, start=1):
            if not name and column > 1:
                yield self._header_fault(line, column, "a column name", "empty")
            elif "\0" in name:
                yield self._header_fault(line, column, "a column name without NUL bytes", "a NUL byte")
            elif not shape.repeatable and name in seen:
                yield self._header_fault(line, column, "each column once", f"{name} again")
            elif shape.allowed and name not in shape.allowed:
                yield self._header_fault(line, column, f"one of {', '.join(shape.allowed)}", name or "empty")
            seen.add(name)

    def _header_fault(self, line: int, column: int, expected: str, actual: str) -> Violation:
        return Violation(path=self.at(line, column), rule="header", expected=expected, actual=actual[:100])

    def _broken(self, line: int, problem: str) -> Violation:
        """Tell what the CSV reader said in words that help."""
        if "field limit" in problem or "row limit" in problem:
            expected = f"cells of {CELL_CHARACTERS} characters at most; a double quote that is not closed takes in all"
        elif "unexpected end" in problem:
            expected = 'a double quote at the end of the text that began with one: "one, two"'
        else:
            expected = f'a double quote within a quoted text written twice: "a ""word"""; {self._right()}'
        return Violation(path=self.at(line), rule="csv", expected=expected, actual=problem)

    def _right(self) -> str:
        return f"for example: {self.shape.example}"


def read(path: Path, shape: Shape) -> Iterator[Row]:
    """Give the rows of a table that was found right before. Raises `ContentError` where it is wrong all the same."""
    for item in Table(path=path, shape=shape).rows():
        if isinstance(item, Violation):
            raise invalid(shape.name, [item])
        yield item


def invalid(name: str, violations: Iterable[Violation]) -> ContentError:
    """The error for a metadata file with these faults."""
    listed = tuple(itertools.islice(violations, LISTED))
    more = " or more" if len(listed) == LISTED else ""
    return ContentError(
        f"{name} has {len(listed)} fault{'s' if len(listed) != 1 else ''}{more}",
        code=Code.CONTENT_METADATA_INVALID,
        violations=listed,
    )


class CsvRows:
    """The rows of a CSV, none of them longer than may be, and the line on which the last one begins, or the one that
    cannot be read: then `csv.Error` is raised.
    """

    def __init__(self, text: io.TextIOBase, *, strict: bool) -> None:
        self.line = 1
        self._lines = _Lines(text)
        self._reader = csv.reader(self._lines, strict=strict)

    def __iter__(self) -> CsvRows:
        return self

    def __next__(self) -> list[str]:
        self.line = self._reader.line_num + 1
        self._lines.next_row()
        return next(self._reader)


class _Lines:
    """The lines of a text, none of them longer than a row may be, and no row of more lines than that."""

    def __init__(self, text: io.TextIOBase) -> None:
        self._text = text
        self._characters = 0

    def next_row(self) -> None:
        self._characters = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(ROW_CHARACTERS + 1)
        self._characters += len(line)
        if self._characters > ROW_CHARACTERS:
            raise csv.Error(f"row larger than row limit ({ROW_CHARACTERS})")
        if not line:
            raise StopIteration
        return line


def _trimmed(cells: Sequence[str]) -> list[str]:
    """Cells without spaces around them, and without the empty ones that spreadsheets leave at the end of a row."""
    trimmed = [cell.strip() for cell in cells]
    while trimmed and not trimmed[-1]:
        trimmed.pop()
    return trimmed


def _said(row: Row, column: int) -> str:
    cell = row.cells[column - 1] if column <= len(row.cells) else ""
    return cell[:100] or "empty"
