"""Small documents that several workers change, each only if nobody else did: what leases and markers are made of.

A document's *tag* stands for what it says. Whoever changes or removes one shows the tag that was read; a tag that is
not in force any more is `DocumentChangedError`, and nothing was done. An answer that is lost on its way is resolved by
looking, as long as no two writers write the same bytes: put an owner's identifier into them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import re
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from ingestd.errors import Code, DependencyError, ResourceError, SystemFault
from ingestd.objectstore import Bucket, ObjectChangedError, ObjectExistsError
from ingestd.storage.disk import name_once, sync_folder, written
from ingestd.workfolder import ran_out

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_LOCK_SECONDS = 30.0
_LOCK_PAUSE_SECONDS = 0.01
_PAGE = 256

Answer = TypeVar("Answer")
Document = TypeVar("Document", bound=BaseModel)


class DocumentExistsError(Exception):
    """There is a document under the key."""


class DocumentChangedError(Exception):
    """The document is not the one that the tag stands for, or is gone."""


class Conditional(Protocol):
    """Documents by key (`words/with/slashes`), of one byte at least. Dependencies that are away: `DependencyError`."""

    async def read(self, key: str) -> tuple[bytes, str] | None:
        """Give a document and its tag; None when there is none."""
        ...

    async def create(self, key: str, content: bytes) -> str:
        """Write a document that is not there yet; give its tag. Raises `DocumentExistsError`."""
        ...

    async def replace(self, key: str, content: bytes, tag: str) -> str:
        """Write a document anew; give its new tag. Raises `DocumentChangedError`."""
        ...

    async def remove(self, key: str, tag: str) -> None:
        """Remove a document. Raises `DocumentChangedError`."""
        ...

    def list(self, prefix: str = "") -> AsyncIterator[str]:
        """Give the keys of all documents below a folder, in no order."""
        ...


def document_as(kind: type[Document], content: bytes) -> Document:
    """Read what workers share. Raises `DependencyError` for what is damaged: as if it were away, nobody can say."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        name = kind.__name__.strip("_").lower()
        raise DependencyError(
            f"a {name} in archival storage cannot be read: {len(content)} bytes, which are not what was written there",
            code=Code.DEPENDENCY_STORAGE_UNAVAILABLE,
            remediation="Look at the documents in `.ingestd/` of the default location; remove the one that is damaged.",
        ) from error


class LocalConditional:
    """Documents as files of a folder, on a disk or a share.

    A file appears by a hard link and changes by a rename, both whole or not at all; changes take turns by a lock on a
    file beside them. That excludes processes of one machine, and of several on NFS where its locks work (v4, or v3
    with lockd); creating is safe even without them.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._turn = threading.Lock()

    async def read(self, key: str) -> tuple[bytes, str] | None:
        return await asyncio.to_thread(self._translated, self._read, _checked(key))

    async def create(self, key: str, content: bytes) -> str:
        return await asyncio.to_thread(self._translated, self._create, _checked(key), _some(content))

    async def replace(self, key: str, content: bytes, tag: str) -> str:
        return await asyncio.to_thread(self._translated, self._replace, _checked(key), _some(content), tag)

    async def remove(self, key: str, tag: str) -> None:
        await asyncio.to_thread(self._translated, self._remove, _checked(key), tag)

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        found = _files(self._root / _checked(prefix) if prefix else self._root)
        while page := await asyncio.to_thread(self._translated, _page, found):
            for path in page:
                yield path.relative_to(self._root).as_posix()

    def _read(self, key: str) -> tuple[bytes, str] | None:
        try:
            content = (self._root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return content, _tag(content)

    def _create(self, key: str, content: bytes) -> str:
        place = self._root / key
        with self._locked(), _made(place, content) as new:
            try:
                name_once(new, place)
            except FileExistsError as error:
                raise DocumentExistsError(key) from error
        return _tag(content)

    def _replace(self, key: str, content: bytes, tag: str) -> str:
        place = self._root / key
        with self._locked():
            self._must_be(key, tag)
            with _made(place, content) as new:
                new.rename(place)
        sync_folder(place.parent)
        return _tag(content)

    def _remove(self, key: str, tag: str) -> None:
        with self._locked():
            self._must_be(key, tag)
            (self._root / key).unlink()
        sync_folder((self._root / key).parent)

    def _must_be(self, key: str, tag: str) -> None:
        found = self._read(key)
        if found is None or found[1] != tag:
            raise DocumentChangedError(key)

    def _translated(self, call: Callable[..., Answer], *arguments: object) -> Answer:
        try:
            return call(*arguments)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                found = ran_out(self._root)
                raise ResourceError(f"in archival storage {found.detail}", code=found.code) from error
            raise DependencyError(
                f"archival storage does not work: {error.strerror}", code=Code.DEPENDENCY_STORAGE_UNAVAILABLE
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Take turns, with threads of this process and with other processes; a process that dies loses its turn."""
        self._root.mkdir(parents=True, exist_ok=True)
        with self._turn:
            descriptor = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _wait_for(descriptor, self._root)
                yield
            finally:
                os.close(descriptor)


def _wait_for(descriptor: int, root: Path) -> None:
    give_up = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > give_up:
                raise DependencyError(
                    f"the lock in {root} was not free for {_LOCK_SECONDS:.0f} seconds",
                    code=Code.DEPENDENCY_STORAGE_UNAVAILABLE,
                ) from error
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return


def _made(place: Path, content: bytes) -> AbstractContextManager[Path]:
    """Make beside `place` what is then named or renamed to it."""
    return written(place.with_name(f".{place.name[:100]}.{uuid.uuid4().hex}"), content)


def _files(folder: Path) -> Iterator[Path]:
    """Give the documents; what begins with a dot is the lock, or was being written when a process died."""
    for here, _, names in os.walk(folder):
        yield from (Path(here) / name for name in names if not name.startswith("."))


def _page(found: Iterator[Path]) -> list[Path]:
    return list(itertools.islice(found, _PAGE))


class BucketConditional:
    """Documents as objects, by the store's own conditional writes.

    Object stores remove without a condition. So a removed document is an empty object, which nobody is shown and
    which is replaced when the document is created again.
    """

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix else ""

    async def read(self, key: str) -> tuple[bytes, str] | None:
        found = await asyncio.to_thread(self._bucket.read, self._prefix + _checked(key))
        return (found[0], found[1].tag) if found and found[0] else None

    async def create(self, key: str, content: bytes) -> str:
        return await asyncio.to_thread(self._create, self._prefix + _checked(key), _some(content))

    async def replace(self, key: str, content: bytes, tag: str) -> str:
        return await asyncio.to_thread(self._replace, self._prefix + _checked(key), _some(content), tag)

    async def remove(self, key: str, tag: str) -> None:
        await asyncio.to_thread(self._replace, self._prefix + _checked(key), b"", tag)

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        found = self._bucket.list((self._prefix + (_checked(prefix) if prefix else "")).rstrip("/"))
        while page := await asyncio.to_thread(lambda: list(itertools.islice(found, _PAGE))):
            for info in page:
                if info.size_bytes:
                    yield info.key.removeprefix(self._prefix)

    def _create(self, key: str, content: bytes) -> str:
        try:
            return self._bucket.create(key, content)
        except ObjectExistsError as error:
            found = self._bucket.read(key)
            if found and found[0] == content:
                return found[1].tag  # ours: the answer to the first try was lost
            if found is None or found[0]:
                raise DocumentExistsError(key) from error
            try:
                return self._bucket.replace(key, content, found[1].tag)
            except ObjectChangedError:
                raise DocumentExistsError(key) from error

    def _replace(self, key: str, content: bytes, tag: str) -> str:
        try:
            return self._bucket.replace(key, content, tag)
        except ObjectChangedError as error:
            found = self._bucket.read(key)
            if found and found[0] == content and found[1].tag != tag:
                return found[1].tag  # ours, as above
            raise DocumentChangedError(key) from error


async def probe(store: Conditional, name: str) -> None:
    """Raise `SystemFault` (`system.configuration`) unless the store's conditions hold; it is tried out."""
    key = f"probe/{uuid.uuid4()}"
    tag = await store.create(key, b"first " + key.encode())
    try:
        await store.create(key, b"second " + key.encode())
    except DocumentExistsError:
        pass
    else:
        raise unfit(name, "it overwrites what it was told to create")
    newer = await store.replace(key, b"third " + key.encode(), tag)
    try:
        await store.replace(key, b"fourth " + key.encode(), tag)
    except DocumentChangedError:
        await store.remove(key, newer)
    else:
        raise unfit(name, "it overwrites what was changed meanwhile")


def unfit(name: str, what: str) -> SystemFault:
    """Say that leases cannot be kept at a location."""
    return SystemFault(
        f"the location {name!r} has no conditional writes ({what}), which leases between workers need",
        code=Code.SYSTEM_CONFIGURATION,
        remediation="Use a shared folder, or an object store that honours If-None-Match and If-Match, for leases; "
        "as a place for AIPs this one can stay.",
    )


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key) or len(key) > 512:
        raise ValueError(f"not a key: {key!r}")
    return key


def _some(content: bytes) -> bytes:
    if not content:
        raise ValueError("a document has at least one byte")
    return content


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
