"""A package's working folder: who holds it, and how it is emptied."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ingestd.errors import Code, IngestError, ResourceError, SystemFault


def ran_out(where: Path) -> ResourceError:
    """Say which resource a write to `where`, or to a folder that could not be made, found none left of: room for
    files, or for bytes.
    """
    while not where.exists() and where != where.parent:
        where = where.parent
    try:
        room = os.statvfs(where)
    except OSError:
        return ResourceError("no space is left", code=Code.RESOURCE_DISK)
    if room.f_files and not room.f_favail:
        return ResourceError("the file system can hold no more files", code=Code.RESOURCE_INODES)
    free = room.f_bavail * room.f_frsize
    return ResourceError(f"no space is left: {free} bytes are free", code=Code.RESOURCE_DISK)


def fault(error: Exception, folder: Path) -> IngestError:
    """Word what should not have happened while a package was worked on in `folder`."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        found = ran_out(folder)
        return ResourceError(f"on the working disk {found.detail}", code=found.code)
    if isinstance(error, IngestError):
        return error
    words = error.strerror if isinstance(error, OSError) else str(error)  # an OSError's own words name paths
    return SystemFault(f"{type(error).__name__}: {words}")


class FolderBusy(Exception):
    """Another process is at work on the package."""


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Hold the package's folder for this process; the lock goes when the process goes, however it goes.

    Raises `FolderBusy`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        yield


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that is this file. Raises `FolderBusy`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderBusy(path.parent.name) from error
        if not _is_still(descriptor, path):
            raise FolderBusy(path.parent.name)  # it was moved away in this moment
        yield
    finally:
        os.close(descriptor)


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_busy(folder: Path) -> bool:
    """Say whether a process is at work on the package."""
    if not folder.exists():
        return False
    try:
        with hold_folder(folder):
            return False
    except FolderBusy:
        return True


def empty(folder: Path) -> None:
    """Remove what an attempt left; the lock stays, since it is held."""
    for path in folder.iterdir():
        if path.name == "lock":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def used(folder: Path) -> tuple[int, int]:
    """Bytes and files of a package's working folder; what comes and goes meanwhile is counted as it may."""
    size = files = 0
    for parent, folders, names in os.walk(folder):
        files += len(folders) + len(names)
        for name in names:
            with contextlib.suppress(OSError):
                size += (Path(parent) / name).lstat().st_size
    return size, files
