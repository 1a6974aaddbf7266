"""A package's working folder: who holds it, and how it is emptied."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ingestd.errors import Code, IngestError, ResourceError, SystemFault
from ingestd.oais import escape_name


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


_BARRED = {errno.EROFS, errno.EACCES, errno.EPERM}
_MOUNT = "Mount its file system so that it can be written (one becomes read-only by itself when its disk fails)"
_ALLOW = "Give the account that ingestd runs as (uid {uid}) the right to read and write there"
_REMOVE = "Take the file away that is where a folder should be"
_WHAT_TO_DO: Mapping[int, str] = {
    errno.EROFS: _MOUNT,
    errno.EACCES: _ALLOW,
    errno.EPERM: _ALLOW,
    errno.ENOTDIR: _REMOVE,
    errno.EEXIST: _REMOVE,
}


class UnusableError(SystemFault):
    """A folder of the settings is read-only, forbidden, or none: `system.configuration`."""

    default_code = Code.SYSTEM_CONFIGURATION


def unusable(error: OSError, what: str, setting: str = "data_dir") -> UnusableError | None:
    """Say that a folder of a setting cannot be used, if that is what the error says. `what` is how it is called to
    whoever reads this.
    """
    advice = _WHAT_TO_DO.get(error.errno or 0)
    if advice is None:
        return None
    return UnusableError(
        f"{what} cannot be used: {os.strerror(error.errno or 0)}",
        remediation=f"{advice.format(uid=os.geteuid())}, or name another folder (setting {setting}).",
    )


def prove_folder(folder: Path, setting: str) -> None:
    """Make a folder to work in, if need be, and see that files can be made in it.

    Raises `UnusableError`, which names it, and `ResourceError`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unusable(error, f"the folder {folder}", setting) or fault(error, folder) from error


def fault(error: Exception, folder: Path) -> IngestError:
    """Word what should not have happened while a package was worked on in `folder`, which is two below `data_dir`.

    Of the paths of this server nothing is told but what is below that.
    """
    if isinstance(error, IngestError):
        return error
    if not isinstance(error, OSError):
        return SystemFault(f"{type(error).__name__}: {error}")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        found = ran_out(folder)
        return ResourceError(f"on the working disk {found.detail}", code=found.code)
    within = _within(error, folder) if error.errno in _BARRED else ""
    barred = unusable(error, f"on the working disk, {within}") if within else None
    return barred or SystemFault(f"{type(error).__name__}: {error.strerror}")  # its own words name paths


def _within(error: OSError, folder: Path) -> str:
    """What of the working disk an error is about; empty where it is about something else."""
    if error.filename is None:
        return "the working folder" if error.errno == errno.EROFS else ""
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else Path()
    data = folder.parents[1]
    return escape_name(str(path.relative_to(data.parent))) if path.is_relative_to(data) else ""


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
