"""BagIt 1.0 (RFC 8493): the AIP's container. The only module that knows bagit.

The tag files are written from digests that are known already: no byte is read twice to make a bag. Proving one is
another matter: `read_manifest` gives what was promised, and the AIP's verification reads everything again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path

import aiofiles
import bagit

from ingestd.errors import Code, ContentError, Violation
from ingestd.fixity import digest_file
from ingestd.premis import DigestAlgorithm

DECLARATION = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
"""`bagit.txt` (RFC 8493, 2.1.1)."""
WINDOW = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """One payload file: its path below `data/` (decoded by `os.fsdecode`), digest and size."""

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bag:
    """What was written. `digest` is the tag manifest's, which covers the manifests and so the whole bag."""

    files: int
    size_bytes: int
    digest: str


async def write_tags(
    folder: Path,
    payload: AsyncIterator[Sequence[Payload]],
    *,
    algorithm: DigestAlgorithm,
    info: Mapping[str, Sequence[str]],
    bagging_date: date,
) -> Bag:
    """Make `folder`, whose payload is in `folder/data`, a bag: write declaration, manifest, bag-info and tag manifest.

    `payload` gives every payload file, in windows. `info` adds to `bag-info.txt` (2.2.2).
    """
    manifest = folder / f"manifest-{algorithm}.txt"
    files = size_bytes = 0
    async with aiofiles.open(manifest, "wb") as out:
        async for window in payload:
            entries = [f"{entry.digest}  data/".encode() + _encode(entry.path) + b"\n" for entry in window]
            await out.write(b"".join(entries))
            files += len(window)
            size_bytes += sum(entry.size_bytes for entry in window)
    tags = {**info, "Bagging-Date": [bagging_date.isoformat()], "Payload-Oxum": [f"{size_bytes}.{files}"]}
    lines = [f"{name}: {_one_line(value)}\n" for name, values in sorted(tags.items()) for value in values]
    await _write(folder / "bagit.txt", DECLARATION)
    await _write(folder / "bag-info.txt", "".join(lines))
    tag_lines = []
    for name in ["bag-info.txt", "bagit.txt", manifest.name]:
        digest = (await digest_file(folder / name, [algorithm]))[algorithm]
        tag_lines.append(f"{digest}  {name}\n")
    tag_manifest = folder / f"tagmanifest-{algorithm}.txt"
    await _write(tag_manifest, "".join(tag_lines))
    digest = (await digest_file(tag_manifest, [algorithm]))[algorithm]
    return Bag(files=files, size_bytes=size_bytes, digest=digest)


def read_manifest(path: Path) -> Iterator[tuple[str, str]]:
    """Read a manifest line by line: (path as `os.fsdecode` gives it, digest)."""
    with path.open("rb") as lines:
        for line in lines:
            digest, _, name = line.rstrip(b"\n").partition(b"  ")
            yield os.fsdecode(_decode(name)), digest.decode("ascii")


def walk(root: Path, under: str = "") -> Iterator[str]:
    """Give every file below `root/under`, relative to `root`, folder by folder in the order of their bytes.

    Links and special files are given like files: whoever asks decides.
    """
    folders = [under] if under else [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as found:
            entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
        inner = []
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                inner.append(path)
            else:
                yield path
        folders += reversed(inner)


async def walked(root: Path, under: str = "") -> AsyncIterator[list[str]]:
    """Walk as `walk` does, off the event loop, in windows."""
    paths = walk(root, under)
    while window := await asyncio.to_thread(lambda: list(islice(paths, WINDOW))):
        yield window


def validate(folder: Path) -> None:
    """Prove an unpacked bag with bagit: completeness, every digest. Raises `ContentError` (`content.bag_invalid`)."""
    try:
        bagit.Bag(os.fspath(folder)).validate()
    except bagit.BagValidationError as error:
        violations = tuple(Violation(path="", rule="bag", actual=str(detail)) for detail in error.details)
        raise ContentError(str(error), code=Code.CONTENT_BAG_INVALID, violations=violations) from error
    except bagit.BagError as error:
        raise ContentError(str(error), code=Code.CONTENT_BAG_INVALID) from error


def _encode(path: str) -> bytes:
    """Line ends and `%` in names are percent-encoded (RFC 8493, 2.1.3)."""
    raw = os.fsencode(path)
    return raw.replace(b"%", b"%25").replace(b"\n", b"%0A").replace(b"\r", b"%0D")


def _decode(name: bytes) -> bytes:
    return name.replace(b"%0D", b"\r").replace(b"%0A", b"\n").replace(b"%25", b"%")


def _one_line(value: str) -> str:
    return " ".join(value.split())


async def _write(path: Path, text: str) -> None:
    async with aiofiles.open(path, "w", encoding="utf-8", newline="\n") as out:
        await out.write(text)
