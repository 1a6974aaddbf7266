"""From the transfer to the SIP: documentation, metadata and logs take their places in the AIP's layout."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from ingestd.errors import SystemFault
from ingestd.job import Outcome, Services, Task
from ingestd.oais import Directory, Facts, Rename


async def move_submission_documentation(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """`metadata/submissionDocumentation` → `objects/submissionDocumentation/transfer-NAME-UUID`."""
    place = f"objects/submissionDocumentation/transfer-{task.package.transfer_label}"
    async for outcome in _move(task, "metadata/submissionDocumentation", place):
        yield outcome


async def move_metadata(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """`metadata` → `objects/metadata/transfers/NAME-UUID`, the transfer's `logs` → `logs/transfers/NAME-UUID/logs`."""
    label = task.package.transfer_label
    async for outcome in _move(task, "metadata", f"objects/metadata/transfers/{label}"):
        yield outcome
    await asyncio.to_thread(task.at("logs").mkdir, exist_ok=True)
    async for files in task.history.files(under="logs"):
        received = [file for file in files if not file.path.startswith(f"logs/transfers/{label}/")]
        moved = [replace(file, path=f"logs/transfers/{label}/{file.path}") for file in received]
        for old, new in zip(received, moved, strict=True):
            await asyncio.to_thread(_move_file, task, old.path, new.path)
        yield Outcome(facts=Facts(files=[replace(file, original=file.path) for file in moved]))
    async for directories in task.history.directories(under="logs"):
        place = f"logs/transfers/{label}"
        left = [d for d in directories if d.path != "logs/transfers" and not f"{d.path}/".startswith(f"{place}/")]
        moves = [replace(d, path=f"{place}/{d.path}", original=f"{place}/{d.path}") for d in left]
        for directory in moves:
            await asyncio.to_thread(task.at(directory.path).mkdir, parents=True, exist_ok=True)
        yield Outcome(facts=Facts(directories=moves))
    await asyncio.to_thread(_remove_empty, task.at("logs"), task.at(f"logs/transfers/{label}"))


async def _move(task: Task, old: str, new: str) -> AsyncIterator[Outcome]:
    """Move a folder on disk and in the records; where it is empty of files, only its place is made, in a reingest not
    even that.

    Doing it again finds it done: a folder is moved by one rename.
    """
    if task.package.reingest and not (await task.history.totals(under=old)).files:
        if not await task.history.taken([new]):
            await asyncio.to_thread(shutil.rmtree, task.at(old), ignore_errors=True)
            gone = (await task.history.directories_at([old])).values()
            yield Outcome(facts=Facts(directories=[replace(directory, removed=True) for directory in gone]))
        return
    await asyncio.to_thread(_move_folder, task, old, new)
    parents = _parents(new)
    recorded = await task.history.taken(parents)
    yield Outcome(
        facts=Facts(
            renames=[Rename(old=old, new=new, as_received=True)],
            directories=[Directory(path=p, original=p) for p in parents if p not in recorded],
        )
    )


def _remove_empty(folder: Path, but: Path) -> None:
    """Remove the folders that everything was moved out of."""
    for parent, _, _ in os.walk(folder, topdown=False):
        inside = Path(parent)
        if inside not in (folder, folder / "transfers") and not inside.is_relative_to(but):
            with contextlib.suppress(OSError):  # something is still there, and is found when all is verified
                inside.rmdir()


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _move_file(task: Task, old: str, new: str) -> None:
    if os.path.lexists(task.at(new)):
        return
    task.at(new).parent.mkdir(parents=True, exist_ok=True)
    task.at(old).rename(task.at(new))


def _move_folder(task: Task, old: str, new: str) -> None:
    source, target = task.at(old), task.at(new)
    if os.path.lexists(target):
        if os.path.lexists(source):
            raise SystemFault(f"both {old} and {new} are there")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
