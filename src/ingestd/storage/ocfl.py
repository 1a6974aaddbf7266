"""The Oxford Common File Layout, 1.1: an object per package, a version per reingest.

The storage root declares the layout extension 0003 (n-tuples of the identifier's SHA-256, then the identifier). A
package is `urn:uuid:UUID`, a DIP `urn:uuid:UUID:dip`; its content is one packed file, or a folder, below its name. The
object's root inventory is written last: it commits the version. Documents of our own lie in `extensions/ingestd`.

An inventory names every file of its object: some hundred bytes a file in memory, where a package is left a folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from ingestd import __version__
from ingestd.errors import Code, StorageError
from ingestd.oais import escape_name
from ingestd.premis import DigestAlgorithm
from ingestd.storage.archive import Archive, conflict, deletion
from ingestd.storage.holding import Deposit, Held, PackageKind, Stored, lines
from ingestd.storage.store import Store

log = structlog.get_logger(__name__)

EXTENSION = "0003-hash-and-id-n-tuple-storage-layout"
OUR_FOLDER = "extensions/ingestd"
_LAYOUT = {"extensionName": EXTENSION, "digestAlgorithm": "sha256", "tupleSize": 3, "numberOfTuples": 3}
_INVENTORY = re.compile(r"(?:[0-9a-f]{3}/){3}[^/]+/inventory\.json")
_KNOWN = (DigestAlgorithm.SHA256, DigestAlgorithm.SHA512)
_URN_LENGTH = len("urn:uuid:") + 36
_TYPE = "https://ocfl.io/1.1/spec/#inventory"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Object:
    """An OCFL object: where it is, and its inventory, if it has one."""

    root: str
    identifier: str
    inventory: Mapping[str, Any] | None

    @property
    def head(self) -> int:
        return int(self.inventory["head"][1:]) if self.inventory else 0


class OcflArchive(Archive):
    """Packages as OCFL objects."""

    own_folder = OUR_FOLDER

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._declared = False

    async def store(self, source: Path, deposit: Deposit, *, take: bool = True) -> Stored:
        await self._declare()
        there = await self._object(deposit.package, deposit.kind)
        held = self._held(there)
        if held is None and there.inventory is not None:
            raise StorageError(f"{there.identifier} is there, and is not ours", code=Code.STORAGE_CONFLICT)
        if held is not None and (held.digest, held.algorithm) == (deposit.digest, deposit.algorithm):
            await self._prove(held)
            return await self._stored(held, deposit.size_bytes)
        if held is not None and held.digest != deposit.supersedes:
            raise conflict(held, deposit.digest)
        version = f"v{there.head + 1}"
        key = f"{there.root}/{version}/content/{deposit.name}"
        new = self._held_as(deposit, key=key, cursor=f"{there.root}/inventory.json", version=version)
        await self._add_version(there, new, source, deposit.companions, take=take)
        return await self._stored(new, deposit.size_bytes)

    async def _add_version(
        self, there: _Object, new: Held, source: Path, companions: Mapping[str, bytes], *, take: bool
    ) -> None:
        """Bring content, prove it, then describe it. What a crash left of this version is known by no inventory."""
        files = await self._bring(new, source, take=take)
        content = new.key.rpartition("/")[0]
        inner = _inventory_algorithm(new.algorithm)
        for companion, written in companions.items():
            await self.medium.write(f"{content}/{companion}", written)
            files[companion] = hashlib.new(inner.value, written).hexdigest()
        inventory = _inventory(there, new, files, self.medium.name_of)
        text = json.dumps(inventory, ensure_ascii=False, indent=1).encode()
        sidecar = f"{hashlib.new(inner.value, text).hexdigest()} inventory.json\n".encode()
        version = f"{there.root}/{new.version}"
        await self.medium.write(f"{version}/inventory.json", text)
        await self.medium.write(f"{version}/inventory.json.{inner}", sidecar)
        await self.medium.write(f"{there.root}/0=ocfl_object_1.1", b"ocfl_object_1.1\n")
        await self.medium.write(f"{there.root}/inventory.json.{inner}", sidecar)
        await self._commit(f"{there.root}/inventory.json", text)

    async def _bring(self, new: Held, source: Path, *, take: bool) -> dict[str, str]:
        """Bring the content to its place and prove it there; give its files' digests, by their logical paths."""
        staged = new.key.rpartition("/")[0]
        if await self._there(new.key):
            found, files = await self._read(new)
            if found == new.digest:
                return files
            if not await asyncio.to_thread(source.exists):
                raise StorageError(f"{new.name} is gone before it was stored", code=Code.STORAGE_UPLOAD_FAILED)
            await self.medium.delete(staged)  # of another attempt at this version, which no inventory knows
        with contextlib.suppress(FileExistsError):  # a first try's answer was lost, or another was quicker: it is read
            await self.medium.put(new.key, source, take=take)
        found, files = await self._read(new)
        if found != new.digest:
            await self.medium.delete(staged)
            raise StorageError(
                f"what was written to {new.url} reads back differently: {found}, expected {new.digest}",
                code=Code.STORAGE_VERIFY_MISMATCH,
            )
        return files

    async def _there(self, key: str) -> bool:
        return await self.medium.head(key) is not None or await self.medium.is_folder(key)

    async def _read(self, held: Held) -> tuple[str, dict[str, str]]:
        """Read all of a package once: its digest, or what differs; and each file's digest for the inventory."""
        inner = _inventory_algorithm(held.algorithm)
        wanted = list(dict.fromkeys([held.algorithm, inner]))
        if await self.medium.head(held.key) is not None:
            found = await self.medium.digests(held.key, wanted)
            return found[held.algorithm], {held.name: found[inner]}
        base = held.key.rpartition("/")[0]
        paths = [entry.key.removeprefix(f"{base}/") async for entry in self.medium.list(held.key)]
        paths.sort(key=lambda path: path.split("/"))
        every = {path: await self.medium.digests(f"{base}/{path}", wanted) for path in paths}
        whole = {path: digests[held.algorithm] for path, digests in every.items()}
        return await self._digest_of_folder(held, whole), {path: digests[inner] for path, digests in every.items()}

    async def _digest_of_folder(self, held: Held, files: Mapping[str, str]) -> str:
        tags = f"tagmanifest-{held.algorithm}.txt"
        if f"{held.name}/{tags}" not in files:
            lines_ = b"".join(f"{digest}  ".encode() + os.fsencode(path) + b"\n" for path, digest in files.items())
            return hashlib.new(held.algorithm.value, lines_, usedforsecurity=False).hexdigest()
        listed = 1
        for manifest in (tags, f"manifest-{held.algorithm}.txt"):
            if f"{held.name}/{manifest}" not in files:
                return f"no {manifest}"
            async for digest, path in lines(self.medium, f"{held.key}/{manifest}", encoded=True):
                listed += 1
                if files.get(f"{held.name}/{path}") != digest:
                    return f"differs at {escape_name(path)}"
        return files[f"{held.name}/{tags}"] if listed == len(files) else f"{len(files)} files, {listed} are listed"

    async def read_back(self, held: Held) -> str:
        try:
            return (await self._read(held))[0] if await self._there(held.key) else "gone"
        except FileNotFoundError:
            return "gone"

    # --- finding -----------------------------------------------------------------------------------------------------

    async def _object(self, package: uuid.UUID, kind: PackageKind) -> _Object:
        identifier = f"urn:uuid:{package}" + ("" if kind is PackageKind.AIP else f":{kind}")
        root = object_root(identifier)
        content = await self.medium.read(f"{root}/inventory.json")
        inventory = _parsed(content) if content else None
        if content and inventory is None:
            raise StorageError(f"{identifier} has an inventory that cannot be read", code=Code.STORAGE_CONFLICT)
        return _Object(root=root, identifier=identifier, inventory=inventory)

    def _held(self, there: _Object) -> Held | None:
        try:
            return self._described(there) if there.inventory is not None else None
        except (KeyError, TypeError, ValueError):
            return None  # an object of somebody else

    def _described(self, there: _Object) -> Held:
        inventory = there.inventory or {}
        version = inventory["versions"][inventory["head"]]
        about = json.loads(version["message"])
        urn, kind = there.identifier[:_URN_LENGTH], there.identifier[_URN_LENGTH:].removeprefix(":")
        if not urn.startswith("urn:uuid:"):
            raise ValueError(urn)
        key = f"{there.root}/{about['version']}/content/{about['name']}"
        return Held(
            package=uuid.UUID(urn.removeprefix("urn:uuid:")),
            kind=PackageKind(kind or "aip"),
            name=about["name"],
            key=key,
            url=self.medium.url_of(key),
            algorithm=DigestAlgorithm(about["algorithm"]),
            digest=about["digest"],
            stored_at=datetime.fromisoformat(version["created"]),
            cursor=f"{there.root}/inventory.json",
            version=about["version"],
        )

    async def find(self, package: uuid.UUID, kind: PackageKind = PackageKind.AIP) -> Held | None:
        return self._held(await self._object(package, kind))

    async def held(self, after: str = "") -> AsyncIterator[Held]:
        async for entry in self.medium.list(after=after):
            if not _INVENTORY.fullmatch(entry.key):
                continue
            inventory = _parsed(await self.medium.read(entry.key) or b"")
            if inventory is None:
                log.error("inventory_not_read", url=self.medium.url_of(entry.key))
                continue
            root = entry.key.rpartition("/")[0]
            held = self._held(_Object(root=root, identifier=str(inventory.get("id", "")), inventory=inventory))
            if held is not None:
                yield held

    async def companion(self, held: Held, name: str) -> bytes | None:
        return await self.medium.read(f"{held.key.rpartition('/')[0]}/{name}")

    async def delete(self, held: Held, *, reason: str, who: str) -> None:
        record = f"{OUR_FOLDER}/deleted/{held.package}-{held.kind}.json"
        await self.medium.write(record, deletion(held, reason, who))
        await self.medium.delete(held.cursor)
        await self.medium.delete(held.cursor.rpartition("/")[0])

    async def _declare(self) -> None:
        """Make the storage root one: its declaration, its layout, and the layout's parameters."""
        if self._declared:
            return
        description = {
            "extension": EXTENSION,
            "description": "Three groups of three digits of the identifier's SHA-256, then the identifier",
        }
        await self.medium.create("ocfl_layout.json", json.dumps(description).encode())
        await self.medium.create(f"extensions/{EXTENSION}/config.json", json.dumps(_LAYOUT).encode())
        await self.medium.create("0=ocfl_1.1", b"ocfl_1.1\n")
        self._declared = True


def object_root(identifier: str) -> str:
    """Where an object is (extension 0003): three groups of three digits of its identifier's SHA-256, then all of it."""
    digits = hashlib.sha256(identifier.encode()).hexdigest()
    plain = re.sub(r"[^A-Za-z0-9_-]", lambda found: f"%{ord(found[0]):02x}", identifier)
    return f"{digits[:3]}/{digits[3:6]}/{digits[6:9]}/{plain}"


def _parsed(content: bytes) -> dict[str, Any] | None:
    """An inventory; None for what is none."""
    try:
        inventory = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return inventory if isinstance(inventory, dict) else None


def _inventory_algorithm(algorithm: DigestAlgorithm) -> DigestAlgorithm:
    """OCFL knows two algorithms for its inventories."""
    return algorithm if algorithm in _KNOWN else DigestAlgorithm.SHA512


def _inventory(there: _Object, new: Held, files: Mapping[str, str], name_of: Callable[[str], str]) -> dict[str, Any]:
    """Describe the object with one more version."""
    old = there.inventory or {"manifest": {}, "versions": {}}
    inner = _inventory_algorithm(new.algorithm)
    if there.inventory and old["digestAlgorithm"] != inner:
        raise StorageError(
            f"{there.identifier} has an inventory of {old['digestAlgorithm']}, not of {inner}",
            code=Code.STORAGE_CONFLICT,
        )
    manifest = {digest: list(paths) for digest, paths in old["manifest"].items()}
    state: dict[str, list[str]] = {}
    for path, digest in files.items():
        manifest.setdefault(digest, []).append(f"{new.version}/content/{name_of(path)}")
        state.setdefault(digest, []).append(path)
    about = {"version": new.version, "name": new.name, "algorithm": new.algorithm, "digest": new.digest}
    version = {
        "created": new.stored_at.isoformat(timespec="seconds"),
        "state": state,
        "message": json.dumps(about),
        "user": {"name": f"ingestd {__version__}", "address": "https://ingestd.org"},
    }
    return {
        "id": there.identifier,
        "type": _TYPE,
        "digestAlgorithm": inner,
        "head": new.version,
        "manifest": manifest,
        "versions": {**old["versions"], new.version: version},
    }
