"""What archival storage holds, how it is read back, and how it is fetched: the same for every layout."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from ingestd.errors import Code, StorageError
from ingestd.fixity import digest_now
from ingestd.premis import DigestAlgorithm
from ingestd.storage.store import Store

_AT_ONCE = 8


class PackageKind(StrEnum):
    """What a stored package is (OAIS)."""

    AIP = "aip"
    DIP = "dip"


@dataclass(frozen=True, kw_only=True, slots=True)
class Deposit:
    """What is to be stored: a package, its name, and the digest that it must have."""

    package: uuid.UUID
    name: str
    size_bytes: int
    algorithm: DigestAlgorithm
    digest: str
    kind: PackageKind = PackageKind.AIP
    companions: Mapping[str, bytes] = field(default_factory=dict)
    """Small files that lie beside it, by name."""
    supersedes: str = ""
    """The digest of the version that this one takes the place of, where the layout keeps versions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """One stored copy, proved. `digest` is of the packed file; of a bag left a folder, of its tag manifest; of another
    folder, of the manifest beside it, which lists every file (`folder_manifest`).
    """

    url: str
    size_bytes: int
    algorithm: DigestAlgorithm
    digest: str
    stored_at: datetime
    verified_at: datetime
    verified_by: str
    location: str = ""
    version: str = ""
    """Of the object, where the layout or the store keeps versions."""
    store_checksum: str = ""
    """What the store itself says of it, in its own terms."""

    def beside(self, name: str) -> str:
        """Where a small file is that was stored with this copy (`Archive.store`, companions), as a URL."""
        return f"{self.url.rpartition('/')[0]}/{quote(name)}"

    def record(self) -> dict[str, str | int]:
        """Say it in JSON."""
        return {
            "location": self.location,
            "url": self.url,
            "size_bytes": self.size_bytes,
            "algorithm": self.algorithm,
            "digest": self.digest,
            "stored_at": self.stored_at.isoformat(),
            "verified_at": self.verified_at.isoformat(),
            "verified_by": self.verified_by,
            "version": self.version,
            "store_checksum": self.store_checksum,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A package that a location holds. `key` is where its content is; `cursor` where a list of them goes on."""

    package: uuid.UUID
    kind: PackageKind
    name: str
    key: str
    url: str
    algorithm: DigestAlgorithm
    digest: str
    stored_at: datetime
    cursor: str
    version: str = ""
    manifest: str = ""
    """Of a folder that is no bag: the key of the manifest that lists its files."""


def folder_manifest(folder: Path, name: str, algorithm: DigestAlgorithm, target: Path) -> str:
    """Write `target`: a line of digest and path, below `name`, for every file of a folder; give `target`'s digest.

    What `sha256sum` and its kin write and check. Blocking; in the order of the paths, so always the same.
    """
    whole = hashlib.new(algorithm.value, usedforsecurity=False)
    with target.open("wb") as out:
        for path in _sorted_files(folder):
            digest = digest_now(path, [algorithm])[algorithm]
            line = f"{digest}  ".encode() + os.fsencode(f"{name}/{path.relative_to(folder)}") + b"\n"
            out.write(line)
            whole.update(line)
    return whole.hexdigest()


def _sorted_files(folder: Path) -> Sequence[Path]:
    with os.scandir(folder) as found:
        items = sorted(found, key=lambda item: item.name)
    files: list[Path] = []
    for item in items:
        if item.is_dir(follow_symlinks=False):
            files += _sorted_files(Path(item.path))
        else:
            files.append(Path(item.path))
    return files


async def read_back(store: Store, held: Held) -> str:
    """Read all of a package from its store; give the digest that was found, or what differs, in words.

    Raises `FileNotFoundError` when it is gone.
    """
    if await store.head(held.key) is not None:
        return (await store.digests(held.key, [held.algorithm]))[held.algorithm]
    if not await store.is_folder(held.key):
        raise FileNotFoundError(held.key)
    if held.manifest:
        found = (await store.digests(held.manifest, [held.algorithm]))[held.algorithm]
        wrong = await _compare(store, held, [(held.manifest, "", held.key.rpartition("/")[0])], listed=0)
    else:
        tags = f"{held.key}/tagmanifest-{held.algorithm}.txt"
        if await store.head(tags) is None:
            return "no tag manifest"
        found = (await store.digests(tags, [held.algorithm]))[held.algorithm]
        lists = [(tags, "bag", held.key), (f"{held.key}/manifest-{held.algorithm}.txt", "bag", held.key)]
        wrong = await _compare(store, held, lists, listed=1)  # the tag manifest lists not itself
    return wrong or found


async def _compare(store: Store, held: Held, manifests: Sequence[tuple[str, str, str]], listed: int) -> str:
    """Hold every listed file against its digest; name the first that is missing or other, or that nobody lists."""
    for manifest, encoding, base in manifests:
        async for window in _windows(lines(store, manifest, encoded=encoding == "bag"), _AT_ONCE):
            wrong = await asyncio.gather(*(_differs(store, f"{base}/{name}", digest, held) for digest, name in window))
            listed += len(window)
            for (_, name), differs in zip(window, wrong, strict=True):
                if differs:
                    return f"differs at {name.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')}"
    there = 0
    async for _ in store.list(held.key):
        there += 1
    return "" if there == listed else f"{there} files, of which {listed} are listed"


async def _differs(store: Store, key: str, digest: str, held: Held) -> bool:
    try:
        return (await store.digests(key, [held.algorithm]))[held.algorithm] != digest
    except (FileNotFoundError, IsADirectoryError):
        return True


async def lines(store: Store, key: str, *, encoded: bool) -> AsyncIterator[tuple[str, str]]:
    """Give digest and path of every line of a manifest; `encoded` as bags do it (RFC 8493, 2.1.3)."""
    rest = b""
    async for chunk in store.get(key):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            digest, _, raw = line.partition(b"  ")
            if encoded:
                raw = raw.replace(b"%0D", b"\r").replace(b"%0A", b"\n").replace(b"%25", b"%")
            yield digest.decode("ascii", "replace"), os.fsdecode(raw)


async def _windows(items: AsyncIterator[tuple[str, str]], size: int) -> AsyncIterator[list[tuple[str, str]]]:
    window: list[tuple[str, str]] = []
    async for item in items:
        window.append(item)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


async def fetch(store: Store, held: Held, folder: Path) -> Path:
    """Copy a package into `folder`, under its name, and prove the copy; give its path.

    Raises `StorageError` (`storage.verify_mismatch`) when what came is not what was stored, and leaves none of it.
    """
    target = folder / held.name
    part = folder / f"{held.name}.part"
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    if target.exists():
        raise StorageError(f"{target} is there already", code=Code.STORAGE_CONFLICT)
    if await store.head(held.key) is not None:
        await _copy(store, held.key, part)
    else:
        async for entry in store.list(held.key):
            inner = entry.key.removeprefix(f"{held.key}/")
            await _copy(store, entry.key, part / inner)
    await _prove(part, held)
    await asyncio.to_thread(part.rename, target)
    return target


async def _copy(store: Store, key: str, target: Path) -> None:
    await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
    with await asyncio.to_thread(target.open, "wb") as out:
        async for chunk in store.get(key):
            await asyncio.to_thread(out.write, chunk)


async def _prove(part: Path, held: Held) -> None:
    """Prove a copy as if it lay in a store of its own."""
    from ingestd.storage.local import LocalStore

    bag = part / f"tagmanifest-{held.algorithm}.txt"
    if await asyncio.to_thread(lambda: part.is_dir() and not bag.exists()):
        beside = part.with_name(f"{part.name}.list")
        found = await asyncio.to_thread(folder_manifest, part, held.name, held.algorithm, beside)
        await asyncio.to_thread(beside.unlink)
    else:
        copy = replace(held, key=part.name)
        found = await read_back(LocalStore(part.parent), copy)
    if found != held.digest:
        await asyncio.to_thread(remove, part)
        raise StorageError(
            f"what came from {held.url} is not what was stored: {held.algorithm} {found}, expected {held.digest}",
            code=Code.STORAGE_VERIFY_MISMATCH,
        )
