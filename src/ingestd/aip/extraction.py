"""One file out of an AIP, without unpacking the others; its bytes are held against what the AIP says of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, TypeAlias

from ingestd.aip.container import FOLDER, Enough, read_from, scan, shown
from ingestd.aip.manifests import read_manifests
from ingestd.aip.reading import ALGORITHMS, Reading, hashes_of, opened, through
from ingestd.aip.records import Extracted
from ingestd.errors import Code, ContentError, ResourceError, SourceError, StorageError, Violation
from ingestd.oais import unescape_name

Output: TypeAlias = Path | IO[bytes] | None

_LISTED = 20
_RECEIVED = """
SELECT DISTINCT file.path FROM file JOIN member USING (path) WHERE original_name IN (?, ?, ?, ?, ?)
"""


async def extract(path: Path, file: str, output: Output = None, *, scratch: Path | None = None) -> Extracted:
    """Copy one file of the AIP at `path` to `output`: a new file, a folder to put it into under its own name (default:
    the working folder), or an open binary file.

    `file` is a path in the AIP (`data/objects/…` or `objects/…`), the name it was received with, or its UUID. The bytes
    are compared with every digest that the bag and the METS give; `findings` say where they differ.

    Raises what `reading.opened` raises; `SourceError` if there is no such file, or more than one; `ContentError`
    (`content.archive_corrupt`) if it cannot be read; `StorageError` (`storage.conflict`) if `output` exists.
    """
    async with opened(path, scratch=scratch) as reading:
        await reading.run(partial(read_manifests, reading))
        found = await reading.run(partial(find, reading, file))
        return await reading.run(partial(_extracted, reading, found, output))


def find(reading: Reading, file: str) -> bytes:
    """Find a file by its path, its UUID or its received name. Raises `SourceError` where not exactly one is meant."""
    names = dict.fromkeys((os.fsencode(file), os.fsencode(unescape_name(file))))
    for name in names:
        for path in (name, b"/".join(filter(None, (reading.payload, name)))):
            if reading.facts.has(path):
                return path
    sql = "SELECT DISTINCT path FROM file JOIN member USING (path) WHERE identifier = ?"
    found = [row[0] for row in reading.facts.rows(sql, (file.lower(),))]
    received = [f"%{place}Directory%{folder}{file}" for place in ("transfer", "SIP") for folder in ("", "objects/")]
    found = found or [row[0] for row in reading.facts.rows(_RECEIVED, (file, *received))]
    if len(found) == 1:
        return bytes(found[0])
    if not found:
        raise SourceError(
            f"the AIP has no file {file!r}: neither a path, nor a name that was received, nor a UUID",
            remediation="`ingestd aip inspect --files -1` lists what is there.",
        )
    paths = tuple(Violation(path=shown(path), rule="name", expected="one file") for path in found[:_LISTED])
    raise SourceError(
        f"{len(found)} files were received as {file!r}", violations=paths, remediation="Name one of these paths."
    )


def _extracted(reading: Reading, path: bytes, output: Output) -> Extracted:
    expected = _expected(reading, path)
    algorithms = sorted({algorithm for _, algorithm, _ in expected} & ALGORITHMS) or ["sha256"]
    with new_file(path, output) as (out, place):
        digests, size_bytes = copy(reading, path, out, algorithms)
    said = [(source, algorithm, digest) for source, algorithm, digest in expected if algorithm in digests]
    return Extracted(
        path=shown(path),
        output=place,
        size_bytes=size_bytes,
        digests=digests,
        compared=len(said),
        findings=[
            Violation(
                path=shown(path),
                rule="premis.1.5.2" if source == "METS" else "rfc8493.3.valid",
                expected=f"{algorithm} {digest} ({source})",
                actual=f"{algorithm} {digests[algorithm]}",
            )
            for source, algorithm, digest in said
            if digests[algorithm] != digest
        ],
    )


def _expected(reading: Reading, path: bytes) -> list[tuple[str, str, str]]:
    sql = """SELECT manifest, algorithm, digest FROM listed WHERE path = ? UNION
        SELECT 'METS', algorithm, digest FROM fixity JOIN file ON number = file WHERE path = ?"""
    return [
        (str(source), str(algorithm), str(digest)) for source, algorithm, digest in reading.facts.rows(sql, (path,) * 2)
    ]


@contextlib.contextmanager
def new_file(path: bytes, output: Output) -> Iterator[tuple[IO[bytes], str]]:
    """Open what is written to: a file that was not there, called like `path` in a folder. What could not be written to
    its end does not stay.

    Raises `StorageError`.
    """
    if output is not None and not isinstance(output, Path):
        yield output, ""
        return
    target = output or Path()
    if target.is_dir():
        target /= os.fsdecode(path.rpartition(b"/")[2])
    try:
        out = target.open("xb")
    except FileExistsError as error:
        raise StorageError(
            f"{target} is there already, and was left as it is",
            code=Code.STORAGE_CONFLICT,
            remediation="Name another file or folder with --output.",
        ) from error
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}") from error
    try:
        with out:
            yield out, shown(os.fsencode(target))
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def copy(reading: Reading, path: bytes, out: IO[bytes], algorithms: Collection[str]) -> tuple[dict[str, str], int]:
    """Copy one file to `out`; give its digests and size. Raises `ContentError` if it cannot be read to its end."""
    taken, trouble = copy_all(reading, {path: out}, algorithms)
    if path not in taken:
        why = trouble or "it is not there any more"
        raise ContentError(f"{shown(path)} cannot be read: {why}", code=Code.CONTENT_ARCHIVE_CORRUPT)
    return taken[path]


def copy_all(
    reading: Reading, wanted: dict[bytes, IO[bytes]], algorithms: Collection[str] = ()
) -> tuple[dict[bytes, tuple[dict[str, str], int]], str]:
    """Copy files in one pass, each to what is given for it; give what `copy` gives for each that could be read to its
    end, and what was in the way of the others.
    """
    visitor = _Wanted(wanted, reading, algorithms)
    if reading.container.form != FOLDER:
        trouble = scan(reading.container, visitor, whole=False) if wanted else None
        return visitor.taken, trouble.actual if trouble else ""
    why = ""
    for path in wanted:
        try:
            visitor.take(path, read_from(reading.folder, os.fsdecode(path)))
        except OSError as error:
            why = error.strerror or str(error)
    return visitor.taken, why


class _Wanted:
    """Copies the files that are wanted, and ends the reading when it has them all."""

    def __init__(self, wanted: dict[bytes, IO[bytes]], reading: Reading, algorithms: Collection[str]) -> None:
        self._wanted = wanted
        self._root = reading.root + b"/" if reading.root else b""
        self._breathe = reading.worker.breathe
        self._algorithms = algorithms
        self.taken: dict[bytes, tuple[dict[str, str], int]] = {}

    def file(self, path: bytes, chunks: Iterable[memoryview], size_bytes: int | None) -> None:
        del size_bytes
        name = path.removeprefix(self._root)
        if name in self._wanted and name not in self.taken and path.startswith(self._root):
            self.take(name, chunks)
        if len(self.taken) == len(self._wanted):
            raise Enough

    def take(self, name: bytes, chunks: Iterable[memoryview]) -> None:
        hashes = hashes_of(self._algorithms)
        out = self._wanted[name]
        try:
            size_bytes = through(chunks, hashes.values(), out, self._breathe)
        except BrokenPipeError as error:
            raise ResourceError("whoever read the output went away") from error
        self.taken[name] = ({algorithm: one.hexdigest() for algorithm, one in hashes.items()}, size_bytes)

    def odd(self, found: Violation) -> None:
        """`verify` tells of these."""
