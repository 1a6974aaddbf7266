"""Unpacks one archive, in a process of its own: `python -m ingestd.sources.unpack OPTIONS ARCHIVE INTO LISTING`.

Whatever a hostile archive does to the libraries that read it, it does to this process alone. INTO is an empty folder;
LISTING is written when all is well: one JSON object a line (see `Writer.listing`). The last line of the standard
output says how it went: `{"entries": …, "bytes": …}`, or `{"code": …, "detail": …, "violations": […]}` with exit
code 1. Two codes are this program's own: `not_an_archive` (what is compressed is no tar) and `unsupported`
(another program may be able to). Names need a UTF-8 locale; the pool sets one.

Only the one reader that the archive's first bytes ask for is switched on. gzip, bzip2 and xz are read by Python's own
modules: libarchive does not look at the checksum at the end of a gzip stream.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import ctypes
import errno
import gzip
import io
import json
import logging
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any

import libarchive
from libarchive import ffi

from ingestd.errors import Code, IngestError
from ingestd.sources.findings import failure
from ingestd.sources.names import open_plain
from ingestd.sources.writer import CHUNK_BYTES, Limits, Writer

NOT_AN_ARCHIVE = "not_an_archive"
UNSUPPORTED = "unsupported"

_PASSWORD = re.compile(r"encrypt|passphrase|password|decrypt", re.IGNORECASE)
_UNSUPPORTED = re.compile(r"unsupported|not supported|unknown (compression|method|codec)|unavailable", re.IGNORECASE)
_UNRECOGNIZED = re.compile(r"unrecognized archive format", re.IGNORECASE)
_STREAM_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)

_STREAMS: dict[str, Callable[[IO[bytes]], io.BufferedIOBase]] = {
    "gzip": partial(gzip.GzipFile, None, "rb", 9),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}

_is_encrypted = ffi.ffi("entry_is_encrypted", [ffi.c_archive_entry_p], ctypes.c_int)
_has_encrypted = ffi.ffi("read_has_encrypted_entries", [ffi.c_archive_p], ctypes.c_int)


class Damaged(Exception):
    """A compressed stream is not what its own checksum says."""


class NotAnArchive(Exception):
    """What is compressed is a file, not a tar."""


class Unsupported(Exception):
    """libarchive does not know how to read this."""


class Stream:
    """A decompressed stream, handed to libarchive block by block; a failure is kept, as C cannot carry it."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self.stream = stream
        self.error: Exception | None = None
        self._buffer = ctypes.create_string_buffer(CHUNK_BYTES)
        self._view = memoryview(self._buffer).cast("B")

    def read(self, _archive: Any, _context: Any, pointer: Any) -> int:
        """Libarchive's read callback: the number of bytes now in the buffer, 0 at the end, negative on failure."""
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.addressof(self._buffer)
        try:
            return int(self.stream.readinto(self._view))
        except (MemoryError, *_STREAM_ERRORS) as error:
            self.error = error
            return int(ffi.ARCHIVE_FATAL)

    def rest(self) -> Iterator[memoryview]:
        """What follows the archive's end marker; reading it verifies the stream's own checksum."""
        try:
            while block := self.stream.read(CHUNK_BYTES):
                yield memoryview(block)
        except _STREAM_ERRORS as error:
            raise Damaged(str(error)) from error


def unpack(file: IO[bytes], writer: Writer, *, form: str, filter_name: str) -> None:
    """Write everything in the archive through `writer`, links resolved. Raises `IngestError`, `NotAnArchive` for
    something compressed that is no tar, `Unsupported`.
    """
    stream = Stream(_STREAMS[filter_name](file)) if filter_name in _STREAMS else None
    found = 0
    try:
        with _reader(file, stream, form, filter_name) as archive:
            for entry in archive:
                found += 1
                _take(archive, entry, writer)
        if stream:
            writer.drain(stream.rest())
    except (libarchive.ArchiveError, Damaged) as error:
        raise _explain(error, stream, found) from error
    if not found and filter_name != "none":
        raise NotAnArchive
    writer.finish()


def _reader(file: IO[bytes], stream: Stream | None, form: str, filter_name: str) -> Any:
    if stream:
        return libarchive.custom_reader(stream.read, form, "none")
    return libarchive.fd_reader(file.fileno(), form, filter_name)


def _take(archive: Any, entry: Any, writer: Writer) -> None:
    """Hand one entry to the writer by what it is."""
    pointer = entry._entry_p  # noqa: SLF001  the library decodes names; we need their bytes
    parts = writer.admit(ffi.entry_pathname(pointer))
    chunks = _chunks(archive, pointer)
    if parts is None:
        writer.drain(chunks)
        return
    kind = stat.S_IFMT(ffi.entry_filetype(pointer))
    hard, soft = ffi.entry_hardlink(pointer), ffi.entry_symlink(pointer)
    if hard is not None and not (ffi.entry_size_is_set(pointer) and ffi.entry_size(pointer) > 0):
        writer.hard_link(parts, hard)
    elif kind == stat.S_IFLNK and soft is not None:
        writer.symlink(parts, soft)
    elif kind == stat.S_IFDIR:
        writer.directory(parts)
    elif kind in (0, stat.S_IFREG):
        writer.file(parts, chunks, mtime_ns=_mtime(pointer))
    else:
        writer.special(parts, _special(kind))


def _special(kind: int) -> str:
    names = {stat.S_IFIFO: "a fifo", stat.S_IFCHR: "a character device", stat.S_IFBLK: "a block device"}
    return names.get(kind, "a socket, or nothing known")


def _mtime(pointer: Any) -> int | None:
    if not ffi.entry_mtime_is_set(pointer):
        return None
    return int(ffi.entry_mtime(pointer)) * 1_000_000_000 + int(ffi.entry_mtime_nsec(pointer))


def _chunks(archive: Any, pointer: Any) -> Iterator[memoryview]:
    """The content of an entry. A view is only good until the next one is asked for."""
    buffer = ctypes.create_string_buffer(CHUNK_BYTES)
    view = memoryview(buffer).cast("B")
    if _is_encrypted(pointer):
        raise _locked()
    while True:
        size = ffi.read_data(archive._pointer, buffer, CHUNK_BYTES)  # noqa: SLF001  as above
        if size < 0:  # what libarchive calls a warning is a checksum that does not match
            raise ffi.archive_error(archive._pointer, size)  # noqa: SLF001  as above
        if size == 0:
            return
        yield view[:size]


def _explain(error: Exception, stream: Stream | None, found: int) -> Exception:
    """Say in our words why an archive could not be read to its end."""
    if stream and isinstance(stream.error, MemoryError):
        return stream.error
    if stream and stream.error:
        error = stream.error
    text = _words(error)
    if _PASSWORD.search(text):
        return _locked()
    if _UNRECOGNIZED.search(text) and stream and not found:
        return NotAnArchive()
    if _UNSUPPORTED.search(text):
        return Unsupported(text)
    return failure(Code.CONTENT_ARCHIVE_CORRUPT, f"the archive is damaged after {found} entries: {text}")


def _words(error: Exception) -> str:
    text = getattr(error, "msg", None) or str(error)
    text = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else str(text)
    return "".join(char if char.isprintable() else "?" for char in text)[:500]


def _locked() -> IngestError:
    return failure(Code.CONTENT_ARCHIVE_CORRUPT, "the archive is encrypted: it cannot be opened without its password")


def _no_room(error: OSError, into: Path) -> IngestError | None:
    """See in an error of the operating system that a resource ran out."""
    if error.errno == errno.EFBIG:
        return failure(Code.CONTENT_ARCHIVE_BOMB, "a file in the archive is larger than tools.file_bytes allows")
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    room = os.statvfs(into)
    if room.f_files and not room.f_favail:
        return failure(Code.RESOURCE_INODES, "the file system can hold no more files")
    free = room.f_bavail * room.f_frsize
    return failure(Code.RESOURCE_DISK, f"the disk is full while unpacking: {free} bytes are free")


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    logging.getLogger("libarchive").addHandler(logging.NullHandler())
    try:
        answer = _run(options)
    except NotAnArchive:
        answer = {"code": NOT_AN_ARCHIVE}
    except Unsupported as error:
        answer = {"code": UNSUPPORTED, "detail": str(error)}
    except IngestError as error:
        answer = _answer(error)
    except MemoryError:
        detail = "unpacking needs more memory than a program may have (tools.memory_bytes)"
        answer = {"code": Code.TOOL_KILLED_MEMORY.value, "detail": detail}
    except OSError as error:
        known = _no_room(error, options.into)
        if known is None:
            raise
        answer = _answer(known)
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "code" in answer else 0


def _run(options: argparse.Namespace) -> dict[str, Any]:
    with os.fdopen(open_plain(options.archive, os.O_RDONLY), "rb") as file:
        limits = Limits(
            max_entries=options.max_entries,
            max_bytes=options.max_bytes,
            max_ratio=options.max_ratio,
            ratio_from_bytes=options.ratio_from_bytes,
            max_depth=options.max_depth,
            archive_bytes=os.fstat(file.fileno()).st_size,
        )
        writer = Writer(os.fsencode(options.into), limits=limits, algorithm=options.algorithm)
        unpack(file, writer, form=options.format, filter_name=options.filter)
    with contextlib.closing(options.listing.open("w", encoding="utf-8")) as out:
        writer.listing(out)
    return {"entries": writer.meter.entries, "bytes": writer.meter.bytes}


def _answer(error: IngestError) -> dict[str, Any]:
    return {
        "code": error.code.value,
        "detail": error.detail,
        "violations": [asdict(violation) for violation in error.violations],
    }


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ingestd.sources.unpack", allow_abbrev=False)
    parser.add_argument("--format", required=True)
    parser.add_argument("--filter", required=True)
    parser.add_argument("--algorithm", required=True)
    for name in ("--max-entries", "--max-bytes", "--ratio-from-bytes", "--max-depth"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--max-ratio", type=float, required=True)
    parser.add_argument("archive")
    parser.add_argument("into", type=Path)
    parser.add_argument("listing", type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
