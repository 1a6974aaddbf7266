"""What a store can do, whatever it is made of: keys, and files or folders under them. Layouts stand on this.

A key is words with slashes between them, as in a path; a folder is stored as a key with more keys below it. Stores
raise `DependencyError` when they are away, `ResourceError` when they are full, `StorageError`
(`storage.upload_failed`) when they refuse; `FileNotFoundError` for a key that is not there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from ingestd.premis import DigestAlgorithm
from ingestd.storage.conditional import Conditional

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A stored file as its store knows it. `checksum` is the store's own (an ETag), in its own terms; often empty."""

    key: str
    size_bytes: int
    modified_at: datetime
    checksum: str = ""
    version: str = ""


def keys_of(found: Mapping[str, Item], prefix: str, after: str) -> Iterator[tuple[str, Item]]:
    """Give the keys of what a folder holds by name, in order, but not what ends before the key `after`.

    What is hidden at the root is not archived; within an AIP names may begin with a dot.
    """
    past = after.split("/")
    words = prefix.split("/") if prefix else []
    first = past[len(words)] if past[: len(words)] == words and len(past) > len(words) else ""
    for name in sorted(found):
        if name >= first and (prefix or not name.startswith(".")):
            yield (f"{prefix}/{name}" if prefix else name), found[name]


class Store(Protocol):
    """A place for files."""

    def url_of(self, key: str) -> str: ...

    def name_of(self, key: str) -> str:
        """How a key is spelled in the store: for who reads it with other programs."""
        ...

    async def put(self, key: str, source: Path, *, take: bool = False, over: bool = False) -> None:
        """Store a file, whole or not at all, or a folder, file by file or whole. It is on disk when this returns.

        With `take` the source may be moved away. After a crash it is done again, with the same end, even where the
        source is gone because it was taken. `over`: replace a file that is there; otherwise nothing may be there.
        Raises `FileExistsError` when something is.
        """
        ...

    async def create(self, key: str, content: bytes) -> bool:
        """Store a small file, if there is none; say whether there was none."""
        ...

    async def write(self, key: str, content: bytes) -> None:
        """Store a small file, over what was there, at once."""
        ...

    async def read(self, key: str) -> bytes | None:
        """Give a small file."""
        ...

    def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Give a file's bytes from `start` to before `end`."""
        ...

    async def digests(self, key: str, algorithms: Sequence[DigestAlgorithm]) -> Mapping[DigestAlgorithm, str]:
        """Read a file back from its medium, and compute these digests of what was read."""
        ...

    async def head(self, key: str) -> Entry | None: ...

    async def is_folder(self, key: str) -> bool: ...

    def list(self, prefix: str = "", after: str = "") -> AsyncIterator[Entry]:
        """Give the files below a key, in the order of their keys' words, after the key `after`."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a file, or a folder with all that is in it; what is not there is no error."""
        ...

    async def check(self) -> None:
        """Raise `DependencyError` unless something could be stored now."""
        ...

    def documents(self, folder: str) -> Conditional | None:
        """Give small documents below a folder that several workers may change; None where there are no conditions."""
        ...

    async def aclose(self) -> None: ...
