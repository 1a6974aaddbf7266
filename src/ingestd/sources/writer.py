"""Where an archive's entries are written: nowhere but below one empty folder, and never more than the limits allow.

What the archive's headers promise is not believed: entries, bytes and depth are counted as they are written. No
symlink is ever made, so nothing can be written through one; links are resolved when all else is there, and what a
link inside the archive names is copied. Whatever is refused is collected in `findings`; the caller then throws
everything away.
"""

# Names are bytes, or str that stands for bytes, and are joined exactly as they are: that is not what pathlib is for.
# ruff: noqa: PTH102, PTH104, PTH106, PTH112, PTH118, PTH208

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from ingestd.errors import Code, Violation
from ingestd.manifests import HASHES, asked_for
from ingestd.oais import escape_name
from ingestd.sources.findings import Findings, failure
from ingestd.sources.links import LinkRefused, Parts, follow
from ingestd.sources.names import NameRefused, split
from ingestd.sources.records import Note, NoteCode

CHUNK_BYTES = 256 * 1024
KEPT_NAMES = frozenset({b"objects", b"metadata"})
"""Folders that mean something at the top of a transfer: one of them is never taken for a mere wrapping."""

_CLASH = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Against bombs; see `config.UnpackSettings`. `archive_bytes` is the size of the archive itself."""

    max_entries: int
    max_bytes: int
    max_ratio: float
    ratio_from_bytes: int
    max_depth: int
    archive_bytes: int


class Meter:
    """Counts what comes out of an archive; raises `content.archive_bomb` as soon as a limit is passed."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.entries = 0
        self.bytes = 0

    def entry(self) -> None:
        self.entries += 1
        if self.entries > self.limits.max_entries:
            raise _bomb("unpack.max_entries", f"at most {self.limits.max_entries} files and folders", "more")

    def depth(self, parts: Parts) -> None:
        if len(parts) - 1 > self.limits.max_depth:
            most = self.limits.max_depth
            raise _bomb("unpack.max_depth", f"at most {most} folders within one another", str(len(parts) - 1))

    def count(self, size_bytes: int) -> None:
        self.bytes += size_bytes
        limits = self.limits
        if self.bytes > limits.max_bytes:
            raise _bomb("unpack.max_bytes", f"at most {limits.max_bytes} bytes", "more")
        if self.bytes > limits.ratio_from_bytes and self.bytes > limits.max_ratio * max(1, limits.archive_bytes):
            raise _bomb(
                "unpack.max_ratio",
                f"at most {limits.max_ratio:g} bytes out for a byte in",
                f"{self.bytes} bytes out of {limits.archive_bytes}",
            )


def _bomb(limit: str, expected: str, actual: str) -> Exception:
    violation = Violation(path=limit, rule=Code.CONTENT_ARCHIVE_BOMB.value, expected=expected, actual=actual)
    return failure(
        Code.CONTENT_ARCHIVE_BOMB,
        f"the archive unpacks to more than {limit} allows: {expected}",
        violations=[violation],
    )


class Writer:
    """Writes entries below `into`, an empty folder, and computes the message digest of each file as it is written."""

    def __init__(self, into: bytes, *, limits: Limits, algorithm: str) -> None:
        self.into = into
        self.meter = Meter(limits)
        self.findings = Findings()
        self.algorithm = algorithm
        self._asked_for: Sequence[str] = ()
        self._more: dict[bytes, dict[str, str]] = {}
        self._digests: dict[bytes, str] = {}
        self._undated: set[bytes] = set()
        self._links: dict[Parts, bytes] = {}
        self._notes: dict[bytes, Note] = {}
        self._left_out: dict[bytes, list[bytes]] = {}
        self._parent: Parts = ()
        self._wrapping = b""

    def expect(self, names: Sequence[str]) -> None:
        """Hear what an archive holds before it is unpacked: its manifests may ask for more digests."""
        # As they are, and without the folder around everything.
        self._asked_for = asked_for([*names, *(name.partition("/")[2] for name in names)])

    def admit(self, raw: bytes | None) -> Parts | None:
        """Count an entry and judge its name; None where it is refused (and noted). `()` is the archive's own top."""
        self.meter.entry()
        if raw is None:
            self._refuse(Code.CONTENT_ARCHIVE_CORRUPT, b"", expected="a name that can be read")
            return None
        try:
            parts = split(raw)
        except NameRefused as refusal:
            self._refuse(refusal.code, raw, expected=refusal.expected)
            return None
        self.meter.depth(parts)
        return parts

    def directory(self, parts: Parts) -> None:
        try:
            self._make_directories(parts, implied=False)
        except OSError as error:
            self._cannot(error, parts)

    def special(self, parts: Parts, kind: int) -> None:
        """Refuse what is neither file, folder nor link; `kind` as in `stat.S_IFMT`, 0 for nothing known."""
        names = {stat.S_IFIFO: "a fifo", stat.S_IFCHR: "a character device", stat.S_IFBLK: "a block device"}
        what = names.get(kind, "a socket, or nothing known")
        self._refuse(Code.CONTENT_STRUCTURE_INVALID, b"/".join(parts), expected="files and folders", actual=what)

    def drain(self, chunks: Iterable[memoryview]) -> None:
        """Read what is not kept, and count it all the same."""
        for chunk in chunks:
            self.meter.count(len(chunk))

    def file(self, parts: Parts, chunks: Iterable[memoryview], *, size_bytes: int | None, mtime_ns: int | None) -> None:
        """Write one file; the bytes are counted even where the file cannot be made. What it says of its size is not
        believed.
        """
        del size_bytes
        path = b"/".join(parts)
        try:
            fd = self._create(parts)
        except OSError as error:
            self._cannot(error, parts)
            self.drain(chunks)
            return
        digest = hashlib.new(self.algorithm, usedforsecurity=False)
        more = {
            word: hashlib.new(HASHES[word], usedforsecurity=False) for word in self._asked_for if word != self.algorithm
        }
        with os.fdopen(fd, "wb", buffering=0) as file:
            for chunk in chunks:
                self.meter.count(len(chunk))
                for each in (digest, *more.values()):
                    each.update(chunk)
                _write_all(file.fileno(), chunk)
            self._date(file.fileno(), path, mtime_ns)
        self._digests[path] = digest.hexdigest()
        if more:
            self._more[path] = {word: each.hexdigest() for word, each in more.items()}

    def hard_link(self, parts: Parts, target: bytes) -> None:
        """Copy what was unpacked before under the name `target`: two names for one file become two files."""
        path = b"/".join(parts)
        try:
            to = split(target)
        except NameRefused as refusal:
            self._refuse(Code.CONTENT_PATH_TRAVERSAL, path, expected=refusal.expected, actual=os.fsdecode(target))
            return
        if to in self._links:
            self.symlink(parts, self._links[to])
        elif b"/".join(to) in self._digests:
            self._copy(parts, to)
        else:
            self._refuse(
                Code.CONTENT_ARCHIVE_CORRUPT,
                path,
                expected="a hard link to an earlier file",
                actual=os.fsdecode(target),
            )

    def symlink(self, parts: Parts, target: bytes) -> None:
        """Remember a link; `finish` sees where it leads."""
        if parts in self._links or not parts:
            self._collides(parts)
            return
        try:
            self._make_directories(parts[:-1])
        except OSError as error:
            self._cannot(error, parts)
            return
        self._links[parts] = target

    def finish(self, *, unwrap: bool = True) -> None:
        """Resolve the links, and drop the one folder around everything if there is one, unless `unwrap` is False.

        Raises everything that was found wrong, as one error.
        """
        resolved = [(link, self._resolve(link)) for link in self._links]
        for link, to in resolved:
            if to is not None:
                self._place(link, to)
        self.findings.raise_any()
        if unwrap:
            self._unwrap()

    def listing(self, out: IO[str]) -> None:
        """Write what was received, a JSON object a line, parents before children, in the order of the names' bytes.

        `p` path (escaped), `s` size, `m` nanoseconds since 1970 or null, `h` digest, `d` is a directory,
        `o` is left out, `n` note [code, detail], `a` further digests by algorithm.
        """
        for line in self._lines():
            out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")

    def _lines(self) -> Iterator[dict[str, object]]:
        levels = [iter(self._names(b""))]
        while levels:
            path = next(levels[-1], None)
            if path is None:
                levels.pop()
                continue
            line, directory = self._line(path)
            yield line
            if directory:
                levels.append(iter(self._names(path)))

    def _names(self, path: bytes) -> list[bytes]:
        below = path + b"/" if path else b""
        there = os.listdir(os.path.join(self.into, path))
        return sorted(below + name for name in there + self._left_out.get(self._key(path), []))

    def _line(self, path: bytes) -> tuple[dict[str, object], bool]:
        key = self._key(path)
        line: dict[str, object] = {"p": escape_name(os.fsdecode(path))}
        if note := self._notes.get(key):
            line["n"] = [note.code.value, note.detail]
        try:
            there = os.lstat(os.path.join(self.into, path))
        except FileNotFoundError:
            return {**line, "o": True}, False
        if key in self._digests:
            dated = None if key in self._undated else there.st_mtime_ns
            more = {"a": self._more[key]} if key in self._more else {}
            return {**line, "s": there.st_size, "h": self._digests[key], "m": dated, **more}, False
        return {**line, "d": True}, True

    def _key(self, path: bytes) -> bytes:
        """The path as the archive has it, which is with the folder that was dropped."""
        return b"/".join(part for part in (self._wrapping, path) if part)

    def _create(self, parts: Parts) -> int:
        if not parts or parts in self._links:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._make_directories(parts[:-1])
        return os.open(self._at(parts), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    def _make_directories(self, parts: Parts, *, implied: bool = True) -> None:
        """Make a folder and those around it; what no entry of the archive names counts as an entry here."""
        if parts == self._parent:
            return
        for length in range(1, len(parts) + 1):
            if parts[:length] in self._links:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            path = self._at(parts[:length])
            try:
                os.mkdir(path)
            except FileExistsError:
                if not os.path.isdir(path):
                    raise
            else:
                if implied or length < len(parts):
                    self.meter.entry()
        self._parent = parts

    def _copy(self, parts: Parts, source: Parts) -> None:
        fd = os.open(self._at(source), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        undated = b"/".join(source) in self._undated
        with os.fdopen(fd, "rb", buffering=0) as file:
            mtime_ns = os.fstat(file.fileno()).st_mtime_ns
            self.file(parts, _blocks(file), size_bytes=None, mtime_ns=None if undated else mtime_ns)

    def _date(self, fd: int, path: bytes, mtime_ns: int | None) -> None:
        try:
            if mtime_ns is not None:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
                return
        except (OverflowError, OSError):
            pass  # a time that no file system can hold is as good as none
        self._undated.add(path)

    def _resolve(self, link: Parts) -> Parts | None:
        """Follow a link within the archive to what is no link; None where it is refused (and noted)."""
        try:
            to = follow(link, self._links)
        except LinkRefused as refusal:
            self._refuse_link(link, out=refusal.out)
            return None
        if not os.path.lexists(self._at(to)):
            self._refuse_link(link, out=False)
            return None
        return to

    def _place(self, link: Parts, to: Parts) -> None:
        path, name = b"/".join(link), escape_name(os.fsdecode(b"/".join(to)))
        if os.path.lexists(self._at(link)):
            self._collides(link)
        elif os.path.isdir(self._at(to)):
            self._left_out.setdefault(b"/".join(link[:-1]), []).append(link[-1])
            self._notes[path] = Note(
                code=NoteCode.LINK_LEFT_OUT, detail=f"a symbolic link to the folder {name or '.'}: left out"
            )
        elif not self.findings.total:
            del self._links[link]
            self._copy(link, to)
            self._notes[path] = Note(
                code=NoteCode.LINK_COPIED, detail=f"a symbolic link to {name}: received as a copy of it"
            )

    def _unwrap(self) -> None:
        """Drop the archive's only top-level folder, and no other: what is around a transfer is not part of it."""
        names = os.listdir(self.into)
        if len(names) != 1 or names[0] in KEPT_NAMES or self._left_out.get(b""):
            return
        folder = os.path.join(self.into, names[0])
        if not os.path.isdir(folder):
            return
        # Aside first: something in the folder may be called as the folder is. Nobody can have foreseen this name.
        aside = os.path.join(self.into, os.urandom(16).hex().encode())
        os.rename(folder, aside)
        for name in os.listdir(aside):
            os.rename(os.path.join(aside, name), os.path.join(self.into, name))
        os.rmdir(aside)
        self._wrapping = names[0]

    def _at(self, parts: Parts) -> bytes:
        return os.path.join(self.into, *parts)

    def _cannot(self, error: OSError, parts: Parts) -> None:
        if error.errno in _CLASH:
            self._collides(parts)
        elif error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
            expected = "a name that this file system can hold"
            self._refuse(Code.CONTENT_STRUCTURE_INVALID, b"/".join(parts), expected=expected)
        else:
            raise error

    def _collides(self, parts: Parts) -> None:
        self._refuse(Code.CONTENT_NAME_COLLISION, b"/".join(parts), expected="one entry of this name")

    def _refuse_link(self, link: Parts, *, out: bool) -> None:
        code = Code.CONTENT_PATH_TRAVERSAL if out else Code.CONTENT_STRUCTURE_INVALID
        expected = "a link to something in the archive"
        self._refuse(code, b"/".join(link), expected=expected, actual=os.fsdecode(self._links[link]))

    def _refuse(self, code: Code, path: bytes, *, expected: str, actual: str = "") -> None:
        self.findings.add(code, os.fsdecode(path), expected=expected, actual=actual or os.fsdecode(path))


def _write_all(fd: int, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[os.write(fd, chunk) :]


def _blocks(file: IO[bytes]) -> Iterator[memoryview]:
    while block := file.read(CHUNK_BYTES):
        yield memoryview(block)
