"""A look at what a source holds before it is received: names and sizes, and single files of it, within limits.

A folder is walked by the rules by which it will be received; for archives, see `listing`.
"""

# Names are bytes, or str that stands for bytes, and are joined exactly as they are: that is not what pathlib is for.

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ingestd.errors import Code, IngestError
from ingestd.sources.findings import Findings
from ingestd.sources.folders import walk_folder
from ingestd.sources.locations import parse_object_url, too_large
from ingestd.sources.names import PATH_BYTES, Tree
from ingestd.sources.objects import Store, Survey, entries_of, look
from ingestd.sources.records import Checked, Kind
from ingestd.together import Worker

if TYPE_CHECKING:
    from ingestd.config import SourceSettings
    from ingestd.keeping import CredentialSettings


class Opened(Protocol):
    """Gives a file of the source as a path that can be read while the context lasts."""

    def __call__(self, path: str) -> contextlib.AbstractContextManager[Path]: ...


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What a source holds, as far as was looked: sizes by path (None: a folder), decoded by `os.fsdecode`.

    `said` tells of the limit that ended the look, if one did. `error` is everything that receiving it would refuse.
    `opened` raises `OSError` where a file cannot be had; it is None where files can only be had by fetching them.
    `opens_all`: any file can be had, and not only what was taken out of an archive.
    """

    entries: Mapping[str, int | None]
    opened: Opened | None = None
    opens_all: bool = False
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
    *,
    bounds: Bounds,
    breathe: Callable[[], None] = lambda: None,
) -> Iterator[Overview]:
    """Look into a local folder or file. Blocks, and calls `breathe` now and then.

    Raises `SourceError` when what was there is gone or may not be read.
    """
    path = str(checked.path)
    if checked.kind is Kind.FOLDER:
        with Tree(path) as tree:
            yield _folder(tree, settings, bounds, breathe)
    else:
        yield Overview(entries={checked.name: checked.size_bytes or 0}, opened=lambda _: _lent(path), opens_all=True)


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

    return Overview(entries=seen.entries, opened=opened, opens_all=True, said=seen.said, error=findings.error())


@contextlib.contextmanager
def _lent(path: str) -> Iterator[Path]:
    yield Path(path)


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
    findings.limit(settings, files=files, size_bytes=size)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
