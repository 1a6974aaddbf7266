"""SFTP servers as they are met: strange, closed, cut off, not fit. What holds for every store: tests/contracts."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
import pytest
from pydantic import SecretStr, ValidationError

from ingestd.errors import Code, DependencyError, IngestError, SystemFault
from ingestd.keeping import CredentialSettings
from ingestd.premis import DigestAlgorithm
from ingestd.storage import Locations, open_archive
from ingestd.storage.sftp import SftpStore
from ingestd.storage.ssh import Session
from tests.objectstores import rclone_serving
from tests.sftp_server import SshServer, make_key, sshd
from tests.storing import digest

SHA256 = DigestAlgorithm.SHA256
Answer = TypeVar("Answer")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


async def refused(url: str, credentials: CredentialSettings) -> IngestError:
    store = SftpStore.open(url, credentials, patience_seconds=0.3)
    with pytest.raises(IngestError) as caught:
        await store.check()
    await store.aclose()
    return caught.value


async def written(url: str, credentials: CredentialSettings) -> bytes | None:
    store = SftpStore.open(url, credentials, patience_seconds=0.3)
    await store.write("a", b"content")
    content = await store.read("a")
    await store.aclose()
    return content


# --- who is believed, and who is let in


async def test_a_host_key_that_is_not_known_is_told_and_nothing_is_stored(server: SshServer, tmp_path: Path) -> None:
    (tmp_path / "known").write_text("[127.0.0.1]:1 " + server.known_hosts.split(" ", 1)[1])
    for believed in ({"host_keys": ("SHA256:" + "A" * 43,)}, {"known_hosts": tmp_path / "known"}):
        error = await refused(
            server.url(tmp_path / "aips"), CredentialSettings(private_key=server.private_key, **believed)
        )

        assert error.code is Code.DEPENDENCY_STORAGE_AUTH
        assert server.fingerprint in error.detail
    assert not (tmp_path / "aips").exists()


async def test_a_host_key_is_believed_by_its_fingerprint_or_a_file_of_known_hosts(
    server: SshServer, tmp_path: Path
) -> None:
    (tmp_path / "known").write_text(server.known_hosts)
    by_file = CredentialSettings(private_key=server.private_key, known_hosts=tmp_path / "known")

    assert b"content" == await written(server.url(tmp_path / "aips"), server.credentials)
    assert b"content" == await written(server.url(tmp_path / "aips"), by_file)


async def test_a_key_that_is_not_let_in_or_cannot_be_read_is_told(server: SshServer, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    (tmp_path / "damaged").write_text("no key")
    for key in ("other", "damaged", "nowhere"):
        account = CredentialSettings(private_key=tmp_path / key, host_keys=(server.fingerprint,))

        assert (await refused(server.url(tmp_path), account)).code is Code.DEPENDENCY_STORAGE_AUTH


async def test_a_key_of_a_mounted_folder_is_read_when_it_is_needed(server: SshServer, tmp_path: Path) -> None:
    """One with a passphrase."""
    account = CredentialSettings(folder=tmp_path / "mounted", host_keys=(server.fingerprint,))
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "passphrase").write_text("s3cret\n")
    make_key(tmp_path / "mounted" / "private_key", "s3cret")
    with server.folder.joinpath("authorized_keys").open("a") as authorized:
        authorized.write((tmp_path / "mounted" / "private_key.pub").read_text())

    assert b"content" == await written(server.url(tmp_path / "aips"), account)


async def test_a_server_that_is_away_is_said_to_be(server: SshServer, tmp_path: Path) -> None:
    error = await refused("sftp://nobody@127.0.0.1:9/aips", server.credentials)

    assert error.code is Code.DEPENDENCY_STORAGE_UNAVAILABLE
    assert "127.0.0.1:9" in error.detail


async def test_a_server_that_renames_over_files_is_not_fit_and_no_password_is_told(tmp_path: Path) -> None:
    """rclone's server does; it also knows passwords."""
    pinned = (make_key(tmp_path / "host"),)
    (tmp_path / "served").mkdir()
    options = ("--user=me", "--pass=s3cret", f"--key={tmp_path / 'host'}")
    with rclone_serving("sftp", tmp_path / "served", *options) as port:
        url = f"sftp://me@127.0.0.1:{port}/aips"
        unfit = await refused(url, CredentialSettings(password=SecretStr("s3cret"), host_keys=pinned))
        closed = await refused(url, CredentialSettings(password=SecretStr("s3cret2"), host_keys=pinned))

    assert (Code.SYSTEM_CONFIGURATION, Code.DEPENDENCY_STORAGE_AUTH) == (unfit.code, closed.code)
    assert "replaces a file" in unfit.detail
    assert "s3cret" not in closed.detail
    assert [] == [path.name for path in (tmp_path / "served").rglob("*") if path.is_file()]


# --- connections that are lost


async def test_an_upload_and_a_download_outlive_their_connection(server: SshServer, tmp_path: Path) -> None:
    content = os.urandom(2**20) * 48
    (tmp_path / "big").write_bytes(content)
    store = SftpStore.open(server.url(tmp_path / "aips"), server.credentials)
    parts = tmp_path / "aips/.ingestd/parts"

    async def cut_when_it_has_begun() -> None:
        while not any(part.stat().st_size > 2**22 for part in parts.glob("*")):
            await asyncio.sleep(0.005)
        server.cut()

    await store.check()
    async with asyncio.TaskGroup() as group:
        group.create_task(store.put("a/big", tmp_path / "big"))
        group.create_task(cut_when_it_has_begun())
    found = b""
    async for chunk in store.get("a/big"):
        if not found:
            server.cut()
        found += chunk
    await store.aclose()

    assert content == found
    assert [] == list(parts.iterdir())


class Deaf(Session):
    """A session in which answers to renames are lost, each of the first few once."""

    lost = 0

    async def do(self, work: Callable[[asyncssh.SFTPClient], Awaitable[Answer]]) -> Answer:
        return await super().do(lambda sftp: work(DeafClient(sftp, self)))  # type: ignore[arg-type]


class DeafClient:
    def __init__(self, sftp: asyncssh.SFTPClient, session: Deaf) -> None:
        self._sftp, self._session = sftp, session

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._sftp, name)
        if name not in {"rename", "posix_rename"} or self._session.lost % 2:
            return call

        async def deaf(old: bytes, new: bytes) -> None:
            self._session.lost += 1
            await call(old, new)
            raise asyncssh.SFTPConnectionLost("the answer did not come")

        return deaf


async def test_an_answer_that_is_lost_is_resolved_by_looking(server: SshServer, tmp_path: Path) -> None:
    session = Deaf("127.0.0.1", server.port, "", server.credentials, patience_seconds=5)
    session.lost = 1  # not while it is tried whether the server is fit
    store = SftpStore(session, str(tmp_path / "aips"))
    await store.check()
    for name in ("file", "folder/inner"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"content")
    for key, source in (("x/file", "file"), ("x/folder", "folder")):
        session.lost = 0
        await store.put(key, tmp_path / source)
    session.lost = 0
    created = [await store.create("x/once", b"1"), await store.create("x/once", b"2")]
    session.lost = 0
    await store.write("x/once", b"3")
    with pytest.raises(FileExistsError):
        await store.put("x/file", tmp_path / "file")
    found = {entry.key: await store.read(entry.key) async for entry in store.list()}
    await store.aclose()

    assert [True, False] == created
    assert {"x/file": b"content", "x/folder/inner": b"content", "x/once": b"3"} == found


# --- what is there


async def test_names_are_bytes_and_a_url_spells_them(server: SshServer, tmp_path: Path) -> None:
    key = os.fsdecode(b"a/\xff \n%.txt")
    store = SftpStore.open(server.url(tmp_path / "aips"), server.credentials)
    await store.write(key, b"content")
    digests = await store.digests(key, [SHA256])
    listed = [entry.key async for entry in store.list()]
    with pytest.raises(IsADirectoryError):
        await store.digests("a", [SHA256])
    with pytest.raises(FileNotFoundError):
        await store.digests("b", [SHA256])
    await store.aclose()

    assert ({SHA256: digest(b"content")}, [key]) == (digests, listed)
    assert f"sftp://127.0.0.1:{server.port}{tmp_path}/aips/a/%FF%20%0A%25.txt" == store.url_of(key)
    assert (tmp_path / "aips" / key).is_file()


class Slashed(asyncssh.SFTPServer):
    """A server that names a file so that it would be fetched to somewhere else."""

    async def scandir(self, path: bytes) -> Any:
        yield asyncssh.SFTPName(b"../../outside", attrs=asyncssh.SFTPAttrs(permissions=0o100644, size=1))


async def test_a_server_that_names_what_is_outside_is_not_believed(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    mine = asyncssh.generate_private_key("ssh-ed25519")
    mine.write_private_key(tmp_path / "mine")
    (tmp_path / "authorized").write_bytes(mine.export_public_key())
    served = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[key],
        authorized_client_keys=str(tmp_path / "authorized"),
        sftp_factory=Slashed,
    )
    account = CredentialSettings(private_key=tmp_path / "mine", host_keys=(key.get_fingerprint(),))
    store = SftpStore.open(f"sftp://me@127.0.0.1:{served.get_port()}{tmp_path}", account)
    with pytest.raises(DependencyError, match="slash"):
        [entry async for entry in store.list()]
    await store.aclose()
    served.close()
    await served.wait_closed()


# --- settings


@pytest.mark.parametrize(
    "url",
    ["sftp://me:s3cret@host/a", "sftp://host", "sftp:///a", "sftp://host:port/a", "sftp://host/a?s3cret", "sftp://h/~"],
)
def test_a_url_without_a_folder_or_with_a_password_is_refused_and_not_told(url: str) -> None:
    with pytest.raises(SystemFault, match="SFTP") as caught:
        open_archive(url)

    assert caught.value.code is Code.SYSTEM_CONFIGURATION
    assert "s3cret" not in caught.value.detail


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        ("sftp://me@host/srv/aips/", "sftp://host:22/srv/aips/a"),
        ("sftp://host:2222/", "sftp://host:2222/a"),
        ("sftp://[::1]/~/aips", "sftp://[::1]:22/~/aips/a"),
    ],
)
def test_a_folder_is_absolute_or_of_the_home(url: str, inside: str) -> None:
    assert inside == SftpStore.open(url).url_of("a")


def test_a_fingerprint_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="ssh-keygen"):
        CredentialSettings(host_keys=("16:27:ac",))


def test_leases_cannot_be_kept_on_it() -> None:
    opened = Locations.open({"far": "sftp://host/aips", "near": "/aips"}, "near")

    with pytest.raises(SystemFault, match="'far' has no conditional writes"):
        opened.conditional("far")


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    for name in ("ingestd.storage.sftp", "ingestd.storage.ssh"):
        monkeypatch.delitem(sys.modules, name)

    with pytest.raises(SystemFault, match="asyncssh") as caught:
        open_archive("sftp://host/aips")

    assert "ingestd[sftp]" in caught.value.remediation
