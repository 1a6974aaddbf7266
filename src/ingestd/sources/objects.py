"""Receives from object stores: one object as a file or archive, or everything below a prefix as a folder.

A store has no folders: they are the words of the keys, and an empty object whose key is a folder's is the mark that
some programs leave of it. Everything is listed first, which finds all that is wrong; then it is fetched, each object
proved by its tag to be the one that was listed, and taken up again where it was interrupted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ingestd.errors import Code, DependencyError, IngestError, SourceError
from ingestd.manifests import HASHES, asked_for
from ingestd.oais import escape_name
from ingestd.objectstore import Bucket, NoBucketError, ObjectInfo, open_bucket
from ingestd.premis import Digest, DigestAlgorithm, now
from ingestd.sources.copying import CHUNK_BYTES, changed, no_room, reserve
from ingestd.sources.downloads import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from ingestd.sources.findings import Findings
from ingestd.sources.folders import Known
from ingestd.sources.locations import ObjectUrl, too_large
from ingestd.sources.names import NameRefused, split
from ingestd.sources.records import WINDOW, Received
from ingestd.together import Worker
from ingestd.walking import used

if TYPE_CHECKING:
    from ingestd.config import SourceSettings
    from ingestd.keeping import CredentialSettings

T = TypeVar("T")

SMALL_BYTES = 4 * 2**20
"""Objects of at most this size are fetched by one request, in memory."""
_BODY = "download"
_STATE = "download.json"
_TRACE = "objects.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """A bucket that is open, and what of it is asked for. `info` is None where that is a folder."""

    bucket: Bucket
    url: ObjectUrl
    info: ObjectInfo | None


async def look(url: ObjectUrl, credentials: CredentialSettings | None) -> Store:
    """See whether a URL names an object or a folder of them. Raises `SourceError` (`source.not_found`, …)."""

    def ask() -> Store:
        bucket = open_bucket(url.bucket, _account(url, credentials))
        if url.key and not url.folder and (info := bucket.head(url.key)):
            return Store(bucket=bucket, url=url, info=info)
        if next(iter(bucket.list(url.key)), None) is None:
            raise SourceError(f"there is nothing at {url.text}", code=Code.SOURCE_NOT_FOUND)
        return Store(bucket=bucket, url=url, info=None)

    try:
        return await Worker().run(ask)
    except DependencyError as error:
        raise _worded(error) from error
    except FileNotFoundError as error:
        raise SourceError(f"there is no such bucket: {url.bucket}", code=Code.SOURCE_NOT_FOUND) from error


def _account(url: ObjectUrl, credentials: CredentialSettings | None) -> CredentialSettings:
    """Who asks: nobody, where the request names no credentials. What a role of this machine may read is not theirs.

    Azure's longer URLs name the storage account.
    """
    # Not above: the processes that read archives load this module, too, and no settings.
    from ingestd.keeping import CredentialSettings

    given = credentials or CredentialSettings(anonymous=True)
    return given.model_copy(update={"account_name": url.account}) if url.account else given


async def fetch_object(
    store: Store, scratch: Path, *, settings: SourceSettings, first_pause_seconds: float = FIRST_PAUSE_SECONDS
) -> Path:
    """Fetch one object into `scratch`, where a later call goes on with what an earlier one left.

    Raises `PolicyError` (`policy.size_over_limit`), `SourceError`, `ResourceError`.
    """
    assert store.info is not None  # noqa: S101  only asked of an object
    if store.info.size_bytes > settings.max_bytes:
        raise too_large(settings, store.info.size_bytes)
    body = scratch / _BODY
    worker = Worker()
    pull = _Pull(store.bucket, store.info, body, scratch / _STATE, [], worker.breathe)
    await _attempts(worker, pull, settings, first_pause_seconds)
    return body


async def receive_objects(
    store: Store,
    into: Path,
    *,
    settings: SourceSettings,
    algorithm: DigestAlgorithm,
    known: Known,
    scratch: Path,
) -> AsyncGenerator[Sequence[Received], None]:
    """Fetch everything below a prefix into `into`; yield what is new there, in windows. Goes on as `receive_folder`.

    Raises everything found wrong as one error before anything is fetched; `source.changed` when the list is another
    than before, also before a restart.
    """
    worker = Worker()
    survey = await _translated(worker, partial(_survey, store, settings, worker))
    await worker.run(partial(_same_as_before, scratch / _TRACE, survey.trace))
    there, _ = await worker.run(lambda: used(into))
    await worker.run(lambda: reserve(survey.size_bytes - there, str(into)))
    more = asked_for(survey.names)
    again = Survey()
    entries = entries_of(store, again, None)
    while window := await _translated(worker, lambda: list(islice(entries, WINDOW))):
        paths = [path for path, _ in window]
        parents = list(dict.fromkeys(parent for path in paths for parent in _parents(path)))
        skipped = await known([*parents, *paths])
        received = await worker.run(partial(_make_folders, into, [path for path in parents if path not in skipped]))
        for path, info in window:
            if path in skipped and _is_there(into / path, info):
                continue
            if await _translated(worker, partial(_is_mark, store, info, into / path)):
                received += [] if path in skipped else await worker.run(partial(_make_folders, into, [path]))
                continue
            received.append(await _take(store, path, info, into, scratch, settings, algorithm, more, worker))
        unique = {one.path: one for one in received}
        if unique:
            yield list(unique.values())
    if again.trace != survey.trace:
        raise changed("the source")
    await worker.run(partial((scratch / _TRACE).unlink, missing_ok=True))


# --- looking ---------------------------------------------------------------------------------------------------------


class Survey:
    """What one listing saw: counts, a digest over keys and tags that the next must repeat, the names at the top."""

    def __init__(self) -> None:
        self.files = 0
        self.size_bytes = 0
        self.names: list[str] = []
        self._trace = hashlib.blake2b(digest_size=16)

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    def add(self, path: str, info: ObjectInfo) -> None:
        self._trace.update(repr((path, info.size_bytes, info.tag)).encode())
        self.files += 1
        self.size_bytes += info.size_bytes
        if asked_for([path]) or path == "bagit.txt":
            self.names.append(path)


def _survey(store: Store, settings: SourceSettings, worker: Worker) -> Survey:
    survey, findings = Survey(), Findings()
    for _ in entries_of(store, survey, findings):
        worker.breathe()
        if survey.files > settings.max_files:
            break
    findings.limit(settings, files=survey.files, size_bytes=survey.size_bytes, counted=False)
    findings.raise_any()
    return survey


def entries_of(store: Store, survey: Survey, findings: Findings | None) -> Iterator[tuple[str, ObjectInfo]]:
    """Give every object below the prefix, by its path there."""
    below = f"{store.url.key}/" if store.url.key else ""
    for info in store.bucket.list(store.url.key):
        path = info.key.removeprefix(below)
        if not info.key.startswith(below) or not path:
            continue  # the mark of the folder itself, or a key that merely begins alike
        try:
            split(os.fsencode(path))
        except NameRefused as refusal:
            if findings is None:
                raise changed("the source") from refusal
            findings.add(refusal.code, path, expected=refusal.expected, actual=path)
            continue
        survey.add(path, info)
        yield path, info


def _same_as_before(state: Path, trace: str) -> None:
    if state.exists() and state.read_text(encoding="ascii") != trace:
        raise changed("the source")
    state.write_text(trace, encoding="ascii")


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _is_mark(store: Store, info: ObjectInfo, to: Path) -> bool:
    """Whether an empty object only marks a folder, since there are others below its key."""
    if info.size_bytes:
        return False
    below = f"{info.key.rstrip('/')}/"
    return to.is_dir() or any(one.key.startswith(below) for one in store.bucket.list(info.key))


def _is_there(to: Path, info: ObjectInfo) -> bool:
    return to.is_dir() or (to.is_file() and to.stat().st_size == info.size_bytes)


def _make_folders(into: Path, paths: Sequence[str]) -> list[Received]:
    for path in paths:
        try:
            (into / path).mkdir(exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise _collision(path) from error
    return [Received(path=path, directory=True) for path in paths]


def _collision(path: str) -> IngestError:
    findings = Findings()
    findings.add(Code.CONTENT_NAME_COLLISION, path, expected="either an object or a folder of them", actual="both")
    error = findings.error()
    assert error is not None  # noqa: S101  one was added
    return error


# --- fetching --------------------------------------------------------------------------------------------------------


class _Pull:
    """One object on its way to the new file `to`, in as many attempts as it takes. Everything here blocks."""

    def __init__(
        self,
        bucket: Bucket,
        info: ObjectInfo,
        to: Path,
        state: Path,
        words: Sequence[str],
        breathe: Callable[[], None],
    ) -> None:
        self.bucket, self.info, self.to, self.state, self.breathe = bucket, info, to, state, breathe
        self.hashes = {word: hashlib.new(HASHES[word], usedforsecurity=False) for word in words}
        self._have = -1

    def once(self) -> None:
        """Fetch what is missing. Raises `DependencyError` for what may go better next time, `source.changed`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.to, flags, 0o666), "r+b", buffering=0) as file:
            if self._have < 0:
                self._begin(file.fileno())
            os.lseek(file.fileno(), self._have, os.SEEK_SET)
            for chunk in self._small() if self.info.size_bytes <= SMALL_BYTES else self._large():
                self.breathe()
                self._write(file.fileno(), chunk)
            os.ftruncate(file.fileno(), self._have)
        if self._have != self.info.size_bytes:
            raise DependencyError(f"{self._have} of {self.info.size_bytes} bytes came")
        self.state.unlink(missing_ok=True)

    def _small(self) -> Iterator[bytes]:
        """One request gives the object and says which it is."""
        got = self.bucket.read(self.info.key)
        self._prove(got[1] if got else None)
        if got:
            yield got[0][self._have :]

    def _large(self) -> Iterator[bytes]:
        if self._have < self.info.size_bytes:
            yield from self.bucket.stream(self.info.key, self._have)
        self._prove(self.bucket.head(self.info.key))

    def _prove(self, still: ObjectInfo | None) -> None:
        # Some stores quote their tags in one answer and not in the other.
        listed = (self.info.size_bytes, self.info.tag.strip('"'))
        if still is None or (still.size_bytes, still.tag.strip('"')) != listed:
            raise changed(self.info.key)

    def _begin(self, fd: int) -> None:
        """Go on with what an earlier process left, if it is of this very object: read once more for its digests."""
        said = json.dumps([str(self.to), self.bucket.url_of(self.info.key), self.info.tag, self.info.size_bytes])
        self._have = 0
        if self.info.tag and self.state.exists() and self.state.read_text(encoding="utf-8") == said:
            while chunk := os.read(fd, CHUNK_BYTES):
                self.breathe()
                self._take(chunk)
        else:
            os.ftruncate(fd, 0)
            self.state.write_text(said, encoding="utf-8")
        if self._have > self.info.size_bytes:
            raise changed(self.info.key)

    def _take(self, chunk: bytes) -> None:
        for one in self.hashes.values():
            one.update(chunk)
        self._have += len(chunk)

    def _write(self, fd: int, chunk: bytes) -> None:
        if self._have + len(chunk) > self.info.size_bytes:
            raise changed(self.info.key)
        view = memoryview(chunk)
        while view:
            view = view[os.write(fd, view) :]
        self._take(chunk)


async def _attempts(worker: Worker, pull: _Pull, settings: SourceSettings, first_pause_seconds: float) -> None:
    for attempt in range(settings.http_attempts + 1):
        try:
            return await worker.run(pull.once)
        except DependencyError as error:
            if attempt == settings.http_attempts or error.code is Code.DEPENDENCY_STORAGE_AUTH:
                raise _worded(error) from error
        except FileNotFoundError as error:
            raise changed(pull.info.key) from error
        except (IsADirectoryError, NotADirectoryError) as error:
            raise _collision(pull.info.key) from error
        except OSError as error:
            raise no_room(error, str(pull.to.parent)) or error from error
        pause = min(LONGEST_PAUSE_SECONDS, first_pause_seconds * 2**attempt)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter
    raise AssertionError  # the last attempt returned or raised


async def _take(
    store: Store,
    path: str,
    info: ObjectInfo,
    into: Path,
    scratch: Path,
    settings: SourceSettings,
    algorithm: DigestAlgorithm,
    more: Sequence[str],
    worker: Worker,
) -> Received:
    words = sorted({algorithm.value, *more})
    pull = _Pull(store.bucket, info, into / path, scratch / _STATE, words, worker.breathe)
    await _attempts(worker, pull, settings, FIRST_PAUSE_SECONDS)
    digests = {word: one.hexdigest() for word, one in pull.hashes.items()}
    return Received(
        path=path,
        size_bytes=info.size_bytes,
        digest=Digest(algorithm=algorithm, value=digests[algorithm], calculated_at=now()),
        modified_at=info.modified_at,
        more={word: value for word, value in digests.items() if word != algorithm},
    )


async def _translated(worker: Worker, work: Callable[[], T]) -> T:
    try:
        return await worker.run(work)
    except DependencyError as error:
        raise _worded(error) from error


def _worded(error: DependencyError) -> SourceError:
    """Say of a source what was said of a store."""
    code = Code.SOURCE_DOWNLOAD_INTERRUPTED
    if error.code is Code.DEPENDENCY_STORAGE_AUTH:
        code = Code.SOURCE_ACCESS_DENIED
    elif isinstance(error, NoBucketError):
        code = Code.SOURCE_NOT_FOUND
    return SourceError(escape_name(error.detail), code=code)
