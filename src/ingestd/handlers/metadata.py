"""Descriptive metadata that came with the transfer: `metadata/metadata.csv`."""

from __future__ import annotations

import asyncio
import itertools
import re
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingestd.errors import Violation
from ingestd.fixity import digest_file
from ingestd.job import Outcome, Services, Task
from ingestd.metadata.tables import LISTED, Shape, Table, invalid
from ingestd.oais import Description, Directory, Facts, File, Warning_, escape_name
from ingestd.premis import Digest, now

FILE = "metadata/metadata.csv"
DC, CUSTOM = "DC", "CUSTOM"
_DC_ELEMENT = re.compile(r"(?P<prefix>dc|dcterms)\.(?:[A-Za-z]+\.)*(?P<element>[A-Za-z]+)")
_NOT_WORD = re.compile(r"\W+", re.ASCII)
_SHAPE = Shape(
    name=FILE,
    example="filename,dc.title,dc.creator / objects/letter.txt,A letter,Ann Keeper",
    first=("filename", "parts"),
    repeatable=True,
)
_WINDOW = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of the file: its line number, the paths that its name may stand for, likeliest first, and (kind, element,
    value) for each cell with text.
    """

    number: int
    targets: Sequence[str]
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
    violations, warnings = await asyncio.to_thread(_check, path)
    if violations:
        raise invalid(FILE, violations)
    if warnings:
        yield Outcome(facts=Facts(warnings=warnings), cursor=task.cursor)
    mended = await _mended(path, file)
    if mended is not None:
        yield replace(mended, cursor=task.cursor)
    lines = (
        line for line in _lines(Table(path=path, shape=_SHAPE)) if isinstance(line, Line) and line.number > task.cursor
    )
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
    names = sorted({target for line in lines for target in line.targets})
    files = await task.history.files_received_as(names)
    descriptions: list[Description] = []
    directories: list[Directory] = []
    warnings: list[Warning_] = []
    for line in lines:
        file = next((files[name] for name in line.targets if name in files), None)
        target = file.id if file else task.package.id if "objects" in line.targets else None
        if target is None:
            directory = await _directory(task, line.targets)
            if directory is not None:
                directories.append(directory)
                target = directory.id
        if target is None:
            detail = f"line {line.number} describes something that is not in the transfer"
            warnings.append(
                Warning_(code="content.metadata_unmatched", detail=detail, path=escape_name(line.targets[0]))
            )
        else:
            descriptions += _descriptions(target, line)
    facts = Facts(directories=directories, descriptions=descriptions, warnings=warnings)
    return Outcome(facts=facts, cursor=lines[-1].number)


async def _directory(task: Task, originals: Sequence[str]) -> Directory | None:
    """A described directory; it gets a UUID, if it has none, since a description needs something to describe."""
    for original in originals:
        directory = await task.history.directory_received_as(original)
        if directory is not None:
            made = uuid.uuid5(task.package.id, f"directory:{escape_name(original)}")
            return replace(directory, id=directory.id or made)
    return None


def _descriptions(target: uuid.UUID, line: Line) -> Iterator[Description]:
    for kind in (DC, CUSTOM):
        pairs = [(element, value) for found, element, value in line.cells if found == kind]
        if pairs:
            yield Description(target=target, kind=kind, pairs=pairs)


def _check(path: Path) -> tuple[Sequence[Violation], Sequence[Warning_]]:
    """Every fault of the file, up to as many as are told, and what is to be told of one that can be read."""
    table = Table(path=path, shape=_SHAPE)
    faults = (item for item in _lines(table) if isinstance(item, Violation))
    return list(itertools.islice(faults, LISTED)), table.warnings()


def _lines(table: Table) -> Iterator[Line | Violation]:
    columns: Sequence[tuple[str, str]] = ()
    for row in table.rows():
        if isinstance(row, Violation):
            yield row
            continue
        columns = columns or [_column(name) for name in table.header[1:]]
        targets = [_target(name) for name in table.names(row.cells[0])]
        if not targets[0]:
            yield table.violation(row, 1, "filename", "what the row describes, such as objects/letter.txt")
            continue
        cells = [(kind, element, value) for (kind, element), value in zip(columns, row.cells[1:], strict=True) if value]
        yield Line(number=row.line, targets=targets, cells=cells)


def _target(name: str) -> str:
    return name.removeprefix("./").rstrip("/")


def _column(name: str) -> tuple[str, str]:
    """A column's kind and element: `dc.title` → DC; anything else → CUSTOM, as a plain XML name."""
    match = _DC_ELEMENT.fullmatch(name)
    if match:
        return DC, f"{match['prefix']}.{match['element']}"
    plain = _NOT_WORD.sub("_", name).lower()
    return CUSTOM, plain if re.match(r"[a-z_]", plain) else f"_{plain}"


def as_pairs(metadata: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """What a request says of its package, as (element, value)."""
    return [(f"dc.{name}", value) for name, values in metadata.items() for value in values]
