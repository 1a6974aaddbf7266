"""Large files into S3: what was sent before a crash is not sent again, and nothing is replaced."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import obstore
import pytest

from ingestd.errors import Code, DependencyError, StorageError
from ingestd.keeping import CredentialSettings
from ingestd.objectstore import NoBucketError, ObjectInfo, open_bucket
from ingestd.storage.multipart import Uploads, _says
from ingestd.storage.objects import BucketStore
from ingestd.storage.ocfl import OcflArchive
from ingestd.storage.pairtree import PairtreeArchive
from ingestd.storage.session import open_uploads
from ingestd.storage.store import Store
from tests.objectstores import BUCKET, KEY, SECRET, Answer, Server, client, parts_there, rclone, watched_moto
from tests.objectstores import open_uploads as still_open
from tests.storing import digest, store

PART = 8 * 2**20
CONTENT = os.urandom(2**20) * 8 + b"2" * PART + b"3" * PART + b"4" * PART + b"the end"
PARTS = 5
SHORT = os.urandom(2**20) * 8 + b"the end"
"""Two parts are enough where nothing is gone on with."""
_NUMBER = re.compile(r"[?&]partNumber=(\d+)")


class Watch:
    """Notes which parts come, and what else is asked of an upload; `then` is told, too, and may answer."""

    def __init__(self) -> None:
        self.parts: list[int] = []
        self.asked: list[str] = []
        self.then: Callable[[str, str, bool], None] | None = None

    def __call__(self, method: str, path: str, answering: bool) -> None:
        number = _NUMBER.search(path)
        if answering and number and method == "PUT":
            self.parts.append(int(number[1]))
        elif answering and ("?uploads" in path or "uploadId=" in path):
            self.asked.append(method)
        if self.then is not None:
            self.then(method, path, answering)


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def s3(watch: Watch) -> Iterator[Server]:
    with watched_moto(watch) as running:
        yield running


@pytest.fixture
def seen(watch: Watch) -> Iterator[Watch]:
    watch.__init__()  # type: ignore[misc]  # the server keeps it
    yield watch
    watch.then = None


@pytest.fixture(scope="module")
def plain_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with rclone(tmp_path_factory.mktemp("rclone") / "served") as running:
        yield running


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "short"
    path.write_bytes(SHORT)
    return path


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"a b+ü/{abs(hash(request.node.name))}"


@pytest.fixture
def uploads(s3: Server, prefix: str) -> Uploads:
    return uploads_to(s3, prefix)


def uploads_to(server: Server, prefix: str = "", **more: Any) -> Uploads:
    url, account = server.url(prefix), more.pop("account", server.credentials)
    bucket = open_bucket(url, account, endpoint=server.endpoint, patience_seconds=1)
    found = open_uploads(bucket, url, account, endpoint=server.endpoint, patience_seconds=1)
    assert found is not None
    return found


def content(uploads: Uploads, key: str = "large") -> bytes:
    return b"".join(uploads.bucket.stream(key))


def nothing() -> None:
    """Nobody stops it."""


class Died(BaseException):
    """The process dies here."""


def cut_short(uploads: Uploads, source: Path, seen: Watch, *, after: int = 2) -> None:
    """Upload until some parts are there, and no longer."""

    def dying() -> None:
        if len(set(seen.parts)) >= after:
            raise Died

    with pytest.raises(Died):
        uploads.put("large", source, dying, over=False)
    seen.parts = []


# --- going on


@pytest.mark.parametrize("checksums", [False, True])
def test_what_was_sent_before_a_crash_is_not_sent_again(
    s3: Server, uploads: Uploads, large: Path, seen: Watch, prefix: str, checksums: bool
) -> None:
    uploads.checksums = checksums
    cut_short(uploads, large, seen)
    there = parts_there(s3, prefix)

    again = uploads_to(s3, prefix)
    again.checksums = checksums
    again.put("large", large, nothing, over=False)

    assert there
    assert sorted(seen.parts) == sorted(set(range(1, PARTS + 1)) - there)
    assert content(uploads) == CONTENT
    assert still_open(s3, prefix) == []


def test_a_part_that_is_not_the_file_s_is_sent_again(
    s3: Server, uploads: Uploads, large: Path, seen: Watch, prefix: str
) -> None:
    cut_short(uploads, large, seen, after=3)
    wrong, where = max(parts_there(s3, prefix)), {"Bucket": BUCKET, "Key": f"{prefix}/large"}
    ((_, upload),) = still_open(s3, prefix)
    body = b"x" * (PART if wrong < PARTS else len("the end"))
    client(s3).upload_part(**where, UploadId=upload, PartNumber=wrong, Body=body)
    seen.parts = []

    uploads.put("large", large, nothing, over=False)

    assert wrong in seen.parts
    assert content(uploads) == CONTENT


def test_an_upload_of_other_content_is_not_gone_on_with_and_is_ended(
    s3: Server, uploads: Uploads, large: Path, seen: Watch, prefix: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"x" * (len(CONTENT) - 1))
    cut_short(uploads, other, seen)
    s3_client = client(s3)
    cut = s3_client.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/large")["UploadId"]
    where = {"Bucket": BUCKET, "Key": f"{prefix}/large", "UploadId": cut}
    s3_client.upload_part(**where, PartNumber=1, Body=CONTENT[: 5 * 2**20])
    beside = s3_client.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/large.7z")["UploadId"]
    seen.parts = []

    uploads.put("large", large, nothing, over=False)

    assert sorted(seen.parts) == list(range(1, PARTS + 1))
    assert content(uploads) == CONTENT
    assert still_open(s3, prefix) == [(f"{prefix}/large.7z", beside)]


def test_where_uploads_may_not_be_listed_all_parts_are_sent(uploads: Uploads, large: Path, seen: Watch) -> None:
    cut_short(uploads, large, seen)

    def refuse(method: str, path: str, answering: bool) -> None:
        if method == "GET" and "?uploads" in path and not answering:
            raise Answer(403, "AccessDenied")

    seen.then = refuse
    uploads.put("large", large, nothing, over=False)

    assert sorted(seen.parts) == list(range(1, PARTS + 1))
    assert content(uploads) == CONTENT


@pytest.mark.parametrize("layout", [PairtreeArchive, OcflArchive])
async def test_an_archive_goes_on_with_an_upload_after_a_death(
    s3: Server, large: Path, seen: Watch, prefix: str, layout: Callable[[Store], PairtreeArchive | OcflArchive]
) -> None:
    def die(method: str, path: str, answering: bool) -> None:
        if len(seen.parts) >= 2:
            raise Answer(403, "AccessDenied")

    def archive() -> PairtreeArchive | OcflArchive:
        return layout(BucketStore.open(s3.url(prefix), s3.credentials))

    seen.then = die
    with pytest.raises(DependencyError):
        await store(archive(), large, CONTENT)
    seen.then = None
    there, seen.parts = parts_there(s3, prefix), []
    stored = await store(archive(), large, CONTENT)

    assert set(seen.parts) == set(range(1, PARTS + 1)) - there
    assert stored.digest == digest(CONTENT)


async def test_an_upload_that_is_cancelled_ends_at_once_and_can_be_gone_on_with(
    s3: Server, uploads: Uploads, large: Path, seen: Watch, prefix: str
) -> None:
    first, go_on = threading.Event(), threading.Event()

    def slow(method: str, path: str, answering: bool) -> None:
        if "partNumber=" in path and answering:
            first.set()
            go_on.wait(0.2)

    seen.then = slow
    bucket_store = BucketStore(uploads.bucket, uploads)
    running = asyncio.create_task(bucket_store.put("large", large))
    await asyncio.to_thread(first.wait, 10)
    begun = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    took = time.monotonic() - begun
    go_on.set()
    seen.then = None
    there, seen.parts = parts_there(s3, prefix), []
    await bucket_store.put("large", large)

    assert took < 5
    assert there
    assert set(seen.parts) == set(range(1, PARTS + 1)) - there
    assert content(uploads) == CONTENT


async def test_a_stream_that_is_cancelled_ends_at_once_and_is_no_object(large: Path) -> None:
    """As to Azure and Google."""
    store_ = BucketStore(open_bucket("memory:///"))
    running = asyncio.create_task(store_.put("large", large))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert await store_.head("large") is None


def test_of_a_part_its_sha256_counts_where_the_store_keeps_it() -> None:
    """As Amazon's does, whose ETags are no MD5 where KMS encrypts; moto tells none of parts."""
    md5, sha256 = hashlib.md5(b"1"), hashlib.sha256(b"1")
    digests = md5.digest(), sha256.digest()
    told = base64.b64encode(sha256.digest()).decode()

    assert _says({"ETag": '"0123"', "ChecksumSHA256": told}, digests)
    assert not _says({"ETag": f'"{md5.hexdigest()}"', "ChecksumSHA256": told[::-1]}, digests)
    assert _says({"ETag": f'"{md5.hexdigest()}"'}, digests)


# --- the condition


class Blind(type(open_bucket("memory:///"))):  # type: ignore[misc]
    """A bucket in which another puts an object right after it was looked for."""

    def head(self, key: str) -> ObjectInfo | None:
        return None


def blind(uploads: Uploads) -> Uploads:
    uploads.bucket.__class__ = Blind
    return uploads


@pytest.mark.parametrize("looking", [True, False])
def test_what_is_there_is_not_replaced(
    s3: Server, uploads: Uploads, short: Path, seen: Watch, prefix: str, looking: bool
) -> None:
    uploads.bucket.write("large", b"another's")
    if looking:
        with pytest.raises(FileExistsError):
            uploads.put("large", short, nothing, over=False)
        assert still_open(s3, prefix) == []
    else:
        with pytest.raises(DependencyError, match="somebody else"):
            blind(uploads).put("large", short, nothing, over=False)

    assert content(uploads) == b"another's"
    assert len(seen.parts) == 2  # the tries after the first went on with what the first had sent


def test_what_is_there_is_replaced_when_it_is_meant(uploads: Uploads, short: Path) -> None:
    uploads.bucket.write("large", b"damaged")

    uploads.put("large", short, nothing, over=True)

    assert content(uploads) == SHORT


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
def test_a_store_that_refuses_the_condition_is_looked_into_before(
    uploads: Uploads, short: Path, seen: Watch, status: int, code: str
) -> None:
    refused: list[str] = []

    def refuse(method: str, path: str, answering: bool) -> None:
        if method == "POST" and "uploadId=" in path and not answering and not refused:
            refused.append(path)
            raise Answer(status, code)

    seen.then = refuse
    uploads.put("large", short, nothing, over=False)

    assert refused
    assert content(uploads) == SHORT
    with pytest.raises(FileExistsError):
        uploads.put("large", short, nothing, over=False)


def test_a_store_that_takes_no_notice_of_the_condition_is_looked_into_before(plain_s3: Server, short: Path) -> None:
    uploads = uploads_to(plain_s3, "plain")
    uploads.put("large", short, nothing, over=False)

    with pytest.raises(FileExistsError):
        uploads.put("large", short, nothing, over=False)
    uploads.put("large", short, nothing, over=True)
    assert content(uploads) == SHORT


@pytest.mark.parametrize("then", [(500, "InternalError"), (404, "NoSuchUpload"), (412, "PreconditionFailed")])
def test_of_a_completion_whose_answer_was_lost_it_is_looked_what_became_of_it(
    uploads: Uploads, short: Path, seen: Watch, then: tuple[int, str]
) -> None:
    lost: list[str] = []

    def lose(method: str, path: str, answering: bool) -> None:
        if method == "POST" and "uploadId=" in path and answering and not lost:
            lost.append(path)
            raise Answer(*then)

    seen.then = lose
    uploads.put("large", short, nothing, over=False)

    assert lost
    assert len(seen.parts) == 2
    assert content(uploads) == SHORT


@pytest.mark.parametrize("at", ["partNumber=1", "POST"])
def test_an_upload_that_another_ends_meanwhile_is_begun_again(
    s3: Server, uploads: Uploads, short: Path, seen: Watch, prefix: str, at: str
) -> None:
    ended: list[str] = []

    def end(method: str, path: str, answering: bool) -> None:
        if "uploadId=" in path and at in f"{method} {path}" and not answering and not ended:
            ((key, upload),) = still_open(s3, prefix)
            client(s3).abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)
            ended.append(upload)
        if ended and ended[0] in path and not answering:
            raise Answer(404, "NoSuchUpload")  # as S3 says; moto ends with an error of its own

    seen.then = end
    uploads.put("large", short, nothing, over=False)

    assert ended
    assert content(uploads) == SHORT


# --- what goes wrong


def test_a_store_that_has_too_much_to_do_is_asked_again(uploads: Uploads, short: Path, seen: Watch) -> None:
    busy = iter([503, 429])

    def slow_down(method: str, path: str, answering: bool) -> None:
        if "partNumber=2" in path and not answering and (status := next(busy, 0)):
            raise Answer(status, "SlowDown")

    seen.then = slow_down
    uploads.put("large", short, nothing, over=False)

    assert content(uploads) == SHORT


def test_a_token_that_has_expired_is_said_as_such(uploads: Uploads, short: Path, seen: Watch) -> None:
    def expire(method: str, path: str, answering: bool) -> None:
        raise Answer(400, "ExpiredToken")

    seen.then = expire
    with pytest.raises(DependencyError) as caught:
        uploads.put("large", short, nothing, over=True)

    assert caught.value.code is Code.DEPENDENCY_STORAGE_AUTH


def test_a_bucket_that_is_not_there_is_said(s3: Server, short: Path) -> None:
    where = Server(endpoint=s3.endpoint).url("x").replace(BUCKET, "no-such-bucket")
    bucket = open_bucket(where, s3.credentials)
    uploads = open_uploads(bucket, where, s3.credentials)
    assert uploads is not None

    with pytest.raises(NoBucketError, match="no-such-bucket"):
        uploads.put("large", short, nothing, over=True)


def test_a_store_that_is_away_is_a_dependency_that_is_away(short: Path) -> None:
    with pytest.raises(DependencyError) as caught:
        uploads_to(Server(endpoint="http://127.0.0.1:1")).put("large", short, nothing, over=True)

    assert caught.value.code is Code.DEPENDENCY_STORAGE_UNAVAILABLE


def test_secrets_are_read_when_they_are_needed_and_wrong_ones_are_said_without_telling_them(
    plain_s3: Server, short: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "access_key_id").write_text(f"{KEY}\n")
    (folder / "secret_access_key").write_text("s3cret-wrong\n")
    uploads = uploads_to(plain_s3, "mounted", account=CredentialSettings(folder=folder))

    with pytest.raises(DependencyError) as caught:
        uploads.put("large", short, nothing, over=True)
    (folder / "secret_access_key").write_text(f"{SECRET}\n")
    uploads.put("large", short, nothing, over=True)

    assert caught.value.code is Code.DEPENDENCY_STORAGE_AUTH
    assert "s3cret-wrong" not in caught.value.detail
    uploads.bucket = open_bucket(plain_s3.url("mounted"), plain_s3.credentials)
    assert content(uploads) == SHORT


def test_keys_come_from_where_obstore_takes_them_and_from_nowhere_else(
    plain_s3: Server, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "credentials"
    files.write_text(f"[default]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(files))
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    nobody = CredentialSettings()

    with pytest.raises(DependencyError) as caught:
        uploads_to(plain_s3, "environment", account=nobody).put("large", short, nothing, over=True)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    uploads_to(plain_s3, "environment", account=nobody).put("large", short, nothing, over=False)

    assert caught.value.code is Code.DEPENDENCY_STORAGE_AUTH
    assert content(uploads_to(plain_s3, "environment")) == SHORT


@pytest.mark.parametrize(
    ("settings", "environment"),
    [
        ({"region": "eu-west-1"}, {}),
        ({}, {"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-south-1"}),
        ({}, {}),
        ({"endpoint": "https://s3.example.org"}, {"AWS_ENDPOINT_URL": "https://other.example.org"}),
        ({}, {"AWS_ENDPOINT_URL": "https://s3.example.org"}),
        ({}, {"AWS_ENDPOINT": "https://s3.example.org"}),
        ({"region": "eu-west-1"}, {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}),
        ({"endpoint": "https://aips.s3.example.org"}, {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}),
    ],
)
def test_uploads_go_where_obstore_goes(
    settings: dict[str, str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    account = CredentialSettings.model_validate({"access_key_id": KEY, "secret_access_key": SECRET, **settings})
    bucket = open_bucket("s3://aips/a b", account)
    uploads = open_uploads(bucket, "s3://aips/a b", account)
    assert uploads is not None

    signed = obstore.sign(cast("Any", bucket._store), "GET", "c+d", timedelta(seconds=60))
    ours = uploads._client.generate_presigned_url("get_object", {"Bucket": "aips", "Key": "a b/c+d"})

    assert urlsplit(signed)[:3] == urlsplit(ours)[:3]


def test_authorities_are_the_system_s_as_they_are_for_obstore(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/elsewhere")

    trusted = uploads_to(s3)._client._endpoint.http_session._verify

    assert trusted == ssl.get_default_verify_paths().cafile


def test_what_the_environment_wants_encrypted_is(
    s3: Server, short: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "AES256")
    uploads = uploads_to(s3, prefix)
    uploads.put("large", short, nothing, over=False)
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "sse-c")

    found = client(s3).head_object(Bucket=BUCKET, Key=f"{prefix}/large")
    assert found["ServerSideEncryption"] == "AES256"
    assert open_uploads(uploads.bucket, s3.url(prefix)) is None


def test_a_file_that_changes_meanwhile_is_not_stored(uploads: Uploads, short: Path, seen: Watch) -> None:
    def change(method: str, path: str, answering: bool) -> None:
        if method == "POST" and "?uploads" in path:
            os.truncate(short, PART)

    seen.then = change
    with pytest.raises(StorageError, match="changed") as caught:
        uploads.put("large", short, nothing, over=False)

    assert caught.value.code is Code.STORAGE_UPLOAD_FAILED
    assert uploads.bucket.head("large") is None


def test_without_the_library_a_large_file_is_stored_all_the_same(
    s3: Server, short: Path, seen: Watch, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ingestd.storage.session", None)
    store_ = BucketStore.open(s3.url(prefix), s3.credentials)

    asyncio.run(store_.put("large", short))

    assert b"".join(store_.bucket.stream("large")) == SHORT
    assert "GET" not in seen.asked  # nothing is looked for that could be gone on with
