"""A session with an SFTP server: opened when it is first needed, and again when it was lost.

No server is trusted blindly: its host key is one whose fingerprint is set, or one of a file of known hosts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from ingestd.errors import Code, DependencyError
from ingestd.keeping import CredentialSettings

_TIMES = 5
_CONNECT_SECONDS = 20
_KEEPALIVE_SECONDS = 15
_LONGEST_PAUSE_SECONDS = 5.0
_LOST = (
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    ConnectionError,
)

Answer = TypeVar("Answer")


class Session:
    """SFTP with one server, as one account. A server that cannot be reached is tried for `patience_seconds`; one that
    is silent for a minute is given up.
    """

    def __init__(
        self, host: str, port: int, user: str, credentials: CredentialSettings | None, patience_seconds: float
    ) -> None:
        self.server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._where: dict[str, Any] = {"host": host, "port": port} | ({"username": user} if user else {})
        self._credentials = credentials or CredentialSettings()
        self._patience_seconds = patience_seconds
        self._opening = asyncio.Lock()
        self._open: tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient] | None = None

    async def do(self, work: Callable[[asyncssh.SFTPClient], Awaitable[Answer]]) -> Answer:
        """Do `work`, and again from its beginning on a new connection when the old one was lost meanwhile.

        Raises `DependencyError` when the server is away, or nobody lets us in.
        """
        lost = ""
        for _ in range(_TIMES):
            client = await self._client()
            try:
                return await work(client)
            except _LOST as error:
                lost = str(error)
                await self._give_up(client)
        raise self._away(f"lost its connection {_TIMES} times: {lost}")

    async def aclose(self) -> None:
        if self._open is not None:
            connection, self._open = self._open[0], None
            connection.abort()  # closing would wait for what a dead server never takes
            await connection.wait_closed()

    async def _client(self) -> asyncssh.SFTPClient:
        async with self._opening:
            if self._open is None or self._open[0].is_closed():
                self._open = await self._patiently_opened()
            return self._open[1]

    async def _give_up(self, client: asyncssh.SFTPClient) -> None:
        async with self._opening:
            if self._open is not None and self._open[1] is client:
                await self.aclose()

    async def _patiently_opened(self) -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
        give_up = time.monotonic() + self._patience_seconds
        pause = 0.1
        while True:
            options = await asyncio.to_thread(self._options)
            try:
                return await self._opened(options)
            except (OSError, asyncssh.ConnectionLost, asyncssh.SFTPConnectionLost) as error:
                if time.monotonic() + pause > give_up:
                    raise self._away(f"cannot be reached: {error}") from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _opened(self, options: dict[str, Any]) -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
        judge = _Judge(self._credentials.host_keys)
        try:
            connection = await asyncssh.connect(**self._where, **options, client_factory=lambda: judge)
        except asyncssh.HostKeyNotVerifiable as error:
            raise DependencyError(
                f"the SFTP server {self.server} shows a host key that is not known: {judge.shown or error}",
                code=Code.DEPENDENCY_STORAGE_AUTH,
                remediation="Ask whoever runs the server for its fingerprint. If it is this one, set it in `host_keys` "
                "of the location's credentials; otherwise somebody else answers.",
            ) from None
        except asyncssh.PermissionDenied as error:
            raise self._refused(str(error)) from None
        except asyncssh.ConnectionLost:
            raise
        except asyncssh.Error as error:
            raise self._away(f"cannot be talked to: {error}") from None
        try:
            return connection, await connection.start_sftp_client(path_encoding=None)
        except BaseException as error:
            connection.abort()
            await connection.wait_closed()
            if isinstance(error, asyncssh.ChannelOpenError):
                raise self._away(f"offers no SFTP: {error}") from None
            raise

    def _options(self) -> dict[str, Any]:
        """Read what is to be shown and what is to be believed: anew each time, so that files can be renewed."""
        options: dict[str, Any] = {
            "config": None,
            "connect_timeout": _CONNECT_SECONDS,
            "keepalive_interval": _KEEPALIVE_SECONDS,
        }
        mine = self._credentials
        password = mine.secret("password")
        key = mine.private_key or (mine.folder / "private_key" if mine.folder else None)
        has_key = key is not None and key.exists()
        try:
            if mine.known_hosts is not None:
                options["known_hosts"] = asyncssh.read_known_hosts(str(mine.known_hosts))
            elif mine.host_keys:
                options["known_hosts"] = ([], [], [])
            if key is not None and (has_key or mine.private_key):
                options["client_keys"] = [asyncssh.read_private_key(key, mine.secret("passphrase") or None)]
            elif password:
                options["client_keys"] = None
        except (OSError, ValueError) as error:
            raise self._refused(_unreadable(error, key)) from None
        if "client_keys" in options:
            options |= {"agent_path": None, "password": password or None}
        return options

    def _away(self, what: str) -> DependencyError:
        return DependencyError(f"the SFTP server {self.server} {what}", code=Code.DEPENDENCY_STORAGE_UNAVAILABLE)

    def _refused(self, why: str) -> DependencyError:
        return DependencyError(
            f"the SFTP server {self.server} cannot be entered: {why}", code=Code.DEPENDENCY_STORAGE_AUTH
        )


class _Judge(asyncssh.SSHClient):
    """Believes pinned host keys, where none of the known ones was shown; remembers what was shown."""

    def __init__(self, pinned: tuple[str, ...]) -> None:
        self._pinned = pinned
        self.shown = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        self.shown = key.get_fingerprint()
        return self.shown in self._pinned


def _unreadable(error: OSError | ValueError, key: Path | None) -> str:
    if isinstance(error, OSError):
        return f"cannot read {error.filename}: {error.strerror}"
    return f"the private key {key} or the known hosts cannot be used: {error}"
