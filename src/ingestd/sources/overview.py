"""A look at what a source holds before it is received: names and sizes, and single files of it, within limits.

A folder is walked by the rules by which it will be received; of a zip the central directory is read. What other
archives hold, only unpacking tells.
"""

# Names are bytes, or str that stands for bytes, and are joined exactly as they are: that is not what pathlib is for.

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ingestd.errors import Code, IngestError
from ingestd.oais import escape_name
from ingestd.sources.copying import Worker
from ingestd.sources.findings import Findings
from ingestd.sources.folders import walk_folder
from ingestd.sources.kinds import archive_in
from ingestd.sources.locations import parse_object_url, too_large
from ingestd.sources.names import PATH_BYTES, NameRefused, Tree, open_plain, split
from ingestd.sources.objects import Store, Survey, entries_of, look
from ingestd.sources.readers import zip_name
from ingestd.sources.records import Checked, Kind
from ingestd.sources.writer import KEPT_NAMES

if TYPE_CHECKING:
    from ingestd.config import CredentialSettings, SourceSettings, UnpackSettings

_DIRECTORY_BYTES = 64 * 2**20
"""Largest central directory of a zip that is read."""
_CHUNK_BYTES = 256 * 1024


class Opened(Protocol):
    """Gives a file of the source as a path that can be read while the context lasts."""

    def __call__(self, path: str) -> contextlib.AbstractContextManager[Path]: ...


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What a source holds, as far as was looked: sizes by path (None: a folder), decoded by `os.fsdecode`.

    `said` tells of the limit that ended the look, if one did. `error` is everything that receiving it would refuse.
    `opened` raises `OSError` where a file cannot be had; it is None where files can only be had by fetching them.
    """

    entries: Mapping[str, int | None]
    opened: Opened | None = None
    said: str = ""
    error: IngestError | None = None

    @property
    def files(self) -> int:
        return sum(size is not None for size in self.entries.values())

    @property
    def size_bytes(self) -> int:
        return sum(size or 0 for size in self.entries.values())

    def is_file(self, path: str) -> bool:
        return self.entries.get(path) is not None

    def is_folder(self, path: str) -> bool:
        return path in self.entries and self.entries[path] is None


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """How much is looked at. `until` is a time of `time.monotonic`."""

    entries: int
    until: float

    def over(self, count: int) -> str:
        if count >= self.entries:
            return f"only the first {self.entries} files and folders were looked at (preflight.max_entries)"
        if not count % 256 and time.monotonic() > self.until:
            return f"the look ended after {count} files and folders (preflight.max_seconds)"
        return ""


@dataclass(kw_only=True, slots=True)
class _Seen:
    entries: dict[str, int | None] = field(default_factory=dict)
    said: str = ""


@contextlib.contextmanager
def looked_into(
    checked: Checked,
    settings: SourceSettings,
    unpack: UnpackSettings,
    *,
    bounds: Bounds,
    breathe: Callable[[], None] = lambda: None,
) -> Iterator[Overview | None]:
    """Look into a local source; None for what only unpacking tells. Blocks, and calls `breathe` now and then.

    Raises `SourceError` when what was there is gone or may not be read.
    """
    path = str(checked.path)
    if checked.kind is Kind.FOLDER:
        with Tree(path) as tree:
            yield _folder(tree, settings, bounds, breathe)
    elif checked.kind is Kind.FILE:
        yield Overview(entries={checked.name: checked.size_bytes or 0}, opened=lambda _: _lent(path))
    else:
        with _zip(path) as archive:
            yield _zipped(archive, unpack, bounds, breathe) if archive is not None else None


# --- folders ---------------------------------------------------------------------------------------------------------


def _folder(tree: Tree, settings: SourceSettings, bounds: Bounds, breathe: Callable[[], None]) -> Overview:
    seen, findings = _Seen(), Findings()
    for found in walk_folder(tree, findings):
        breathe()
        if said := bounds.over(len(seen.entries)):
            seen.said = said
            break
        if len(os.fsencode(found.path)) > PATH_BYTES:
            expected = f"a path of at most {PATH_BYTES} bytes"
            findings.add(Code.CONTENT_STRUCTURE_INVALID, found.path, expected=expected, actual="longer")
        if found.left_out:
            continue
        seen.entries[found.path] = None if found.directory else found.stat.st_size
    _limit(findings, settings, seen.entries)

    @contextlib.contextmanager
    def opened(path: str) -> Iterator[Path]:
        descriptor = tree.open_file(path)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError(path)
            # Opened again by its descriptor: nobody can put another file in its place meanwhile.
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    return Overview(entries=seen.entries, opened=opened, said=seen.said, error=findings.error())


@contextlib.contextmanager
def _lent(path: str) -> Iterator[Path]:
    yield Path(path)


# --- zips ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _zip(path: str) -> Iterator[zipfile.ZipFile | None]:
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
        found = archive_in(file.fileno())
        if found is None or found.form != "zip" or _directory_bytes(file.fileno()) > _DIRECTORY_BYTES:
            yield None
            return
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
            yield None  # unpacking may try other programs, and says what is wrong
            return
        with archive:
            yield archive


def _directory_bytes(fd: int) -> int:
    """How large a zip's end record says that its central directory is (APPNOTE 4.3.16)."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, 65_557, max(0, size - 65_557))
    end = tail.rfind(b"PK\x05\x06")
    return int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0


def _zipped(archive: zipfile.ZipFile, unpack: UnpackSettings, bounds: Bounds, breathe: Callable[[], None]) -> Overview:
    seen, findings = _Seen(), Findings()
    members: dict[str, zipfile.ZipInfo] = {}
    size = 0
    infos = archive.infolist()
    if len(infos) > unpack.max_entries:
        expected = f"at most {unpack.max_entries} files and folders (unpack.max_entries)"
        findings.add(Code.CONTENT_ARCHIVE_BOMB, "", expected=expected, actual=str(len(infos)))
    for info in infos:
        breathe()
        if said := bounds.over(len(seen.entries)):
            seen.said = said
            break
        path = _judged(info, findings)
        if path:
            folder = info.orig_filename.endswith("/") or stat.S_ISDIR(info.external_attr >> 16)
            for parent in _parents(path):
                seen.entries.setdefault(parent, None)
            seen.entries[path] = None if folder else info.file_size
            members[path] = info
            size += 0 if folder else info.file_size
    if size > unpack.max_bytes:
        expected = f"at most {unpack.max_bytes} bytes (unpack.max_bytes)"
        findings.add(Code.CONTENT_ARCHIVE_BOMB, "", expected=expected, actual=str(size))
    wrapping = _wrapping(seen.entries) if not seen.said else ""
    entries = {path.removeprefix(wrapping): size for path, size in seen.entries.items() if path != wrapping[:-1]}

    @contextlib.contextmanager
    def opened(path: str) -> Iterator[Path]:
        info = members.get(wrapping + path)
        if info is None:
            raise FileNotFoundError(path)
        with tempfile.TemporaryDirectory(prefix="ingestd-look-") as folder:
            to = Path(folder) / "file"
            _extract(archive, info, to)
            yield to

    return Overview(entries=entries, opened=opened, said=seen.said, error=findings.error())


def _judged(info: zipfile.ZipInfo, findings: Findings) -> str:
    """The path of a member; empty for what has none, cannot be used, or is neither file nor folder."""
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
    raw = zip_name(info)
    said = os.fsdecode(raw)
    try:
        parts = split(raw)
    except NameRefused as refusal:
        findings.add(refusal.code, said, expected=refusal.expected, actual=said)
        return ""
    if info.flag_bits & 1:
        expected = "an archive without a password"
        findings.add(Code.CONTENT_ARCHIVE_CORRUPT, said, expected=expected, actual="encrypted")
        return ""
    usual = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    return os.fsdecode(b"/".join(parts)) if parts and usual else ""


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _wrapping(entries: Mapping[str, int | None]) -> str:
    """The one folder around everything, with its slash, where it is dropped when the archive is unpacked."""
    tops = {path.partition("/")[0] for path in entries}
    top = next(iter(tops), "")
    single = len(tops) == 1 and entries.get(top, 0) is None and os.fsencode(top) not in KEPT_NAMES
    return f"{top}/" if single else ""


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, to: Path) -> None:
    """Take one member out, no more of it than its header says. Raises `OSError` where it is damaged."""
    try:
        with archive.open(info) as content, to.open("wb") as out:
            left = info.file_size
            while left > 0 and (chunk := content.read(min(_CHUNK_BYTES, left))):
                out.write(chunk)
                left -= len(chunk)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, RuntimeError) as error:
        raise OSError(f"{escape_name(info.filename)} is damaged: {error}") from error


# --- object stores ---------------------------------------------------------------------------------------------------


async def ask_store(
    location: str,
    credentials: CredentialSettings | None,
    settings: SourceSettings,
    *,
    bounds: Bounds,
    trusted: bool,
) -> Overview:
    """List what is at the URL of an object store; no object is fetched. Raises what `objects.look` raises."""
    url = parse_object_url(location, settings, trusted=trusted)
    store = await look(url, credentials)
    if store.info is not None:
        if store.info.size_bytes > settings.max_bytes:
            raise too_large(settings, store.info.size_bytes)
        return Overview(entries={url.key.rpartition("/")[2]: store.info.size_bytes})
    worker = Worker()
    return await worker.run(lambda: _listed(store, settings, bounds, worker.breathe))


def _listed(store: Store, settings: SourceSettings, bounds: Bounds, breathe: Callable[[], None]) -> Overview:
    findings, sizes, said = Findings(), dict[str, int | None](), ""
    for path, info in entries_of(store, Survey(), findings):
        breathe()
        if said := bounds.over(len(sizes)):
            break
        for parent in _parents(path):
            sizes.setdefault(parent, None)
        sizes[path] = info.size_bytes
    _limit(findings, settings, sizes)
    return Overview(entries=sizes, said=said, error=findings.error())


def _limit(findings: Findings, settings: SourceSettings, sizes: Mapping[str, int | None]) -> None:
    files, size = sum(each is not None for each in sizes.values()), sum(each or 0 for each in sizes.values())
    if files > settings.max_files:
        expected = f"at most {settings.max_files} files (sources.max_files)"
        findings.add(Code.POLICY_TOO_MANY_FILES, "", expected=expected, actual=str(files))
    if size > settings.max_bytes:
        expected = f"at most {settings.max_bytes} bytes (sources.max_bytes)"
        findings.add(Code.POLICY_SIZE_OVER_LIMIT, "", expected=expected, actual=str(size))
