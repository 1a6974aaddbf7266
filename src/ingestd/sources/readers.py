"""Reads archives of each kind, entry by entry, into a `Taker`: what writes them to disk, or only looks at them.

zip and tar are read by Python's own modules: memory-safe, and names come out as the bytes they were. libarchive
composes what it takes for UTF-8 (NFC), which changes names behind everybody's back, and does not look at the checksum
that ends a gzip stream, nor at those of stored files in a RAR. It reads what Python cannot: 7z, RAR and zstd.
"""

from __future__ import annotations

import bz2
import contextlib
import ctypes
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import repeat
from typing import IO, Any, Protocol, Self, cast

import libarchive
from libarchive import ffi

from ingestd.errors import Code, IngestError
from ingestd.sources.findings import failure
from ingestd.sources.rar import RarDamagedError, RarVolumeError, checksums
from ingestd.sources.writer import CHUNK_BYTES, Meter

_PASSWORD = re.compile(r"encrypt|passphrase|password|decrypt", re.IGNORECASE)
_UNSUPPORTED = re.compile(r"unsupported|not supported|unknown (compression|method|codec)|unavailable", re.IGNORECASE)

_RAR = frozenset({"rar", "rar5"})
_BROKEN = (EOFError, ValueError, struct.error, zlib.error, lzma.LZMAError)
"""What Python's modules say of bytes that make no sense to them, besides their own errors."""

_is_encrypted = ffi.ffi("entry_is_encrypted", [ffi.c_archive_entry_p], ctypes.c_int)
_pathname_utf8 = ffi.ffi("entry_pathname_utf8", [ffi.c_archive_entry_p], ctypes.c_char_p)


class NotAnArchive(Exception):
    """What is compressed is a file, not a tar."""


class Unsupported(Exception):
    """What is here cannot read this; another program may."""


class Taker(Protocol):
    """What becomes of the entries. Chunks that are not asked for are skipped; a chunk is only good until the next."""

    @property
    def meter(self) -> Meter: ...

    def admit(self, raw: bytes | None, /) -> tuple[bytes, ...] | None:
        """Judge a name: its parts (`()` is the archive's own top), or None where the entry is not wanted."""
        ...

    def directory(self, parts: tuple[bytes, ...], /) -> None: ...

    def file(
        self, parts: tuple[bytes, ...], chunks: Iterable[memoryview], /, *, size_bytes: int | None, mtime_ns: int | None
    ) -> None:
        """Take a file. `size_bytes` is what the archive says of it, None where it says nothing."""
        ...

    def symlink(self, parts: tuple[bytes, ...], target: bytes, /) -> None: ...

    def hard_link(self, parts: tuple[bytes, ...], target: bytes, /) -> None: ...

    def special(self, parts: tuple[bytes, ...], kind: int, /) -> None: ...

    def drain(self, chunks: Iterable[memoryview], /) -> None: ...


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def damaged(why: object) -> IngestError:
    text = "".join(char if char.isprintable() else "?" for char in str(why))[:500]
    return failure(Code.CONTENT_ARCHIVE_CORRUPT, f"the archive is damaged: {text}")


def locked() -> IngestError:
    return failure(Code.CONTENT_ARCHIVE_ENCRYPTED, "the archive is encrypted: it cannot be opened without its password")


# zip


def read_zip(file: IO[bytes], writer: Taker, *, foretell: Callable[[Sequence[str]], None] | None = None) -> None:
    """Read a zip (PKWARE APPNOTE 6.3); `foretell` is told its names first. Raises `IngestError`, `Unsupported`."""
    try:
        with zipfile.ZipFile(file) as archive:
            if foretell is not None:
                foretell(archive.namelist())
            for info in archive.infolist():
                _take_zipped(archive, info, writer)
    except (UnicodeDecodeError, NotImplementedError) as error:
        raise Unsupported(str(error)) from error
    except (zipfile.BadZipFile, *_BROKEN) as error:
        raise damaged(error) from error


def _take_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, writer: Taker) -> None:
    parts = writer.admit(zip_name(info))
    if parts is None or not parts:
        return
    mode = info.external_attr >> 16 if info.create_system == 3 else 0
    kind = stat.S_IFMT(mode)
    if info.flag_bits & 1:
        raise locked()
    if info.orig_filename.endswith("/") or kind == stat.S_IFDIR:
        writer.directory(parts)
    elif kind == stat.S_IFLNK:
        with archive.open(info) as link:
            writer.symlink(parts, link.read(CHUNK_BYTES))
    elif kind in (0, stat.S_IFREG):
        writer.file(parts, _zipped_chunks(archive, info), size_bytes=info.file_size, mtime_ns=_zip_mtime(info))
    else:
        writer.special(parts, kind)


def zip_name(info: zipfile.ZipInfo) -> bytes:
    """The name's own bytes: `zipfile` reads them as UTF-8 or as code page 437, and both can be undone.

    Some programs for Windows write backslashes between parts, against the specification.
    """
    raw = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
    return raw.replace(b"\\", b"/") if info.create_system == 0 and b"/" not in raw else raw


def _zipped_chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[memoryview]:
    """The content of a file; `zipfile` proves its CRC-32, but takes an early end for the end."""
    size = 0
    with archive.open(info) as content:
        for chunk in _chunks(content):
            size += len(chunk)
            yield chunk
    if size != info.file_size:
        raise damaged(f"a file of {info.file_size} bytes has {size}")


def _zip_mtime(info: zipfile.ZipInfo) -> int | None:
    """The time of modification: UTC from an extra field (0x5455, 0x000A), else DOS time, taken for UTC."""
    extra = info.extra
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        data, extra = extra[4 : 4 + length], extra[4 + length :]
        if tag == 0x5455 and len(data) >= 5 and data[0] & 1:
            return int(struct.unpack_from("<i", data, 1)[0]) * 1_000_000_000
        if tag == 0x000A and len(data) >= 16 and data[4:6] == b"\x01\x00":
            return (int(struct.unpack_from("<Q", data, 8)[0]) - 116_444_736_000_000_000) * 100
    try:
        return int(datetime(*info.date_time, tzinfo=UTC).timestamp()) * 1_000_000_000
    except ValueError:
        return None


# tar


_TAR_BUFFER_BYTES = 16 * 1024
"""The rest of the buffer is copied at every read of a header: more would be slower."""
_ENDS = frozenset({"EmptyHeaderError", "EOFHeaderError"})


class _Header(tarfile.TarInfo):
    """A header that says when it is damaged: `tarfile` would take that for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ in _ENDS:
                raise
            raise damaged(error) from error


def read_tar(file: IO[bytes], writer: Taker, *, filter_name: str, skipping: bool = False) -> None:
    """Read a tar (ustar, pax, GNU), compressed or not; `skipping`, one that is not from header to header. Raises
    `IngestError`, or `NotAnArchive` for what is something else that is compressed.
    """
    found = 0
    try:
        with _decompressed(file, filter_name) as stream:
            for archive, info in _members(stream, skipping=skipping and filter_name == "none"):
                _take_member(archive, info, writer)
                found += 1
            # What follows the end is read and counted too: with it comes the stream's own checksum.
            writer.drain(_chunks(stream))
    except (tarfile.TarError, gzip.BadGzipFile, *_BROKEN) as error:
        if found or filter_name == "none":
            raise damaged(error) from error
        raise NotAnArchive from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise damaged(error) from error  # bz2 says so
    except libarchive.ArchiveError as error:
        raise damaged(_words(error)) from error
    except IngestError:
        if found or filter_name == "none" or writer.meter.entries:
            raise
        raise NotAnArchive from None
    if not found and filter_name != "none":
        raise NotAnArchive


@contextlib.contextmanager
def _decompressed(file: IO[bytes], filter_name: str) -> Iterator[_Stream]:
    if filter_name == "none":
        yield file
    elif filter_name == "gzip":
        with gzip.GzipFile(fileobj=file, mode="rb") as unzipped:
            yield unzipped
    elif filter_name == "bzip2":
        with bz2.BZ2File(file) as unzipped:
            yield unzipped
    elif filter_name == "xz":
        with lzma.LZMAFile(file) as unzipped:
            yield unzipped
    else:
        with libarchive.fd_reader(file.fileno(), "raw", filter_name) as archive:
            for _ in archive:
                yield _Raw(archive)
                return
            raise NotAnArchive


class _Raw:
    """What libarchive's filter lets through, as a stream."""

    def __init__(self, archive: Any) -> None:
        self._archive = archive

    def read(self, size: int, /) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        count = _read_data(self._archive, buffer, size)
        return buffer.raw[:count]


def _members(stream: _Stream, *, skipping: bool) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    with tarfile.open(
        fileobj=cast("Any", stream),  # which is only read
        mode="r:" if skipping else "r|",
        bufsize=_TAR_BUFFER_BYTES,
        tarinfo=_Header,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        while info := archive.next():
            yield archive, info
            cast("Any", archive).members.clear()  # it would keep them all


def _take_member(archive: tarfile.TarFile, info: tarfile.TarInfo, writer: Taker) -> None:
    if info.type == b"V":  # GNU: the volume's label
        return
    parts = writer.admit(os.fsencode(info.name))
    if info.isdir() or info.type == b"D":  # GNU: a folder with its listing
        if parts:
            writer.directory(parts)
    elif parts is None:
        writer.drain(_member_chunks(archive, info))
    elif info.issym():
        writer.symlink(parts, os.fsencode(info.linkname))
    elif info.islnk():
        writer.hard_link(parts, os.fsencode(info.linkname))
    elif info.isreg():
        writer.file(parts, _member_chunks(archive, info), size_bytes=info.size, mtime_ns=_tar_mtime(info))
    else:
        kinds = {tarfile.FIFOTYPE: stat.S_IFIFO, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}
        writer.special(parts, kinds.get(info.type, 0))
        writer.drain(_member_chunks(archive, info))


def _member_chunks(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[memoryview]:
    if info.isreg():
        with archive.extractfile(info) or contextlib.nullcontext() as content:
            if content:
                yield from _chunks(content)


def _tar_mtime(info: tarfile.TarInfo) -> int | None:
    try:
        return int(Decimal(info.pax_headers.get("mtime", info.mtime)) * 1_000_000_000)
    except (InvalidOperation, ValueError, OverflowError):
        return None


def _chunks(stream: _Stream) -> Iterator[memoryview]:
    while chunk := stream.read(CHUNK_BYTES):
        yield memoryview(chunk)


# 7z and RAR


def library(form: str) -> tuple[str, str] | None:
    """Name and version of the library that reads archives of this form, where that is not Python's own."""
    number = int(ffi.version_number())  # 3006002 is 3.6.2
    version = f"{number // 10**6}.{number // 1000 % 1000}.{number % 1000}"
    return None if form in {"zip", "tar"} else ("libarchive", version)


def read_other(file: IO[bytes], writer: Taker, *, form: str) -> None:
    """Read what libarchive calls `form`. Raises `IngestError`, `Unsupported`."""
    try:
        said = checksums(file.fileno(), form) if form in _RAR else repeat(None)
        with libarchive.fd_reader(file.fileno(), form, "none") as archive:
            for entry in archive:
                _take_entry(archive, entry._entry_p, writer, next(said, None))  # noqa: SLF001  for names as bytes
        if form in _RAR and any(crc is not None for crc in said):
            raise damaged("it holds more files than could be read")
    except RarVolumeError as error:
        raise failure(
            Code.CONTENT_ARCHIVE_UNSUPPORTED,
            "the archive is one of several volumes: join them to one, or send the folder",
        ) from error
    except RarDamagedError as error:
        raise damaged(error) from error
    except libarchive.ArchiveError as error:
        text = _words(error)
        if _PASSWORD.search(text):
            raise locked() from error
        if _UNSUPPORTED.search(text):
            raise Unsupported(text) from error
        raise damaged(text) from error


def _take_entry(archive: Any, entry: Any, writer: Taker, crc: int | None) -> None:
    parts = writer.admit(_pathname_utf8(entry) or ffi.entry_pathname(entry))
    if _is_encrypted(entry):
        raise locked()
    content = _entry_chunks(archive)
    kind = stat.S_IFMT(ffi.entry_filetype(entry))
    hard, soft = ffi.entry_hardlink(entry), ffi.entry_symlink(entry)
    if parts is None:
        writer.drain(content)
    elif kind == stat.S_IFDIR:
        writer.directory(parts)
    elif hard is not None:
        writer.hard_link(parts, hard)
    elif kind == stat.S_IFLNK and soft is not None:
        writer.symlink(parts, soft)
    elif kind in (0, stat.S_IFREG):
        dated = ffi.entry_mtime_is_set(entry)
        mtime_ns = ffi.entry_mtime(entry) * 1_000_000_000 + ffi.entry_mtime_nsec(entry) if dated else None
        size = ffi.entry_size(entry) if ffi.entry_size_is_set(entry) else None
        chunks = content if crc is None else _proved(content, crc)
        writer.file(parts, chunks, size_bytes=size, mtime_ns=mtime_ns)
    else:
        writer.special(parts, kind)


def _proved(chunks: Iterator[memoryview], crc: int) -> Iterator[memoryview]:
    found = 0
    for chunk in chunks:
        found = zlib.crc32(chunk, found)
        yield chunk
    if found != crc:
        raise damaged(f"a file has the CRC {found:08x}, not {crc:08x}")


def _entry_chunks(archive: Any) -> Iterator[memoryview]:
    """The content of an entry. A view is only good until the next one is asked for."""
    buffer = ctypes.create_string_buffer(CHUNK_BYTES)
    view = memoryview(buffer).cast("B")
    while size := _read_data(archive, buffer, CHUNK_BYTES):
        yield view[:size]


def _read_data(archive: Any, buffer: Any, size: int) -> int:
    """Read on; what libarchive calls a warning here is a checksum that does not match."""
    count = int(ffi.read_data(archive._pointer, buffer, size))  # noqa: SLF001  the library's own loop overlooks warnings
    if count < 0:
        raise ffi.archive_error(archive._pointer, count)  # noqa: SLF001  as above
    return count


def _words(error: Any) -> str:
    text = error.msg or "it cannot be read"
    return text.decode("utf-8", errors="replace") if isinstance(text, bytes) else str(text)
