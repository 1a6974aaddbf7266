"""AIPs on a local or shared file system, in Archivematica's pairtree: the UUID in eight groups of four, then the name.

An AIP is first made complete beside its place, flushed to disk, read back, and only then given its name, in a way
that refuses to replace anything. A crash leaves either nothing under the name or the whole AIP.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import uuid
from pathlib import Path

from ingestd.errors import Code, DependencyError, ResourceError, StorageError
from ingestd.fixity import digest_file, digest_now
from ingestd.premis import DigestAlgorithm, now
from ingestd.storage import Stored

_CHUNK_BYTES = 1024 * 1024


class LocalStorage:
    """A folder that keeps AIPs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def store(
        self, source: Path, *, package: uuid.UUID, name: str, size_bytes: int, algorithm: DigestAlgorithm, digest: str
    ) -> Stored:
        place = self.root / pairtree(package) / name
        try:
            there = await asyncio.to_thread(os.path.lexists, place)
            if there or not await self._put(source, place, algorithm, digest):
                await self._prove(place, algorithm, digest)
            stored_at = now()
        except OSError as error:
            raise _translate(error, place) from error
        return Stored(
            url=place.as_uri(),
            size_bytes=size_bytes,
            algorithm=algorithm,
            digest=digest,
            stored_at=stored_at,
            verified_at=now(),
            verified_by=f"{algorithm} read back from the store",
        )

    async def locate(self, package: uuid.UUID) -> str | None:
        def look() -> str | None:
            folder = self.root / pairtree(package)
            found = sorted(path for path in folder.glob("*") if not path.name.endswith(".part"))
            return found[0].as_uri() if found else None

        return await asyncio.to_thread(look)

    async def check(self) -> None:
        def probe() -> None:
            self.root.mkdir(parents=True, exist_ok=True)
            path = self.root / f".probe-{uuid.uuid4()}"
            path.touch()
            path.unlink()

        try:
            await asyncio.to_thread(probe)
        except OSError as error:
            raise DependencyError(
                f"cannot write to archival storage at {self.root}: {error.strerror}",
                code=Code.DEPENDENCY_STORAGE_UNAVAILABLE,
            ) from error

    async def _put(self, source: Path, place: Path, algorithm: DigestAlgorithm, digest: str) -> bool:
        """Bring `source` onto the store's file system beside its place, prove it there, then name it.

        False when the name was taken in this moment: whether by the same AIP, is for the caller to prove.
        """
        part = place.with_name(f"{place.name}.part")
        await asyncio.to_thread(_bring, source, part)
        await self._prove_part(part, algorithm, digest)
        try:
            await asyncio.to_thread(_name_once, part, place)
        except FileExistsError:
            await asyncio.to_thread(_remove, part)
            return False
        return True

    async def _prove_part(self, part: Path, algorithm: DigestAlgorithm, digest: str) -> None:
        found = await _digest(part, algorithm)
        if found != digest:
            await asyncio.to_thread(_remove, part)
            raise StorageError(
                f"what was written to {part.parent} reads back differently: {algorithm} {found}, expected {digest}",
                code=Code.STORAGE_VERIFY_MISMATCH,
            )

    async def _prove(self, place: Path, algorithm: DigestAlgorithm, digest: str) -> None:
        found = await _digest(place, algorithm)
        if found != digest:
            raise StorageError(
                f"{place} is there with other content: {algorithm} {found}, expected {digest}",
                code=Code.STORAGE_CONFLICT,
            )
        # A crash between the two names of a finished file leaves the first.
        await asyncio.to_thread(_remove, place.with_name(f"{place.name}.part"))


def pairtree(package: uuid.UUID) -> Path:
    """The folders of a package: its UUID's hexadecimal digits in eight groups of four."""
    digits = package.hex
    return Path(*[digits[at : at + 4] for at in range(0, 32, 4)])


async def _digest(path: Path, algorithm: DigestAlgorithm) -> str:
    """A file's digest; of a folder (an uncompressed AIP) that of its tag manifest, once the bag agrees with it."""
    if await asyncio.to_thread(path.is_dir):
        wrong = await asyncio.to_thread(_first_difference, path, algorithm)
        if wrong:
            return f"differs at {wrong}"
        path = path / f"tagmanifest-{algorithm}.txt"
    return (await digest_file(path, [algorithm]))[algorithm]


def _first_difference(bag: Path, algorithm: DigestAlgorithm) -> str:
    """Read every file that the bag's manifests list; name the first that is missing or other, or that nobody lists."""
    listed = 1  # the tag manifest itself
    for manifest in (f"tagmanifest-{algorithm}.txt", f"manifest-{algorithm}.txt"):
        with (bag / manifest).open("rb") as lines:
            for line in lines:
                digest, _, name = line.rstrip(b"\n").partition(b"  ")
                # RFC 8493, 2.1.3
                raw = name.replace(b"%0D", b"\r").replace(b"%0A", b"\n").replace(b"%25", b"%")
                path = bag / os.fsdecode(raw)
                if not path.is_file() or digest_now(path, [algorithm])[algorithm] != digest.decode():
                    return name.decode("utf-8", errors="backslashreplace")
                listed += 1
    there = sum(len(files) for _, _, files in os.walk(bag))
    return "" if there == listed else f"{there} files, of which {listed} are listed"


def _bring(source: Path, part: Path) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        if part.exists():  # moved here before a crash, perhaps before it was on disk
            _flush(part)
            _flush_folders(part.parent)
            return
        raise StorageError(f"{source.name} is gone before it was stored", code=Code.STORAGE_UPLOAD_FAILED)
    _remove(part)
    try:
        source.rename(part)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, part)
    _flush(part)
    _flush_folders(part.parent)


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
            _sync_folder(Path(folder))
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _flush_folders(folder: Path) -> None:
    """Make the new folders of the pairtree durable, up to the root of the store."""
    for path in [folder, *list(folder.parents)[:8]]:
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name_once(part: Path, place: Path) -> None:
    """Give the AIP its name; raise `FileExistsError` rather than replace anything."""
    if place.exists():
        raise FileExistsError(place)
    if part.is_dir() or not _linked(part, place):
        part.rename(place)  # a folder replaces nothing: renaming onto one that is not empty fails
    _sync_folder(place.parent)


def _linked(part: Path, place: Path) -> bool:
    """Name a file by a hard link, which never replaces; say False where the file system has none."""
    try:
        os.link(part, place)
    except OSError as error:
        if error.errno in {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}:
            return False
        raise
    part.unlink()
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _translate(error: OSError, place: Path) -> Exception:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ResourceError(f"archival storage is full while storing {place.name}", code=Code.RESOURCE_DISK)
    return StorageError(f"cannot store {place.name}: {error.strerror}", code=Code.STORAGE_UPLOAD_FAILED)
