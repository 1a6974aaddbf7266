"""Object stores: S3 and compatible, Azure Blob Storage, Google Cloud Storage. The only module that knows obstore.

Everything here blocks: call it in threads. (obstore's coroutines abort the interpreter when it ends soon after one.)
Whatever goes wrong is a `DependencyError` (`dependency.storage_unavailable`, `dependency.storage_auth`), but for what
is said of each function; no error tells a secret.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ingestd.errors import Code, DependencyError, SystemFault

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from ingestd.keeping import CredentialSettings

SCHEMES = ("s3", "az", "gs", "memory")
CHUNK_BYTES = 4 * 2**20
PART_BYTES = 8 * 2**20
MOST_PARTS = 10_000
"""An object has no more parts, so larger files get larger ones."""
PARTS_AT_ONCE = 4
_REREAD_SECONDS = 60


class ObjectExistsError(Exception):
    """There is an object under the key."""


class NoBucketError(DependencyError):
    """There is no such bucket, or container."""

    default_code = Code.DEPENDENCY_STORAGE_UNAVAILABLE


def no_bucket(url: str) -> NoBucketError:
    return NoBucketError(f"there is no such bucket or container: {url}")


class ObjectChangedError(Exception):
    """The object is not, or no longer, the one that the tag stands for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectInfo:
    """An object as its store knows it. `tag` changes with its content; `version` is there where versions are kept."""

    key: str
    size_bytes: int
    modified_at: datetime
    tag: str
    version: str = ""


def is_object_url(url: str) -> bool:
    return urlsplit(url).scheme.lower() in SCHEMES


def part_bytes(size_bytes: int) -> int:
    """Say how large the parts are in which a file goes up: of whole MiB, and always the same for files of a size."""
    return max(PART_BYTES, -(-size_bytes // (MOST_PARTS * 2**20)) * 2**20)


def open_bucket(
    url: str, credentials: CredentialSettings | None = None, *, endpoint: str = "", patience_seconds: float = 60
) -> Bucket:
    """Open `s3://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `gs://BUCKET/PREFIX` or (for tests) `memory:///`.

    Without `credentials` what the environment offers is used: variables of the vendor, a role of the machine.
    `endpoint` is taken before that of the credentials. A failed call is tried again for `patience_seconds`.
    Nothing is fetched yet. Raises `SystemFault` (`system.configuration`) for another URL, and without obstore.
    """
    parts = urlsplit(url)
    opener = _OPENERS.get(parts.scheme.lower())
    if opener is None or (not parts.netloc and parts.scheme != "memory"):
        raise SystemFault(
            f"not the URL of an object store: it begins {parts.scheme or url[:1]!r}",
            code=Code.SYSTEM_CONFIGURATION,
            remediation="Use s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX.",
        )
    if "@" in parts.netloc or parts.query:
        raise SystemFault(
            f"the URL of an object store ({parts.scheme}://…) has no place for a password",
            code=Code.SYSTEM_CONFIGURATION,
            remediation="Set `credentials.NAME` and name it.",
        )
    _require_obstore()
    # Not above: the processes that read archives load this module, too, and no settings.
    from ingestd.keeping import CredentialSettings

    prefix = unquote(parts.path).strip("/")
    try:
        store = opener(parts.netloc, prefix, credentials or CredentialSettings(), endpoint, patience_seconds)
    except Exception as error:  # noqa: BLE001  whatever obstore dislikes is a setting
        raise SystemFault(
            f"cannot open {parts.scheme}://{parts.netloc}: {type(error).__name__}", code=Code.SYSTEM_CONFIGURATION
        ) from None
    base = f"{parts.scheme}://{parts.netloc}" + (f"/{prefix}" if prefix else "")
    return Bucket(store, base)


class Bucket:
    """One prefix of one bucket. Keys are relative to it, with slashes between their words."""

    def __init__(self, store: ObjectStore, url: str) -> None:
        self._store = store
        self.url = url

    def url_of(self, key: str) -> str:
        return f"{self.url}/{key}"

    def head(self, key: str) -> ObjectInfo | None:
        import obstore

        with self._translated():
            try:
                return _info(obstore.head(self._store, key))
            except FileNotFoundError:
                return None

    def read(self, key: str) -> tuple[bytes, ObjectInfo] | None:
        """Give the whole of a small object; None when there is none."""
        import obstore

        with self._translated():
            try:
                got = obstore.get(self._store, key)
            except FileNotFoundError:
                return None
            return bytes(got.bytes()), _info(got.meta)

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Give an object's bytes from `start` to before `end`. Raises `FileNotFoundError`."""
        import obstore

        with self._translated():
            whole = start == 0 and end is None
            if not whole and (end is None or end > start) and self._ranges(key):
                wanted: Any = {"offset": start} if end is None else (start, end)
                yield from map(bytes, obstore.get(self._store, key, options={"range": wanted}).stream(CHUNK_BYTES))
                return
            chunks = map(bytes, obstore.get(self._store, key).stream(CHUNK_BYTES))
            yield from chunks if whole else _slice(chunks, start, end)

    def _ranges(self, key: str) -> bool:
        """Whether the store gives parts of an object; a few answer with all of it, which obstore refuses."""
        import obstore

        try:
            obstore.get_range(self._store, key, start=0, end=1)
        except obstore.exceptions.GenericError as error:
            if "NotPartial" in str(error):
                return False
            raise
        return True

    def create(self, key: str, content: bytes) -> str:
        """Write an object unless there is one; give its tag. Raises `ObjectExistsError`."""
        import obstore

        with self._writing():
            try:
                return _tag(obstore.put(self._store, key, content, mode="create"))
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError) as error:
                raise ObjectExistsError(key) from error

    def replace(self, key: str, content: bytes, tag: str) -> str:
        """Write an object anew if it still is the one of `tag`; give its new tag. Raises `ObjectChangedError`."""
        import obstore

        with self._translated():
            try:
                return _tag(obstore.put(self._store, key, content, mode={"e_tag": tag}))
            except (obstore.exceptions.PreconditionError, FileNotFoundError) as error:
                raise ObjectChangedError(key) from error

    def write(self, key: str, content: bytes) -> str:
        """Write a small object, whatever was there."""
        import obstore

        with self._writing():
            return _tag(obstore.put(self._store, key, content))

    def send(self, key: str, chunks: Iterable[bytes], size_bytes: int) -> None:
        """Write a stream in parts, a few at once; the object appears when the last one is there, or not at all.

        What was there is replaced. What `chunks` raises comes through, and nothing appears.
        """
        import obstore

        with self._writing():
            obstore.put(
                self._store, key, iter(chunks), chunk_size=part_bytes(size_bytes), max_concurrency=PARTS_AT_ONCE
            )

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """Give the objects below `prefix` (whole words of the key), after the key `after`, a page at a time."""
        with self._translated():
            for page in self._listed(prefix, after):
                # Some stores that speak Azure's protocol do not know where to begin, and begin at the first.
                yield from (info for info in map(_info, page) if info.key > after)

    def _listed(self, prefix: str, after: str) -> Iterable[Iterable[Any]]:
        import obstore

        return obstore.list(self._store, prefix or None, offset=after or None, chunk_size=1000)

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        import obstore

        with self._translated(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What is written need not be there before; its bucket must."""
        with self._translated():
            try:
                yield
            except FileNotFoundError as error:
                raise no_bucket(self.url) from error

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        import obstore.exceptions as theirs

        try:
            yield
        except (theirs.PermissionDeniedError, theirs.UnauthenticatedError) as error:
            raise DependencyError(
                f"{self.url} refused the credentials: {_first_line(error)}", code=Code.DEPENDENCY_STORAGE_AUTH
            ) from None
        except theirs.BaseError as error:
            if "404 Not Found" in str(error):
                raise no_bucket(self.url) from None
            raise DependencyError(
                f"{self.url} did not answer as it should: {_first_line(error)}",
                code=Code.DEPENDENCY_STORAGE_UNAVAILABLE,
            ) from None


def _slice(chunks: Iterable[bytes], start: int, end: int | None) -> Iterator[bytes]:
    at = 0
    for chunk in chunks:
        if end is not None and at >= end:
            return
        cut = chunk[max(0, start - at) : None if end is None else max(0, end - at)]
        if cut:
            yield cut
        at += len(chunk)


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(
        key=meta["path"],
        size_bytes=meta["size"],
        modified_at=meta["last_modified"],
        tag=meta["e_tag"] or "",
        version=meta["version"] or "",
    )


def _tag(result: Any) -> str:
    return result["e_tag"] or ""


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]


# --- opening ---------------------------------------------------------------------------------------------------------


def _require_obstore() -> None:
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise SystemFault(
            "object stores need the library obstore, which is not installed",
            code=Code.SYSTEM_CONFIGURATION,
            remediation="Install it: pip install 'ingestd[cloud]'.",
        ) from error


def _client(endpoint: str, patience: float) -> dict[str, Any]:
    """Wait long for large objects, but not for silence; plain HTTP only where an endpoint says so."""
    return {
        "client_options": {
            "timeout": timedelta(days=1),
            "read_timeout": timedelta(seconds=60),
            "connect_timeout": timedelta(seconds=10),
            "allow_http": endpoint.startswith("http://"),
        },
        "retry_config": {"max_retries": 10, "retry_timeout": timedelta(seconds=patience)},
    }


def _open_s3(bucket: str, prefix: str, credentials: CredentialSettings, endpoint: str, patience: float) -> ObjectStore:
    from obstore.store import S3Store

    endpoint = endpoint or credentials.endpoint
    values: dict[str, Any] = {"endpoint": endpoint, "region": credentials.region}
    values["skip_signature"] = credentials.anonymous or None
    values["disable_bulk_delete"] = True  # not every compatible store has it
    if credentials.folder is not None:
        values["credential_provider"] = _reread(credentials, _s3_keys)
    else:
        values |= {name: credentials.secret(name) for name in ("access_key_id", "secret_access_key", "session_token")}
    return S3Store(bucket, prefix=prefix or None, **_given(values), **_client(endpoint, patience))


def _s3_keys(credentials: CredentialSettings) -> dict[str, Any]:
    return {
        "access_key_id": credentials.secret("access_key_id"),
        "secret_access_key": credentials.secret("secret_access_key"),
        "token": credentials.secret("session_token") or None,
    }


def _open_azure(
    container: str, prefix: str, credentials: CredentialSettings, endpoint: str, patience: float
) -> ObjectStore:
    from obstore.store import AzureStore

    endpoint = endpoint or credentials.endpoint
    values: dict[str, Any] = {"endpoint": endpoint, "account_name": credentials.account_name}
    values["skip_signature"] = credentials.anonymous or None
    if credentials.folder is not None:
        values["credential_provider"] = _reread(credentials, _azure_keys)
    else:
        values |= {
            "account_key": credentials.secret("account_key"),
            "sas_key": credentials.secret("sas_token"),
        }
    return AzureStore(container, prefix=prefix or None, **_given(values), **_client(endpoint, patience))


def _azure_keys(credentials: CredentialSettings) -> dict[str, Any]:
    if token := credentials.secret("sas_token"):
        return {"sas_token": token}
    return {"access_key": credentials.secret("account_key")}


def _open_google(
    bucket: str, prefix: str, credentials: CredentialSettings, endpoint: str, patience: float
) -> ObjectStore:
    from obstore.store import GCSStore

    endpoint = endpoint or credentials.endpoint
    values: dict[str, Any] = {"base_url": endpoint, "skip_signature": credentials.anonymous or None}
    if credentials.service_account is not None:
        values["service_account"] = str(credentials.service_account)
    return GCSStore(bucket, prefix=prefix or None, config=_given(values), **_client(endpoint, patience))  # type: ignore[arg-type]


def _open_memory(*_: object) -> ObjectStore:
    from obstore.store import MemoryStore

    return MemoryStore()


_OPENERS: dict[str, Callable[[str, str, CredentialSettings, str, float], ObjectStore]] = {
    "s3": _open_s3,
    "az": _open_azure,
    "gs": _open_google,
    "memory": _open_memory,
}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in ("", None)}


def _reread(
    credentials: CredentialSettings, keys: Callable[[CredentialSettings], dict[str, Any]]
) -> Callable[[], dict[str, Any]]:
    """Read mounted secrets again now and then, so that they can be renewed without a restart."""

    def provide() -> dict[str, Any]:
        return {**keys(credentials), "expires_at": datetime.now(UTC) + timedelta(seconds=_REREAD_SECONDS)}

    return provide
