"""Packed AIPs read back from the packed bytes, without unpacking them to disk.

libarchive reads every form that `packing` writes, and another program than the one that wrote it reads it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ingestd.errors import Code, ToolError, ToolFailure
from ingestd.premis import DigestAlgorithm

WINDOW = 500
READ_BYTES = 1024 * 1024
BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A file in a packed AIP: its path from the AIP's folder on (`NAME-UUID/data/…`), as `os.fsdecode` gives names."""

    path: str
    size_bytes: int
    digest: str


async def digests(packed: Path, algorithm: DigestAlgorithm, *, window: int = WINDOW) -> AsyncIterator[Sequence[Member]]:
    """Read a packed AIP to its end and give every file in it with its digest, in windows of at most `window`.

    The bytes come from the disk, not from what the system still remembers of writing them. Raises `ToolError`
    `tool.bad_output` when they cannot be read as an archive, or hold anything but files and folders.
    """
    stopped = threading.Event()
    members = _members(packed, algorithm, stopped)
    try:
        while found := await asyncio.to_thread(lambda: list(islice(members, window))):
            yield found
    finally:
        stopped.set()


def _members(packed: Path, algorithm: DigestAlgorithm, stopped: threading.Event) -> Iterator[Member]:
    for path, blocks in _entries(packed, stopped):
        one = hashlib.new(algorithm.value, usedforsecurity=False)
        size = 0
        for block in blocks:
            one.update(block)
            size += len(block)
        yield Member(path=path, size_bytes=size, digest=one.hexdigest())


def _entries(packed: Path, stopped: threading.Event) -> Iterator[tuple[str, Iterator[bytes]]]:
    try:
        from libarchive import ArchiveError, ffi
        from libarchive.read import ArchiveRead, new_archive_read
    except (ImportError, OSError, TypeError) as error:  # TypeError: it looks for the library, and loads None
        raise ToolError(
            "libarchive is not installed", code=Code.TOOL_NOT_INSTALLED, tool=ToolFailure(name="libarchive")
        ) from error
    descriptor = os.open(packed, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        # `libarchive.fd_reader` reads in pages of 4 KiB.
        with new_archive_read() as archive:
            ffi.read_open_fd(archive, descriptor, READ_BYTES)
            for entry in ArchiveRead(archive):
                if entry.isreg:
                    yield os.fsdecode(entry.pathname), _blocks(entry.get_blocks(BLOCK_BYTES), stopped)
                elif not entry.isdir:
                    raise _bad(f"has something at {entry.pathname} that is neither a file nor a folder")
    except ArchiveError as error:
        raise _unreadable(error) from error
    finally:
        os.close(descriptor)


def _blocks(blocks: Iterator[bytes], stopped: threading.Event) -> Iterator[bytes]:
    """Pass blocks on until nobody waits for them any more: a thread cannot be cancelled."""
    from libarchive import ArchiveError

    try:
        for block in blocks:
            if stopped.is_set():
                raise InterruptedError
            yield block
    except ArchiveError as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> ToolError:
    return _bad(f"cannot be read: {error}")


def _bad(what: str) -> ToolError:
    return ToolError(f"the packed AIP {what}", code=Code.TOOL_BAD_OUTPUT, tool=ToolFailure(name="libarchive"))
