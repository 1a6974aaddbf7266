from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, cast
from urllib.request import Request, urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from ingestd.errors import Code, DependencyError, SystemFault
from ingestd.keeping import CredentialSettings
from ingestd.objectstore import Bucket, NoBucketError, ObjectChangedError, ObjectExistsError, open_bucket, part_bytes
from tests.objectstores import AZURE, KEY, Server, azurite, moto, rclone


@pytest.fixture(scope="module", params=["moto", "rclone", *AZURE])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    servers: dict[str, Callable[[], AbstractContextManager[Server]]] = {
        "moto": moto,
        "rclone": lambda: rclone(folder / "served"),
        "azure": lambda: azurite(folder),
    }
    with servers[request.param]() as running:
        yield running


@pytest.fixture
def bucket(server: Server, request: pytest.FixtureRequest) -> Bucket:
    return open_bucket(server.url(f"objectstore/{abs(hash(request.node.name))}"), server.credentials)


def test_an_object_is_read_whole_in_parts_and_by_its_properties(bucket: Bucket) -> None:
    bucket.write("folder/a b+ü.7z", b"0123456789")
    info = bucket.head("folder/a b+ü.7z")

    assert info is not None
    assert (10, "folder/a b+ü.7z") == (info.size_bytes, info.key)
    assert (b"0123456789", info.tag) == ((bucket.read("folder/a b+ü.7z") or (b"", info))[0], info.tag)
    assert b"345" == b"".join(bucket.stream("folder/a b+ü.7z", 3, 6))
    assert b"6789" == b"".join(bucket.stream("folder/a b+ü.7z", 6))
    assert bucket.url_of("folder/x").endswith("/folder/x")


def test_a_stream_goes_up_in_parts_and_comes_back_as_it_was(bucket: Bucket) -> None:
    content = os.urandom(2**20) * 17

    bucket.send("sent", (content[at : at + 2**20] for at in range(0, len(content), 2**20)), len(content))

    assert content == b"".join(bucket.stream("sent"))


def test_a_stream_that_ends_with_an_error_is_no_object(bucket: Bucket) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"1" * 2**23
        raise InterruptedError

    with pytest.raises(InterruptedError):
        bucket.send("broken", chunks(), 2**24)
    assert bucket.head("broken") is None


@given(st.integers(1, 50 * 10**12))
def test_a_file_is_cut_into_parts_that_stores_take(size: int) -> None:
    """Amazon S3: at most 10,000 parts, of 5 MiB (but the last) to 5 GiB, for an object of at most 50 TB."""
    part = part_bytes(size)

    assert 5 * 2**20 < part <= 5 * 2**30
    assert -(-size // part) <= 10_000


def test_a_list_goes_on_after_a_key_and_a_deleted_object_is_gone(bucket: Bucket) -> None:
    for key in ("x/1", "x/2", "x/3", "xy/1"):
        bucket.write(key, b"1")
    bucket.delete("x/3")
    bucket.delete("x/4")

    assert ["x/1", "x/2"] == sorted(info.key for info in bucket.list("x"))
    assert ["x/2", "xy/1"] == sorted(info.key for info in bucket.list(after="x/1"))
    assert bucket.head("x/3") is None
    assert bucket.read("x/3") is None
    with pytest.raises(FileNotFoundError):
        list(bucket.stream("x/3"))


def test_a_bucket_that_is_not_there_is_said_whatever_is_asked_of_it(server: Server) -> None:
    where = server.url("x").replace("aips", "no-such-bucket")
    bucket = open_bucket(where, server.credentials, patience_seconds=1)

    for ask in (
        lambda: list(bucket.list()),
        lambda: bucket.create("a", b"1"),
        lambda: bucket.write("a", b"1"),
        lambda: bucket.send("a", [b"1"], 1),
    ):
        with pytest.raises(NoBucketError, match="no-such-bucket"):
            ask()


def test_a_store_that_lists_from_its_beginning_is_asked_for_the_rest_alone() -> None:
    """As Azurite and others do that know nothing of Azure's `startFrom`."""
    listed = [{"path": key, "size": 1, "last_modified": None, "e_tag": "1", "version": None} for key in ("a", "b", "c")]

    class Forgetful(Bucket):
        def _listed(self, _prefix: str, _after: str) -> Any:
            return [listed]

    bucket = Forgetful(cast("Any", None), "az://c")

    assert ["b", "c"] == [info.key for info in bucket.list(after="a")]


def test_a_public_bucket_of_google_s_is_read_by_its_protocol(tmp_path: Path) -> None:
    """Google's is S3's in what is read of a bucket; what is written to one was never tried."""
    with moto() as server:
        url, headers = f"{server.endpoint}/aips/x/a%20b/c", {"x-amz-acl": "public-read", "Content-Type": "text/plain"}
        urlopen(Request(url, data=b"12345", method="PUT", headers=headers)).close()
        public = CredentialSettings(anonymous=True, endpoint=server.endpoint)
        bucket = open_bucket("gs://aips/x", public, patience_seconds=1)
        head = bucket.head("a b/c")

        assert head is not None
        assert (["a b/c"], 5) == ([info.key for info in bucket.list("a b")], head.size_bytes)
        assert b"12345" == b"".join(bucket.stream("a b/c"))
        assert b"23" == b"".join(bucket.stream("a b/c", 1, 3))
        assert bucket.head("none") is None


def test_wrong_keys_are_said_as_such_without_telling_them(tmp_path: Path) -> None:
    wrong = CredentialSettings(access_key_id=SecretStr(KEY), secret_access_key=SecretStr("s3cret-wrong"))
    with rclone(tmp_path) as server:  # the other one takes any
        bucket = open_bucket(server.url("x"), wrong, endpoint=server.endpoint)

        with pytest.raises(DependencyError) as caught:
            bucket.head("a")

    assert caught.value.code is Code.DEPENDENCY_STORAGE_AUTH
    assert "s3cret-wrong" not in caught.value.detail


def test_secrets_in_a_folder_are_read_when_they_are_needed(server: Server, tmp_path: Path) -> None:
    secrets = {name: value for name, value in server.credentials if isinstance(value, SecretStr)}
    blank = server.credentials.model_copy(update=dict.fromkeys(secrets, SecretStr("")))
    bucket = open_bucket(server.url("mounted"), blank.model_copy(update={"folder": tmp_path}))
    for name, value in secrets.items():
        if value.get_secret_value():
            (tmp_path / name).write_text(f"{value.get_secret_value()}\n")

    assert bucket.write("a", b"1")


def test_a_store_that_is_away_is_a_dependency_that_is_away() -> None:
    keys = CredentialSettings(access_key_id=SecretStr("a"), secret_access_key=SecretStr("b"))
    bucket = open_bucket("s3://b", keys, endpoint="http://127.0.0.1:1", patience_seconds=0.1)

    with pytest.raises(DependencyError) as caught:
        bucket.read("a")
    assert caught.value.code is Code.DEPENDENCY_STORAGE_UNAVAILABLE


def test_conditions_hold_in_memory_too() -> None:
    bucket = open_bucket("memory:///")
    tag = bucket.create("a", b"1")

    with pytest.raises(ObjectExistsError):
        bucket.create("a", b"2")
    assert tag != bucket.replace("a", b"2", tag)
    with pytest.raises(ObjectChangedError):
        bucket.replace("a", b"3", tag)


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "s3://key:s3cret@bucket/x", "az://c/p?sig=s3cret", ""])
def test_what_is_not_the_url_of_a_store_is_a_fault_that_tells_no_secret(url: str) -> None:
    with pytest.raises(SystemFault) as caught:
        open_bucket(url)

    assert caught.value.code is Code.SYSTEM_CONFIGURATION
    assert "s3cret" not in caught.value.detail


def test_stores_of_every_vendor_are_opened_without_asking_them() -> None:
    azure = CredentialSettings(account_name="acme", account_key=SecretStr("c2VjcmV0"))
    for url, credentials in (("az://c/p", azure), ("s3://b/p", CredentialSettings(region="eu-west-1"))):
        assert url == open_bucket(url, credentials).url


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)

    with pytest.raises(SystemFault, match="obstore") as caught:
        open_bucket("s3://b")
    assert "ingestd[cloud]" in caught.value.remediation


def test_calls_leave_the_interpreter_to_others() -> None:
    """They are made in threads: one that kept the lock would stop the loop."""
    with moto() as server:  # in a thread of this process: it could not answer
        bucket = open_bucket(server.url("threads"), server.credentials)
        with ThreadPoolExecutor(1) as threads:
            threads.submit(bucket.write, "a", b"1").result(20)
            found = threads.submit(lambda: list(bucket.list())).result(20)

        assert ["a"] == [info.key for info in found]


def test_who_names_no_credentials_asks_without_any() -> None:
    asked: list[str | None] = []

    class Store(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        Thread(target=server.serve_forever).start()
        nobody = CredentialSettings(anonymous=True, endpoint=f"http://127.0.0.1:{server.server_port}")

        try:
            assert open_bucket("s3://bucket", nobody).head("a") is None
        finally:
            server.shutdown()

    assert [None] == asked
