"""What every layout does alike: prove, fetch, mend, and the words for what goes wrong."""

from __future__ import annotations

import asyncio
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import ClassVar

from ingestd.errors import Code, DependencyError, StorageError
from ingestd.premis import DigestAlgorithm, now
from ingestd.storage.holding import Deposit, Held, PackageKind, Stored, fetch, read_back
from ingestd.storage.store import Store


class Archive(ABC):
    """A place that keeps packages (OAIS Archival Storage): a store, and a layout in it.

    A package is *stored* once its commit is there: a small file that is written last, when everything else was read
    back from the store and found the same. What lies there without one, after a crash, is not stored, is not listed,
    and is completed or replaced by whoever stores the package next.
    """

    own_folder: ClassVar[str] = ".ingestd"
    """Where the layout leaves room for what is no package: parts of files, documents of workers."""

    def __init__(self, store: Store) -> None:
        self.medium = store

    @abstractmethod
    async def store(self, source: Path, deposit: Deposit, *, take: bool = True) -> Stored:
        """Take `source`: a file or a folder, which with `take` may be moved away.

        Doing it again after a crash, when `source` may be gone, has the same result.

        Raises `StorageError` (`storage.conflict` when another package is there, `storage.verify_mismatch`,
        `storage.upload_failed`, `storage.outcome_unknown`), `ResourceError` when the disk is full, `DependencyError`
        when the store is away.
        """

    @abstractmethod
    async def find(self, package: uuid.UUID, kind: PackageKind = PackageKind.AIP) -> Held | None:
        """Give what is held of a package."""

    @abstractmethod
    def held(self, after: str = "") -> AsyncIterator[Held]:
        """Give every package, those after the `cursor` of one."""

    @abstractmethod
    async def companion(self, held: Held, name: str) -> bytes | None:
        """Give a small file that was stored beside a package."""

    @abstractmethod
    async def delete(self, held: Held, *, reason: str, who: str) -> None:
        """Remove a package with its companions; a record of it, with the reason, stays."""

    async def locate(self, package: uuid.UUID) -> str | None:
        """Where the AIP is, as a URL; None when it is not here."""
        held = await self.find(package)
        return held.url if held else None

    async def read_back(self, held: Held) -> str:
        """Read all of a package; give the digest that was found, or in words what differs or is missing."""
        try:
            return await read_back(self.medium, held)
        except FileNotFoundError:
            return "gone"

    async def fetch(self, held: Held, folder: Path) -> Path:
        """Copy a package into a folder, and prove the copy."""
        return await fetch(self.medium, held, folder)

    async def mend(self, held: Held, good: Path) -> None:
        """Replace the content of a damaged package by a good copy, which is proved before and after."""
        folder = await asyncio.to_thread(good.is_dir)
        if folder:
            await self.medium.delete(held.key)
        await self.medium.put(held.key, good, take=True, over=not folder)
        await self._prove(held)

    async def check(self) -> None:
        """Raise `StorageError` or `DependencyError` unless a package could be stored now."""
        await self.medium.check()

    async def _prove(self, held: Held) -> None:
        found = await self.read_back(held)
        if found != held.digest:
            raise StorageError(
                f"what was written to {held.url} reads back differently: "
                f"{held.algorithm} {found}, expected {held.digest}",
                code=Code.STORAGE_VERIFY_MISMATCH,
            )

    async def _commit(self, key: str, content: bytes) -> None:
        """Write the file that makes the package stored. Of an answer that was lost, it is looked what became of it."""
        try:
            await self.medium.write(key, content)
        except DependencyError as error:
            await self._look(key, content, error)

    async def _look(self, key: str, content: bytes, error: DependencyError) -> None:
        try:
            there = await self.medium.read(key)
        except DependencyError:
            raise StorageError(
                f"whether {self.medium.url_of(key)} was written cannot be told: {error.detail}",
                code=Code.STORAGE_OUTCOME_UNKNOWN,
            ) from error
        if there != content:
            raise error

    def _held_as(self, deposit: Deposit, *, key: str, cursor: str, version: str) -> Held:
        return Held(
            package=deposit.package,
            kind=deposit.kind,
            name=deposit.name,
            key=key,
            url=self.medium.url_of(key),
            algorithm=deposit.algorithm,
            digest=deposit.digest,
            stored_at=now(),
            cursor=cursor,
            version=version,
        )

    async def _stored(self, held: Held, size_bytes: int) -> Stored:
        """Say of a package that was just proved how it is stored."""
        entry = await self.medium.head(held.key)
        return Stored(
            url=held.url,
            size_bytes=entry.size_bytes if entry else size_bytes,
            algorithm=held.algorithm,
            digest=held.digest,
            stored_at=held.stored_at,
            verified_at=now(),
            verified_by=f"{held.algorithm} read back from the store",
            version=held.version or (entry.version if entry else ""),
            store_checksum=entry.checksum if entry else "",
        )


def conflict(held: Held, digest: str) -> StorageError:
    return StorageError(
        f"{held.url} is there with other content: {held.algorithm} {held.digest}, expected {digest}",
        code=Code.STORAGE_CONFLICT,
    )


def deletion(held: Held, reason: str, who: str, companions: Sequence[str] = ()) -> bytes:
    """Give the record of a deletion: of a package, and of the files beside it that went with it."""
    return json.dumps(
        {
            "package": str(held.package),
            "kind": held.kind,
            "name": held.name,
            "algorithm": held.algorithm,
            "digest": held.digest,
            "stored_at": held.stored_at.isoformat(),
            "deleted_at": now().isoformat(),
            "reason": reason,
            "who": who,
            "companions": list(companions),
        },
        indent=1,
    ).encode()


def is_bag(source: Path, algorithm: DigestAlgorithm) -> bool:
    return (source / f"tagmanifest-{algorithm}.txt").is_file()
