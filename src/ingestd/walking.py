"""Walking through folders in flat memory, however many names one of them has."""

from __future__ import annotations

import asyncio
import heapq
import os
import struct
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

WINDOW = 256
_AT_ONCE = 50_000
"""Names that are sorted in memory; of more, runs of as many wait in temporary files."""
_LENGTH = struct.Struct("<H")


def in_order(names: Iterable[str], *, at_once: int = _AT_ONCE) -> Iterator[str]:
    """Give names (each at most 65,535 bytes) in the order of their bytes. All are taken before this returns."""
    left = iter(names)
    first = _sorted(left, at_once)
    if len(first) < at_once:
        return iter(first)
    with ExitStack() as stack:
        runs = [_write(stack, first)]
        while run := _sorted(left, at_once):
            runs.append(_write(stack, run))
        return _merged(runs, stack.pop_all())


def _sorted(names: Iterator[str], at_once: int) -> list[str]:
    return sorted(islice(names, at_once), key=os.fsencode)


def _write(stack: ExitStack, names: list[str]) -> BinaryIO:
    file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  the stack closes it
    for name in map(os.fsencode, names):
        file.write(_LENGTH.pack(len(name)) + name)
    names.clear()
    file.seek(0)
    return file


def _merged(runs: list[BinaryIO], stack: ExitStack) -> Iterator[str]:
    with stack:
        yield from map(os.fsdecode, heapq.merge(*map(_read, runs)))


def _read(run: BinaryIO) -> Iterator[bytes]:
    while length := run.read(_LENGTH.size):
        yield run.read(*_LENGTH.unpack(length))


def walk(root: Path, under: str = "") -> Iterator[str]:
    """Give every file below `root/under`, relative to `root`, folder by folder in the order of their bytes.

    Links and special files are given like files: whoever asks decides.
    """
    folders = [under]
    while folders:
        folder = folders.pop()
        inner: list[str] = []
        for name in in_order(_files(root / folder, inner)):
            yield f"{folder}/{name}" if folder else name
        inner.sort(key=os.fsencode, reverse=True)
        folders += (f"{folder}/{name}" if folder else name for name in inner)


def _files(folder: Path, inner: list[str]) -> Iterator[str]:
    """Give the names of what is no folder; those of folders go to `inner`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(entry.name)
            else:
                yield entry.name


async def walked(root: Path, under: str = "") -> AsyncIterator[list[str]]:
    """Walk as `walk` does, off the event loop, in windows."""
    paths = walk(root, under)
    while window := await asyncio.to_thread(lambda: list(islice(paths, WINDOW))):
        yield window


def used(folder: Path) -> tuple[int, int]:
    """Bytes, and files and folders, below a folder; what comes and goes meanwhile is counted as it may."""
    size = count = 0
    folders = [os.fspath(folder)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                count += 1
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
    return size, count
