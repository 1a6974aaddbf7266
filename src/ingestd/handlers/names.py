"""Working names that are safe everywhere. Original names are kept for ever, in the records."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ingestd import __version__
from ingestd.errors import Code, SystemFault
from ingestd.job import Outcome, Services, Task
from ingestd.oais import Directory, Facts, File, FileUse, Rename, escape_name, safe_name
from ingestd.premis import Event, EventType, Program, now

_MAX_NAME_BYTES = 250
"""File systems allow 255 bytes; later steps add to a name."""
_SHORT_NAME_BYTES = 240
"""What a longer name is cut to, so that it is still short enough with a number."""


async def change_object_names(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Make the names of directories, then of files, safe and different from one another below option `under`.

    A change is planned from the records, in their order, made on disk and then recorded: run again after a crash, the
    same plan meets its own traces. The number of files is the same before and after.
    """
    under = task.options["under"]
    before = await task.history.totals(under=under)
    async for directories in task.history.directories(under=under):
        for directory in directories:
            outcome = await _change_directory(task, directory)
            if outcome is not None:
                yield outcome
    async for files in task.history.files(under=under, after_row=task.cursor):
        yield await _change_files(task, files)
    after = await task.history.totals(under=under)
    if (before.files, before.bytes) != (after.files, after.bytes):
        raise SystemFault(f"{before.files} files became {after.files} while names were changed", code=Code.SYSTEM_BUG)


async def _change_directory(task: Task, directory: Directory) -> Outcome | None:
    """Plan one directory, whose parents are done; its recorded path is read anew, since a parent may have changed."""
    current = await task.history.directory_received_as(directory.original)
    if current is None:
        return None
    wanted = await _free_name(task, current.path, set())
    if wanted == current.path:
        return None
    await asyncio.to_thread(_rename, task.root, current.path, wanted)
    return Outcome(facts=Facts(renames=[Rename(old=current.path, new=wanted)]))


async def _change_files(task: Task, files: Sequence[File]) -> Outcome:
    """Plan a window of files: safe names, and events for those whose path differs from the original one."""
    planned: set[str] = set()
    changed = []
    for file in files:
        wanted = await _free_name(task, file.path, planned)
        planned.add(wanted)
        changed.append(replace(file, path=wanted))
    for old, new in zip(files, changed, strict=True):
        if old.path != new.path:
            await asyncio.to_thread(_rename, task.root, old.path, new.path)
    kept = task.package.kept_rows  # of these it was said when it happened
    before = {old.id: old.path if old.row <= kept else old.original for old in files}
    facts = Facts(files=changed, events=[_event(file) for file in changed if file.path != before[file.id]])
    return Outcome(facts=facts, cursor=files[-1].row)


async def _free_name(task: Task, path: str, planned: set[str]) -> str:
    """Give the safe form of a path's last part that nothing else has: `a.txt`, or `a_1.txt`, and so on."""
    place = PurePosixPath(path)
    name = _short(safe_name(place.name))
    if name == place.name:
        return path
    stem, dot, suffix = name.partition(".") if not name.startswith(".") else (name, "", "")

    def candidate(number: int) -> str:
        return str(place.with_name(name if number == 0 else f"{stem}_{number}{dot}{suffix}"))

    async def is_free(number: int) -> bool:
        wanted = candidate(number)
        return wanted not in planned and wanted not in await task.history.taken([wanted])

    # Doubling, then halving: ten thousand names that become one are not compared with one another.
    if await is_free(0):
        return candidate(0)
    taken, free = 0, 1
    while not await is_free(free):
        taken, free = free, free * 2
    while free - taken > 1:
        middle = (taken + free) // 2
        taken, free = (taken, middle) if await is_free(middle) else (middle, free)
    return candidate(free)


def _short(name: str) -> str:
    if len(name) <= _MAX_NAME_BYTES:
        return name
    suffix = PurePosixPath(name).suffix[:20]
    return f"{name[: _SHORT_NAME_BYTES - len(suffix)]}{suffix}"


def _rename(root: Path, old: str, new: str) -> None:
    """Rename, or find that it was done before a crash; never onto something else."""
    if os.path.lexists(root / old):
        if os.path.lexists(root / new):
            raise SystemFault(f"{escape_name(new)} is on disk but not in the records")
        (root / old).rename(root / new)
    elif not os.path.lexists(root / new):
        raise SystemFault(f"{escape_name(old)} is in the records but not on disk")


def _event(file: File) -> Event:
    root = "%transferDirectory%" if file.use is FileUse.ORIGINAL else "%SIPDirectory%"
    return Event(
        object=file.id,
        type=EventType.FILENAME_CHANGE,
        at=now(),
        detail=f"prohibited characters removed: {Program('ingestd', __version__).words()}",
        note=f'Original name="{root}{escape_name(file.original)}"; new name="{root}{file.path}"',
    )
