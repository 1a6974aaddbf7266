"""A store in a bucket of an object store."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import structlog

from ingestd.errors import Code, StorageError
from ingestd.keeping import CredentialSettings
from ingestd.objectstore import CHUNK_BYTES, Bucket, ObjectExistsError, ObjectInfo, open_bucket
from ingestd.premis import DigestAlgorithm
from ingestd.storage.conditional import BucketConditional
from ingestd.storage.store import Entry
from ingestd.together import Worker

if TYPE_CHECKING:
    from ingestd.storage.multipart import Uploads

log = structlog.get_logger(__name__)

_PAGE = 500
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|%(?=[0-9A-F]{2})|\.(?=/|$)")
_ENCODED = re.compile(rb"%([0-9A-F]{2})")
_WHOLE_BYTES = 8 * 2**20
"""A larger file goes up in parts: by `multipart`, or, where there is none, as a stream that cannot go on after a crash
and is completed without a condition. Either way it is looked for before.
"""


class BucketStore:
    """Files as objects, in whose names what object stores do not take, or take differently, is percent-encoded."""

    def __init__(self, bucket: Bucket, uploads: Uploads | None = None) -> None:
        self.bucket = bucket
        self._uploads = uploads

    @classmethod
    def open(cls, url: str, credentials: CredentialSettings | None = None, *, endpoint: str = "") -> Self:
        """Open a bucket, as `open_bucket` does; with uploads that go on after a crash where there are any."""
        bucket = open_bucket(url, credentials, endpoint=endpoint)
        if urlsplit(url).scheme.lower() != "s3":
            return cls(bucket)
        try:
            from ingestd.storage.session import open_uploads
        except ImportError:
            return cls(bucket)  # `doctor` says what to install
        return cls(bucket, open_uploads(bucket, url, credentials, endpoint=endpoint))

    def url_of(self, key: str) -> str:
        return self.bucket.url_of(encode(key))

    def name_of(self, key: str) -> str:
        return encode(key)

    def documents(self, folder: str) -> BucketConditional:
        return BucketConditional(self.bucket, folder)

    async def aclose(self) -> None:
        """Close the connections that are not obstore's."""
        if self._uploads is not None:
            await asyncio.to_thread(self._uploads.close)

    async def put(self, key: str, source: Path, *, take: bool = False, over: bool = False) -> None:  # noqa: ARG002
        if await asyncio.to_thread(source.is_dir):
            await self._put_folder(key, source)
            return
        if not await asyncio.to_thread(source.exists):
            raise StorageError(f"{source.name} is gone before it was stored", code=Code.STORAGE_UPLOAD_FAILED)
        await self._send(key, source, over=over)

    async def _send(self, key: str, source: Path, *, over: bool) -> None:
        name, worker = encode(key), Worker()
        try:
            size = (await asyncio.to_thread(source.stat)).st_size
            if size <= _WHOLE_BYTES:
                await asyncio.to_thread(self._put_whole, name, source, over)
                return
            if not over:
                await asyncio.to_thread(self._must_not_be, name)
            await worker.run(lambda: self._put_parts(name, source, size, over, worker.breathe))
        except FileExistsError:
            raise
        except OSError as error:
            raise StorageError(f"cannot read {source.name}: {error.strerror}") from error

    def _put_whole(self, name: str, source: Path, over: bool) -> None:
        (self.bucket.write if over else self._create)(name, source.read_bytes())

    def _put_parts(self, name: str, source: Path, size: int, over: bool, breathe: Callable[[], None]) -> None:
        if self._uploads is not None:
            self._uploads.put(name, source, breathe, over=over)
        else:
            log.info("upload_cannot_be_resumed", url=self.bucket.url_of(name), size_bytes=size)
            self.bucket.send(name, _chunks(source, breathe), size)

    def _must_not_be(self, name: str) -> None:
        if self.bucket.head(name) is not None:
            raise FileExistsError(name)

    async def _put_folder(self, key: str, source: Path) -> None:
        """Store file by file; what went up before a crash, by its size, is not sent again: it is proved in the end."""
        for folder, _, names in await asyncio.to_thread(lambda: list(os.walk(source))):
            for name in names:
                path = Path(folder) / name
                inner = f"{key}/{path.relative_to(source).as_posix()}"
                there = await self.head(inner)
                if there is None or there.size_bytes != path.stat().st_size:
                    await self._send(inner, path, over=True)

    def _create(self, name: str, content: bytes) -> None:
        try:
            self.bucket.create(name, content)
        except ObjectExistsError as error:
            found = self.bucket.read(name)
            if found is None or found[0] != content:  # the answer to a first try may have been lost
                raise FileExistsError(name) from error

    async def create(self, key: str, content: bytes) -> bool:
        try:
            await asyncio.to_thread(self.bucket.create, encode(key), content)
        except ObjectExistsError:
            return False
        return True

    async def write(self, key: str, content: bytes) -> None:
        await asyncio.to_thread(self.bucket.write, encode(key), content)

    async def read(self, key: str) -> bytes | None:
        found = await asyncio.to_thread(self.bucket.read, encode(key))
        return found[0] if found else None

    async def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        chunks = self.bucket.stream(encode(key), start, end)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk

    async def digests(self, key: str, algorithms: Sequence[DigestAlgorithm]) -> Mapping[DigestAlgorithm, str]:
        def compute() -> Mapping[DigestAlgorithm, str]:
            hashes = {one: hashlib.new(one.value, usedforsecurity=False) for one in algorithms}
            for chunk in self.bucket.stream(encode(key)):
                for one in hashes.values():
                    one.update(chunk)
            return {name: one.hexdigest() for name, one in hashes.items()}

        return await asyncio.to_thread(compute)

    async def head(self, key: str) -> Entry | None:
        info = await asyncio.to_thread(self.bucket.head, encode(key))
        return _entry(info) if info else None

    async def is_folder(self, key: str) -> bool:
        found = self.bucket.list(encode(key))
        return await asyncio.to_thread(next, found, None) is not None

    async def list(self, prefix: str = "", after: str = "") -> AsyncIterator[Entry]:
        found = self.bucket.list(encode(prefix), encode(after))
        while page := await asyncio.to_thread(_page, found):
            for info in page:
                yield _entry(info)

    async def delete(self, key: str) -> None:
        if await self.head(key) is not None:
            await asyncio.to_thread(self.bucket.delete, encode(key))
        async for entry in self.list(key):
            await asyncio.to_thread(self.bucket.delete, encode(entry.key))

    async def check(self) -> None:
        def probe() -> None:
            name = f".probe-{uuid.uuid4()}"
            self.bucket.write(name, b"ingestd")
            self.bucket.delete(name)

        await asyncio.to_thread(probe)


def encode(key: str) -> str:
    """Make a key one that every object store takes: no control characters, no bytes that are no text, no word that
    ends in a full stop.
    """
    return _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in os.fsencode(found[0])), key)


def decode(name: str) -> str:
    return os.fsdecode(_ENCODED.sub(lambda found: bytes([int(found[1], 16)]), os.fsencode(name)))


def _chunks(source: Path, breathe: Callable[[], None]) -> Iterator[bytes]:
    with source.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            breathe()
            yield chunk


def _entry(info: ObjectInfo) -> Entry:
    return Entry(
        key=decode(info.key),
        size_bytes=info.size_bytes,
        modified_at=info.modified_at,
        checksum=f"etag {info.tag}" if info.tag else "",
        version=info.version,
    )


def _page(found: Iterator[ObjectInfo]) -> Sequence[ObjectInfo]:
    return tuple(itertools.islice(found, _PAGE))
