"""Large files into S3 and compatible stores: uploads in parts that go on after a crash, and that end with a condition.
With `session`, the only module that knows botocore.

Nothing is remembered: the store is asked which uploads of a key are open. One is gone on with that is cut as the file
is and whose first part is the file's. Of its parts those stay whose size and message digest (SHA-256 where the store
keeps it, else the ETag, which is the part's MD5) are those of the same bytes of the file; all others are sent. The
upload is completed where nothing is (`If-None-Match: *`), and what else was open under the key is ended.
Everything here blocks: call it in threads.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError  # noqa: A004

from ingestd.errors import Code, DependencyError, StorageError
from ingestd.objectstore import PARTS_AT_ONCE, Bucket, no_bucket, part_bytes

log = structlog.get_logger(__name__)

_BLOCK_BYTES = 256 * 1024
_TRIES = 3
_LONGEST_PAUSE_SECONDS = 10.0
_ALGORITHM = "SHA256"
_PASSING = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests", "OperationAborted"}
_NO_CONDITIONS = {"NotImplemented", "InvalidArgument", "InvalidRequest", "NotSupported"}
"""How stores answer that do not know the condition; others take no notice of it."""
_REFUSED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
"""Further words for credentials that are not taken, which have the status of a bad request."""
_OVERTAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload", "InvalidPart"}
"""How a store answers when somebody else, or an earlier try whose answer was lost, was there first."""

Breathe = Callable[[], None]
"""Raises when nobody waits for the work any more."""
Client = Any
Part = Mapping[str, Any]
"""A part as the store tells of it."""


class _OvertakenError(Exception):
    """The upload is not, or no longer, what it was taken for."""


class Uploads:
    """Uploads into one bucket, whose keys begin with `prefix`. With `checksums` the store is to keep SHA-256 of parts.

    `connect` makes a client; it is called once, when there is something to upload.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        name: str,
        prefix: str,
        connect: Callable[[], Client],
        checksums: bool,
        encryption: Mapping[str, str | bool] | None = None,
        patience_seconds: float = 60,
    ) -> None:
        self.bucket = bucket
        self.checksums = checksums
        self.encryption = encryption or {}
        """What is asked of the store when an upload begins."""
        self.patience_seconds = patience_seconds
        self._name = name
        self._prefix = f"{prefix}/" if prefix else ""
        self._connect = connect
        self._turn = threading.Lock()

    @cached_property
    def _client(self) -> Client:
        return self._connect()

    def put(self, key: str, source: Path, breathe: Breathe, *, over: bool) -> None:
        """Bring a file to its key; go on with an upload of it that was cut short. `over`: replace what is there.

        Raises `FileExistsError` when there is something else, `OSError` when the file cannot be read, `StorageError`
        (`storage.upload_failed`) when it changes meanwhile, `DependencyError` as `Bucket` does.
        """
        with _translated(self.bucket.url), source.open("rb") as file:
            with self._turn:
                client = self._client
            for _ in range(_TRIES):
                upload = _Upload(self, client, self._name, self._prefix, key, file.fileno(), breathe)
                try:
                    upload.run(over=over)
                except _OvertakenError:
                    continue
                except ClientError as error:
                    if _code(error) != "NoSuchUpload":  # which another has ended
                        raise
                else:
                    return
        raise DependencyError(
            f"{self.bucket.url}: somebody else uploads {key}, too", code=Code.DEPENDENCY_STORAGE_UNAVAILABLE
        )

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()


@dataclass
class _Upload:
    """One try at bringing a file to its key."""

    uploads: Uploads
    client: Client
    bucket: str
    prefix: str
    key: str
    file: int
    breathe: Breathe
    failures: list[BaseException] = field(default_factory=list)
    """What went wrong in the threads that bring parts; the others end with the first."""

    def __post_init__(self) -> None:
        self.size = os.fstat(self.file).st_size
        self.part_size = part_bytes(self.size)
        self.count = -(-self.size // self.part_size)
        self.where = {"Bucket": self.bucket, "Key": self.prefix + self.key}

    def run(self, *, over: bool) -> None:
        others = self._open_uploads()
        upload, there = self._to_go_on_with(others)
        if not upload:
            upload = self._begin()
        parts = self._bring(upload, there)
        kept = sum(part is there.get(part["PartNumber"]) for part in parts)
        if there:
            log.info("upload_resumed", url=self._url, parts=self.count, kept=kept)
        try:
            self._complete(upload, parts, over=over)
        except FileExistsError:
            self._end({*others, upload})
            raise
        self._end({*others} - {upload})

    @property
    def _url(self) -> str:
        return self.uploads.bucket.url_of(self.key)

    # --- what is open ------------------------------------------------------------------------------------------------

    def _open_uploads(self) -> list[str]:
        """Give the uploads of the key that were begun and not ended."""
        try:
            found = self._ask("list_multipart_uploads", Bucket=self.bucket, Prefix=self.where["Key"])
        except ClientError as error:
            if _code(error) == "NoSuchBucket":
                raise
            # Listing is a permission of its own, and not every store has it.
            log.warning("open_uploads_unknown", url=self._url, why=_code(error), consequence="all parts are sent")
            return []
        return [one["UploadId"] for one in found.get("Uploads", ()) if one["Key"] == self.where["Key"]]

    def _to_go_on_with(self, uploads: Sequence[str]) -> tuple[str, Mapping[int, Part]]:
        """Give the upload of this file that is furthest, and its parts by number; nothing when there is none."""
        best: tuple[str, Mapping[int, Part]] = "", {}
        for upload in uploads:
            there = {part["PartNumber"]: part for part in self._parts(upload)}
            if len(there) > len(best[1]) and self._is_ours(there):
                best = upload, there
        return best

    def _parts(self, upload: str) -> Iterator[Part]:
        marker = 0
        while True:
            try:
                page = self._ask("list_parts", **self.where, UploadId=upload, PartNumberMarker=marker)
            except ClientError as error:
                log.warning("open_upload_unknown", url=self._url, why=_code(error))
                return
            if page.get("ChecksumAlgorithm", _ALGORITHM) != _ALGORITHM:
                return
            parts = page.get("Parts", ())
            yield from parts
            if not page.get("IsTruncated") or not parts or parts[-1]["PartNumber"] <= marker:
                return
            marker = parts[-1]["PartNumber"]

    def _is_ours(self, there: Mapping[int, Part]) -> bool:
        """Whether parts are cut as ours are, and the first of them is the file's."""
        cut = all(number <= self.count and part["Size"] == self._span(number)[1] for number, part in there.items())
        return cut and self._is_same(min(there), there[min(there)])

    def _is_same(self, number: int, part: Part) -> bool:
        return part["Size"] == self._span(number)[1] and _says(part, self._digests(number))

    # --- the parts ---------------------------------------------------------------------------------------------------

    def _begin(self) -> str:
        wanted = {"ChecksumAlgorithm": _ALGORITHM} if self.uploads.checksums else {}
        begun = self._ask("create_multipart_upload", **self.where, **wanted, **self.uploads.encryption)
        return str(begun["UploadId"])

    def _bring(self, upload: str, there: Mapping[int, Part]) -> list[Part]:
        """Send what is not there, a few parts at once; give all parts in their order."""
        numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(1, self.count + 1):
            numbers.put(number)

        def bring() -> list[Part]:
            done: list[Part] = []
            try:
                with contextlib.suppress(queue.Empty):
                    while True:
                        done.append(self._part(upload, number := numbers.get_nowait(), there.get(number)))
            except BaseException as error:
                self.failures.append(error)
                raise
            return done

        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="upload") as threads:
            running = [threads.submit(bring) for _ in range(PARTS_AT_ONCE)]
        if self.failures:
            raise self.failures[0]
        return sorted((part for one in running for part in one.result()), key=lambda part: int(part["PartNumber"]))

    def _part(self, upload: str, number: int, there: Part | None) -> Part:
        md5, sha256 = digests = self._digests(number)
        start, size = self._span(number)
        if there is not None and there["Size"] == size and _says(there, digests):
            return there
        checksum = {f"Checksum{_ALGORITHM}": _base64(sha256)} if self.uploads.checksums else {}
        with _Body(self.file, start, size, self._go_on) as body:
            sent = self._ask(
                "upload_part",
                **self.where,
                UploadId=upload,
                PartNumber=number,
                Body=body,
                ContentLength=size,
                ContentMD5=_base64(md5),
                **checksum,
            )
        return {**sent, "PartNumber": number}

    def _span(self, number: int) -> tuple[int, int]:
        """Where a part begins in the file, and how many bytes it has."""
        start = (number - 1) * self.part_size
        return start, min(self.part_size, self.size - start)

    def _digests(self, number: int) -> tuple[bytes, bytes]:
        """Compute MD5 and SHA-256 of a part of the file."""
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        start, size = self._span(number)
        with _Body(self.file, start, size, self._go_on) as body:
            while block := body.read(_BLOCK_BYTES):
                md5.update(block)
                sha256.update(block)
            if body.tell() != size:
                raise StorageError(f"{self.key} changed while it was stored", code=Code.STORAGE_UPLOAD_FAILED)
        return md5.digest(), sha256.digest()

    # --- the end -----------------------------------------------------------------------------------------------------

    def _complete(self, upload: str, parts: Sequence[Part], *, over: bool) -> None:
        self._must_not_be(over=over)  # for stores that take no notice of the condition
        try:
            try:
                self._finish(upload, parts, {} if over else {"IfNoneMatch": "*"})
            except ClientError as error:
                if over or _code(error) not in _NO_CONDITIONS:
                    raise
                self._finish(upload, parts, {})
        except ClientError as error:
            if _code(error) not in _OVERTAKEN:
                raise
            found = self.uploads.bucket.head(self.key)
            if found is not None and (found.size_bytes, found.tag.strip('"')) == (self.size, _tag_of(parts)):
                return  # the answer to a first try was lost
            self._must_not_be(over=over)
            raise _OvertakenError from error

    def _must_not_be(self, *, over: bool) -> None:
        if not over and self.uploads.bucket.head(self.key) is not None:
            raise FileExistsError(self.key)

    def _finish(self, upload: str, parts: Sequence[Part], condition: Mapping[str, str]) -> None:
        told = ("PartNumber", "ETag", f"Checksum{_ALGORITHM}")
        listed = [{name: part[name] for name in told if part.get(name)} for part in parts]
        self._ask(
            "complete_multipart_upload", **self.where, UploadId=upload, MultipartUpload={"Parts": listed}, **condition
        )

    def _end(self, uploads: Iterable[str]) -> None:
        """Give up what nobody goes on with: its parts are paid for. One that cannot be given up is no failure."""
        for upload in uploads:
            try:
                self._ask("abort_multipart_upload", **self.where, UploadId=upload)
            except (ClientError, BotoCoreError) as error:
                log.warning("open_upload_stays", url=self._url, why=type(error).__name__)

    # --- asking ------------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        self.breathe()
        if self.failures:
            raise self.failures[0]

    def _ask(self, operation: str, **values: Any) -> Mapping[str, Any]:
        """Call the store; again, some times and for a while after the first, where it is away or has too much to do."""
        tries, give_up, pause = 0, 0.0, 0.1
        while True:
            tries += 1
            self._go_on()
            if "Body" in values:
                values["Body"].seek(0)
            try:
                answer: Mapping[str, Any] = getattr(self.client, operation)(**values)
            except (ClientError, BotoCoreError) as error:
                give_up = give_up or time.monotonic() + self.uploads.patience_seconds
                if not _passes(error) or (tries >= _TRIES and time.monotonic() > give_up):
                    raise
            else:
                return answer
            self._rest(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._go_on()
            time.sleep(min(left, 0.5))


class _Body(io.RawIOBase):
    """A part of a file, read from the file as it is sent. The file stays open."""

    def __init__(self, file: int, start: int, size: int, breathe: Breathe) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._breathe = breathe
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._breathe()
        wanted = memoryview(buffer)[: max(0, self._size - self._at)]
        count = os.preadv(self._file, [wanted], self._start + self._at)
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at


def _says(part: Part, digests: tuple[bytes, bytes]) -> bool:
    """Whether the store says of a part that it has these digests."""
    md5, sha256 = digests
    kept = part.get(f"Checksum{_ALGORITHM}")
    return bool(kept == _base64(sha256)) if kept else part["ETag"].strip('"') == md5.hex()


def _tag_of(parts: Sequence[Part]) -> str:
    """Reckon the ETag of an object from those of its parts; empty where they are no MD5."""
    try:
        each = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    except ValueError:
        return ""
    return f"{hashlib.md5(each, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _code(error: ClientError) -> str:
    """The store's own word for what is wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _passes(error: Exception) -> bool:
    if isinstance(error, ClientError):
        status = _status(error)
        return _code(error) in _PASSING or status == 429 or (status >= 500 and status != 501)
    return isinstance(error, (ConnectionError, HTTPClientError))


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if _code(error) == "NoSuchBucket":
            raise no_bucket(url) from None
        said = f"{_code(error)}: {error.response.get('Error', {}).get('Message', '')}"[:300]
        if _status(error) in {401, 403} or _code(error) in _REFUSED:
            raise DependencyError(f"{url} refused the credentials: {said}", code=Code.DEPENDENCY_STORAGE_AUTH) from None
        raise DependencyError(
            f"{url} did not answer as it should: {said}", code=Code.DEPENDENCY_STORAGE_UNAVAILABLE
        ) from None
    except BotoCoreError as error:
        missing = "Credential" in type(error).__name__
        code = Code.DEPENDENCY_STORAGE_AUTH if missing else Code.DEPENDENCY_STORAGE_UNAVAILABLE
        raise DependencyError(f"{url} cannot be asked: {str(error).partition(chr(10))[0][:300]}", code=code) from None
