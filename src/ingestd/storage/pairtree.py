"""Archivematica's layout: an AIP lies in a pairtree of its UUID, eight groups of four digits, then its name.

Beside `NAME` lies `NAME.sha256` (or of another algorithm), which `sha256sum --check` reads: it commits the package.
While a package is being stored there is `NAME.storing`, with its digest; `NAME.deleted` records a deletion, which takes
companions along (the pointer file). DIPs lie in a pairtree of their own, below `dip`.

The next version of a package (a reingest) lies in a folder `v2`, `v3`, … beside the first one, with all that belongs to
it; the highest version that is committed is the package.
"""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

from ingestd.errors import Code, StorageError
from ingestd.premis import DigestAlgorithm
from ingestd.storage.archive import Archive, conflict, deletion, is_bag
from ingestd.storage.holding import Deposit, Held, PackageKind, Stored, folder_manifest
from ingestd.storage.store import Entry

_ALGORITHMS = "|".join(one.value for one in DigestAlgorithm)
_COMMIT = re.compile(rf"(?:(dip)/)?((?:[0-9a-f]{{4}}/){{8}})(?:v([1-9][0-9]*)/)?([^/]+)\.({_ALGORITHMS})")
_LINE_BYTES = 64 * 1024


def pairtree(package: uuid.UUID) -> str:
    """The folders of a package: its UUID's hexadecimal digits in eight groups of four."""
    digits = package.hex
    return "/".join(digits[at : at + 4] for at in range(0, 32, 4))


class PairtreeArchive(Archive):
    """Packages, packed or as folders, in a pairtree."""

    async def store(self, source: Path, deposit: Deposit, *, take: bool = True) -> Stored:
        held = await self.find(deposit.package, deposit.kind)
        if held is None or (deposit.supersedes == held.digest and deposit.digest != held.digest):
            held = self._wanted(deposit, after=held)
            await self._bring(held, source, take=take)
            for companion, content in deposit.companions.items():
                await self.medium.write(f"{held.key.rpartition('/')[0]}/{companion}", content)
            await self._sign(held)
            await self.medium.delete(f"{held.key}.storing")
        elif (held.digest, held.algorithm) != (deposit.digest, deposit.algorithm):
            raise conflict(held, deposit.digest)
        else:
            await self._prove(held)
            await self.medium.delete(f"{held.key}.storing")
        return await self._stored(held, deposit.size_bytes)

    def _wanted(self, deposit: Deposit, *, after: Held | None) -> Held:
        version = f"v{_number(after) + 1}" if after else ""
        key = "/".join(part for part in (_folder(deposit.package, deposit.kind), version, deposit.name) if part)
        return self._held_as(deposit, key=key, cursor=f"{key}.{deposit.algorithm}", version=version)

    async def _bring(self, held: Held, source: Path, *, take: bool) -> None:
        """Bring the content to its place, and prove it there. What is there is left, unless it is known to be ours."""
        ours = await self._claim(held)
        if not ours:
            found = await self.read_back(held)
            if found == held.digest:
                return
            raise conflict(replace(held, digest=found), held.digest)
        plain = await asyncio.to_thread(lambda: source.is_dir() and not is_bag(source, held.algorithm))
        if plain:
            await self._list_files(held, source)
        proved = replace(held, manifest=f"{held.key}.list") if await self._has_list(held) else held
        try:
            await self.medium.put(held.key, source, take=take)
        except FileExistsError:
            if await self.read_back(proved) == held.digest:
                return
            await self.medium.delete(held.key)
            await self.medium.put(held.key, source, take=take)
        try:
            await self._prove(proved)
        except StorageError:
            await self.medium.delete(held.key)
            await self.medium.delete(f"{held.key}.storing")
            raise

    async def _claim(self, held: Held) -> bool:
        """Say that this is being stored; tell whether what lies there already was brought by somebody who said so."""
        claim = f"{held.key}.storing"
        before = await self.medium.read(claim)
        if before is None and await self.medium.read(f"{held.key}.deleted") is None:
            there = await self.medium.head(held.key) is not None or await self.medium.is_folder(held.key)
            if there:
                return False
        await self.medium.write(claim, held.digest.encode())
        return True

    async def _list_files(self, held: Held, source: Path) -> None:
        """List the files of a folder that is no bag. Its digest is the list's, so the list must be the expected one."""
        beside = source.with_name(f"{source.name}.list")
        found = await asyncio.to_thread(folder_manifest, source, held.name, held.algorithm, beside)
        if found != held.digest:
            await asyncio.to_thread(beside.unlink)
            raise StorageError(
                f"{source.name} is not what was promised: {held.algorithm} {found}, expected {held.digest}",
                code=Code.STORAGE_VERIFY_MISMATCH,
            )
        await self.medium.delete(f"{held.key}.list")
        await self.medium.put(f"{held.key}.list", beside, take=True)

    async def _has_list(self, held: Held) -> bool:
        return await self.medium.head(f"{held.key}.list") is not None

    async def _sign(self, held: Held) -> None:
        """Commit: write what `find` looks for."""
        if await self._has_list(held):
            line = f"{held.digest}  {held.name}.list\n"
        elif await self.medium.head(held.key) is not None:
            line = f"{held.digest}  {held.name}\n"
        else:
            line = f"{held.digest}  {held.name}/tagmanifest-{held.algorithm}.txt\n"
        await self._commit(held.cursor, os.fsencode(line))

    async def find(self, package: uuid.UUID, kind: PackageKind = PackageKind.AIP) -> Held | None:
        last: Held | None = None
        async for entry in self.medium.list(_folder(package, kind)):
            held = await self._read(entry)
            if held is not None and (last is None or _number(held) > _number(last)):
                last = held
        return last

    async def held(self, after: str = "") -> AsyncIterator[Held]:
        async for entry in self.medium.list(after=after):
            held = await self._read(entry)
            if held is not None:
                yield held

    async def _read(self, entry: Entry) -> Held | None:
        named = _COMMIT.fullmatch(entry.key)
        if named is None:
            return None
        content = await self.medium.read(entry.key)
        digest, sign, listed = (content or b"")[:_LINE_BYTES].rstrip(b"\n").partition(b"  ")
        if not sign:
            return None
        key = entry.key.rpartition(".")[0]
        return Held(
            package=uuid.UUID(named[2].replace("/", "")),
            kind=PackageKind.DIP if named[1] else PackageKind.AIP,
            name=named[4],
            key=key,
            url=self.medium.url_of(key),
            algorithm=DigestAlgorithm(named[5]),
            digest=digest.decode("ascii", "replace"),
            stored_at=entry.modified_at,
            cursor=entry.key,
            version=f"v{named[3]}" if named[3] else "",
            manifest=f"{key}.list" if os.fsdecode(listed) == f"{named[4]}.list" else "",
        )

    async def companion(self, held: Held, name: str) -> bytes | None:
        return await self.medium.read(f"{held.key.rpartition('/')[0]}/{name}")

    async def delete(self, held: Held, *, reason: str, who: str) -> None:
        own = (held.cursor, held.key, f"{held.key}.list", f"{held.key}.storing")
        companions = await self._beside(held, without=(*own, f"{held.key}.deleted"))
        names = [key.rpartition("/")[2] for key in companions]
        await self.medium.write(f"{held.key}.deleted", deletion(held, reason, who, names))
        for key in (*own, *companions):
            await self.medium.delete(key)

    async def _beside(self, held: Held, *, without: Sequence[str]) -> Sequence[str]:
        """The companions: what lies in the folder of a package beside it. No other package has a place there."""
        folder = held.key.rpartition("/")[0]
        return [
            entry.key
            async for entry in self.medium.list(folder)
            if entry.key.rpartition("/")[0] == folder and entry.key not in without
        ]


def _folder(package: uuid.UUID, kind: PackageKind) -> str:
    return pairtree(package) if kind is PackageKind.AIP else f"{kind}/{pairtree(package)}"


def _number(held: Held) -> int:
    """Which version it is; the first one has no name of its own."""
    return int(held.version[1:]) if held.version else 1
