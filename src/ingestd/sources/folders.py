"""Receives a folder: first a look at everything, which finds all that is wrong with it; then a copy, window by window.

Nothing is read through a symlink: every name is opened from its directory, and a link to a file inside is opened by
where it really leads. Both passes see to it that they saw the same; if not, somebody wrote meanwhile.
"""

# Names are bytes, or str that stands for bytes, and are joined exactly as they are: that is not what pathlib is for.
# ruff: noqa: PTH102, PTH118, PTH208

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ingestd.errors import Code
from ingestd.manifests import asked_for
from ingestd.oais import escape_name
from ingestd.premis import Digest, DigestAlgorithm, now
from ingestd.sources.copying import changed, copy, no_room, reserve
from ingestd.sources.findings import Findings
from ingestd.sources.locations import unreadable
from ingestd.sources.names import PATH_BYTES, Tree
from ingestd.sources.records import WINDOW, Note, NoteCode, Received, modified_at
from ingestd.together import Worker

if TYPE_CHECKING:
    from ingestd.config import SourceSettings

Known: TypeAlias = Callable[[Sequence[str]], Awaitable[frozenset[str]]]

WINDOW_BYTES = 256 * 1024 * 1024
"""A window is closed early when it has as many bytes: what is done is recorded before much more is read."""
_STEP = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One thing in the folder. `real` is where its content is: another path for a link to a file inside."""

    path: str
    stat: os.stat_result
    real: str
    note: Note | None = None

    @property
    def directory(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)

    @property
    def left_out(self) -> bool:
        return stat.S_ISLNK(self.stat.st_mode)


class _Survey:
    """What one walk through the folder saw: counts, and a digest over names, sizes and times that a second walk must
    repeat.
    """

    def __init__(self) -> None:
        self.files = 0
        self.size_bytes = 0
        self._trace = hashlib.blake2b(digest_size=16)

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    def add(self, found: Found) -> None:
        seen = found.stat
        size = 0 if found.directory else seen.st_size
        line = (os.fsencode(found.path), os.fsencode(found.real), seen.st_mode, size, seen.st_mtime_ns)
        self._trace.update(repr(line).encode())
        if not found.directory and not found.left_out:
            self.files += 1
            self.size_bytes += seen.st_size


async def receive_folder(
    path: str, into: Path, *, settings: SourceSettings, algorithm: DigestAlgorithm, known: Known
) -> AsyncGenerator[Sequence[Received], None]:
    """Copy the folder at the real path `path` into `into`; yield what is new there, in windows.

    Goes on where an earlier run stopped: what is `known` and lies in `into` in its right size is neither copied nor
    yielded again; what lies there but not in the source is removed. Raises everything found wrong as one error before
    anything is copied; `source.changed`, `resource.*` meanwhile.
    """
    worker = Worker()
    tree = await worker.run(lambda: _open(path))
    with tree:
        survey = await worker.run(lambda: _survey(tree, settings, worker))
        if await worker.run(lambda: os.listdir(into)):
            await _sweep(tree, into, known, worker)
        else:
            await worker.run(lambda: reserve(survey.size_bytes, str(into)))
        again = _Survey()
        walk = walk_folder(tree, None)
        more = await worker.run(lambda: _asked_for(tree))
        while window := await worker.run(lambda: _window(walk, again)):
            skipped = await known([found.path for found in window])
            fresh = [found for found in window if found.path not in skipped or not _is_there(found, into)]
            received = await worker.run(partial(_take, tree, fresh, into, algorithm, more, worker))
            if received:
                yield received
        if again.trace != survey.trace:
            raise changed("the source")


def _open(path: str) -> Tree:
    try:
        return Tree(path)
    except OSError as error:
        raise unreadable(error, path) from error


def _asked_for(tree: Tree) -> list[str]:
    """Give the algorithms that a bag's manifests, or checksum files, ask for: they cost no other read."""
    names = list(tree.names(""))
    paths = names if "bagit.txt" in names else []
    for folder in ("metadata", "data/metadata"):
        with contextlib.suppress(OSError):
            paths = [*paths, *(f"{folder}/{name}" for name in tree.names(folder))]
    return asked_for(paths)


def _survey(tree: Tree, settings: SourceSettings, worker: Worker) -> _Survey:
    """Look at everything once. Raises all that is wrong, as one error."""
    survey, findings = _Survey(), Findings()
    for found in walk_folder(tree, findings):
        worker.breathe()
        survey.add(found)
        if len(os.fsencode(found.path)) > PATH_BYTES:
            expected = f"a path of at most {PATH_BYTES} bytes"
            findings.add(Code.CONTENT_STRUCTURE_INVALID, found.path, expected=expected, actual="longer")
        if survey.files > settings.max_files:
            break
    findings.limit(settings, files=survey.files, size_bytes=survey.size_bytes, counted=False)
    findings.raise_any()
    return survey


def walk_folder(tree: Tree, findings: Findings | None) -> Iterator[Found]:
    """Everything in the folder, parents before children, in the order of the names' bytes.

    What cannot be received goes to `findings`; in the second walk, which has none, it means that the source changed.
    """
    levels = [_Level(tree, "", findings)]
    while levels:
        path = next(levels[-1].paths, None)
        if path is None:
            levels.pop().check()
            continue
        found = _look(tree, path, findings)
        if found:
            yield found
            if found.directory:
                levels.append(_Level(tree, path, findings))


class _Level:
    """A directory that is being walked through. Its own time tells whether a name came or went meanwhile."""

    def __init__(self, tree: Tree, path: str, findings: Findings | None) -> None:
        self.tree = tree
        self.path = path
        self.modified_ns = -1
        self.paths: Iterator[str] = iter(())
        try:
            self.modified_ns = tree.lstat(path).st_mtime_ns
            self.paths = _below(path, tree.names(path)) if path else tree.names(path)
        except OSError as error:
            _cannot(error, path, findings)

    def check(self) -> None:
        try:
            same = self.modified_ns in (-1, self.tree.lstat(self.path).st_mtime_ns)
        except OSError:
            same = False
        if not same:
            raise changed(self.path or "the source")


def _look(tree: Tree, path: str, findings: Findings | None) -> Found | None:
    try:
        seen = tree.lstat(path)
        if stat.S_ISLNK(seen.st_mode):
            return _link(tree, path, seen, findings)
        if stat.S_ISDIR(seen.st_mode):
            return Found(path=path, stat=seen, real=path)
        if stat.S_ISREG(seen.st_mode):
            if findings is not None:
                os.close(tree.open_file(path))
            return Found(path=path, stat=seen, real=path)
    except OSError as error:
        _cannot(error, path, findings)
        return None
    _refuse(findings, Code.CONTENT_STRUCTURE_INVALID, path, "files and folders", _special(seen.st_mode))
    return None


def _link(tree: Tree, path: str, seen: os.stat_result, findings: Findings | None) -> Found | None:
    target = tree.readlink(path)
    real = os.path.realpath(os.path.join(tree.root, path))
    if real != tree.root and not real.startswith(tree.root.rstrip("/") + "/"):
        _refuse(findings, Code.CONTENT_PATH_TRAVERSAL, path, "a link to something in the source", target)
        return None
    inside = real[len(tree.root) :].lstrip("/")
    try:
        there = tree.lstat(inside)
        if stat.S_ISREG(there.st_mode) and findings is not None:
            os.close(tree.open_file(inside))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise
        _refuse(findings, Code.CONTENT_STRUCTURE_INVALID, path, "a link to something that exists", target)
        return None
    said = escape_name(inside) or "."
    if stat.S_ISDIR(there.st_mode):
        note = Note(code=NoteCode.LINK_LEFT_OUT, detail=f"a symbolic link to the folder {said}: left out")
        return Found(path=path, stat=seen, real=inside, note=note)
    if stat.S_ISREG(there.st_mode):
        note = Note(code=NoteCode.LINK_COPIED, detail=f"a symbolic link to {said}: received as a copy of it")
        return Found(path=path, stat=there, real=inside, note=note)
    # Also a link that leads round in a circle ends here: what is at its end is still a link.
    _refuse(findings, Code.CONTENT_STRUCTURE_INVALID, path, "a link to a file or folder", target)
    return None


def _special(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a fifo",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def _cannot(error: OSError, path: str, findings: Findings | None) -> None:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        raise changed(path or "the source") from error
    _refuse(findings, Code.SOURCE_ACCESS_DENIED, path, "to be readable", error.strerror or str(error))


def _refuse(findings: Findings | None, code: Code, path: str, expected: str, actual: str) -> None:
    if findings is None:
        raise changed(path or "the source")
    findings.add(code, path, expected=expected, actual=actual)


def _window(walk: Iterator[Found], survey: _Survey) -> list[Found]:
    window: list[Found] = []
    size = 0
    for found in islice(walk, WINDOW):
        survey.add(found)
        window.append(found)
        size += found.stat.st_size
        if size >= WINDOW_BYTES:
            break
    return window


def _is_there(found: Found, into: Path) -> bool:
    """Whether an earlier run brought this to its end."""
    if found.left_out:
        return True
    try:
        there = os.lstat(into / found.path)
    except FileNotFoundError:
        return False
    if found.directory:
        return stat.S_ISDIR(there.st_mode)
    return stat.S_ISREG(there.st_mode) and there.st_size == found.stat.st_size


def _take(
    tree: Tree, window: Sequence[Found], into: Path, algorithm: DigestAlgorithm, more: Sequence[str], worker: Worker
) -> list[Received]:
    received = []
    for found in window:
        worker.breathe()
        try:
            received.append(_take_one(tree, found, into, algorithm, more, worker))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
                raise changed(found.path) from error
            raise no_room(error, str(into)) or error from error
    return received


def _take_one(
    tree: Tree, found: Found, into: Path, algorithm: DigestAlgorithm, more: Sequence[str], worker: Worker
) -> Received:
    dated = modified_at(found.stat.st_mtime_ns)
    if found.left_out:
        return Received(path=found.path, left_out=True, note=found.note)
    to = os.path.join(into, found.path)
    if found.directory:
        with contextlib.suppress(FileExistsError):
            os.mkdir(to)
        return Received(path=found.path, modified_at=dated, directory=True)
    fd = tree.open_file(found.real)
    try:
        algorithms = sorted({algorithm.value, *more})
        digests = copy(fd, to, algorithms=algorithms, seen=found.stat, name=found.path, breathe=worker.breathe)
    finally:
        os.close(fd)
    return Received(
        path=found.path,
        size_bytes=found.stat.st_size,
        digest=Digest(algorithm=algorithm, value=digests[algorithm], calculated_at=now()),
        modified_at=dated,
        note=found.note,
        more={word: digests[word] for word in more if word != algorithm},
    )


async def _sweep(tree: Tree, into: Path, known: Known, worker: Worker) -> None:
    """Remove what an earlier run left in `into` and the source no longer has; a recorded one means a change."""
    with await worker.run(lambda: Tree(os.path.realpath(into))) as left:
        walk = _leftovers(tree, left)
        while window := await worker.run(lambda: list(islice(walk, _STEP))):
            if recorded := await known(window):
                raise changed(min(recorded))
            await worker.run(partial(_remove, into, window))


def _leftovers(tree: Tree, left: Tree) -> Iterator[str]:
    """What is in `left` and not, or as something else, in `tree`; not what is below it."""
    levels = [left.names("")]
    while levels:
        path = next(levels[-1], None)
        if path is None:
            levels.pop()
            continue
        mode = left.lstat(path).st_mode
        if not _same_kind(tree, path, mode):
            yield path
        elif stat.S_ISDIR(mode):
            levels.append(_below(path, left.names(path)))


def _below(path: str, names: Iterator[str]) -> Iterator[str]:
    return (f"{path}/{name}" for name in names)


def _same_kind(tree: Tree, path: str, mode: int) -> bool:
    try:
        there = tree.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(there) == stat.S_ISDIR(mode)


def _remove(into: Path, paths: Sequence[str]) -> None:
    for path in paths:
        at = into / path
        if at.is_dir() and not at.is_symlink():
            shutil.rmtree(at)
        else:
            at.unlink()
