"""Message digests (PREMIS fixity), computed off the event loop in one read per file."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from ingestd.premis import DigestAlgorithm

CHUNK_BYTES = 256 * 1024
"""Stays in the second-level cache; larger reads are not faster."""
WINDOW = 256


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
