"""What a file is, as far as receiving it goes: an archive to unpack, or a file. Decided by content, never by name.

Office documents, e-books and Java programs are zips, but nobody means their parts: they are files.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """How an archive is to be read: libarchive's names of the format and of the filter around it.

    `certain` is False where only unpacking can tell whether there is a tar within.
    """

    form: str
    filter_name: str = "none"
    certain: bool = True


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


_HEAD_BYTES = 1024 * 1024
"""Enough for the first block of bzip2, the largest there is."""
_BLOCK = 512
_XZ_MEMORY_BYTES = 256 * 1024 * 1024

_COMPRESSED: tuple[tuple[bytes, str, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b\x08", "gzip", lambda: zlib.decompressobj(wbits=31)),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", "xz", lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)),
)
_PLAIN = (
    (b"7z\xbc\xaf\x27\x1c", "7zip"),
    (b"Rar!\x1a\x07\x00", "rar"),
    (b"Rar!\x1a\x07\x01\x00", "rar5"),
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08PK\x03\x04", b"PK00PK\x03\x04")
_ZSTD = b"\x28\xb5\x2f\xfd"

_DOCUMENT_NAMES = frozenset({b"[Content_Types].xml", b"META-INF/MANIFEST.MF"})
_MOST_NAMES = 10_000
_MOST_BYTES = 16 * 1024 * 1024


def archive_in(fd: int) -> Archive | None:
    """Look into an open file: how to unpack it, or None for what is a file in itself. Reads at most a few MiB."""
    head = os.pread(fd, _HEAD_BYTES, 0)
    for magic, form in _PLAIN:
        if head.startswith(magic):
            return Archive(form=form)
    if head.startswith(_ZIP):
        return None if _is_document(fd, head) else Archive(form="zip")
    if head.startswith(_ZSTD):
        return Archive(form="tar", filter_name="zstd", certain=False)
    for magic, name, decompressor in _COMPRESSED:
        if head.startswith(magic):
            return Archive(form="tar", filter_name=name) if _is_tar(_first(head, decompressor)) else None
    return Archive(form="tar") if _is_tar(head) else None


def _first(head: bytes, decompressor: Callable[[], _Decompressor]) -> bytes:
    try:
        return decompressor().decompress(head, _BLOCK)
    except (OSError, EOFError, ValueError, MemoryError, zlib.error, lzma.LZMAError):
        return b""


def _is_tar(head: bytes) -> bool:
    """Check the checksum of the first header (POSIX.1-1988 ustar and older tars alike)."""
    block = head[:_BLOCK]
    if len(block) < _BLOCK or not block[0]:
        return False
    try:
        said = int(block[148:156].strip(b" \0") or b"-", 8)
    except ValueError:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    return said in (sum(rest), sum(byte - 256 if byte > 127 else byte for byte in rest))


def _is_document(fd: int, head: bytes) -> bool:
    """See whether a zip is a document: `mimetype` comes first (OpenDocument, EPUB), or it has a part that names the
    others (Office Open XML, Java).
    """
    start = head.find(b"PK\x03\x04")
    if head[start + 30 : start + 38] == b"mimetype" and head[start + 26 : start + 28] == b"\x08\x00":
        return True
    return any(name in _DOCUMENT_NAMES for name in _zip_names(fd))


def _zip_names(fd: int) -> Iterator[bytes]:
    """The names in a zip's central directory (APPNOTE 4.3.12), the first 10,000 of them; none if it is damaged."""
    size = os.fstat(fd).st_size
    tail_at = max(0, size - 65_557)
    tail = os.pread(fd, 65_557, tail_at)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        return
    offset = struct.unpack_from("<I", tail, end + 16)[0]
    if offset == 0xFFFFFFFF:
        offset = _zip64(fd, tail, end)
    directory = _Reader(fd, offset)
    for _ in range(_MOST_NAMES):
        header = directory.take(46)
        if len(header) < 46 or not header.startswith(b"PK\x01\x02") or directory.read_bytes > _MOST_BYTES:
            return
        name_length, extra_length, comment_length = struct.unpack_from("<HHH", header, 28)
        yield directory.take(name_length)
        directory.skip(extra_length + comment_length)


def _zip64(fd: int, tail: bytes, end: int) -> int:
    """Where the central directory of a large zip begins (APPNOTE 4.3.14); the end of the file where it is not said."""
    nowhere = os.fstat(fd).st_size
    locator = tail[max(0, end - 20) : end]
    if len(locator) < 20 or not locator.startswith(b"PK\x06\x07"):
        return nowhere
    record = _pread(fd, 56, struct.unpack_from("<Q", locator, 8)[0])
    if len(record) < 56 or not record.startswith(b"PK\x06\x06"):
        return nowhere
    return int(struct.unpack_from("<Q", record, 48)[0])


def _pread(fd: int, size: int, at: int) -> bytes:
    """Read at an offset that the file itself names, which may be any 64 bits."""
    return os.pread(fd, size, at) if at < 2**63 - 2**20 else b""


class _Reader:
    """Reads a file forward from an offset, 64 KiB at a time."""

    def __init__(self, fd: int, at: int) -> None:
        self._fd = fd
        self._at = at
        self._buffer = io.BytesIO()
        self.read_bytes = 0

    def take(self, size: int) -> bytes:
        got = self._buffer.read(size)
        if len(got) < size:
            block = _pread(self._fd, 65_536 + size, self._at)
            self._at += len(block)
            self.read_bytes += len(block)
            self._buffer = io.BytesIO(block)
            got += self._buffer.read(size - len(got))
        return got

    def skip(self, size: int) -> None:
        self.take(size)
