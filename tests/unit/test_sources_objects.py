from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingestd.config import SourceSettings, ToolSettings
from ingestd.errors import Code, RequestError
from ingestd.keeping import CredentialSettings
from ingestd.messages import RequestSource
from ingestd.objectstore import open_bucket
from ingestd.premis import Digest, DigestAlgorithm, now
from ingestd.sources import check, source_of
from ingestd.sources.locations import parse_object_url
from ingestd.tools.pool import Pool
from tests.objectstores import BUCKET, Server, client, moto, rclone
from tests.proxy import proxy, until
from tests.receiving import Desk

SHA256 = DigestAlgorithm.SHA256


@dataclass
class Served:
    """A running server and its one bucket."""

    server: Server

    def put(self, **contents: bytes) -> None:
        bucket = open_bucket(self.server.url(), self.server.credentials)
        for name, content in contents.items():
            bucket.write(name.replace("__", "/"), content)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("obstore")
    folder = tmp_path_factory.mktemp("rclone") / "served"
    with rclone(folder) as server:
        yield Served(server=server)


@pytest.fixture
async def desk(tmp_path: Path, served: Served) -> AsyncIterator[Desk]:
    async with Pool(ToolSettings(processes=1), scratch=tmp_path) as pool:
        yield Desk(folder=tmp_path, pool=pool, credentials=served.server.credentials)


async def test_an_object_is_received_as_a_file_and_proved_by_its_checksum(desk: Desk, served: Served) -> None:
    served.put(one__a=b"content")
    digest = Digest(algorithm=DigestAlgorithm.MD5, value=hashlib.md5(b"content").hexdigest(), calculated_at=now())

    (received,) = await desk.receive(f"s3://{BUCKET}/one/a", digest)

    assert {"a": b"content"} == desk.there()
    assert received.digest is not None
    assert hashlib.sha256(b"content").hexdigest() == received.digest.value
    assert [] == list((desk.folder / "scratch").iterdir())


async def test_an_object_that_is_not_what_its_checksum_says_is_refused(desk: Desk, served: Served) -> None:
    served.put(two=b"content")
    wrong = Digest(algorithm=SHA256, value="0" * 64, calculated_at=now())

    assert Code.SOURCE_CHECKSUM_MISMATCH is (await desk.refused(f"s3://{BUCKET}/two", wrong)).code


async def test_an_archive_in_a_store_is_unpacked(desk: Desk, served: Served, shared: Path) -> None:
    served.put(**{"bag.zip": (shared / "transfers" / "ZippedBag.zip").read_bytes()})

    await desk.receive(f"s3://{BUCKET}/bag.zip")

    assert 6 == len(desk.there())
    assert "bagit.txt" in desk.there()


@pytest.mark.parametrize("ending", ["", "/"])
async def test_what_lies_below_a_prefix_is_received_as_a_folder(desk: Desk, served: Served, ending: str) -> None:
    names = {"b": b"1", "d/e/f": b"", "d/g h#%41é+.txt": b"3", "z-": b"4", "bagit.txt": b"5", "manifest-md5.txt": b"6"}
    served.put(**{f"folder/{name}": content for name, content in names.items()}, folder2__x=b"no")

    received = await desk.receive(f"s3://{BUCKET}/folder{ending}")

    assert names == desk.there()
    paths = [one.path for one in received]
    assert len(set(paths)) == len(paths)
    assert {"d", "d/e"} == {one.path for one in received if one.directory}
    assert all(paths.index(path.rpartition("/")[0]) < number for number, path in enumerate(paths) if "/" in path)
    (one,) = (one for one in received if one.path == "d/g h#%41é+.txt")
    assert {"md5": hashlib.md5(b"3").hexdigest()} == one.more


async def test_marks_of_folders_become_folders_and_two_things_of_one_name_are_refused(desk: Desk) -> None:
    with moto() as server:
        s3 = client(server)
        for key in ("marks/", "marks/d/", "marks/d-e", "marks/d/f", "marks/empty", "both/a", "both/a/b"):
            s3.put_object(Bucket=BUCKET, Key=key, Body=b"" if key.endswith(("/", "empty")) else b"x")
        desk.credentials = server.credentials

        received = await desk.receive(f"s3://{BUCKET}/marks/")

        assert {"d-e": b"x", "d/f": b"x", "empty": b""} == desk.there()
        assert ["d"] == [one.path for one in received if one.directory]
        assert Code.CONTENT_NAME_COLLISION is (await desk.refused(f"s3://{BUCKET}/both/")).code


async def test_a_folder_is_gone_on_with_after_a_kill(desk: Desk, served: Served) -> None:
    served.put(**{f"many/{number:04}": b"x" for number in range(300)})
    async for _ in desk.windows(f"s3://{BUCKET}/many"):
        break
    first = set(desk.recorded)

    rest = await desk.receive(f"s3://{BUCKET}/many")

    assert 256 == len(first)
    assert first.isdisjoint(one.path for one in rest)
    assert 300 == len(desk.there()) == len(desk.recorded)


async def test_a_folder_that_changed_meanwhile_is_refused(desk: Desk, served: Served) -> None:
    served.put(**{f"changing/{number:04}": b"x" for number in range(300)})
    async for _ in desk.windows(f"s3://{BUCKET}/changing"):
        break
    served.put(changing__new=b"new")

    assert Code.SOURCE_CHANGED is (await desk.refused(f"s3://{BUCKET}/changing")).code


def through(desk: Desk, served: Served, port: int) -> None:
    desk.credentials = served.server.credentials.model_copy(update={"endpoint": f"http://127.0.0.1:{port}"})


async def test_a_large_object_goes_on_where_the_connection_broke(desk: Desk, served: Served) -> None:
    content = os.urandom(16 * 2**20)
    served.put(large=content)
    body = desk.folder / "scratch" / "download"
    async with proxy(int(served.server.endpoint.rpartition(":")[2])) as between:
        through(desk, served, between.port)
        between.delay_seconds = 0.002
        receiving = asyncio.create_task(desk.receive(f"s3://{BUCKET}/large"))
        await until(lambda: body.exists() and body.stat().st_size > 2**20)
        between.cut()
        await receiving

    assert {"large": content} == desk.there()


async def test_a_large_object_goes_on_where_a_killed_process_left_it(desk: Desk, served: Served) -> None:
    content = os.urandom(16 * 2**20)
    served.put(killed=content)
    body = desk.folder / "scratch" / "download"
    async with proxy(int(served.server.endpoint.rpartition(":")[2])) as between:
        before = desk.credentials
        through(desk, served, between.port)
        between.delay_seconds = 0.002
        receiving = asyncio.create_task(desk.receive(f"s3://{BUCKET}/killed"))
        await until(lambda: body.exists() and body.stat().st_size > 2**20)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
    with body.open("r+b") as partial:
        partial.write(b"kept")  # what was there is not fetched again
    desk.credentials = before

    await desk.receive(f"s3://{BUCKET}/killed")

    assert {"killed": b"kept" + content[4:]} == desk.there()


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (SourceSettings(max_bytes=3), Code.POLICY_SIZE_OVER_LIMIT),
        (SourceSettings(max_files=1), Code.POLICY_TOO_MANY_FILES),
    ],
)
async def test_limits_hold_before_anything_is_fetched(
    desk: Desk, served: Served, settings: SourceSettings, code: Code
) -> None:
    served.put(limits__a=b"22", limits__b=b"22")
    desk.settings = settings

    assert code is (await desk.refused(f"s3://{BUCKET}/limits")).code
    assert {} == desk.there()


async def test_what_is_not_there_is_said(desk: Desk) -> None:
    assert Code.SOURCE_NOT_FOUND is (await desk.refused(f"s3://{BUCKET}/nothing")).code
    assert Code.SOURCE_NOT_FOUND is (await desk.refused("s3://nobucket/nothing")).code


async def test_wrong_credentials_are_said_without_telling_them(desk: Desk, served: Served) -> None:
    served.put(locked=b"1")
    desk.credentials = CredentialSettings.model_validate(
        {**served.server.credentials.model_dump(), "secret_access_key": "wrongwrong"}
    )

    error = await desk.refused(f"s3://{BUCKET}/locked")

    assert Code.SOURCE_ACCESS_DENIED is error.code
    assert "wrongwrong" not in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///key",
        "s3://bucket/../x",
        "s3://user:password@bucket/x",
        "s3://bucket/x?list",
        "s3://elsewhere/incoming/x",
        "s3://bucket/incoming-not/x",
        "s3://bucket/incoming/../x",
        "az://bucket/incoming/x",
        "abfss://bucket@attacker.dfs.core.windows.net/incoming/x",
    ],
)
def test_a_request_reads_only_below_the_buckets_of_the_settings(url: str) -> None:
    settings = SourceSettings(buckets=("s3://bucket/incoming", "abfs://other/x"))

    with pytest.raises(RequestError) as caught:
        parse_object_url(url, settings, trusted=False)

    assert Code.REQUEST_UNSUPPORTED_SOURCE is caught.value.code
    assert "password" not in str(caught.value.violations[0].actual)


def test_urls_of_stores_are_read() -> None:
    settings = SourceSettings(buckets=("s3://bucket/incoming", "abfs://other/x"))

    read = [
        parse_object_url(url, settings, trusted=False)
        for url in ("s3://bucket/incoming/a%20b", "az://other/x/", "ABFS://other/x/y")
    ]

    assert [("s3://bucket", "incoming/a b"), ("az://other", "x"), ("az://other", "x/y")] == [
        (url.bucket, url.key) for url in read
    ]
    with_account = parse_object_url("abfss://c@account.dfs.core.windows.net/x", SourceSettings(), trusted=True)
    assert ("az://c", "account") == (with_account.bucket, with_account.account)


def test_nothing_may_be_read_where_no_bucket_is_configured() -> None:
    with pytest.raises(RequestError):
        parse_object_url("s3://bucket/x", SourceSettings(), trusted=False)


async def test_credentials_that_nobody_configured_are_refused() -> None:
    asked = RequestSource(location="s3://bucket/x", credentials="partner")

    with pytest.raises(RequestError, match="partner"):
        source_of(asked, {})
    given = CredentialSettings(region="r")
    assert given is source_of(asked, {"partner": given}).credentials
    assert "x" == (await check(source_of(asked, {"partner": given}), SourceSettings(), trusted=True)).name
