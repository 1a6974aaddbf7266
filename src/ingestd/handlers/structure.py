"""How the submitter sees the structure of the transfer: `file_labels.csv` and `mets_structmap.xml`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from ingestd.errors import Violation
from ingestd.job import Outcome, Services, Task
from ingestd.metadata.labels import LABELS, SHAPE
from ingestd.metadata.tables import LISTED, Row, Table, invalid, read
from ingestd.mets import structmap, why_unfit
from ingestd.mets.identifiers import Identifiers, Kind
from ingestd.mets.structmap_sections import described_in, dmd_sec
from ingestd.oais import Facts, File, FileUse, Warning_, escape_name
from ingestd.references import Found, find, mended

STRUCT_MAP = "metadata/mets_structmap.xml"
_WINDOW = 256
_WHY = {
    "DMDID": "no dmdSec of that ID can be taken over",
    "ADMID": "the fileSec has no one file of the transfer for a section of that ID",
}


async def load_file_labels(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Read `file_labels.csv`, which has no header: a file's path within `objects`, and its label in the structMap."""
    path = task.at(LABELS)
    file = await task.history.file_at(LABELS)
    if file is None:
        return
    table = await asyncio.to_thread(lambda: Table(path=path, shape=SHAPE))
    violations = await asyncio.to_thread(table.faults)
    if violations:
        raise invalid(LABELS, violations)
    corrected = await mended(path, file)
    if corrected is not None:
        yield Outcome(facts=corrected, cursor=task.cursor)
    if table.warnings():
        yield Outcome(facts=Facts(warnings=table.warnings()), cursor=task.cursor)
    rows = (row for row in read(path, SHAPE) if row.line > task.cursor)
    while window := await asyncio.to_thread(lambda: list(itertools.islice(rows, _WINDOW))):
        yield await _label(task, table, window)


async def _label(task: Task, table: Table, rows: Sequence[Row]) -> Outcome:
    names = [[name for given in table.names(row.cells[0]) for name in (f"objects/{given}", given)] for row in rows]
    targets = await find(task.history, task.package.id, names)
    files: list[File] = []
    warnings: list[Warning_] = []
    for row, target in zip(rows, targets, strict=True):
        if target is not None and target.file is not None and row.cells[1]:
            files.append(replace(target.file, label=row.cells[1]))
            continue
        problem = "has no label" if target and target.file else "labels what is no file of the transfer"
        path = escape_name(row.cells[0])
        warnings.append(Warning_(code="content.metadata_unmatched", detail=f"line {row.line} {problem}", path=path))
    return Outcome(facts=Facts(files=files, warnings=warnings), cursor=rows[-1].line)


async def mark_license_files(task: Task, services: Services) -> Outcome:
    """Files in `objects/license` are licences of what is preserved: a fileGrp of their own, and no copies of them."""
    return Outcome(facts=Facts(files=[replace(file, use=FileUse.LICENSE) for file in task.files]))


async def load_struct_map(task: Task, services: Services) -> Outcome:
    """Prove `mets_structmap.xml`, find the files that it names, and keep its structMap for the METS.

    Its dmdSecs come along, for the DMDIDs that name them; an ADMID names the amdSec that our METS has for the file that
    its fileSec has for the section. References to other sections are left out, with a warning
    (`content.struct_map_unmatched`).

    Everything that is wrong is listed (`content.metadata_invalid`): what is not valid METS, more or less than one
    structMap, an `fptr` or `area` without CONTENTIDS, or with those of a file that is not in the transfer.
    """
    path = task.at(STRUCT_MAP)
    file = await task.history.file_at(STRUCT_MAP)
    if file is None:
        return Outcome()
    violations = list(await asyncio.to_thread(structmap.faults, path, STRUCT_MAP))
    left: list[structmap.Left] = []
    if not violations:
        with Identifiers() as identifiers:
            async with _kept(task.folder / structmap.DESCRIBED) as out:
                await asyncio.to_thread(_describe, task, out, identifiers)
            async with _kept(task.folder / structmap.KEPT) as out:
                violations = await _cut(task, out, identifiers, left)
    if violations:
        raise invalid(STRUCT_MAP, violations)
    corrected = await mended(path, file) or Facts()
    return Outcome(facts=replace(corrected, package={structmap.FACT: "yes"}, warnings=_unmatched(left)))


@asynccontextmanager
async def _kept(path: Path) -> AsyncIterator[TextIO]:
    """A file that takes its name when it is whole."""
    partial = path.with_suffix(".part")
    with await asyncio.to_thread(partial.open, "w", encoding="utf-8") as out:
        yield out
    await asyncio.to_thread(partial.replace, path)


def _describe(task: Task, out: TextIO, identifiers: Identifiers) -> None:
    """Write the dmdSecs that can stand in our METS, and note their identifiers. In one thread: lxml frees what it has
    parsed in another one twice.
    """
    for identifier, said in described_in(task.at(STRUCT_MAP)):
        name = structmap.own_identifier(identifier)
        if not (said.xml and why_unfit(said.xml)) and identifiers.add(Kind.DESCRIPTIVE, name):
            out.write(dmd_sec(name, said, task.package.created_at))


async def _cut(task: Task, out: TextIO, identifiers: Identifiers, left: list[structmap.Left]) -> list[Violation]:
    violations: list[Violation] = []
    windows = structmap.cut(task.at(STRUCT_MAP), STRUCT_MAP, identifiers)
    while (window := await asyncio.to_thread(next, windows, None)) is not None:
        targets = iter(
            await find(task.history, task.package.id, [names for piece in window for names in _named(piece)])
        )
        text: list[str] = []
        for piece in window:
            if isinstance(piece, Violation):
                violations.append(piece)
            elif isinstance(piece, structmap.Left):
                left += [piece] * (len(left) < LISTED)
            elif isinstance(piece, str):
                text.append(piece)
            elif isinstance(piece, structmap.Administered):
                owners = [(one.left, _file(next(targets))) for one in piece.owned]
                amds = dict.fromkeys(f"amdSec_{file.row}" for _, file in owners if file)
                text.append(f' ADMID="{" ".join(amds)}"' if amds else "")
                left += [one for one, file in owners if file is None][: LISTED - len(left)]
            elif file := _file(next(targets)):
                text.append(str(file.id))
            else:
                violations.append(structmap.missing(piece, STRUCT_MAP))
        await asyncio.to_thread(out.write, "".join(text))
        if len(violations) >= LISTED:
            break
    return violations


def _named(piece: structmap.Piece) -> Sequence[Sequence[str]]:
    """What the files may be called that a piece of the structMap names."""
    if isinstance(piece, structmap.Pointer):
        return [piece.names]
    return [one.names for one in piece.owned] if isinstance(piece, structmap.Administered) else ()


def _file(target: Found | None) -> File | None:
    return target.file if target and target.file and not target.file.removed else None


def _unmatched(left: Sequence[structmap.Left]) -> Sequence[Warning_]:
    return [
        Warning_(
            code="content.struct_map_unmatched",
            detail=f"{one.attribute} {one.name[:100]} was left out: {_WHY[one.attribute]}",
            path=f"{STRUCT_MAP}:{one.line}",
        )
        for one in left
    ]
