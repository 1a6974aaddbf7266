"""An AIP opened for reading: what is in it, its METS, and what both say, whoever wrote it.

The AIP's folder is where `bagit.txt` is; without one (Archivematica 0.x, or a folder cut out of an AIP) where the METS
is. Only the METS and the bag's own files are ever copied out, to scratch files that have no names of the AIP's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from ingestd.aip.container import FOLDER, Container, container_at, read_from, scan, shown
from ingestd.aip.facts import Facts
from ingestd.aip.manifests import read_manifests
from ingestd.errors import Code, ContentError, ResourceError, Violation
from ingestd.fixity import digest_file
from ingestd.mets import Record, Summary, read
from ingestd.premis import DigestAlgorithm
from ingestd.together import Worker

ALGORITHMS = frozenset(DigestAlgorithm)
_TAGS = re.compile(rb"(?:[^/]+/)?(?:bagit|bag-info|fetch|manifest-[^/]+|tagmanifest-[^/]+)\.txt")
_METS = re.compile(rb"(?:[^/]+/)?(?:data/)?(?:metadata/)?METS[^/]*\.xml")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_SPOOLED_BYTES = 64 * 1024**3

T = TypeVar("T")


@dataclass(kw_only=True)
class Reading:
    """One AIP while it is open.

    `root` is the AIP's folder within its container and `payload` the folder that the METS' paths start from (`data` in
    a bag), both without slashes at the ends. `mets` is its path in the AIP, None where there is none. `troubles` are
    what stood in the way of reading; `notes` what a person should know of how it was read.
    """

    container: Container
    facts: Facts
    root: bytes = b""
    payload: bytes = b""
    is_bag: bool = False
    mets: bytes | None = None
    troubles: list[Violation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spooled: dict[bytes, Path] = field(default_factory=dict)
    known_digests: dict[Path, dict[DigestAlgorithm, str]] = field(default_factory=dict)
    worker: Worker
    """In a thread of its own, which is stopped between two blocks when whoever waits for it is cancelled."""

    @property
    def name(self) -> str:
        """The AIP's name with its UUID, as its folder, or else its package, is called."""
        return shown(os.path.basename(self.root)) or _stem(self.container.path.resolve().name)  # noqa: PTH119

    @property
    def identifier(self) -> str:
        """The AIP's UUID, by its METS' name, its own, or the METS' first intellectual entity; empty if unknown."""
        row = self.facts.row("SELECT identifier FROM entity WHERE path = x''")
        named = uuid_in(shown(self.mets)) if self.mets else ""
        return named or uuid_in(self.name) or (str(row[0]) if row else "")

    @property
    def summary(self) -> Summary | None:
        return self.facts.summary

    def local(self, path: bytes) -> Path:
        """Where the METS, or a file of the bag's own, can be opened."""
        if self.container.form == FOLDER:
            return self.folder / os.fsdecode(path)
        return self.spooled[path]

    @property
    def folder(self) -> Path:
        """The AIP's folder, where it is not packed."""
        return self.container.path / os.fsdecode(self.root)

    async def digests_of(self, path: Path, algorithms: Sequence[DigestAlgorithm]) -> Mapping[DigestAlgorithm, str]:
        """Digests of the package itself, or of another file beside it, each computed once. Raises `OSError`."""
        known = self.known_digests.setdefault(path, {})
        missing = [algorithm for algorithm in algorithms if algorithm not in known]
        if missing:
            known.update(await digest_file(path, missing))
        return {algorithm: known[algorithm] for algorithm in algorithms}

    async def run(self, work: Callable[[], T]) -> T:
        """Do blocking work in the reading's own thread."""
        return await self.worker.run(work)


@contextlib.asynccontextmanager
async def opened(path: Path, *, digests: bool = False, scratch: Path | None = None) -> AsyncIterator[Reading]:
    """Open the AIP at `path`: list what is in it and read its METS. With `digests`, every byte is read.

    `scratch` is where temporary files go (default: the system's folder for them).

    Raises `SourceError` where nothing is there, `ContentError` for what is no AIP: neither a bag nor with a METS, or
    encrypted. What is damaged is opened as far as it can be read, and `troubles` say how far that is.
    """
    container = await asyncio.to_thread(container_at, path)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ingestd-aip-", dir=scratch)))
        thread = stack.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="aip"))
        facts = stack.enter_context(contextlib.closing(Facts(folder / "facts.db")))
        reading = Reading(container=container, facts=facts, worker=Worker(thread))
        await reading.run(partial(_survey, reading, folder, digests=digests))
        await _read_mets(reading)
        if digests:
            await reading.run(partial(read_manifests, reading))
        if container.form == "7z":
            await reading.run(facts.compose)
        if digests:
            await reading.run(partial(_digest_folder, reading))
        yield reading


def _survey(reading: Reading, folder: Path, *, digests: bool) -> None:
    packed = reading.container.form != FOLDER
    survey = _Survey(reading, folder, ALGORITHMS if digests and packed else (), spool=packed)
    trouble = scan(reading.container, survey, whole=digests)
    if trouble:
        reading.troubles.append(trouble)
    _find_root(reading)


class _Survey:
    """Notes every file, with its digests if they are wanted, and copies out the METS and the bag's own files."""

    def __init__(self, reading: Reading, folder: Path, algorithms: Collection[str], *, spool: bool) -> None:
        self._reading = reading
        self._folder = folder
        self._algorithms = algorithms
        self._spool = spool

    def file(self, path: bytes, chunks: Iterable[memoryview], size_bytes: int | None) -> None:
        copied = self._spool and (_TAGS.fullmatch(path) or _METS.fullmatch(path))
        hashes = hashes_of(self._algorithms)
        if copied or hashes:
            with self._copy(path) if copied else contextlib.nullcontext() as out:
                some = _bounded(chunks) if copied else chunks
                size_bytes = through(some, hashes.values(), out, self._reading.worker.breathe)
        digests = {name: one.hexdigest() for name, one in hashes.items()}
        if not self._reading.facts.add_member(path, size_bytes, digests):
            self.odd(Violation(path=shown(path), rule="package.entry", expected="one file", actual="two of that name"))

    @contextlib.contextmanager
    def _copy(self, path: bytes) -> Iterator[IO[bytes]]:
        place = self._folder / f"spooled-{len(self._reading.spooled)}"
        self._reading.spooled.setdefault(path, place)
        with place.open("xb") as out:
            yield out

    def odd(self, found: Violation) -> None:
        self._reading.troubles.append(found)


def _bounded(chunks: Iterable[memoryview]) -> Iterator[memoryview]:
    size_bytes = 0
    for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > _SPOOLED_BYTES:
            raise ResourceError(f"a METS or manifest of more than {_SPOOLED_BYTES} bytes is not read")
        yield chunk


def hashes_of(algorithms: Collection[str]) -> dict[str, hashlib._Hash]:
    return {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}


def through(
    chunks: Iterable[memoryview],
    hashes: Collection[hashlib._Hash],
    out: IO[bytes] | None,
    breathe: Callable[[], None],
) -> int:
    """Let bytes pass into hashes and, where there is one, a file; give their number. `breathe` as a `Worker` has it."""
    size_bytes = 0
    for chunk in chunks:
        breathe()
        size_bytes += len(chunk)
        for one in hashes:
            one.update(chunk)
        if out is not None:
            _write(out, chunk)
    return size_bytes


def _write(out: IO[bytes], chunk: memoryview) -> None:
    try:
        out.write(chunk)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ResourceError(f"what is read from the AIP cannot be written: {error}", code=Code.RESOURCE_DISK) from error


def _find_root(reading: Reading) -> None:
    facts = reading.facts
    top = [
        row[0] for row in facts.rows("SELECT path FROM member") if _TAGS.fullmatch(row[0]) or _METS.fullmatch(row[0])
    ]
    bags = sorted((path for path in top if path.split(b"/")[-1] == b"bagit.txt"), key=_depth)
    manifests = sorted((path for path in top if path.split(b"/")[-1].startswith(b"manifest-")), key=_depth)
    found = sorted((path for path in top if _METS.fullmatch(path)), key=_depth)
    tags = bags or manifests
    if not tags and not found:
        if reading.container.form != FOLDER and reading.troubles:
            return
        raise ContentError(
            f"{reading.container.path.name} is no AIP: it has neither bagit.txt nor a METS",
            code=Code.CONTENT_STRUCTURE_INVALID,
            remediation="Give the folder with bagit.txt (or METS….xml) in it, or the package that holds that folder.",
        )
    reading.is_bag = bool(tags)
    reading.root = tags[0].rpartition(b"/")[0] if tags else _mets_root(found[0])
    reading.facts.take_root(reading.root)
    reading.spooled = {_relative(path, reading.root): place for path, place in reading.spooled.items()}
    _choose_mets(reading, [_relative(path, reading.root) for path in found if _within(path, reading.root)])


def _choose_mets(reading: Reading, found: list[bytes]) -> None:
    """The METS named by the AIP's UUID, else the one nearest to the top; the others are told."""
    identifier = uuid_in(reading.name).encode()
    named = [path for path in found if identifier and identifier in path]
    chosen = [*named, *(path for path in found if path not in named)]
    reading.mets = chosen[0] if chosen else None
    reading.payload = b"data" if reading.is_bag else (reading.mets or b"").rpartition(b"/")[0]
    reading.notes += [f"{shown(path)} is not the AIP's METS, and was not read" for path in chosen[1:]]


def _mets_root(mets: bytes) -> bytes:
    folder = mets.rpartition(b"/")[0]
    for inner in (b"metadata", b"data"):
        folder = folder[: -len(inner)].rstrip(b"/") if folder == inner or folder.endswith(b"/" + inner) else folder
    return folder


def _depth(path: bytes) -> tuple[int, bytes]:
    return path.count(b"/"), path


def _within(path: bytes, root: bytes) -> bool:
    return not root or path.startswith(root + b"/")


def _relative(path: bytes, root: bytes) -> bytes:
    return path[len(root) + 1 :] if root and _within(path, root) else path


def uuid_in(name: str) -> str:
    """The last UUID in a name, or nothing."""
    found = _UUID.findall(name)
    return str(found[-1]).lower() if found else ""


def _stem(name: str) -> str:
    """A package's name without what says how it is packed."""
    return re.sub(r"\.(7z|zip|rar|tar|tar\.[a-z0-9]+|tgz|tbz2?)$", "", shown(os.fsencode(name)), flags=re.IGNORECASE)


async def _read_mets(reading: Reading) -> None:
    if reading.mets is None:
        return
    path = reading.local(reading.mets)
    try:
        async for window in read(path):
            await reading.run(partial(_note, reading, window))
    except ContentError as error:
        reading.troubles += [
            Violation(path=shown(reading.mets), rule=violation.rule, actual=violation.actual)
            for violation in error.violations
        ]
    except OSError as error:
        reading.troubles.append(Violation(path=shown(reading.mets), rule="mets.xml", actual=str(error.strerror)))


def _note(reading: Reading, window: Sequence[Record]) -> None:
    reading.facts.add_records(window, reading.payload, reading.identifier)


def _digest_folder(reading: Reading) -> None:
    """Compute the digests that manifests and METS name, of every file of a folder. Of a package they are known."""
    if reading.container.form != FOLDER:
        return
    sql = "SELECT algorithm FROM fixity UNION SELECT algorithm FROM listed"
    algorithms = sorted({str(row[0]) for row in reading.facts.rows(sql)} & ALGORITHMS)
    paths = [b""]
    while paths:
        sql = "SELECT path FROM member WHERE path > ? ORDER BY path LIMIT 500"
        paths = [row[0] for row in reading.facts.rows(sql, (paths[-1],))]
        for path in paths:
            _digest(reading, path, algorithms)


def _digest(reading: Reading, path: bytes, algorithms: Collection[str]) -> None:
    hashes = hashes_of(algorithms)
    try:
        through(read_from(reading.folder, os.fsdecode(path)), hashes.values(), None, reading.worker.breathe)
    except OSError as error:
        reason = error.strerror or str(error)
        reading.troubles.append(Violation(path=shown(path), rule="package.readable", actual=reason))
        return
    reading.facts.add_digests(path, {name: one.hexdigest() for name, one in hashes.items()})
