"""A store on an SFTP server: `sftp://USER@HOST:PORT/FOLDER`. With `ssh`, the only module that knows asyncssh.

As in a folder, a file is first made complete in a folder of its own and flushed to disk (where the server has
`fsync@openssh.com`, as OpenSSH's does), and only then given its name. By SFTP version 3 (6.5) a rename replaces
nothing; not every server keeps to that, so it is tried out before anything is named. Only `posix-rename@openssh.com`
replaces, at once. SFTP cannot replace what is still the same and nothing else, so there are no conditional writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import posixpath
import stat
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

import asyncssh
from asyncssh import SFTPAttrs, SFTPClient

from ingestd.errors import Code, DependencyError, IngestError, ResourceError, StorageError, SystemFault
from ingestd.keeping import CredentialSettings
from ingestd.premis import DigestAlgorithm
from ingestd.storage.ssh import Session
from ingestd.storage.store import Entry, keys_of
from ingestd.together import side_by_side

_CHUNK_BYTES = 4 * 2**20
_AT_ONCE = 8

Answer = TypeVar("Answer")
Send = Callable[[SFTPClient, bytes], Awaitable[None]]
"""Writes what is to be stored under the name of a part, where an earlier try may have left some of it."""


class SftpStore:
    """Files below a folder of the server, made in its folder `parts`. Their names are bytes, as the server's are."""

    def __init__(self, session: Session, root: str, *, parts: str = ".ingestd/parts") -> None:
        self._session = session
        self._root = os.fsencode(root)
        self._parts = posixpath.join(self._root, os.fsencode(parts))
        self._fit = False

    @classmethod
    def open(
        cls,
        url: str,
        credentials: CredentialSettings | None = None,
        *,
        parts: str = ".ingestd/parts",
        patience_seconds: float = 60,
    ) -> SftpStore:
        """Open `sftp://USER@HOST:PORT/FOLDER`; `/~/FOLDER` is below the account's home. Nothing is asked for yet.

        Without `credentials` the keys, the agent and the known hosts of the user are used.
        Raises `SystemFault` (`system.configuration`) for another URL.
        """
        found = urlsplit(url)
        try:
            host, port = found.hostname, found.port or 22
        except ValueError:
            host, port = None, 0
        path = unquote(found.path, errors="surrogateescape")
        folder = path.rstrip("/").removeprefix("/~/") or path[:1]
        if not host or folder in {"", "/~"} or found.password is not None or found.query or found.fragment:
            raise SystemFault(
                "not the URL of a folder on an SFTP server",  # which may hold a password
                code=Code.SYSTEM_CONFIGURATION,
                remediation="Use sftp://USER@HOST:PORT/FOLDER; a password goes into `credentials.NAME.password`.",
            )
        session = Session(host, port, unquote(found.username or ""), credentials, patience_seconds)
        return cls(session, folder, parts=parts)

    def url_of(self, key: str) -> str:
        path = self._path(key)
        home = b"" if path.startswith(b"/") else b"/~/"
        return f"sftp://{self._session.server}{quote(home + path)}"

    def name_of(self, key: str) -> str:
        return key

    def documents(self, folder: str) -> None:
        """There are none that several workers could change."""

    async def aclose(self) -> None:
        await self._session.aclose()

    async def put(self, key: str, source: Path, *, take: bool = False, over: bool = False) -> None:  # noqa: ARG002
        if not await asyncio.to_thread(source.exists):
            raise StorageError(f"{source.name} is gone before it was stored", code=Code.STORAGE_UPLOAD_FAILED)
        send = _send_folder if await asyncio.to_thread(source.is_dir) else _send
        try:
            await self._bring(key, self._part(key), lambda sftp, part: send(sftp, source, part), over=over)
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError as error:
            raise StorageError(f"cannot read {source.name}: {error.strerror}") from error

    async def create(self, key: str, content: bytes) -> bool:
        try:
            await self._bring(key, self._new(), lambda sftp, part: _write(sftp, part, content), over=False)
        except FileExistsError:
            return False
        return True

    async def write(self, key: str, content: bytes) -> None:
        await self._bring(key, self._new(), lambda sftp, part: _write(sftp, part, content), over=True)

    async def _bring(self, key: str, part: bytes, send: Send, *, over: bool) -> None:
        """Write a part, and give it its name. Of an answer that was lost, it is looked what became of it."""
        place = self._path(key)
        sending = naming = False

        async def bring(sftp: SFTPClient) -> None:
            nonlocal sending, naming
            await self._prove_fit(sftp)
            if not over and await sftp.lexists(place):
                if naming and not await sftp.lexists(part):
                    return
                raise FileExistsError(key)
            if not sending:
                await _make_folder(sftp, self._parts)
                await _remove(sftp, part)  # of another attempt, perhaps with other bytes
                sending = True
            await send(sftp, part)
            naming = True
            await _name(sftp, part, place, over=over)

        await self._do(key, bring)

    async def read(self, key: str) -> bytes | None:
        try:
            return b"".join([chunk async for chunk in self.get(key)])
        except FileNotFoundError:
            return None

    async def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        path, at, left = self._path(key), start, sys.maxsize if end is None else end - start
        opened: tuple[SFTPClient, asyncssh.SFTPClientFile] | None = None

        async def read(sftp: SFTPClient) -> bytes:
            nonlocal opened
            if opened is None or opened[0] is not sftp:
                opened = sftp, await sftp.open(path, "rb")
            try:
                return await opened[1].read(min(left, _CHUNK_BYTES), at)
            except asyncssh.SFTPFailure:
                if await sftp.isdir(path):
                    raise IsADirectoryError(key) from None
                raise

        try:
            while left > 0 and (chunk := await self._do(key, read)):
                at += len(chunk)
                left = left - len(chunk) if len(chunk) >= _CHUNK_BYTES else 0
                yield chunk
        finally:
            if opened is not None:
                with contextlib.suppress(asyncssh.Error, OSError):
                    await opened[1].close()

    async def digests(self, key: str, algorithms: Sequence[DigestAlgorithm]) -> Mapping[DigestAlgorithm, str]:
        hashes = {one: hashlib.new(one.value, usedforsecurity=False) for one in algorithms}
        async for chunk in self.get(key):
            for one in hashes.values():
                await asyncio.to_thread(one.update, chunk)
        return {name: one.hexdigest() for name, one in hashes.items()}

    async def head(self, key: str) -> Entry | None:
        async def look(sftp: SFTPClient) -> SFTPAttrs:
            return await sftp.stat(self._path(key))

        try:
            return _entry(key, await self._do(key, look))
        except FileNotFoundError:
            return None

    async def is_folder(self, key: str) -> bool:
        return await self._do(key, lambda sftp: sftp.isdir(self._path(key)))

    async def list(self, prefix: str = "", after: str = "") -> AsyncIterator[Entry]:
        try:
            found = await self._do(prefix, lambda sftp: _entries(sftp, self._path(prefix)))
        except FileNotFoundError:
            return
        for key, attrs in keys_of(found, prefix, after):
            if _is_folder(attrs):
                async for inner in self.list(key, after):
                    yield inner
            elif key.split("/") > after.split("/") and (entry := _entry(key, attrs)) is not None:
                yield entry

    async def delete(self, key: str) -> None:
        async def delete(sftp: SFTPClient) -> None:
            path = self._path(key)
            await _remove(sftp, path)
            await _remove(sftp, self._part(key))
            with contextlib.suppress(asyncssh.SFTPError):  # folders that are empty now, up to the root
                while (path := posixpath.dirname(path)) != self._root:
                    await sftp.rmdir(path)

        await self._do(key, delete)

    async def check(self) -> None:
        async def check(sftp: SFTPClient) -> None:
            self._fit = False
            await self._prove_fit(sftp)

        try:
            await self._do("", check)
        except StorageError as error:
            raise DependencyError(error.detail, code=Code.DEPENDENCY_STORAGE_UNAVAILABLE) from error

    async def _prove_fit(self, sftp: SFTPClient) -> None:
        """Try out whether the server names files as we need it."""
        if self._fit:
            return
        one, two = self._new(), self._new()
        await _make_folder(sftp, self._parts)
        try:
            for path in (one, two):
                await _write(sftp, path, b"ingestd")
            try:
                await sftp.rename(one, two)
            except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
                await sftp.posix_rename(one, two)
            else:
                raise self._unfit("replaces a file that it was told to name another")
        except asyncssh.SFTPOpUnsupported:
            raise self._unfit("cannot replace a file at once (posix-rename@openssh.com)") from None
        finally:
            for path in (one, two):
                await _remove(sftp, path)
        self._fit = True

    def _unfit(self, why: str) -> SystemFault:
        return SystemFault(
            f"the SFTP server {self._session.server} is not fit for archival storage: it {why}",
            code=Code.SYSTEM_CONFIGURATION,
            remediation="Use one that does as OpenSSH's, or another kind of location.",
        )

    def _path(self, key: str) -> bytes:
        return posixpath.join(self._root, os.fsencode(key)) if key else self._root

    def _part(self, key: str) -> bytes:
        return posixpath.join(self._parts, hashlib.sha256(os.fsencode(key)).hexdigest().encode())

    def _new(self) -> bytes:
        return posixpath.join(self._parts, uuid.uuid4().hex.encode())

    async def _do(self, key: str, work: Callable[[SFTPClient], Awaitable[Answer]]) -> Answer:
        name = key.rpartition("/")[2] or self.url_of("")
        try:
            return await self._session.do(work)
        except asyncssh.SFTPNoSuchFile as error:
            raise FileNotFoundError(key) from error
        except asyncssh.SFTPError as error:
            raise await self._told(name, error) from error

    async def _told(self, name: str, error: asyncssh.SFTPError) -> IngestError:
        """Say what a refusal means. That a disk is full has no code of its own in version 3: it is asked for."""
        if isinstance(error, asyncssh.SFTPBadMessage):
            return DependencyError(
                f"the SFTP server {self._session.server} does not answer as it should: {error.reason}",
                code=Code.DEPENDENCY_STORAGE_UNAVAILABLE,
            )
        if isinstance(error, asyncssh.SFTPFailure):
            with contextlib.suppress(asyncssh.Error, IngestError):
                room = await self._session.do(lambda sftp: sftp.statvfs(self._parts))
                free = room.bavail * room.frsize
                where = f"archival storage, while storing {name}"
                if room.files and not room.favail:
                    return ResourceError(f"{where}: it can hold no more files", code=Code.RESOURCE_INODES)
                if free < _CHUNK_BYTES:
                    return ResourceError(f"{where}: no space is left: {free} bytes", code=Code.RESOURCE_DISK)
        return StorageError(f"the SFTP server refuses {name}: {error.reason}", code=Code.STORAGE_UPLOAD_FAILED)


# --- the server's files ----------------------------------------------------------------------------------------------


async def _write(sftp: SFTPClient, path: bytes, content: bytes) -> None:
    async with sftp.open(path, "wb") as file:
        await file.write(content)
        await _flush(file)


async def _send(sftp: SFTPClient, source: Path, path: bytes) -> None:
    with source.open("rb") as file:  # at once: opened in a thread, it would stay open if that is cancelled
        async with sftp.open(path, "wb") as out:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                await out.write(chunk)
            await _flush(out)


async def _send_folder(sftp: SFTPClient, source: Path, path: bytes) -> None:
    """Send what is not there yet, by its size, a few files at once. All of it is read back in the end."""
    walk = os.walk(source)
    while step := await asyncio.to_thread(next, walk, None):
        here = path + os.fsencode(step[0])[len(os.fsencode(source)) :]
        await _make_folder(sftp, here)
        files = [Path(step[0], name) for name in step[2]]
        await side_by_side(partial(_send_missing, sftp, here), files, at_once=_AT_ONCE)


async def _send_missing(sftp: SFTPClient, folder: bytes, source: Path) -> None:
    path = posixpath.join(folder, os.fsencode(source.name))
    with contextlib.suppress(asyncssh.SFTPNoSuchFile):
        if (await sftp.stat(path)).size == await asyncio.to_thread(os.path.getsize, source):
            return
    await _send(sftp, source, path)


async def _name(sftp: SFTPClient, part: bytes, place: bytes, *, over: bool) -> None:
    rename = sftp.posix_rename if over else sftp.rename
    try:
        try:
            await rename(part, place)
        except asyncssh.SFTPNoSuchFile:
            await _make_folder(sftp, posixpath.dirname(place))
            await rename(part, place)
    except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists) as error:
        if not over and await sftp.lexists(place):
            raise FileExistsError(place) from error
        raise
    await _flush_folder(sftp, posixpath.dirname(place))


async def _make_folder(sftp: SFTPClient, folder: bytes) -> None:
    if not folder or await sftp.isdir(folder):
        return
    parent = posixpath.dirname(folder)
    await _make_folder(sftp, parent)
    try:
        await sftp.mkdir(folder)
    except asyncssh.SFTPError:
        if not await sftp.isdir(folder):  # as another made it meanwhile
            raise
    await _flush_folder(sftp, parent)


async def _flush(file: asyncssh.SFTPClientFile) -> None:
    with contextlib.suppress(asyncssh.SFTPOpUnsupported):
        await file.fsync()


async def _flush_folder(sftp: SFTPClient, folder: bytes) -> None:
    """Take the names in a folder to the disk. OpenSSH's server opens folders as it does files; others may not."""
    with contextlib.suppress(asyncssh.SFTPFailure, asyncssh.SFTPPermissionDenied):
        async with sftp.open(folder or b".", "rb") as opened:
            await _flush(opened)


async def _entries(sftp: SFTPClient, folder: bytes) -> Mapping[str, SFTPAttrs]:
    """Give what a folder holds, by name."""
    found = {}
    async for item in sftp.scandir(folder):
        name = os.fsdecode(item.filename)
        if "/" in name:  # the name would lead out of where the file is fetched to
            raise asyncssh.SFTPBadMessage("the server names a file with a slash in it")
        found[name] = item.attrs
    return {name: attrs for name, attrs in found.items() if name not in {".", ".."}}


async def _remove(sftp: SFTPClient, path: bytes) -> None:
    """Remove a file, or a folder with all that is in it; what is not there is no error."""
    with contextlib.suppress(asyncssh.SFTPNoSuchFile):
        try:
            await sftp.remove(path)
        except asyncssh.SFTPNoSuchFile:
            raise
        except asyncssh.SFTPError:
            if not _is_folder(await sftp.lstat(path)):
                raise
            for name in await _entries(sftp, path):
                await _remove(sftp, posixpath.join(path, os.fsencode(name)))
            await sftp.rmdir(path)


def _is_folder(attrs: SFTPAttrs) -> bool:
    return stat.S_ISDIR(attrs.permissions or 0)


def _entry(key: str, attrs: SFTPAttrs) -> Entry | None:
    if not stat.S_ISREG(attrs.permissions or 0):
        return None
    modified_at = datetime.fromtimestamp(attrs.mtime or 0, UTC)
    return Entry(key=key, size_bytes=attrs.size or 0, modified_at=modified_at)
