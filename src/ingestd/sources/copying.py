"""Copying one file: read once, its message digests computed on the way, and proved not to have changed meanwhile."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from ingestd.errors import Code, IngestError, ResourceError, SourceError
from ingestd.manifests import HASHES
from ingestd.oais import escape_name
from ingestd.premis import DigestAlgorithm

CHUNK_BYTES = 1024 * 1024


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether two looks at a file saw the same content: the same inode, size and time of modification."""
    return (before.st_ino, before.st_dev, before.st_size, before.st_mtime_ns) == (
        after.st_ino,
        after.st_dev,
        after.st_size,
        after.st_mtime_ns,
    )


def copy(
    fd: int,
    to: str,
    *,
    algorithms: Sequence[str],
    seen: os.stat_result,
    name: str,
    breathe: Callable[[], None],
) -> dict[str, str]:
    """Copy the open file `fd` to the new file `to`, with its time of modification; give its digests, by the names that
    manifests give the algorithms.

    `seen` is what was known of it before: raises `SourceError` (`source.changed`) where it is, or becomes, another.
    A file at `to` is replaced. `name` is what errors call it.
    """
    if not stat.S_ISREG(seen.st_mode) or not same(seen, os.fstat(fd)):
        raise changed(name)
    with contextlib.suppress(FileNotFoundError):
        Path(to).unlink()
    digests = {each: hashlib.new(HASHES[each], usedforsecurity=False) for each in algorithms}
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(to, flags, 0o666), "wb", buffering=0) as out:
        while chunk := _read(fd, name):
            breathe()
            for digest in digests.values():
                digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[out.write(view) :]
        after = os.fstat(fd)
        if not same(seen, after) or out.tell() != after.st_size:
            raise changed(name)
        with contextlib.suppress(OverflowError, OSError):  # a time that this file system cannot hold
            os.utime(out.fileno(), ns=(seen.st_mtime_ns, seen.st_mtime_ns))
    return {algorithm: digest.hexdigest() for algorithm, digest in digests.items()}


def digest_of(fd: int, algorithm: DigestAlgorithm, *, name: str, breathe: Callable[[], None]) -> str:
    """Read an open file from its beginning; give its digest. Raises as `copy`."""
    before = os.fstat(fd)
    os.lseek(fd, 0, os.SEEK_SET)
    digest = hashlib.new(algorithm.value, usedforsecurity=False)
    while chunk := _read(fd, name):
        breathe()
        digest.update(chunk)
    if not same(before, os.fstat(fd)):
        raise changed(name)
    return digest.hexdigest()


def _read(fd: int, name: str) -> bytes:
    try:
        return os.read(fd, CHUNK_BYTES)
    except OSError as error:
        raise SourceError(
            f"{escape_name(name)} cannot be read: {error.strerror}", code=Code.SOURCE_ACCESS_DENIED
        ) from error


def changed(name: str) -> SourceError:
    return SourceError(f"{escape_name(name)} changed while it was read", code=Code.SOURCE_CHANGED)


def no_room(error: OSError, where: str) -> IngestError | None:
    """See in an error of the operating system that a resource ran out on the way to `where`."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    room = os.statvfs(where)
    if room.f_files and not room.f_favail:
        return ResourceError("the working folder's file system can hold no more files", code=Code.RESOURCE_INODES)
    free = room.f_bavail * room.f_frsize
    return ResourceError(f"the working folder's disk is full: {free} bytes are free", code=Code.RESOURCE_DISK)


def reserve(needed_bytes: int, where: str) -> None:
    """See that there is room before anything is written. Raises `ResourceError` (`resource.disk`) with the numbers."""
    room = os.statvfs(where)
    free = room.f_bavail * room.f_frsize
    if needed_bytes > free:
        raise ResourceError(
            f"the source needs {needed_bytes} bytes in the working folder, {free} are free", code=Code.RESOURCE_DISK
        )
