"""Names that hostile hands wrote: split, judged, and opened without following where they lead.

A name in an archive is bytes. It is never joined to a folder before `split` has let it pass.
"""

# Names are bytes, or str that stands for bytes, and are joined exactly as they are: that is not what pathlib is for.

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from typing import Self

from ingestd.errors import Code
from ingestd.walking import in_order

NAME_BYTES = 255
PATH_BYTES = 3500
"""Longest path within a package: what Linux allows (4096) less room for the folders around it."""

_DRIVE = re.compile(rb"[A-Za-z]:(\\|/|$)")


class NameRefused(Exception):
    """A name cannot be used: `code` is the rule, `expected` what would be right."""

    def __init__(self, code: Code, expected: str) -> None:
        super().__init__(expected)
        self.code = code
        self.expected = expected


def split(raw: bytes) -> tuple[bytes, ...]:
    """Split an archive's path into its parts; `()` is the archive's own top (`./`).

    Raises `NameRefused` for what would lead out (`..`, an absolute path, a drive letter), for empty parts and NUL,
    and for names that no file system takes.
    """
    body = raw.removesuffix(b"/")
    if not raw or body.startswith(b"/") or raw == b"/":
        raise NameRefused(Code.CONTENT_PATH_TRAVERSAL, "a relative path")
    parts = tuple(part for part in body.split(b"/") if part != b".")
    if b".." in parts or _DRIVE.match(body):
        raise NameRefused(Code.CONTENT_PATH_TRAVERSAL, "a path that stays below the archive's top")
    if b"" in parts or b"\0" in raw:
        raise NameRefused(Code.CONTENT_PATH_TRAVERSAL, "a path without empty parts and NUL bytes")
    if any(len(part) > NAME_BYTES for part in parts) or len(raw) > PATH_BYTES:
        raise NameRefused(
            Code.CONTENT_STRUCTURE_INVALID, f"names of at most {NAME_BYTES} and paths of at most {PATH_BYTES} bytes"
        )
    return parts


def open_plain(path: str, flags: int, *, within: int | None = None) -> int:
    """Open `path` without following a symlink in any of its parts, and give the file descriptor.

    `path` is absolute, or relative to the open directory `within`. A symlink on the way is an OSError (ELOOP or
    ENOTDIR), so whoever swaps a folder for a link after it was checked wins nothing. Opening never blocks.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    step = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    at = os.open("/", step) if within is None else os.dup(within)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, step, dir_fd=at)
            os.close(at)
            at = deeper
        return os.open(parts[-1] if parts else ".", flags, dir_fd=at)
    finally:
        os.close(at)


class Tree:
    """A folder that is read by paths relative to it, never through a symlink. One directory is kept open at a time."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._root = open_plain(root, os.O_RDONLY | os.O_DIRECTORY)
        self._path: str | None = None
        self._directory = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        os.close(self._root)

    def names(self, path: str) -> Iterator[str]:
        """The names in the directory at `path` (`""` is the folder itself), in the order of their bytes."""
        with os.scandir(self._open_directory(path)) as entries:
            return in_order(entry.name for entry in entries)

    def lstat(self, path: str) -> os.stat_result:
        parent, _, name = path.rpartition("/")
        return os.stat(name or ".", dir_fd=self._open_directory(parent), follow_symlinks=False)

    def readlink(self, path: str) -> str:
        parent, _, name = path.rpartition("/")
        return os.readlink(name, dir_fd=self._open_directory(parent))

    def open_file(self, path: str) -> int:
        """Open a file for reading; the caller closes the descriptor."""
        parent, _, name = path.rpartition("/")
        return open_plain(name, os.O_RDONLY, within=self._open_directory(parent))

    def _open_directory(self, path: str) -> int:
        if path != self._path:
            self._forget()
            self._directory = open_plain(path, os.O_RDONLY | os.O_DIRECTORY, within=self._root)
            self._path = path
        return self._directory

    def _forget(self) -> None:
        if self._path is not None:
            os.close(self._directory)
        self._path = None
