"""The encoding of a text file that came from anywhere: read once through, before anything of it is believed."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """An encoding, as Python names it, and where the file ceases to be what it seemed.

    `fallback`: it is no UTF, and was taken for what Windows writes in the west. `broken_at`: a line that cannot be read
    in this encoding, `broken_byte` the byte there; 0 where all can be read.
    """

    name: str
    fallback: bool = False
    broken_at: int = 0
    broken_byte: int = 0


def detect(path: Path) -> Encoding:
    """Say how a file is encoded: UTF-8, UTF-16 or UTF-32 by its mark, UTF-8 or UTF-16 by what is there, or else
    Windows-1252, or ISO 8859-1 where a byte is none of Windows'. Blocks; raises `OSError`.
    """
    with path.open("rb") as file:
        name = _seems(file.read(4))
        line, byte = _first_fault(file, name)
        if not line or name != "utf-8":
            return Encoding(name=name, broken_at=line, broken_byte=byte)
        western = "latin-1" if _first_fault(file, "cp1252")[0] else "cp1252"
        return Encoding(name=western, fallback=True, broken_at=line, broken_byte=byte)


def _seems(head: bytes) -> str:
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if len(head) >= 2 and head[:2].count(0) == 1:  # a letter of a heading and its empty half
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8"


def _first_fault(file: BinaryIO, encoding: str) -> tuple[int, int]:
    """Give the line and the byte of the first fault, or 0 and 0."""
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    for chunk in _chunks(file):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            good = error.object[: error.start].decode(encoding, "ignore")
            return line + good.count("\n"), error.object[error.start]
        line += text.count("\n")
    return 0, 0


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
    yield b""
