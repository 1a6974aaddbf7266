"""Descriptive metadata that came with the transfer: `metadata/metadata.csv`."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import re
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingestd.errors import Code, ContentError, Violation
from ingestd.fixity import digest_file
from ingestd.job import Outcome, Services, Task
from ingestd.oais import Description, Directory, Facts, File, Warning_, escape_name
from ingestd.premis import Digest, now

FILE = "metadata/metadata.csv"
DC, CUSTOM = "DC", "CUSTOM"
_DC_ELEMENT = re.compile(r"(?P<prefix>dc|dcterms)\.(?:[A-Za-z]+\.)*(?P<element>[A-Za-z]+)")
_NOT_WORD = re.compile(r"\W+", re.ASCII)
_EXAMPLE = "filename,dc.title,dc.creator / objects/letter.txt,A letter,Ann Keeper"
_WINDOW = 256
_LISTED = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of the file: its line number, what it describes, and (kind, element, value) for each cell with text."""

    number: int
    target: str
    cells: Sequence[tuple[str, str, str]]


async def load_metadata_csv(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Read `metadata.csv`: Dublin Core columns (`dc.…`, `dcterms.…`) and any others, for files and directories.

    The first column names what a row describes, by its original path (`objects/…`); `objects` stands for the package.
    Every line that cannot be used is listed (`content.metadata_invalid`); a row for something that is not in the
    transfer is a warning. A file that was mended in the working folder after it had failed is recorded as it is now.
    """
    path = task.at(FILE)
    file = await task.history.file_at(FILE)
    if file is None:
        return
    violations = await asyncio.to_thread(_check, path)
    if violations:
        raise ContentError(
            f"{FILE} has {len(violations)} fault(s){' or more' if len(violations) == _LISTED else ''}",
            code=Code.CONTENT_METADATA_INVALID,
            violations=tuple(violations),
        )
    mended = await _mended(path, file)
    if mended is not None:
        yield replace(mended, cursor=task.cursor)
    lines = (line for line in _read(path) if isinstance(line, Line) and line.number > task.cursor)
    while window := await asyncio.to_thread(lambda: list(itertools.islice(lines, _WINDOW))):
        yield await _describe(task, window)


async def _mended(path: Path, file: File) -> Outcome | None:
    """What is to be recorded when the file is no longer what was received; None when it is."""
    if file.digest is None:
        return None
    value = (await digest_file(path, [file.digest.algorithm]))[file.digest.algorithm]
    if value == file.digest.value:
        return None
    size = (await asyncio.to_thread(path.stat)).st_size
    detail = f"it was changed after it was received with {file.digest.algorithm} {file.digest.value}"
    now_so = Digest(algorithm=file.digest.algorithm, value=value, calculated_at=now())
    return Outcome(
        facts=Facts(
            files=[replace(file, size_bytes=size, digest=now_so)],
            warnings=[Warning_(code="content.metadata_changed", detail=detail, path=FILE)],
        )
    )


async def _describe(task: Task, lines: Sequence[Line]) -> Outcome:
    names = sorted({line.target for line in lines})
    files = await task.history.files_received_as(names)
    descriptions: list[Description] = []
    directories: list[Directory] = []
    warnings: list[Warning_] = []
    for line in lines:
        target: uuid.UUID | None = files[line.target].id if line.target in files else None
        if target is None and line.target == "objects":
            target = task.package.id
        if target is None:
            directory = await _directory(task, line.target)
            if directory is not None:
                directories.append(directory)
                target = directory.id
        if target is None:
            detail = f"line {line.number} describes something that is not in the transfer"
            warnings.append(Warning_(code="content.metadata_unmatched", detail=detail, path=escape_name(line.target)))
        else:
            descriptions += _descriptions(target, line)
    facts = Facts(directories=directories, descriptions=descriptions, warnings=warnings)
    return Outcome(facts=facts, cursor=lines[-1].number)


async def _directory(task: Task, original: str) -> Directory | None:
    """A described directory; it gets a UUID, if it has none, since a description needs something to describe."""
    directory = await task.history.directory_received_as(original)
    if directory is None:
        return None
    return replace(directory, id=directory.id or uuid.uuid5(task.package.id, f"directory:{escape_name(original)}"))


def _descriptions(target: uuid.UUID, line: Line) -> Iterator[Description]:
    for kind in (DC, CUSTOM):
        pairs = [(element, value) for found, element, value in line.cells if found == kind]
        if pairs:
            yield Description(target=target, kind=kind, pairs=pairs)


def _check(path: Path) -> list[Violation]:
    return list(itertools.islice((item for item in _read(path) if isinstance(item, Violation)), _LISTED))


def _read(path: Path) -> Iterator[Line | Violation]:
    """Read the file row by row; what cannot be used is given as a violation with line, column and a right example."""
    try:
        with path.open("rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
            rows = csv.reader(text, strict=True)
            header = [cell.strip() for cell in next(rows, [])]
            faults = list(_header_faults(header))
            yield from faults
            if faults:
                return
            columns = _columns(header)
            for row in rows:
                if any(cell.strip() for cell in row):
                    yield _line(rows.line_num, row, columns)
    except UnicodeDecodeError as error:
        yield Violation(path=FILE, rule="encoding", expected="UTF-8", actual=f"byte {error.object[error.start]:#04x}")
    except csv.Error as error:
        yield Violation(path=FILE, rule="csv", expected=_EXAMPLE, actual=str(error))


def _header_faults(header: Sequence[str]) -> Iterator[Violation]:
    if not header or header[0].lower() not in {"filename", "parts"}:
        actual = header[0] if header else "an empty file"
        yield Violation(path=f"{FILE}:1:1", rule="header", expected=f"filename first: {_EXAMPLE}", actual=actual[:100])
    for number, name in enumerate(header[1:], start=2):
        if not name:
            yield Violation(path=f"{FILE}:1:{number}", rule="header", expected="a column name", actual="empty")


def _columns(header: Sequence[str]) -> Sequence[tuple[str, str]]:
    return [_column(name) for name in header[1:]]


def _column(name: str) -> tuple[str, str]:
    """A column's kind and element: `dc.title` → DC; anything else → CUSTOM, as a plain XML name."""
    match = _DC_ELEMENT.fullmatch(name)
    if match:
        return DC, f"{match['prefix']}.{match['element']}"
    plain = _NOT_WORD.sub("_", name).lower()
    return CUSTOM, plain if re.match(r"[a-z_]", plain) else f"_{plain}"


def _line(number: int, row: Sequence[str], columns: Sequence[tuple[str, str]]) -> Line | Violation:
    if len(row) > len(columns) + 1:
        return Violation(
            path=f"{FILE}:{number}:{len(columns) + 2}",
            rule="ragged_row",
            expected=f"{len(columns) + 1} cells; text with commas in double quotes",
            actual=f"{len(row)} cells",
        )
    target = row[0].strip().removeprefix("./").rstrip("/")
    if not target:
        return Violation(path=f"{FILE}:{number}:1", rule="filename", expected="objects/…", actual="empty")
    cells = [(kind, element, value.strip()) for (kind, element), value in zip(columns, row[1:], strict=False)]
    return Line(number=number, target=target, cells=[cell for cell in cells if cell[2]])


def as_pairs(metadata: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """What a request says of its package, as (element, value)."""
    return [(f"dc.{name}", value) for name, values in metadata.items() for value in values]
