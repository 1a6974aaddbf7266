"""OAIS Archival Storage: where packages are kept. Stores (a folder, a bucket, a server) and layouts in them (pairtree,
OCFL).

"Stored" means: written completely or not at all, never over something else, and read back from the store with the same
message digest, on as many locations as the target asks. Locations are named in the settings and opened by `Locations`.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeAlias
from urllib.parse import unquote, urlsplit

from ingestd.errors import Code, IngestError, RequestError, SourceError, StorageError, SystemFault, Violation, nearest
from ingestd.keeping import CredentialSettings, Layout, LocationSettings
from ingestd.objectstore import is_object_url
from ingestd.storage.archive import Archive
from ingestd.storage.conditional import Conditional, unfit
from ingestd.storage.holding import Deposit, Held, PackageKind, Stored, folder_manifest
from ingestd.storage.store import Store

__all__ = [
    "Archive",
    "Copies",
    "Deposit",
    "Held",
    "Locations",
    "PackageKind",
    "Stored",
    "Target",
    "find_stored",
    "folder_manifest",
    "open_archive",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Copies:
    """Where a package is stored, and where it could not be: never fewer copies than were asked for."""

    stored: Sequence[Stored]
    failed: Sequence[tuple[str, IngestError]] = ()


CompanionsOfCopy: TypeAlias = Callable[[str, Sequence[Stored], Mapping[str, bytes]], Awaitable[Mapping[str, bytes]]]
"""From a place, the copies that are stored already, and the companions of all, those of the copy there."""


class Target:
    """What a request may name: one place, or several that each get a copy."""

    def __init__(self, name: str, places: Mapping[str, Archive], min_copies: int) -> None:
        self.name = name
        self.places = places
        self.min_copies = min_copies

    async def find(self, package: uuid.UUID) -> Held | None:
        """Give the first copy of an AIP there is, of its last version."""
        for archive in self.places.values():
            held = await archive.find(package)
            if held is not None:
                return held
        return None

    async def check(self) -> None:
        """Raise an error that names the place, unless something could be stored on every one now."""
        for name, archive in self.places.items():
            try:
                await archive.check()
            except IngestError as error:
                detail = f"the location {name!r}: {error.detail}"
                raise type(error)(detail, code=error.code, remediation=error.remediation) from error

    async def companion(self, copy: Stored, package: uuid.UUID, name: str) -> bytes | None:
        """Give a small file that lies beside a copy of an AIP; `copy.beside(name)` says where."""
        archive = self.places.get(copy.location)
        held = await archive.find(package) if archive else None
        return await archive.companion(held, name) if archive and held else None

    async def store(self, source: Path, deposit: Deposit, *, of_copy: CompanionsOfCopy | None = None) -> Copies:
        """Store a package on every place; `Archive.store` says how and what it raises. `of_copy` gives companions of
        their own to the copies, from those of all.

        With fewer copies than asked for: the error of the only place, or `storage.insufficient_copies` with a
        violation for every place that failed, and the same again when it is tried again.
        """
        stored: list[Stored] = []
        failed: list[tuple[str, IngestError]] = []
        for number, (place, archive) in enumerate(self.places.items(), 1):
            take = number == len(self.places) and not failed
            try:
                one = deposit
                if of_copy:
                    one = replace(one, companions=await of_copy(place, stored, one.companions))
                held = await archive.store(source, one, take=take)
            except IngestError as error:
                failed.append((place, error))
            else:
                stored.append(replace(held, location=place))
        if len(stored) < self.min_copies:
            raise self._insufficient(len(stored), failed)
        return Copies(stored=stored, failed=failed)

    def _insufficient(self, copies: int, failed: Sequence[tuple[str, IngestError]]) -> IngestError:
        if len(self.places) == 1:
            return failed[0][1]
        unknown = [error for _, error in failed if error.code is Code.STORAGE_OUTCOME_UNKNOWN]
        if unknown:
            return unknown[0]
        return StorageError(
            f"{copies} of {self.min_copies} copies are stored; not on {', '.join(place for place, _ in failed)}",
            code=Code.STORAGE_INSUFFICIENT_COPIES,
            violations=tuple(
                Violation(path=place, rule=error.code.value, actual=error.detail) for place, error in failed
            ),
        )


class Locations:
    """Archival storage by name."""

    def __init__(self, places: Mapping[str, Archive], targets: Mapping[str, Target], default: str) -> None:
        self.places = places
        """Every place that keeps packages, without the targets made of several."""
        self._targets = targets
        self._given: dict[str, Archive] = {}
        self.default = default

    @classmethod
    def open(
        cls,
        locations: Mapping[str, str | LocationSettings],
        default: str,
        credentials: Mapping[str, CredentialSettings] | None = None,
    ) -> Self:
        """Open every location; nothing is asked of them yet.

        Raises `SystemFault` (`system.configuration`) for a URL that no backend knows, and for names that there are not.
        """
        tables = {name: LocationSettings(url=it) if isinstance(it, str) else it for name, it in locations.items()}
        _known(default, tables, "default_location")
        places = {name: open_archive(it, credentials) for name, it in tables.items() if it.url}
        targets = {name: Target(name, {name: archive}, 1) for name, archive in places.items()}
        for name, it in tables.items():
            if it.locations:
                for part in it.locations:
                    _known(part, places, f"locations.{name}")
                targets[name] = Target(name, {part: places[part] for part in it.locations}, _copies(it))
        return cls(places, targets, default)

    @property
    def names(self) -> list[str]:
        return sorted(self._targets)

    def get(self, name: str, *, trusted: bool = False) -> Target:
        """Give a target by its name; who is `trusted` (the command line, the library) may also give a URL.

        Raises `RequestError` (`request.unknown_location`) that names those there are.
        """
        if trusted and "://" in name:
            if name not in self._given:
                self._given[name] = open_archive(name)
            return Target(name, {name: self._given[name]}, 1)
        try:
            return self._targets[name]
        except KeyError:
            raise RequestError(
                f"there is no storage location {name!r}; there are: {', '.join(self.names)}",
                code=Code.REQUEST_UNKNOWN_LOCATION,
                violations=(
                    Violation(path="target.location", rule="known", expected=nearest(name, self.names), actual=name),
                ),
            ) from None

    async def check(self) -> None:
        """Raise an error that names the location, unless something could be stored on every place now:
        `DependencyError`, or `SystemFault` (`system.configuration`) for a folder that may not be written.
        """
        await Target("", self.places, 0).check()

    async def find(
        self, package: uuid.UUID, kind: PackageKind = PackageKind.AIP
    ) -> AsyncIterator[tuple[str, Archive, Held]]:
        """Give every copy of a package there is: the location's name, the archive, and what it holds."""
        for name, archive in self.places.items():
            held = await archive.find(package, kind)
            if held is not None:
                yield name, archive, held

    def conditional(self, name: str) -> Conditional:
        """Give the small documents that lie beside the packages of a place (of a target: of its first place).

        Raises `SystemFault` (`system.configuration`) for a place whose store has no conditional writes.
        """
        archive = next(iter(self.get(name).places.values()))
        documents = archive.medium.documents(archive.own_folder)
        if documents is None:
            raise unfit(name, "nothing there can be changed on the condition that nobody else did")
        return documents

    async def aclose(self) -> None:
        """Close the connections that were opened."""
        for archive in (*self.places.values(), *self._given.values()):
            await archive.medium.aclose()


async def find_stored(locations: Locations, package: uuid.UUID, target: Target) -> tuple[Archive, Held]:
    """Give a copy of an AIP, of `target` if it has one. Raises `SourceError` (`source.not_found`)."""
    for archive in (*target.places.values(), *locations.places.values()):
        held = await archive.find(package)
        if held is not None:
            return archive, held
    raise SourceError(
        f"no archival storage holds the AIP {package}",
        code=Code.SOURCE_NOT_FOUND,
        remediation=f"Look for it in {', '.join(sorted(locations.places))}, or give the AIP's path or URL.",
    )


def _known(name: str, among: Mapping[str, object], setting: str) -> None:
    if name not in among:
        raise SystemFault(
            f"{setting}: {name!r} is not among the locations: {', '.join(sorted(among))}",
            code=Code.SYSTEM_CONFIGURATION,
        )


def _copies(it: LocationSettings) -> int:
    return it.min_copies or len(it.locations)


def open_archive(where: LocationSettings | str, credentials: Mapping[str, CredentialSettings] | None = None) -> Archive:
    """Open a place: `file:///folder`, an absolute path, a bucket, or a folder on an SFTP server."""
    from ingestd.storage.ocfl import OcflArchive
    from ingestd.storage.pairtree import PairtreeArchive

    it = LocationSettings(url=where) if isinstance(where, str) else where
    if it.credentials:
        _known(it.credentials, credentials or {}, "credentials")
    layout = OcflArchive if it.layout is Layout.OCFL else PairtreeArchive
    return layout(_open_store(it, (credentials or {}).get(it.credentials), f"{layout.own_folder}/parts"))


def _open_store(it: LocationSettings, account: CredentialSettings | None, parts: str) -> Store:
    from ingestd.storage.local import LocalStore
    from ingestd.storage.objects import BucketStore

    url = urlsplit(it.url)
    if is_object_url(it.url):
        return BucketStore.open(it.url, account, endpoint=it.endpoint)
    if url.scheme == "sftp":
        return _open_sftp(it.url, account, parts)
    if url.scheme == "file" and url.netloc in {"", "localhost"}:
        return LocalStore(Path(unquote(url.path)), parts=parts)
    if not url.scheme and it.url.startswith("/"):
        return LocalStore(Path(it.url), parts=parts)
    raise SystemFault(
        f"no storage backend for a URL that begins {url.scheme or it.url[:1]!r}",  # the rest may hold a password
        code=Code.SYSTEM_CONFIGURATION,
        remediation="Use a folder (file:///srv/aips), s3://BUCKET/PREFIX, az://CONTAINER/PREFIX, gs://BUCKET/PREFIX or "
        "sftp://USER@HOST/FOLDER.",
    )


def _open_sftp(url: str, account: CredentialSettings | None, parts: str) -> Store:
    try:
        from ingestd.storage.sftp import SftpStore
    except ImportError as error:
        raise SystemFault(
            "SFTP needs the library asyncssh, which is not installed",
            code=Code.SYSTEM_CONFIGURATION,
            remediation="Install it: pip install 'ingestd[sftp]'.",
        ) from error
    return SftpStore.open(url, account, parts=parts)
