"""Receives a source of whatever kind: fetch it, see what it is, hold it against its checksum, take it in."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ingestd.premis import Digest, DigestAlgorithm, now
from ingestd.sources.archives import Acted, NotAnArchive, receive_archive
from ingestd.sources.copying import changed, copy, digest_of, no_room, reserve, same
from ingestd.sources.downloads import download, forget_download
from ingestd.sources.findings import compare
from ingestd.sources.folders import Known, receive_folder
from ingestd.sources.kinds import Archive, archive_in
from ingestd.sources.locations import (
    check,
    checksum_of_folder,
    is_object,
    is_remote,
    parse_object_url,
    too_large,
    unreadable,
)
from ingestd.sources.names import open_plain
from ingestd.sources.objects import fetch_object, look, receive_objects
from ingestd.sources.records import Checksum, Kind, Received, Source, modified_at
from ingestd.together import Worker

if TYPE_CHECKING:
    from ingestd.config import SourceSettings, UnpackSettings
    from ingestd.tools.pool import Pool


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """A local file that is to be received: its real path, its name, what it was when it was first looked at."""

    path: str
    name: str
    seen: os.stat_result
    archive: Archive | None


async def receive(
    source: Source,
    into: Path,
    *,
    settings: SourceSettings,
    unpack: UnpackSettings,
    algorithm: DigestAlgorithm,
    pool: Pool,
    trusted: bool,
    known: Known,
    scratch: Path,
    acted: Acted = lambda _: None,
) -> AsyncGenerator[Sequence[Received], None]:
    """Put the content of `source` into the folder `into`, and yield what is there in windows of at most 256.

    Parents come before children, names in the order of their bytes; empty directories are kept. `into` is empty or
    what an earlier, interrupted call left: a folder is then gone on with, a download too, an archive is unpacked anew.
    `known` tells which of some paths were recorded before: they are not yielded again. `scratch` is a folder of this
    package for what is only needed meanwhile; it is on the same disk and outlives a restart. `trusted` as for `check`.
    `acted` is told, before anything is yielded, of a program that unpacked an archive.

    An archive yields nothing before all of it is unpacked and checked, and leaves nothing behind if it is refused. An
    empty source yields nothing. Raises what `check` raises, and `source.changed`, `source.checksum_mismatch`,
    `source.download_interrupted`, `content.*`, `policy.*`, `resource.*`, `tool.*`.
    """
    worker = Worker()
    into, scratch = await worker.run(partial(_make, into, scratch))
    if is_remote(source.location):
        fetched = await download(source.location, scratch, settings=settings, trusted=trusted)
        file = await worker.run(partial(_look, str(fetched.path), fetched.name, source.location, settings))
    elif is_object(source.location):
        url = parse_object_url(source.location, settings, trusted=trusted)
        store = await look(url, source.credentials)
        if store.info is None:
            if source.checksum:
                raise checksum_of_folder()
            windows = receive_objects(store, into, settings=settings, algorithm=algorithm, known=known, scratch=scratch)
            async with aclosing(windows):
                async for window in windows:
                    yield window
            return
        path = await fetch_object(store, scratch, settings=settings)
        name = url.key.rpartition("/")[2]
        file = await worker.run(partial(_look, str(path), name, source.location, settings))
    else:
        checked = await check(source, settings, trusted=trusted)
        if checked.kind is Kind.FOLDER:
            windows = receive_folder(str(checked.path), into, settings=settings, algorithm=algorithm, known=known)
            async with aclosing(windows):
                async for window in windows:
                    yield window
            return
        file = await worker.run(partial(_look, str(checked.path), checked.name, source.location, settings))
    windows = _receive_file(
        file,
        source.checksum,
        into,
        unpack=unpack,
        algorithm=algorithm,
        pool=pool,
        known=known,
        scratch=scratch,
        acted=acted,
    )
    async with aclosing(windows):
        async for window in windows:
            yield window
    if is_remote(source.location) or is_object(source.location):
        await worker.run(partial(forget_download, scratch))


async def _receive_file(
    file: _File,
    checksum: Checksum | None,
    into: Path,
    *,
    unpack: UnpackSettings,
    algorithm: DigestAlgorithm,
    pool: Pool,
    known: Known,
    scratch: Path,
    acted: Acted,
) -> AsyncGenerator[Sequence[Received], None]:
    worker = Worker()
    if file.archive:
        if checksum:
            await worker.run(partial(_verify, file, checksum, worker))
        windows = receive_archive(
            file.path,
            file.archive,
            into,
            unpack=unpack,
            algorithm=algorithm,
            pool=pool,
            known=known,
            scratch=scratch,
            acted=acted,
        )
        try:
            async with aclosing(windows):
                async for window in windows:
                    # Nothing comes before all is unpacked: what was verified is what was unpacked.
                    await worker.run(partial(_still, file))
                    yield window
        except NotAnArchive:
            pass
        else:
            return
    received = await worker.run(partial(_take, file, checksum, into, algorithm, worker))
    if received.path not in await known([received.path]):
        yield [received]


def _look(path: str, name: str, location: str, settings: SourceSettings) -> _File:
    try:
        fd = open_plain(path, os.O_RDONLY)
    except OSError as error:
        raise unreadable(error, location) from error
    try:
        seen = os.fstat(fd)
        if seen.st_size > settings.max_bytes:
            raise too_large(settings, seen.st_size)
        return _File(path=path, name=name, seen=seen, archive=archive_in(fd))
    finally:
        os.close(fd)


def _verify(file: _File, checksum: Checksum, worker: Worker) -> None:
    fd = open_plain(file.path, os.O_RDONLY)
    try:
        if not same(file.seen, os.fstat(fd)):
            raise changed(file.name)
        value = digest_of(fd, checksum.algorithm, name=file.name, breathe=worker.breathe)
    finally:
        os.close(fd)
    compare(checksum, value)


def _still(file: _File) -> None:
    try:
        if same(file.seen, Path(file.path).lstat()):
            return
    except OSError:
        pass
    raise changed(file.name)


def _take(file: _File, checksum: Checksum | None, into: Path, algorithm: DigestAlgorithm, worker: Worker) -> Received:
    """Receive one file as what it is. A file that is not what its checksum says does not stay."""
    to = into / file.name
    algorithms = {algorithm, checksum.algorithm} if checksum else {algorithm}
    to.unlink(missing_ok=True)
    reserve(file.seen.st_size, str(into))
    try:
        fd = open_plain(file.path, os.O_RDONLY)
        try:
            digests = copy(
                fd,
                str(to),
                algorithms=sorted(algorithms),
                seen=file.seen,
                name=file.name,
                breathe=worker.breathe,
            )
        finally:
            os.close(fd)
        if checksum:
            compare(checksum, digests[checksum.algorithm])
    except OSError as error:
        to.unlink(missing_ok=True)
        raise no_room(error, str(into)) or error from error
    except BaseException:
        to.unlink(missing_ok=True)
        raise
    return Received(
        path=file.name,
        size_bytes=file.seen.st_size,
        digest=Digest(algorithm=algorithm, value=digests[algorithm], calculated_at=now()),
        modified_at=modified_at(file.seen.st_mtime_ns),
    )


def _make(into: Path, scratch: Path) -> tuple[Path, Path]:
    """Make both folders; give their real paths, which no symlink can later turn elsewhere."""
    into.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    return into.resolve(), scratch.resolve()
