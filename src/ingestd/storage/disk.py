"""Files of a folder that appear whole or not at all, never in place of another, and are on disk then."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError) as error:
        # A file is where a folder should be; or none can be, as in /proc.
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def sync_folder(path: Path) -> None:
    """Take the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def written(new: Path, content: bytes) -> Iterator[Path]:
    """Write a small file to the disk, which is then named or forgotten."""
    make_folder(new.parent)
    try:
        with new.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield new
    finally:
        new.unlink(missing_ok=True)


def name_once(part: Path, place: Path) -> None:
    """Give a file its name; raise `FileExistsError` rather than replace anything."""
    if place.exists():
        raise FileExistsError(place)
    if part.is_dir() or not _linked(part, place):
        part.rename(place)  # a folder replaces nothing: renaming onto one that is not empty fails
    sync_folder(place.parent)


def _linked(part: Path, place: Path) -> bool:
    """Name a file by a hard link, which never replaces; say False where the file system has none."""
    try:
        os.link(part, place)
    except FileExistsError:
        if not part.samefile(place):  # over NFS a link that was made may be answered as one that was there before
            raise
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    part.unlink()
    return True
