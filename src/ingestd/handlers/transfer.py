"""From what was received to a transfer of the usual layout: receive, tidy, restructure, verify."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path, PurePosixPath

import aiofiles

from ingestd.errors import Code, ContentError, SourceError, Violation
from ingestd.fixity import digest_file
from ingestd.job import UNPACKED_BY, Outcome, Services, Task, ToolUse
from ingestd.oais import Directory, Facts, File, FileUse, MoreDigest, Rename, TransferType, Warning_, escape_name
from ingestd.premis import Digest, Event, EventType, Program, now
from ingestd.sources import Received, receive, source_of
from ingestd.walking import walked

TOP_LEVEL = ("logs", "metadata", "objects")
"""The only folders of a transfer, as Archivematica lays it out."""
_SUBMISSION_DOCUMENTATION = "metadata/submissionDocumentation"
_FOLDERS_OF_OBJECTS = ("objects/metadata", "objects/submissionDocumentation", "submissionDocumentation")
"""Folders that an AIP has in `objects`: no file can have these names there."""
_LISTED = 100


async def receive_transfer(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Bring the source into the working folder; digests are calculated in the same read."""
    settings = services.settings
    found = 0
    programs: list[Program] = []
    windows = receive(
        source_of(task.source, settings.credentials),
        task.root,
        settings=settings.sources,
        unpack=settings.unpack,
        algorithm=settings.digest_algorithm,
        pool=services.pool,
        trusted=task.trusted,
        known=task.history.taken,
        scratch=task.folder / "scratch",
        acted=programs.append,
    )
    async with aclosing(windows):
        async for window in windows:
            found += len(window)
            acted = json.dumps([(one.name, one.version) for one in programs])
            facts = replace(_received(task, window), package={UNPACKED_BY: acted} if programs else {})
            tools = [ToolUse(name=one.name, version=one.version, used_for="extraction") for one in programs]
            yield Outcome(facts=facts, tools=tools)
    if not found and not (await task.history.totals()).files:
        raise ContentError("the source holds no file", code=Code.CONTENT_EMPTY)


def _received(task: Task, window: Sequence[Received]) -> Facts:
    here = [item for item in window if not item.left_out]
    return Facts(
        directories=[Directory(path=item.path, original=item.path) for item in here if item.directory],
        files=[
            File(
                id=_file_id(task, item.path),
                path=item.path,
                original=item.path,
                size_bytes=item.size_bytes,
                digest=item.digest,
                modified_at=item.modified_at,
            )
            for item in here
            if not item.directory
        ],
        digests=[
            MoreDigest(file=_file_id(task, item.path), algorithm=word, value=value)
            for item in here
            for word, value in item.more.items()
        ],
        warnings=[
            Warning_(code=item.note.code, detail=item.note.detail, path=escape_name(item.path))
            for item in window
            if item.note
        ],
    )


def _file_id(task: Task, path: str) -> uuid.UUID:
    return uuid.uuid5(task.package.id, f"file:{escape_name(path)}")


async def remove_hidden_files_and_directories(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Remove files and directories whose name begins with a dot or ends with `~`, with a trace of each file.

    In a transfer of the type `maildir`, a folder that is a maildir stays: `.Sent` is one, in a maildir (Maildir++).
    """
    mail = task.root if task.package.type is TransferType.MAILDIR else None
    async for files in task.history.files():
        paths = await asyncio.to_thread(_in_hidden, [file.path for file in files], mail)
        hidden = [file for file in files if file.path in paths]
        if hidden:
            yield await _remove(task, hidden)
    await asyncio.to_thread(_remove_hidden_folders, task.root, mail)
    async for directories in task.history.directories():
        paths = await asyncio.to_thread(_in_hidden, [directory.path for directory in directories], mail)
        gone = [replace(directory, removed=True) for directory in directories if directory.path in paths]
        if gone:
            yield Outcome(facts=Facts(directories=gone))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.endswith("~")


def _in_hidden(paths: Sequence[str], mail: Path | None) -> frozenset[str]:
    """Of these paths, those that are hidden or in something hidden. Below the root `mail`, maildirs are not."""

    def hides(parts: Sequence[str]) -> bool:
        if not _hidden(parts[-1]):
            return False
        return mail is None or not (parts[-1].startswith(".") and mail.joinpath(*parts, "cur").is_dir())

    def hidden(path: str) -> bool:
        parts = path.split("/")
        return any(hides(parts[: depth + 1]) for depth in range(len(parts)))

    return frozenset(path for path in paths if hidden(path))


async def remove_unneeded_files(task: Task, services: Services) -> Outcome:
    """Remove what operating systems leave behind, by name (setting `removable_files`)."""
    names = services.settings.removable_files
    return await _remove(task, [file for file in task.files if PurePosixPath(file.path).name in names])


async def _remove(task: Task, files: Sequence[File]) -> Outcome:
    for file in files:
        await asyncio.to_thread(task.at(file.path).unlink, missing_ok=True)
    return Outcome(
        facts=Facts(
            files=[replace(file, removed=True) for file in files],
            events=[
                Event(object=f.id, type=EventType.FILE_REMOVED, at=now(), detail=f"removed from: {escape_name(f.path)}")
                for f in files
            ],
        )
    )


def _remove_hidden_folders(root: Path, mail: Path | None) -> None:
    """Remove hidden folders from the deepest up; one that is not empty stays, and is found when all is verified."""
    for folder, _, _ in os.walk(root, topdown=False):
        path = os.path.relpath(folder, root)
        if path != "." and _in_hidden([path], mail) and not os.listdir(folder):  # noqa: PTH208  names only
            Path(folder).rmdir()


async def restructure_for_compliance(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Move everything that is not `logs`, `metadata` or `objects` into `objects`.

    Each move is recorded before it is made: what is at the top of the folder is what is still to be moved.
    """
    await _refuse_misplaced(task)
    while window := await asyncio.to_thread(_next_to_move, task.root):
        moved = await task.history.taken([f"objects/{name}" for name in window])
        new = [name for name in window if f"objects/{name}" not in moved]
        yield Outcome(facts=Facts(renames=[Rename(old=n, new=f"objects/{n}", as_received=True) for n in new]))
        await asyncio.to_thread(_move_into_objects, task.root, window)
    for folder in (*TOP_LEVEL, _SUBMISSION_DOCUMENTATION):
        await asyncio.to_thread(task.at(folder).mkdir, parents=True, exist_ok=True)
    yield Outcome(
        facts=Facts(
            directories=[Directory(path=p, original=p) for p in (*TOP_LEVEL, _SUBMISSION_DOCUMENTATION)],
        )
    )
    for folder in ("metadata", "logs"):
        async for files in task.history.files(under=folder):
            yield Outcome(facts=Facts(files=[replace(file, use=_metadata_use(file.path)) for file in files]))


def _metadata_use(path: str) -> FileUse:
    inside = path.startswith(f"{_SUBMISSION_DOCUMENTATION}/")
    return FileUse.SUBMISSION_DOCUMENTATION if inside else FileUse.METADATA


def _next_to_move(root: Path) -> list[str]:
    """Give some of the names that are still at the top and belong into `objects`."""
    with os.scandir(root) as entries:
        names = (entry.name for entry in entries if entry.name not in TOP_LEVEL)
        return sorted(itertools.islice(names, 256), key=os.fsencode)


async def _refuse_misplaced(task: Task) -> None:
    def look() -> list[Violation]:
        found = []
        with os.scandir(task.root) as entries:
            for name in (entry.name for entry in entries):
                if name in TOP_LEVEL:
                    if not task.at(name).is_dir():
                        found.append(Violation(path=name, rule="folder", expected="a folder", actual="a file"))
                elif os.path.lexists(task.root / "objects" / name):
                    place = f"objects/{name}"
                    found.append(Violation(path=escape_name(name), rule="unique", expected=f"nothing else at {place}"))
                if len(found) == _LISTED:
                    break
        found += [
            Violation(path=path, rule="folder", expected="a folder", actual="a file")
            for path in _FOLDERS_OF_OBJECTS
            if task.at(path).is_file()
        ]
        return found

    violations = await asyncio.to_thread(look)
    if violations:
        raise ContentError(
            "two things would have the same place in objects/, or a folder's name is a file's",
            code=Code.CONTENT_NAME_COLLISION,
            violations=tuple(violations[:_LISTED]),
        )


def _move_into_objects(root: Path, names: Sequence[str]) -> None:
    (root / "objects").mkdir(exist_ok=True)
    for name in names:
        (root / name).rename(root / "objects" / name)


async def verify_transfer_compliance(task: Task, services: Services) -> Outcome:
    """Hold the folder against the records both ways; every difference is listed."""
    violations = await asyncio.to_thread(_unexpected_at_top, task.root)
    totals = await task.history.totals(under="objects")
    if not totals.files:
        raise ContentError("after hidden and system files were removed, nothing is left", code=Code.CONTENT_EMPTY)
    on_disk = 0
    async for paths in walked(task.root):
        on_disk += len(paths)
        taken = await task.history.taken(paths)
        unknown = [path for path in paths if path not in taken][: _LISTED - len(violations)]
        violations += [Violation(path=escape_name(path), rule="recorded", actual="on disk only") for path in unknown]
    recorded = (await task.history.totals()).files
    if recorded != on_disk:
        async for files in task.history.files():
            missing = await asyncio.to_thread(_missing, task.root, files)
            violations += missing[: _LISTED - len(violations)]
    if violations:
        raise SourceError(
            f"{len(violations)} difference(s) or more between what was received and what is here",
            code=Code.SOURCE_CHANGED,
            violations=tuple(violations),
        )
    return Outcome()


def _unexpected_at_top(root: Path) -> list[Violation]:
    return [
        Violation(path=escape_name(name), rule="top_level", expected="only logs, metadata, objects")
        for name in _next_to_move(root)[:_LISTED]
    ]


def _missing(root: Path, files: Sequence[File]) -> list[Violation]:
    return [
        Violation(path=escape_name(file.path), rule="present", actual="recorded only")
        for file in files
        if not (root / file.path).is_file()
    ]


async def check_transfer_directory_for_objects(task: Task, services: Services) -> Outcome:
    """At least one object is left to preserve."""
    if not (await task.history.totals(under="objects")).files:
        raise ContentError("there is no file among the objects", code=Code.CONTENT_EMPTY)
    return Outcome()


async def save_directory_tree(task: Task, services: Services) -> Outcome:
    """Write a listing of the objects as they were received to `metadata/directory_tree.txt`."""
    place = await _place_of_tree(task)
    path = task.at(place)
    async with aiofiles.open(path, "w", encoding="utf-8", newline="\n") as out:
        async for window in _tree(task):
            await out.write("".join(f"{line}\n" for line in window))
    algorithm = services.settings.digest_algorithm
    value = (await digest_file(path, [algorithm]))[algorithm]
    file = File(
        id=_tree_id(task),
        path=place,
        original=place,
        use=FileUse.METADATA,
        size_bytes=(await asyncio.to_thread(path.stat)).st_size,
        digest=Digest(algorithm=algorithm, value=value, calculated_at=now()),
        modified_at=now(),
    )
    return Outcome(facts=Facts(files=[file]))


def _tree_id(task: Task) -> uuid.UUID:
    return uuid.uuid5(task.package.id, "made:directory_tree")


async def _place_of_tree(task: Task) -> str:
    """Where the listing goes: never over a file that came with the transfer."""
    for number in itertools.count():
        place = f"metadata/directory_tree{f'_{number}' if number else ''}.txt"
        there = await task.history.file_at(place)
        if there is None or there.id == _tree_id(task):
            return place
    raise AssertionError("there is always another number")


async def _tree(task: Task) -> AsyncIterator[list[str]]:
    """Give the lines of the listing: folders end in a slash, names are indented by their depth."""
    yield ["objects/"]
    listed: list[str] = []
    async for files in task.history.files(under="objects", by_path=True):
        lines = []
        for file in files:
            *folders, name = escape_name(file.path).split("/")[1:]
            common = next((i for i, (a, b) in enumerate(zip(listed, folders, strict=False)) if a != b), None)
            kept = min(len(listed), len(folders)) if common is None else common
            lines += [f"{'    ' * (depth + 1)}{folders[depth]}/" for depth in range(kept, len(folders))]
            lines.append(f"{'    ' * (len(folders) + 1)}{name}")
            listed = folders
        yield lines
