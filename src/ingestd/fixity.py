"""Message digests (PREMIS fixity), computed off the event loop in one read per file."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ingestd.errors import Code, SourceError
from ingestd.premis import DigestAlgorithm

CHUNK_BYTES = 256 * 1024
"""Stays in the second-level cache; larger reads are not faster."""
WINDOW = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """What went through `copy_and_digest`: `modified_ns` is the source's time, which the copy now has too."""

    digest: str
    size_bytes: int
    modified_ns: int


async def digest_file(path: Path, algorithms: Iterable[DigestAlgorithm]) -> Mapping[DigestAlgorithm, str]:
    """Compute all of these digests of one file in one read. Raises `OSError`."""
    return await asyncio.to_thread(digest_now, path, tuple(algorithms))


def digest_now(path: Path, algorithms: Sequence[DigestAlgorithm]) -> Mapping[DigestAlgorithm, str]:
    """Do what `digest_file` does, blocking: for use in threads. A symbolic link is not followed."""
    found = digest_with(path, [algorithm.value for algorithm in algorithms])
    return {algorithm: found[algorithm.value] for algorithm in algorithms}


def digest_with(path: Path, names: Sequence[str]) -> Mapping[str, str]:
    """Compute digests of one file with any of hashlib's algorithms in one read, blocking. Raises `OSError`."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _regular(source, path)
        for chunk in _chunks(source):
            for one in hashes.values():
                one.update(chunk)
    finally:
        os.close(source)
    return {name: one.hexdigest() for name, one in hashes.items()}


async def digest_many(
    paths: Iterable[Path], algorithm: DigestAlgorithm, *, window: int = WINDOW
) -> AsyncIterator[Sequence[tuple[Path, str]]]:
    """Compute the digest of many files, a window at a time and each window in one thread: flat in memory.

    Raises `OSError` for the first file that cannot be read.
    """
    rest = iter(paths)
    while batch := list(islice(rest, window)):
        yield await asyncio.to_thread(_digest_batch, batch, algorithm)


def _digest_batch(batch: Sequence[Path], algorithm: DigestAlgorithm) -> Sequence[tuple[Path, str]]:
    return [(path, digest_now(path, (algorithm,))[algorithm]) for path in batch]


def copy_and_digest(source: int | Path, target: Path, algorithm: DigestAlgorithm, *, sync: bool = False) -> Copied:
    """Copy a regular file with one read and compute the digest of exactly the bytes that were written; blocking.

    `source` is an open descriptor at its start, which stays open, or a path, of which a symbolic link is not followed.
    `target` must not exist; it gets the source's modification time, and with `sync` is on disk before this returns.

    Raises `SourceError` `source.changed` when the source was written to meanwhile, `source.access_denied` when it may
    not be read, and `OSError` otherwise. `target` is removed when anything fails.
    """
    if isinstance(source, int):
        return _copy(source, target, algorithm, sync=sync)
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError as error:
        raise SourceError("a file may not be read", code=Code.SOURCE_ACCESS_DENIED) from error
    try:
        return _copy(descriptor, target, algorithm, sync=sync)
    finally:
        os.close(descriptor)


def _copy(source: int, target: Path, algorithm: DigestAlgorithm, *, sync: bool) -> Copied:
    before = _regular(source, target)
    one = _hash(algorithm)
    size = 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    sink = os.open(target, flags, 0o666)
    try:
        for chunk in _chunks(source):
            one.update(chunk)
            _write(sink, chunk)
            size += len(chunk)
        _unchanged(before, os.fstat(source), size)
        os.utime(sink, ns=(before.st_mtime_ns, before.st_mtime_ns))
        if sync:
            os.fsync(sink)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        os.close(sink)
    return Copied(digest=one.hexdigest(), size_bytes=size, modified_ns=before.st_mtime_ns)


def _unchanged(before: os.stat_result, after: os.stat_result, size: int) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or size != before.st_size:
        raise SourceError(
            f"a file changed while it was read: {before.st_size} bytes before, {size} read, {after.st_size} after",
            code=Code.SOURCE_CHANGED,
        )


def _regular(descriptor: int, path: Path) -> os.stat_result:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(22, "not a regular file", str(path))
    return found


def _chunks(descriptor: int) -> Iterable[memoryview]:
    """Read to the end. Each chunk is only valid until the next: they share one buffer."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    while count := os.readv(descriptor, [buffer]):
        yield buffer[:count]


def _write(descriptor: int, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]


def _hash(algorithm: DigestAlgorithm) -> hashlib._Hash:
    # MD5 and SHA-1 are here for fixity, against accidents; `usedforsecurity` keeps them usable under FIPS.
    return hashlib.new(algorithm.value, usedforsecurity=False)
