"""A private clamd for tests: its own folder, a signature for the EICAR test string, no other database."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""Harmless, and found by every scanner: put together here so that none finds this file."""
SIGNATURE = "Test.Eicar.UNOFFICIAL"
MAX_FILE_BYTES = 1024 * 1024
START_SECONDS = 20.0


class PrivateClamd:
    """A clamd that runs while the `with` is entered. It listens on a socket, and on a port of the loopback address."""

    def __init__(self, *, alert: bool = True) -> None:
        # A short path: those of sockets may not grow with the names of pytest's folders.
        self.folder = Path(tempfile.mkdtemp(prefix="ingestd-clamd-"))
        self.socket = self.folder / "s"
        self.port = _free_port()
        self.definitions = definitions(self.folder / "db")
        self._conf = self.folder / "clamd.conf"
        self._conf.write_text(
            f"Foreground yes\nLocalSocket {self.socket}\nTCPSocket {self.port}\nTCPAddr 127.0.0.1\n"
            f"DatabaseDirectory {self.definitions}\nTemporaryDirectory {self.folder}\n"
            f"MaxFileSize {MAX_FILE_BYTES}\nStreamMaxLength {MAX_FILE_BYTES}\nMaxThreads 4\n"
            f"AlertExceedsMax {'yes' if alert else 'no'}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(["clamd", "-c", str(self._conf)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"clamd did not start: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.02)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        try:
            for family, address in ((socket.AF_UNIX, str(self.socket)), (socket.AF_INET, ("127.0.0.1", self.port))):
                with socket.socket(family) as connection:
                    connection.connect(address)
        except OSError:
            return False
        return True


def definitions(folder: Path) -> Path:
    """Make a folder of ClamAV signatures that knows the EICAR test string alone."""
    folder.mkdir()
    (folder / "local.ndb").write_text(f"Test.Eicar:0:*:{EICAR.hex()}\n")
    return folder


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
