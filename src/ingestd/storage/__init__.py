"""OAIS Archival Storage: where AIPs are kept. One Protocol, a module per backend.

"Stored" means: written completely or not at all, never over something else, and read back from the store with the same
message digest. Locations are named in the settings and opened by `Locations`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import unquote, urlsplit

from ingestd.config import LocationSettings
from ingestd.errors import Code, RequestError, SystemFault
from ingestd.premis import DigestAlgorithm
from ingestd.storage.conditional import Conditional


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """One stored copy. `digest` is of the packed file, or, for a folder, of its bag's tag manifest."""

    url: str
    size_bytes: int
    algorithm: DigestAlgorithm
    digest: str
    stored_at: datetime
    verified_at: datetime
    verified_by: str


class ArchivalStorage(Protocol):
    """A place that keeps AIPs."""

    async def store(
        self, source: Path, *, package: uuid.UUID, name: str, size_bytes: int, algorithm: DigestAlgorithm, digest: str
    ) -> Stored:
        """Take `source` (a file or a folder, which may be moved away) as the AIP `package`, under `name`.

        Doing it again after a crash, when `source` may be gone, has the same result. Raises `StorageError`
        (`storage.conflict` when something else is there, `storage.verify_mismatch`, `storage.upload_failed`),
        `ResourceError` when the disk is full.
        """
        ...

    async def locate(self, package: uuid.UUID) -> str | None:
        """Where the AIP `package` is, as a URL; None when it is not here."""
        ...

    async def check(self) -> None:
        """Raise `StorageError` or `DependencyError` unless an AIP could be stored now."""
        ...


class Locations:
    """Archival storage by name."""

    def __init__(
        self, stores: Mapping[str, ArchivalStorage], default: str, urls: Mapping[str, str] | None = None
    ) -> None:
        self._stores = stores
        self._urls = urls or {}
        self.default = default

    @classmethod
    def open(cls, locations: Mapping[str, str | LocationSettings], default: str) -> Self:
        """Open every location. Raises `SystemFault` (`system.configuration`) for a URL that no backend knows."""
        urls = {name: where if isinstance(where, str) else where.url for name, where in locations.items()}
        if default not in urls:
            raise SystemFault(
                f"default_location {default!r} is not among the locations: {', '.join(sorted(urls))}",
                code=Code.SYSTEM_CONFIGURATION,
            )
        return cls({name: open_storage(url) for name, url in urls.items()}, default, urls)

    @property
    def names(self) -> list[str]:
        return sorted(self._stores)

    def conditional(self, name: str) -> Conditional:
        """Small documents beside the AIPs of a location, which several workers change."""
        return open_conditional(self._urls[name])

    def get(self, name: str, *, trusted: bool = False) -> ArchivalStorage:
        """Give a location by its name; who is `trusted` (the command line, the library) may also give a URL.

        Raises `RequestError` (`request.unknown_location`) that names those there are.
        """
        if trusted and "://" in name:
            return open_storage(name)
        try:
            return self._stores[name]
        except KeyError:
            raise RequestError(
                f"there is no storage location {name!r}; there are: {', '.join(self.names)}",
                code=Code.REQUEST_UNKNOWN_LOCATION,
            ) from None


def open_conditional(url: str) -> Conditional:
    """Open the documents beside the AIPs that `url` names: a folder that no AIP is ever in."""
    from ingestd.storage.conditional import LocalConditional

    return LocalConditional(Path(unquote(urlsplit(url).path)) / ".ingestd")


def open_storage(url: str) -> ArchivalStorage:
    """Open the backend that `url` names: `file:///folder` or an absolute path."""
    from ingestd.storage.local import LocalStorage

    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return LocalStorage(Path(unquote(parts.path)))
    if not parts.scheme and url.startswith("/"):
        return LocalStorage(Path(url))
    raise SystemFault(
        f"no storage backend for a URL that begins {parts.scheme or url[:1]!r}",  # the rest may hold a password
        code=Code.SYSTEM_CONFIGURATION,
        remediation="Use a folder: file:///srv/aips",
    )
