"""Descriptive metadata that came with the transfer: `metadata.csv`, `metadata.json`, `dublincore.xml`.

Each is read whether the others are there or not, and none replaces another: whatever is said stands in a dmdSec of its
own, in the order request, CSV, JSON, `dublincore.xml`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ingestd.errors import Violation
from ingestd.job import Outcome, Services, Task
from ingestd.metadata import xml
from ingestd.metadata.descriptions import CUSTOM, DC, FILE, JSON_FILE, SHAPE, Line, entries, rows
from ingestd.metadata.tables import LISTED, Table, invalid
from ingestd.oais import Description, Directory, Facts, File, Warning_, escape_name
from ingestd.references import find, mended

DUBLIN_CORE_FILE = "metadata/dublincore.xml"
UNMATCHED = "content.metadata_unmatched"
_WINDOW = 256


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
    async for outcome in _load(task, file, rows(Table(path=path, shape=SHAPE))):
        yield outcome


async def load_metadata_json(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Read `metadata.json`: an array of objects that say what the columns of `metadata.csv` say; a list repeats."""
    path = task.at(JSON_FILE)
    file = await task.history.file_at(JSON_FILE)
    if file is None:
        return
    violations = await asyncio.to_thread(_faults, entries(path))
    if violations:
        raise invalid(JSON_FILE, violations)
    async for outcome in _load(task, file, entries(path)):
        yield outcome


async def load_dublin_core(task: Task, services: Services) -> Outcome:
    """Read `dublincore.xml`, Dublin Core of the package as a whole. What it says in attributes stays in the file."""
    file = await task.history.file_at(DUBLIN_CORE_FILE)
    if file is None:
        return Outcome()
    try:
        document = await asyncio.to_thread(xml.read, task.at(DUBLIN_CORE_FILE))
    except xml.UnreadableError as error:
        expected = "<dublincore> with elements of Dublin Core"
        violation = Violation(path=DUBLIN_CORE_FILE, rule="xml", expected=expected, actual=str(error))
        raise invalid(DUBLIN_CORE_FILE, [violation]) from error
    pairs, lost = xml.dublin_core(document)
    corrected = await mended(task.at(DUBLIN_CORE_FILE), file) or Facts()
    warnings = [*corrected.warnings]
    if lost:
        detail = f"attributes and elements within elements stand in the file alone: {', '.join(lost)}"
        warnings.append(Warning_(code="content.metadata_reduced", detail=detail, path=DUBLIN_CORE_FILE))
    described = [Description(target=task.package.id, kind=DC, pairs=pairs)] if pairs else []
    return Outcome(facts=replace(corrected, descriptions=described, warnings=warnings))


async def _load(task: Task, file: File, items: Iterator[Line | Violation]) -> AsyncIterator[Outcome]:
    """Record what is said, window by window, from where an earlier run came to."""
    corrected = await mended(task.at(file.path), file)
    if corrected is not None:
        yield Outcome(facts=corrected, cursor=task.cursor)
    lines = (line for line in items if isinstance(line, Line) and line.number > task.cursor)
    while window := await asyncio.to_thread(lambda: list(itertools.islice(lines, _WINDOW))):
        yield await _describe(task, window)


async def _describe(task: Task, lines: Sequence[Line]) -> Outcome:
    targets = await find(task.history, task.package.id, [line.names for line in lines])
    descriptions: list[Description] = []
    directories: list[Directory] = []
    warnings: list[Warning_] = []
    for line, target in zip(lines, targets, strict=True):
        if target is None:
            detail = f"{line.place} describes something that is not in the transfer"
            warnings.append(Warning_(code=UNMATCHED, detail=detail, path=escape_name(line.names[0])))
            continue
        for kind in (DC, CUSTOM):
            pairs = [(element, value) for found, element, value in line.cells if found == kind]
            if pairs:
                descriptions.append(Description(target=target.id, kind=kind, pairs=pairs))
        if target.directory:
            directories.append(target.directory)
    facts = Facts(directories=directories, descriptions=descriptions, warnings=warnings)
    return Outcome(facts=facts, cursor=lines[-1].number)


def _check(path: Path) -> tuple[Sequence[Violation], Sequence[Warning_]]:
    """Every fault of the file, up to as many as are told, and what is to be told of one that can be read."""
    table = Table(path=path, shape=SHAPE)
    return _faults(rows(table)), table.warnings()


def _faults(items: Iterator[Line | Violation]) -> Sequence[Violation]:
    return list(itertools.islice((item for item in items if isinstance(item, Violation)), LISTED))
