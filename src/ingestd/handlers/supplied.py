"""Copies that came with the transfer: manual normalization, and the folders `service` and `access`.

A copy belongs to the original of the same folder and name, whatever the extensions; `normalization.csv` says which
where names do not, or where several originals would be right. Names are compared as they were received. What belongs
to no original, or to several, stays where it is as an original, with a warning.
"""

from __future__ import annotations

import asyncio
import csv
import os
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from ingestd.derivatives import MANUAL, STEM_CHARACTERS
from ingestd.errors import SystemFault
from ingestd.job import Outcome, Services, Task
from ingestd.metadata.tables import CsvRows
from ingestd.oais import Directory, Facts, File, FileUse, Warning_, escape_name, safe_name
from ingestd.premis import Event, EventType, now

UNMATCHED = "content.supplied_copy_unmatched"
CSV_INVALID = "content.normalization_csv_invalid"
_LINK = "Relate supplied copies"
_FOLDER = "objects/manualNormalization"
_CSV = f"{_FOLDER}/normalization.csv"
_WINDOW = 256
_CSV_BYTES = 64 * 2**20
_NUMBERED = re.compile(r"_\d+$")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """One folder of supplied copies. `moves`: they are put beside their originals."""

    folder: str
    use: FileUse
    moves: bool = True


_PRESERVATION = _Kind(folder=f"{_FOLDER}/preservation", use=FileUse.PRESERVATION)
_ACCESS = _Kind(folder=f"{_FOLDER}/access", use=FileUse.ACCESS)
_KINDS = (
    _PRESERVATION,
    _ACCESS,
    _Kind(folder="objects/service", use=FileUse.SERVICE, moves=False),
    _Kind(folder="objects/access", use=FileUse.ACCESS, moves=False),
)


async def relate_supplied_copies(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Make supplied copies derivatives of their originals, by `normalization.csv` and then by name.

    `manualNormalization/preservation` and `/access` are moved beside the originals as `<name>-<copy's UUID>.<ext>`;
    `service` and `access` stay where they are. Each gets the original's event `manual normalization`, whose note names
    the copy. What is then empty of `manualNormalization` goes away, and `normalization.csv` if nothing in it was wrong.
    """
    faults = 0
    async for rows in _rows(task):
        pairs, warnings = await _by_csv(task, rows)
        faults += len(warnings)
        yield await _related(task, pairs, warnings)
    for kind in _KINDS:
        async for files in task.history.files(under=kind.folder, uses=(FileUse.ORIGINAL,), window=_WINDOW):
            pairs, warnings = await _by_name(task, kind, files)
            yield await _related(task, pairs, warnings)
    listed = await task.history.file_at(_CSV)
    if listed is not None and not faults:
        yield await _remove(task, listed)
    async for outcome in _remove_folders(task):
        yield outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    copy: File
    original: File
    kind: _Kind


async def _related(task: Task, pairs: Sequence[_Pair], warnings: Sequence[Warning_]) -> Outcome:
    """Move and word what belongs together. A move that was made before a crash is found done."""
    files, events = [], []
    for pair in pairs:
        path = _beside(pair) if pair.kind.moves else pair.copy.path
        if path != pair.copy.path:
            await asyncio.to_thread(_move, task.root, pair.copy.path, path)
        files.append(replace(pair.copy, path=path, use=pair.kind.use, derived_from=pair.original.id))
        note = f"%SIPDirectory%{escape_name(path)}"
        events.append(Event(object=pair.original.id, type=EventType.NORMALIZATION, at=now(), detail=MANUAL, note=note))
    return Outcome(facts=Facts(files=files, events=events, warnings=warnings))


def _beside(pair: _Pair) -> str:
    original = PurePosixPath(pair.original.path)
    suffix = PurePosixPath(pair.copy.path).suffix
    return str(original.with_name(f"{original.stem[:STEM_CHARACTERS]}-{pair.copy.id}{suffix}"))


def _move(root: Path, old: str, new: str) -> None:
    if os.path.lexists(root / new):
        if os.path.lexists(root / old):
            raise SystemFault(f"both {escape_name(old)} and {escape_name(new)} are there")
        return
    (root / old).rename(root / new)


@dataclass(kw_only=True, slots=True)
class _Plan:
    """The pairs of one window. An original has one supplied copy of each use."""

    pairs: list[_Pair] = field(default_factory=list)
    warnings: list[Warning_] = field(default_factory=list)

    async def settle(self, task: Task, wanted: Sequence[_Pair]) -> None:
        known = await task.history.derivatives([pair.original.id for pair in wanted])
        taken = {(original, copy.use) for original, several in known.items() for copy in several}
        copies: set[uuid.UUID] = set()
        for pair in wanted:
            if pair.copy.id in copies:
                self.refuse(pair.copy, "is named as the copy of several originals")
                continue
            copies.add(pair.copy.id)
            if (pair.original.id, pair.kind.use) in taken:
                self.refuse(pair.copy, f"{escape_name(pair.original.original)} has another copy for {pair.kind.use}")
                continue
            taken.add((pair.original.id, pair.kind.use))
            self.pairs.append(pair)

    def refuse(self, copy: File, problem: str) -> None:
        path = escape_name(copy.path)
        self.warnings.append(Warning_(code=UNMATCHED, detail=problem, path=path, link=_LINK))


# --- by name ---------------------------------------------------------------------------------------------------------


async def _by_name(task: Task, kind: _Kind, files: Sequence[File]) -> tuple[Sequence[_Pair], Sequence[Warning_]]:
    plan = _Plan()
    folders: dict[str, list[File]] = {}
    for file in files:
        inside = PurePosixPath(file.original).relative_to(kind.folder).parent
        folders.setdefault(str(PurePosixPath("objects") / inside), []).append(file)
    wanted = []
    for folder, copies in folders.items():
        originals = await _originals(task, folder, copies)
        for copy in copies:
            found = _belonging(copy, originals)
            if len(found) == 1:
                wanted.append(_Pair(copy=copy, original=found[0], kind=kind))
            else:
                plan.refuse(copy, _problem(found))
    await plan.settle(task, wanted)
    return plan.pairs, plan.warnings


def _belonging(copy: File, originals: Sequence[File]) -> Sequence[File]:
    """The originals of this copy's name without its extension: as received, or else as they are called now."""
    received = [file for file in originals if _stem(file.original) == _stem(copy.original)]
    return received or [file for file in originals if _stem(file.path) == _stem(copy.path)]


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _problem(found: Sequence[File]) -> str:
    if not found:
        return "belongs to no original: there is none of this name"
    names = ", ".join(escape_name(PurePosixPath(file.original).name) for file in found)
    return f"could belong to each of {names}: normalization.csv can say to which"


async def _originals(task: Task, folder: str, copies: Sequence[File]) -> Sequence[File]:
    """Give the originals in a folder that may belong to these copies.

    Looked for on disk, so that neither memory nor the journal's work grows with what else is in the folder.
    """
    directory = await task.history.directory_received_as(folder)
    here = directory.path if directory else folder
    heads = {_head(PurePosixPath(path).name) for copy in copies for path in (copy.path, safe_name(copy.original))}
    names = await asyncio.to_thread(_alike, task.at(here), heads)
    found: list[File] = []
    for window in _windows(names):
        recorded = await task.history.files_at([f"{here}/{name}" for name in window])
        found += [file for file in recorded.values() if _is_original(file)]
    return sorted(found, key=lambda file: file.row)


def _is_original(file: File) -> bool:
    return file.use is FileUse.ORIGINAL and not any(file.path.startswith(f"{kind.folder}/") for kind in _KINDS)


def _head(name: str) -> str:
    """What stays the same of a name when it is made safe and different from others (`a b.c` → `a_b_1.c`)."""
    return _NUMBERED.sub("", name.partition(".")[0])


def _alike(folder: Path, heads: set[str]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if _head(entry.name) in heads]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _windows(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[start : start + _WINDOW] for start in range(0, len(names), _WINDOW))


# --- by normalization.csv --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One line: paths as they stand there, empty where there is none. `fault` where it cannot be read."""

    line: int
    original: str = ""
    access: str = ""
    preservation: str = ""
    fault: str = ""

    def warning(self, problem: str) -> Warning_:
        return Warning_(code=CSV_INVALID, detail=f"line {self.line}: {problem}", path=_CSV, link=_LINK)


async def _rows(task: Task) -> AsyncIterator[Sequence[_Row]]:
    """Read `normalization.csv` window by window: UTF-8 with or without a mark, any line ends, `#` for comments."""
    path = task.at(_CSV)
    if await task.history.file_at(_CSV) is None or not await asyncio.to_thread(path.is_file):
        return
    if (await asyncio.to_thread(path.stat)).st_size > _CSV_BYTES:
        yield [_Row(line=1, fault=f"the file is longer than {_CSV_BYTES} bytes and was not read")]
        return
    # Names are bytes: those that are no UTF-8 come out as os.fsdecode gives them.
    opened = await asyncio.to_thread(lambda: path.open(encoding="utf-8-sig", errors="surrogateescape", newline=""))
    with opened as lines:
        every = CsvRows(lines, strict=False)
        while True:
            rows, more = await asyncio.to_thread(_read, every)
            if rows:
                yield rows
            if not more:
                return


def _read(every: CsvRows) -> tuple[Sequence[_Row], bool]:
    """Read a window of rows; say whether there may be more."""
    rows: list[_Row] = []
    count = 0
    try:
        for cells in islice(every, _WINDOW):
            count += 1
            row = _row(every.line, [cell.strip() for cell in cells])
            if row is not None:
                rows.append(row)
    except csv.Error as error:
        return [*rows, _Row(line=every.line, fault=f"this is no CSV: {error}")], False
    return rows, count == _WINDOW


def _row(line: int, cells: Sequence[str]) -> _Row | None:
    if not any(cells) or cells[0].startswith("#") or [cell.lower() for cell in cells] == _HEADER:
        return None
    if len(cells) > len(_HEADER) or len(cells) < 2:
        return _Row(line=line, fault=f"expected original,access,preservation; there are {len(cells)} columns")
    original, access, preservation = [*cells, ""][: len(_HEADER)]
    return _Row(line=line, original=original, access=access, preservation=preservation)


_HEADER = ["original", "access", "preservation"]


async def _by_csv(task: Task, rows: Sequence[_Row]) -> tuple[Sequence[_Pair], Sequence[Warning_]]:
    plan = _Plan()
    found = await _find(task, rows)
    wanted = []
    for row in rows:
        if row.fault:
            plan.warnings.append(row.warning(row.fault))
            continue
        original = found.get(("objects", row.original))
        for kind, text in ((_PRESERVATION, row.preservation), (_ACCESS, row.access)):
            copy = found.get((kind.folder, text)) if text else None
            problem = _fault(row, text, original, copy)
            if problem:
                plan.warnings.append(row.warning(problem))
            elif original and copy and copy.derived_from is None:
                wanted.append(_Pair(copy=copy, original=original, kind=kind))
    await plan.settle(task, wanted)
    return plan.pairs, plan.warnings


def _fault(row: _Row, text: str, original: File | None, copy: File | None) -> str:
    if not text:
        return ""
    if original is None:
        return f"there is no original {escape_name(row.original)}"
    if copy is None:
        return f"there is no file {escape_name(text)} among the supplied copies"
    if copy.derived_from not in {None, original.id}:
        return f"{escape_name(text)} is the copy of another original"
    return ""


async def _find(task: Task, rows: Sequence[_Row]) -> Mapping[tuple[str, str], File]:
    """Find what the lines name, by the place that it is looked for in and the text: as received, or as called now."""
    asked = {("objects", row.original): _places(row.original, "objects") for row in rows if row.original}
    for row in rows:
        for kind, text in ((_PRESERVATION, row.preservation), (_ACCESS, row.access)):
            if text:
                asked[kind.folder, text] = _places(text, "objects", _FOLDER, kind.folder)
    paths = list({path for places in asked.values() for path in places})
    received = await task.history.files_received_as(paths)
    now_called = await task.history.files_at(paths)
    found = {}
    for (folder, text), places in asked.items():
        candidates = [files[path] for files in (received, now_called) for path in places if path in files]
        right = [file for file in candidates if _fits(file, folder)]
        if right:
            found[folder, text] = right[0]
    return found


def _places(text: str, *folders: str) -> Sequence[str]:
    return [text, *(f"{folder}/{text}" for folder in folders)]


def _fits(file: File, folder: str) -> bool:
    """Whether a file may be what it is named as: an original, or a copy that came in this folder."""
    return _is_original(file) if folder == "objects" else file.original.startswith(f"{folder}/")


# --- what is left ----------------------------------------------------------------------------------------------------


async def _remove(task: Task, file: File) -> Outcome:
    await asyncio.to_thread(task.at(file.path).unlink, missing_ok=True)
    detail = f"removed from: {escape_name(file.path)}"
    event = Event(object=file.id, type=EventType.FILE_REMOVED, at=now(), detail=detail)
    return Outcome(facts=Facts(files=[replace(file, removed=True)], events=[event]))


async def _remove_folders(task: Task) -> AsyncIterator[Outcome]:
    """Remove what is empty of `manualNormalization`, and then that folder itself."""
    top = await task.history.directory_received_as(_FOLDER)
    if top is None:
        return
    async for directories in task.history.directories(under=_FOLDER, window=_WINDOW):
        gone = [d for d in directories if not (await task.history.totals(under=d.path)).files]
        if gone:
            yield await _removed(task, gone)
    if not (await task.history.totals(under=_FOLDER)).files:
        yield await _removed(task, [top])


async def _removed(task: Task, directories: Sequence[Directory]) -> Outcome:
    for directory in directories:
        await asyncio.to_thread(_remove_folder, task.at(directory.path))
    return Outcome(facts=Facts(directories=[replace(directory, removed=True) for directory in directories]))


def _remove_folder(path: Path) -> None:
    """Remove a folder in which there are at most empty folders."""
    for folder, folders, _ in os.walk(path, topdown=False):
        for name in folders:
            (Path(folder) / name).rmdir()
    if path.is_dir():
        path.rmdir()
