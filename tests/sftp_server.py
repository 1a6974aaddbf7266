"""OpenSSH's own server for tests: an sshd of this user's, on a free port of this machine."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ingestd.keeping import CredentialSettings
from ingestd.storage.sftp import SftpStore
from ingestd.storage.ssh import Session
from tests.objectstores import free_port, wait_for


@dataclass(frozen=True, kw_only=True)
class SshServer:
    """A running server; whoever has `private_key` is let in."""

    port: int
    folder: Path
    private_key: Path
    fingerprint: str

    @property
    def credentials(self) -> CredentialSettings:
        return CredentialSettings(private_key=self.private_key, host_keys=(self.fingerprint,))

    @property
    def known_hosts(self) -> str:
        kind, key = self.folder.joinpath("host.pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"

    def url(self, folder: Path) -> str:
        return f"sftp://{getpass.getuser()}@127.0.0.1:{self.port}{folder}"

    def cut(self) -> None:
        """Kill what serves connections; the server itself goes on."""
        listening = int(self.folder.joinpath("pid").read_text())
        for process in _below(listening):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, 9)


def make_key(path: Path, passphrase: str = "") -> str:
    """Make a pair of keys; gives its fingerprint."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)], check=True)
    return subprocess.run(["ssh-keygen", "-lf", str(path)], check=True, capture_output=True).stdout.split()[1].decode()


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[SshServer]:
    """Start it, with keys of its own in `folder`."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert program, "OpenSSH's server is not installed: openssh-server"
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint, _ = (make_key(folder / name) for name in ("host", "user"))
    (folder / "user.pub").rename(folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks itself in before it knows who is there
    port = free_port()
    config = folder / "config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile {folder}/pid\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        f"MaxStartups 100\nSubsystem sftp internal-sftp\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stderr=log)
    try:
        wait_for(port, process)
        yield SshServer(port=port, folder=folder, private_key=folder / "user", fingerprint=fingerprint)
    finally:
        process.terminate()
        process.wait(10)


@contextlib.asynccontextmanager
async def sftp_stores(server: SshServer) -> AsyncIterator[Callable[[Path], SftpStore]]:
    """Open stores in folders of the server, over one connection."""
    session = Session("127.0.0.1", server.port, getpass.getuser(), server.credentials, patience_seconds=10)
    async with contextlib.aclosing(session):
        yield lambda folder: SftpStore(session, str(folder))


def _below(parent: int) -> list[int]:
    """Give the processes that a process started, and those that these did."""
    children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return [pid for child in children for pid in (*_below(child), child)]
