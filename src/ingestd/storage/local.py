"""A store in a folder, of a local or a shared file system.

A file is first made complete in a folder of its own and flushed to disk, and only then given its name, in a way that
refuses to replace anything. A crash leaves either nothing under the name or the whole of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from ingestd.errors import Code, DependencyError, ResourceError, StorageError
from ingestd.fixity import digest_now
from ingestd.premis import DigestAlgorithm
from ingestd.storage.conditional import LocalConditional
from ingestd.storage.disk import make_folder, name_once, sync_folder, written
from ingestd.storage.store import Entry, keys_of
from ingestd.workfolder import ran_out, unusable

_CHUNK_BYTES = 1024 * 1024
_PAGE = 500


class LocalStore:
    """Files below a folder. They are made in its folder `parts`: beside its place, a part would need a name that no
    archived file may have.
    """

    def __init__(self, root: Path, *, parts: str = ".ingestd/parts") -> None:
        self.root = root
        self._parts = root / parts

    def url_of(self, key: str) -> str:
        return (self.root / key).as_uri()

    def name_of(self, key: str) -> str:
        return key

    def documents(self, folder: str) -> LocalConditional:
        return LocalConditional(self.root / folder)

    async def aclose(self) -> None:
        """Nothing is open."""

    async def put(self, key: str, source: Path, *, take: bool = False, over: bool = False) -> None:
        def put() -> None:
            place = self.root / key
            part = self._part(key)
            if os.path.lexists(place) and not over:
                if part.exists() and part.samefile(place):
                    part.unlink()  # a crash between the two names of a finished file left the first
                raise FileExistsError(key)
            make_folder(place.parent)
            _bring(source, part, take=take)
            _flush_folders(place.parent)
            if over:
                part.replace(place)
                sync_folder(place.parent)
            else:
                name_once(part, place)

        with _translated(self.root, key):
            await asyncio.to_thread(put)

    async def create(self, key: str, content: bytes) -> bool:
        def create() -> bool:
            place = self.root / key
            with self._written(place, content) as new:
                try:
                    name_once(new, place)
                except FileExistsError:
                    return False
            return True

        with _translated(self.root, key):
            return await asyncio.to_thread(create)

    async def write(self, key: str, content: bytes) -> None:
        def write() -> None:
            place = self.root / key
            with self._written(place, content) as new:
                new.replace(place)
            sync_folder(place.parent)

        with _translated(self.root, key):
            await asyncio.to_thread(write)

    async def read(self, key: str) -> bytes | None:
        with _translated(self.root, key):
            try:
                return await asyncio.to_thread((self.root / key).read_bytes)
            except (FileNotFoundError, NotADirectoryError):
                return None

    async def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        with _translated(self.root, key):
            file = await asyncio.to_thread((self.root / key).open, "rb")
            try:
                file.seek(start)
                left = end - start if end is not None else None
                while left is None or left > 0:
                    want = _CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES)
                    chunk = await asyncio.to_thread(file.read, want)
                    if not chunk:
                        return
                    left = left - len(chunk) if left is not None else None
                    yield chunk
            finally:
                file.close()

    async def digests(self, key: str, algorithms: Sequence[DigestAlgorithm]) -> Mapping[DigestAlgorithm, str]:
        def compute() -> Mapping[DigestAlgorithm, str]:
            _forget_cached(self.root / key)
            return digest_now(self.root / key, algorithms)

        with _translated(self.root, key):
            return await asyncio.to_thread(compute)

    async def head(self, key: str) -> Entry | None:
        with _translated(self.root, key):
            return await asyncio.to_thread(self._head, key)

    def _head(self, key: str) -> Entry | None:
        path = self.root / key
        if not path.is_file():
            return None
        found = path.stat()
        modified_at = datetime.fromtimestamp(found.st_mtime, UTC)
        return Entry(key=key, size_bytes=found.st_size, modified_at=modified_at)

    async def is_folder(self, key: str) -> bool:
        return await asyncio.to_thread((self.root / key).is_dir)

    async def list(self, prefix: str = "", after: str = "") -> AsyncIterator[Entry]:
        found = _walk(self.root, prefix, after)
        while page := await asyncio.to_thread(lambda: list(islice(found, _PAGE))):
            for key in page:
                entry = self._head(key)
                if entry is not None:
                    yield entry

    async def delete(self, key: str) -> None:
        def delete() -> None:
            path = self.root / key
            _remove(path)
            _remove(self._part(key))
            with contextlib.suppress(OSError):  # folders that are empty now, up to the root
                for folder in path.parents:
                    if folder == self.root:
                        break
                    folder.rmdir()

        with _translated(self.root, key):
            await asyncio.to_thread(delete)

    @contextlib.contextmanager
    def _written(self, place: Path, content: bytes) -> Iterator[Path]:
        make_folder(place.parent)
        with written(self._parts / uuid.uuid4().hex, content) as new:
            yield new

    def _part(self, key: str) -> Path:
        return self._parts / hashlib.sha256(os.fsencode(key)).hexdigest()

    async def check(self) -> None:
        def probe() -> None:
            self.root.mkdir(parents=True, exist_ok=True)
            path = self.root / f".probe-{uuid.uuid4()}"
            path.touch()
            path.unlink()

        try:
            await asyncio.to_thread(probe)
        except OSError as error:
            barred = unusable(error, f"archival storage at {self.root}", "locations")
            raise barred or DependencyError(
                f"cannot write to archival storage at {self.root}: {error.strerror}",
                code=Code.DEPENDENCY_STORAGE_UNAVAILABLE,
            ) from error


def _walk(root: Path, prefix: str, after: str) -> Iterator[str]:
    """Give files in the order of their keys' words, a folder at a time in memory."""
    try:
        found = {item.name: item for item in os.scandir(root / prefix)}
    except (FileNotFoundError, NotADirectoryError):
        return
    for key, item in keys_of(found, prefix, after):
        if item.is_dir(follow_symlinks=False):
            yield from _walk(root, key, after)
        elif key.split("/") > after.split("/"):
            yield key


def _bring(source: Path, part: Path, *, take: bool) -> None:
    make_folder(part.parent)
    if not source.exists():
        if part.exists():  # moved here before a crash, perhaps before it was on disk
            _flush(part)
            _flush_folders(part.parent)
            return
        raise StorageError(f"{source.name} is gone before it was stored", code=Code.STORAGE_UPLOAD_FAILED)
    _remove(part)
    if not take or not _moved(source, part):
        _copy(source, part)
    _flush(part)
    _flush_folders(part.parent)


def _moved(source: Path, part: Path) -> bool:
    try:
        source.rename(part)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _copy(source: Path, part: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, part, symlinks=True)
    else:
        shutil.copyfile(source, part)


def _flush(path: Path) -> None:
    """Wait until a file, or all of a folder, is on disk, and drop it from the cache: reading it back then does read."""
    if path.is_dir():
        for folder, _, files in os.walk(path):
            for file in files:
                _flush(Path(folder) / file)
            sync_folder(Path(folder))
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _forget_cached(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _flush_folders(folder: Path) -> None:
    """Make the new folders of the pairtree durable, up to the root of the store."""
    for path in [folder, *list(folder.parents)[:8]]:
        sync_folder(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(NotADirectoryError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _translated(root: Path, key: str) -> Iterator[None]:
    name = key.rpartition("/")[2]
    try:
        yield
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            found = ran_out(root)
            raise ResourceError(f"archival storage, while storing {name}: {found.detail}", code=found.code) from error
        raise StorageError(f"cannot store {name}: {error.strerror}", code=Code.STORAGE_UPLOAD_FAILED) from error
