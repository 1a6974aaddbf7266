"""A look into an archive before it is received: listed by the readers that will unpack it, within limits.

Of a zip and a tar, headers alone are read, of a 7z and a RAR its list; what is compressed as a whole is decompressed
while there is time. Zips are listed here, since Python's own module reads them; 7z by the 7z program; the rest in a
process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import ingestd
from ingestd.errors import ContentError, ToolError
from ingestd.sources.contents import limits_of
from ingestd.sources.kinds import Archive, archive_in
from ingestd.sources.lister import OUT_OF_TIME, EnoughError, Lister, Listing, Order, list_file, read_listing
from ingestd.sources.names import open_plain
from ingestd.sources.overview import Bounds, Overview
from ingestd.sources.records import Checked
from ingestd.sources.sevenzip import listed_by_7z, seven_zip, take_with_7z
from ingestd.sources.writer import KEPT_NAMES
from ingestd.together import Worker

if TYPE_CHECKING:
    from ingestd.config import UnpackSettings
    from ingestd.tools.pool import Limits, Pool

_LISTER = "ingestd.sources.lister"
_DIRECTORY_BYTES = 64 * 2**20
"""Largest central directory of a zip that is read."""

_READS_AT_MOST = 4
"""How many of the largest files that are read may be kept of one archive."""
_GRACE_SECONDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What is read of an archive besides its names: files that are called by one of the patterns `wanted`."""

    wanted: Sequence[str]
    file_bytes: int


async def list_archive(
    checked: Checked, into: Path, unpack: UnpackSettings, pool: Pool, *, bounds: Bounds, reading: Reading
) -> Overview | None:
    """Look into a local archive, with the readers that will unpack it; None for what only unpacking tells.

    Of a zip and a tar, headers alone are read; what is compressed as a whole is decompressed while there is time. The
    files that are wanted are kept in the folder `into` for as long as the overview is used. Raises `OSError`.
    """
    path, worker = str(checked.path), Worker()
    archive, size = await worker.run(lambda: _archive_at(path))
    if archive is None:
        return None
    order = Order(
        path=path,
        form=archive.form,
        filter_name=archive.filter_name,
        certain=archive.certain,
        into=str(into),
        limits=asdict(limits_of(unpack, size)),
        entries=bounds.entries,
        seconds=max(0.0, bounds.until - time.monotonic()),
        file_bytes=reading.file_bytes,
        bytes=_READS_AT_MOST * reading.file_bytes,
        wanted=reading.wanted,
    )
    try:
        async with asyncio.timeout(order.seconds + 2 * _GRACE_SECONDS):
            if archive.form == "zip":
                listing = await worker.run(lambda: _listed_here(order, bounds, worker.breathe))
            elif archive.form == "7zip" and seven_zip(pool) is not None:
                listing = await _listed_by_7z(order, pool)
            else:
                listing = await _listed_apart(order, pool)
    except (TimeoutError, ToolError):
        return None
    return _overview_of(listing) if listing is not None else None


def _archive_at(path: str) -> tuple[Archive | None, int]:
    descriptor = open_plain(path, os.O_RDONLY)
    try:
        return archive_in(descriptor), os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _listed_here(order: Order, bounds: Bounds, breathe: Callable[[], None]) -> Listing | None:
    def watch() -> None:
        breathe()
        if time.monotonic() > bounds.until:
            raise EnoughError(OUT_OF_TIME)

    with os.fdopen(open_plain(order.path, os.O_RDONLY), "rb") as file:
        if _directory_bytes(file.fileno()) > _DIRECTORY_BYTES:
            return None
        return list_file(file, order, watch)


async def _listed_apart(order: Order, pool: Pool) -> Listing | None:
    """List in a process of its own: what reads these is not to be trusted with hostile ones."""
    argv = [sys.executable, "-P", "-m", _LISTER, json.dumps(asdict(order))]
    env = {"PYTHONPATH": str(Path(ingestd.__file__).parent.parent)}
    run = await pool.run(argv, limits=_limits(pool, order.seconds), env=env, writes=[Path(order.into)], name="list")
    try:
        return await asyncio.to_thread(read_listing, Path(order.into), run.stdout)
    except ValueError:
        return None  # it was stopped, or died of the archive


async def _listed_by_7z(order: Order, pool: Pool) -> Listing:
    """List a 7z, and take out what is wanted, which may cost the decompression of what is before it."""
    program = seven_zip(pool) or ""
    until = time.monotonic() + order.seconds
    lister, linked, said = Lister(replace(order, wanted=()), lambda: None), False, ""
    try:
        async with aclosing(listed_by_7z(program, order.path, pool, _limits(pool, order.seconds))) as entries:
            async for one in entries:
                if parts := lister.admit(one.raw):
                    linked = linked or one.link
                    if one.encrypted:
                        lister.locked(parts)
                    if one.folder:
                        lister.directory(parts)
                    else:
                        lister.file(parts, (), size_bytes=one.size_bytes, mtime_ns=None)
    except EnoughError as enough:
        said = str(enough)
    except ContentError as error:
        return lister.finish(error=error)
    listing = lister.finish(said=said or ("where links in it lead is seen when it is unpacked" if linked else ""))
    names: list[str] = []
    kept_bytes = 0
    for path, size in listing.entries.items():
        if size is not None and order.wants(path, size, kept_bytes):
            names.append(path)
            kept_bytes += size
    names = [name for name in names if name.isprintable()]
    if names and listing.error is None:
        taken = Path(order.into) / "taken"
        await take_with_7z(order.path, names, taken, pool, _limits(pool, until - time.monotonic()))
        listing.kept |= await asyncio.to_thread(lambda: {name: taken / name for name in names if _plain(taken / name)})
    return listing


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _limits(pool: Pool, seconds: float) -> Limits:
    return replace(pool.limits, wall_seconds=max(0.0, seconds) + _GRACE_SECONDS)


def _overview_of(listing: Listing) -> Overview:
    wrapping = _wrapping(listing.entries) if not listing.said else ""
    entries = {path.removeprefix(wrapping): size for path, size in listing.entries.items() if path != wrapping[:-1]}

    @contextlib.contextmanager
    def opened(path: str) -> Iterator[Path]:
        kept = listing.kept.get(wrapping + path)
        if kept is None:
            raise OSError("it was not taken out of the archive (preflight.max_metadata_bytes)")
        yield kept

    return Overview(entries=entries, opened=opened, said=listing.said, error=listing.error)


def _directory_bytes(fd: int) -> int:
    """How large a zip's end record says that its central directory is (APPNOTE 4.3.16)."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, 65_557, max(0, size - 65_557))
    end = tail.rfind(b"PK\x05\x06")
    return int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0


def _wrapping(entries: Mapping[str, int | None]) -> str:
    """The one folder around everything, with its slash, where it is dropped when the archive is unpacked."""
    tops = {path.partition("/")[0] for path in entries}
    top = next(iter(tops), "")
    single = len(tops) == 1 and entries.get(top, 0) is None and os.fsencode(top) not in KEPT_NAMES
    return f"{top}/" if single else ""
