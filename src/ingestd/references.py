"""What metadata files name, found among what was received; and metadata files that were mended since.

Metadata come with the transfer, so they name things as they were received, whatever names they have now.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingestd.fixity import digest_file
from ingestd.oais import Directory, Facts, File, History, Warning_, escape_name
from ingestd.premis import Digest, now

PACKAGE = "objects"
"""What stands for the package as a whole."""
_BAG_PAYLOAD, _OBJECTS = "data/", "objects/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a name stands for: a file, a directory (with its UUID, whether or not it is recorded), or the package."""

    id: uuid.UUID
    file: File | None = None
    directory: Directory | None = None


async def find(history: History, package: uuid.UUID, names: Sequence[Sequence[str]]) -> list[Found | None]:
    """Find each of a window of names, given as the paths it may stand for, likeliest first.

    Files that were removed are found as well: what was said of them is no mistake. What was not received by a name is
    looked for by the name that it has now. None for what is not there.
    """
    wanted = [paths_of(paths) for paths in names]
    asked = list(dict.fromkeys(path for paths in wanted for path in paths))
    files = {**await history.files_received_as(asked, removed=True), **await history.files_received_as(asked)}
    present = await history.files_at([path for path in asked if path not in files])
    return [await _one(history, package, paths, {**present, **files}) for paths in wanted]


async def _one(history: History, package: uuid.UUID, paths: Sequence[str], files: dict[str, File]) -> Found | None:
    for path in paths:
        if path in files:
            return Found(id=files[path].id, file=files[path])
    if PACKAGE in paths:
        return Found(id=package)
    for path in paths:
        directory = await history.directory_received_as(path)
        if directory is not None:
            made = directory.id or uuid.uuid5(package, f"directory:{escape_name(path)}")
            return Found(id=made, directory=replace(directory, id=made))
    return None


def paths_of(names: Sequence[str]) -> list[str]:
    """Where a name may lead: what a bag's payload was becomes the objects, or has `objects` of its own."""
    paths = [name.removeprefix("./").removeprefix("/").rstrip("/") for name in names]
    moved = [_OBJECTS + path.removeprefix(_BAG_PAYLOAD) for path in paths if path.startswith(_BAG_PAYLOAD)]
    moved += [path.removeprefix(_BAG_PAYLOAD) for path in paths if f"{path}/".startswith(_BAG_PAYLOAD + _OBJECTS)]
    moved += [PACKAGE for path in paths if f"{path}/" == _BAG_PAYLOAD]
    return list(dict.fromkeys([*paths, *moved]))


async def mended(path: Path, file: File) -> Facts | None:
    """What is to be recorded when a metadata file, corrected after it had failed, is no longer what was received.

    None when it is what was received.
    """
    if file.digest is None:
        return None
    value = (await digest_file(path, [file.digest.algorithm]))[file.digest.algorithm]
    if value == file.digest.value:
        return None
    size = (await asyncio.to_thread(path.stat)).st_size
    detail = f"it was changed after it was received with {file.digest.algorithm} {file.digest.value}"
    now_so = Digest(algorithm=file.digest.algorithm, value=value, calculated_at=now())
    return Facts(
        files=[replace(file, size_bytes=size, digest=now_so)],
        warnings=[Warning_(code="content.metadata_changed", detail=detail, path=escape_name(file.path))],
    )
