"""Transfers that the tests make themselves."""

from __future__ import annotations

import random
import shutil
import struct
import zlib
from pathlib import Path


def small_transfer(folder: Path) -> Path:
    """Five files in three folders: text, XML, a picture, a name with accents and spaces, an empty folder."""
    (folder / "letters" / "1931").mkdir(parents=True)
    (folder / "nothing here").mkdir()
    (folder / "letters" / "one.txt").write_text("Dear Ada,\n", encoding="utf-8")
    (folder / "letters" / "1931" / "Réponse à Ada.txt").write_text("Chère Ada,\n", encoding="utf-8")
    (folder / "letters" / "1931" / "catalogue.xml").write_text('<?xml version="1.0"?>\n<letters/>\n', encoding="utf-8")
    (folder / "portrait.png").write_bytes(png(seed=1))
    (folder / "empty.bin").touch()
    return folder


SMALL_FILES = 5


def damaged_since(folder: Path) -> Path:
    """An archive of two files that are not what `checksum.md5` says: in an archive only the step proves digests."""
    (folder / "metadata").mkdir(parents=True)
    for name in ("one.txt", "two.txt"):
        (folder / name).write_text(name, encoding="utf-8")
    lines = "".join(f"{'0' * 32}  {name}\n" for name in ("one.txt", "two.txt"))
    (folder / "metadata" / "checksum.md5").write_text(lines, encoding="utf-8")
    return Path(shutil.make_archive(str(folder), "gztar", folder))


def many_files(folder: Path, count: int, *, heavy_bytes: int = 0) -> Path:
    """`count` files in ten folders, one in five a picture; `heavy_bytes` of one file that does not compress."""
    for number in range(count):
        below = folder / f"series {number % 10}"
        below.mkdir(parents=True, exist_ok=True)
        if number % 5:
            (below / f"note {number:04}.txt").write_text(f"Note number {number}\n" * 20, encoding="utf-8")
        else:
            (below / f"picture {number:04}.png").write_bytes(png(seed=number))
    if heavy_bytes:
        (folder / "heavy.bin").write_bytes(random.Random(7).randbytes(heavy_bytes))
    return folder


def png(*, seed: int, side: int = 16) -> bytes:
    """A picture of noise, valid to the last byte."""
    noise = random.Random(seed)
    lines = b"".join(b"\0" + noise.randbytes(3 * side) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
