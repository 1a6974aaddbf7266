"""Unpacks one archive, in a process of its own: `python -m ingestd.sources.unpack OPTIONS ARCHIVE INTO LISTING`.

Whatever a hostile archive does to the libraries that read it, it does to this process alone. INTO is an empty folder;
LISTING is written when all is well: one JSON object a line (see `Writer.listing`). The last line of the standard
output says how it went: `{"entries": …, "bytes": …, "program": [name, version] or null}`, or
`{"code": …, "detail": …, "violations": […]}` with exit code 1. Two codes are this program's own: `not_an_archive`
(what is compressed is no tar) and `unsupported` (another program may be able to). Names need a UTF-8 locale; the pool
sets one.

Only the one reader that the archive's first bytes ask for is switched on (see `readers`).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ingestd.errors import Code, IngestError
from ingestd.sources.findings import failure
from ingestd.sources.names import open_plain
from ingestd.sources.readers import NotAnArchive, Unsupported, library, read_other, read_tar, read_zip
from ingestd.sources.writer import Limits, Writer

NOT_AN_ARCHIVE = "not_an_archive"
UNSUPPORTED = "unsupported"


def unpack(file: IO[bytes], writer: Writer, *, form: str, filter_name: str, unwrap: bool = True) -> None:
    """Write everything in the archive through `writer`, links resolved. Raises `IngestError`, `NotAnArchive` for
    something compressed that is no tar, `Unsupported`.
    """
    if form == "zip":
        read_zip(file, writer, foretell=writer.expect)
    elif form == "tar":
        read_tar(file, writer, filter_name=filter_name)
    else:
        read_other(file, writer, form=form)
    writer.finish(unwrap=unwrap)


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
        unpack(file, writer, form=options.format, filter_name=options.filter, unwrap=not options.keep_top)
    with contextlib.closing(options.listing.open("w", encoding="utf-8")) as out:
        writer.listing(out)
    return {"entries": writer.meter.entries, "bytes": writer.meter.bytes, "program": library(options.format)}


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
    parser.add_argument("--keep-top", action="store_true")
    for name in ("--max-entries", "--max-bytes", "--ratio-from-bytes", "--max-depth"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--max-ratio", type=float, required=True)
    parser.add_argument("archive")
    parser.add_argument("into", type=Path)
    parser.add_argument("listing", type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
