"""What holds an AIP: a folder, or a package of any kind that Archivematica, a3m or ingestd ever wrote.

A package is read in one pass, in the order of its bytes, without unpacking it. Names are bytes and are judged before
anything is done with them; what is neither a file nor a folder is reported and never followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from ingestd.errors import Code, ContentError, SourceError, Violation
from ingestd.fixity import CHUNK_BYTES
from ingestd.oais import escape_name
from ingestd.sources.kinds import Archive, archive_in
from ingestd.sources.names import NameRefused, open_plain, split
from ingestd.sources.writer import Limits, Meter
from ingestd.walking import walk

FOLDER = "folder"
_SUFFIXES = {"none": "", "gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}
_BY_NAME = {
    ".7z": Archive(form="7zip"),
    ".zip": Archive(form="zip"),
    ".tar": Archive(form="tar"),
    **{f".tar{suffix}": Archive(form="tar", filter_name=name) for name, suffix in _SUFFIXES.items() if suffix},
}
_PGP_TAGS = frozenset({1, 3, 18, 20})
_BOUNDLESS = Limits(
    max_entries=2**62, max_bytes=2**62, max_ratio=float("inf"), ratio_from_bytes=2**62, max_depth=2**31, archive_bytes=0
)
"""Whoever reads an AIP has it already, and writes little of it: bytes are looked at, and thrown away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """`form` is `folder`, `7z`, `zip`, `tar`, `tar.gz`, …; `archive` says how a package is read."""

    path: Path
    form: str
    archive: Archive | None = None


class Visitor(Protocol):
    """Who looks at an AIP's contents. Paths are bytes, from the container's top on."""

    def file(self, path: bytes, chunks: Iterable[memoryview], size_bytes: int | None) -> None: ...

    def odd(self, found: Violation) -> None:
        """Hear of what cannot be a part of an AIP."""
        ...


class Enough(Exception):
    """A visitor has seen what it came for: the rest need not be read."""


def container_at(path: Path) -> Container:
    """Look what is at `path`. Raises `SourceError` where there is nothing, `ContentError` for what is no package."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            return Container(path=path, form=FOLDER)
        if not stat.S_ISREG(found.st_mode):
            raise _unusable(path, "it is neither a folder nor a file")
        with path.open("rb") as file:
            archive = archive_in(file.fileno())
            head = file.read(1)
    except FileNotFoundError as error:
        raise SourceError(f"there is nothing at {path}") from error
    except PermissionError as error:
        raise SourceError(f"{path} may not be read", code=Code.SOURCE_ACCESS_DENIED) from error
    if archive is None and _is_encrypted(path, head):
        raise _locked(path)
    archive = archive or _named(path.name)
    if archive is None:
        raise _unusable(path, "it is no package that can be read")
    form = {"7zip": "7z", "rar5": "rar"}.get(archive.form, archive.form)
    return Container(path=path, form=f"{form}{_SUFFIXES.get(archive.filter_name, '')}", archive=archive)


def _named(name: str) -> Archive | None:
    """What a package should be by its name: one that is damaged at its beginning is a damaged package all the same."""
    for suffix, archive in _BY_NAME.items():
        if name.lower().endswith(suffix):
            return archive
    return None


def _is_encrypted(path: Path, head: bytes) -> bool:
    """See whether this is an OpenPGP message (RFC 9580, 4.2), which is how Archivematica and ingestd encrypt AIPs."""
    if path.suffix in {".gpg", ".pgp", ".asc"}:
        return True
    tag = head[0] if head else 0
    return bool(tag & 0x80) and ((tag & 0x3F) if tag & 0x40 else (tag >> 2) & 0xF) in _PGP_TAGS


def _unusable(path: Path, why: str) -> ContentError:
    return ContentError(
        f"{path.name} cannot be read as an AIP: {why}",
        code=Code.CONTENT_ARCHIVE_UNSUPPORTED,
        remediation="Give the AIP's folder, or its package: 7z, zip, tar, or a compressed tar.",
    )


def _locked(path: Path) -> ContentError:
    return ContentError(
        f"{path.name} is encrypted",
        code=Code.CONTENT_ARCHIVE_UNSUPPORTED,
        remediation="Decrypt it first, for example with `gpg --decrypt --output AIP.7z AIP.7z.gpg`.",
    )


def scan(container: Container, visitor: Visitor, *, whole: bool) -> Violation | None:
    """Show all that is in a container to a visitor; blocks. Give what is wrong with the container itself, if anything.

    With `whole`, what the visitor leaves of the bytes is read too, since checksums of packages stand at their end.
    `Enough` from the visitor ends the scan. Raises what the visitor raises, but for `ContentError` and `OSError`.
    """
    try:
        if container.archive is None:
            _scan_folder(container.path, visitor)
        else:
            _scan_package(container, container.archive, _Taker(visitor, whole=whole))
    except Enough:
        pass
    except ContentError as error:
        return Violation(path=container.path.name, rule="package.readable", actual=error.detail)
    except OSError as error:
        return Violation(path=container.path.name, rule="package.readable", actual=error.strerror or str(error))
    return None


def _scan_package(container: Container, archive: Archive, taker: _Taker) -> None:
    # Slow to import: libarchive is a library of its own.
    from ingestd.sources import readers

    try:
        with container.path.open("rb") as file:
            if archive.form == "zip":
                readers.read_zip(file, taker)
            elif archive.form == "tar":
                readers.read_tar(file, taker, filter_name=archive.filter_name)
            else:
                readers.read_other(file, taker, form=archive.form)
    except readers.NotAnArchive as error:
        raise readers.damaged("what is compressed is no tar") from error
    except readers.Unsupported as error:
        raise readers.damaged(f"packed in a way that is not known here: {error}") from error


class _Taker:
    """Shows the entries of a package to a visitor (`sources.readers.Taker`)."""

    def __init__(self, visitor: Visitor, *, whole: bool) -> None:
        self.meter = Meter(_BOUNDLESS)
        self._visitor = visitor
        self._whole = whole

    def admit(self, raw: bytes | None, /) -> tuple[bytes, ...] | None:
        self.meter.entry()
        try:
            return split(raw or b"")
        except NameRefused as refusal:
            self._odd(raw or b"", refusal.expected, "a name that is not used: nothing was read from it")
            return None

    def directory(self, parts: tuple[bytes, ...], /) -> None:
        """Folders are where their files say; an empty one holds nothing to be looked at."""

    def file(
        self, parts: tuple[bytes, ...], chunks: Iterable[memoryview], /, *, size_bytes: int | None, mtime_ns: int | None
    ) -> None:
        del size_bytes, mtime_ns  # only what is read counts
        if not parts:
            self._odd(b".", "a name", "a file without one")
            return
        self._visitor.file(b"/".join(parts), chunks, None)
        self.drain(chunks)

    def symlink(self, parts: tuple[bytes, ...], target: bytes, /) -> None:
        self._odd(b"/".join(parts), "files and folders", f"a symbolic link to {shown(target)}")

    def hard_link(self, parts: tuple[bytes, ...], target: bytes, /) -> None:
        self._odd(b"/".join(parts), "files and folders", f"a hard link to {shown(target)}")

    def special(self, parts: tuple[bytes, ...], kind: int, /) -> None:
        self._odd(b"/".join(parts), "files and folders", _special(kind))

    def drain(self, chunks: Iterable[memoryview], /) -> None:
        if self._whole:
            for _ in chunks:
                pass

    def _odd(self, path: bytes, expected: str, actual: str) -> None:
        self._visitor.odd(Violation(path=shown(path), rule="package.entry", expected=expected, actual=actual))


def _special(kind: int) -> str:
    names = {stat.S_IFIFO: "a fifo", stat.S_IFCHR: "a character device", stat.S_IFBLK: "a block device"}
    return names.get(kind, "a socket, or nothing known")


def _scan_folder(root: Path, visitor: Visitor) -> None:
    for path in walk(root):
        found = os.lstat(root / path)
        if stat.S_ISLNK(found.st_mode):
            target = os.fsencode(os.readlink(root / path))  # noqa: PTH115
            actual = f"a symbolic link to {shown(target)}"
        elif stat.S_ISREG(found.st_mode):
            visitor.file(os.fsencode(path), read_from(root, path), found.st_size)
            continue
        else:
            actual = _special(stat.S_IFMT(found.st_mode))
        visitor.odd(
            Violation(path=shown(os.fsencode(path)), rule="package.entry", expected="files and folders", actual=actual)
        )


def read_from(root: Path, path: str) -> Iterator[memoryview]:
    """Give the bytes of a regular file below `root`, without following a link on the way to it. Raises `OSError`."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = open_plain(path, os.O_RDONLY, within=top)
    finally:
        os.close(top)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        yield from _blocks(file)


def _blocks(file: IO[bytes]) -> Iterator[memoryview]:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise OSError(22, "not a regular file")
    while block := file.read(CHUNK_BYTES):
        yield memoryview(block)


def shown(path: bytes) -> str:
    """A name as XML, JSON and people can take it."""
    return escape_name(os.fsdecode(path))
