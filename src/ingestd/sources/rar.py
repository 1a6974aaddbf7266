"""The checksums that a RAR archive says of its files, which libarchive (3.6) does not hold against stored ones.

Only the chain of headers is read: RAR 4 (technote of version 3.9x) and RAR 5 (rarlab.com/technote.htm).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

_MAIN4, _FILE4, _END4 = 0x73, 0x74, 0x7B
_MAIN5, _FILE5, _END5 = 1, 2, 5
_VOLUME = 1
_MOST_HEADER_BYTES = 2 * 1024 * 1024


class RarDamagedError(Exception):
    """The chain of headers breaks off."""


class RarVolumeError(Exception):
    """The archive is one of several volumes: libarchive would give what is in this one, and cut its last file."""


def checksums(fd: int, form: str) -> Iterator[int | None]:
    """Give the CRC-32 of each file and folder in the archive, in order; None where there is none to hold it against.

    Raises `RarDamagedError` where the archive ends before its end: what comes after the cut would be missed by nobody.
    Raises `RarVolumeError`.
    """
    return _checksums4(fd) if form == "rar" else _checksums5(fd)


def _checksums4(fd: int) -> Iterator[int | None]:
    at, size = 7, os.fstat(fd).st_size
    while at < size:  # before RAR 3 an archive had no end header: it may simply end here
        head = os.pread(fd, 36, at)
        if len(head) < 7:
            raise RarDamagedError("it ends within a header")
        kind, flags, length = struct.unpack_from("<BHH", head, 2)
        if kind == _END4:
            return
        if kind == _MAIN4 and flags & _VOLUME:
            raise RarVolumeError
        added = struct.unpack_from("<I", head, 7)[0] if flags & 0x8000 and len(head) >= 11 else 0
        if kind == _FILE4 and len(head) >= 32:
            if flags & 0x100 and len(head) == 36:
                added += struct.unpack_from("<I", head, 32)[0] << 32
            folder, split = flags & 0xE0 == 0xE0, flags & 0x03
            yield None if folder or split else struct.unpack_from("<I", head, 16)[0]
        at += length + added
        if length < 7 or at > size:
            raise RarDamagedError("it ends before its last file does")


def _checksums5(fd: int) -> Iterator[int | None]:
    at, size = 8, os.fstat(fd).st_size
    while at < size:
        length, start = _number(os.pread(fd, 16, at), 4)
        at += start
        header = os.pread(fd, length, at) if 0 < length <= _MOST_HEADER_BYTES else b""
        if not header:
            break
        kind, next_ = _number(header, 0)
        flags, next_ = _number(header, next_)
        added = 0
        if flags & 1:
            _, next_ = _number(header, next_)
        if flags & 2:
            added, next_ = _number(header, next_)
        if kind == _END5:
            return
        if kind == _MAIN5 and _number(header, next_)[0] & _VOLUME:
            raise RarVolumeError
        if kind == _FILE5:
            yield None if flags & 0x18 else _file5(header, next_)
        at += length + added
    raise RarDamagedError("it ends before its end header")


def _file5(header: bytes, at: int) -> int | None:
    flags, at = _number(header, at)
    _, at = _number(header, at)
    _, at = _number(header, at)
    at += 4 if flags & 2 else 0
    if not flags & 4 or len(header) < at + 4:
        return None
    return int(struct.unpack_from("<I", header, at)[0])


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, the lowest first; give it and where it ended."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    raise RarDamagedError("a header cannot be read")
