"""What holds for every `Conditional`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestd.errors import Code, SystemFault
from ingestd.objectstore import open_bucket
from ingestd.storage.conditional import (
    BucketConditional,
    Conditional,
    DocumentChangedError,
    DocumentExistsError,
    LocalConditional,
    probe,
)
from tests.objectstores import AZURE, Server, azurite, moto, rclone

Open = Callable[[], Conditional]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with moto() as running:
        yield running


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture(params=["local", "memory", "s3", *AZURE])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the store that is tested; again, as another worker does, with every call."""
    if request.param == "local":
        return lambda: LocalConditional(tmp_path / "documents")
    if request.param == "memory":
        bucket = open_bucket("memory:///")
        return lambda: BucketConditional(bucket, "documents")
    server: Server = request.getfixturevalue("azure" if request.param == "azure" else "server")
    url = server.url(f"conditional/{uuid.uuid4()}")
    return lambda: BucketConditional(open_bucket(url, server.credentials), "documents")


async def keys(store: Conditional, prefix: str = "") -> list[str]:
    return sorted([key async for key in store.list(prefix)])


async def test_what_was_created_is_read_with_its_tag(opened: Open) -> None:
    tag = await opened().create("leases/a", b"mine")

    assert (b"mine", tag) == await opened().read("leases/a")


async def test_what_was_never_created_is_not_there(opened: Open) -> None:
    assert await opened().read("leases/a") is None
    assert [] == await keys(opened())


async def test_what_is_there_is_not_created_again(opened: Open) -> None:
    await opened().create("a", b"first")

    with pytest.raises(DocumentExistsError):
        await opened().create("a", b"second")
    assert b"first" == (await opened().read("a") or (b"", ""))[0]


async def test_only_who_saw_the_last_change_changes_it(opened: Open) -> None:
    old = await opened().create("a", b"first")
    new = await opened().replace("a", b"second", old)

    with pytest.raises(DocumentChangedError):
        await opened().replace("a", b"third", old)
    with pytest.raises(DocumentChangedError):
        await opened().remove("a", old)
    assert (b"second", new) == await opened().read("a")


async def test_what_was_removed_is_gone_and_can_be_created_anew(opened: Open) -> None:
    tag = await opened().create("leases/a", b"first")
    await opened().remove("leases/a", tag)

    assert await opened().read("leases/a") is None
    assert [] == await keys(opened())
    with pytest.raises(DocumentChangedError):
        await opened().replace("leases/a", b"second", tag)
    again = await opened().create("leases/a", b"third")
    assert (b"third", again) == await opened().read("leases/a")


async def test_what_never_was_can_be_neither_replaced_nor_removed(opened: Open) -> None:
    with pytest.raises(DocumentChangedError):
        await opened().replace("a", b"x", "0" * 32)
    with pytest.raises(DocumentChangedError):
        await opened().remove("a", "0" * 32)


async def test_a_list_has_what_is_below_a_folder(opened: Open) -> None:
    for key in ("leases/a", "leases/b/c", "markers/a"):
        await opened().create(key, b"x")

    assert ["leases/a", "leases/b/c"] == await keys(opened(), "leases")
    assert ["leases/a", "leases/b/c", "markers/a"] == await keys(opened())


async def test_of_many_who_create_one_does(opened: Open) -> None:
    async def attempt(number: int) -> bool:
        try:
            await opened().create("lease", f"worker {number}".encode())
        except DocumentExistsError:
            return False
        return True

    won = await asyncio.gather(*(attempt(number) for number in range(8)))

    assert 1 == sum(won)
    assert f"worker {won.index(True)}".encode() == (await opened().read("lease") or (b"", ""))[0]


async def test_of_many_who_replace_one_does(opened: Open) -> None:
    tag = await opened().create("lease", b"old")

    async def attempt(number: int) -> bool:
        try:
            await opened().replace("lease", f"worker {number}".encode(), tag)
        except DocumentChangedError:
            return False
        return True

    assert 1 == sum(await asyncio.gather(*(attempt(number) for number in range(8))))


@pytest.mark.parametrize("key", ["../a", "/a", "a//b", ".lock", "a/", "", "a\n"])
async def test_what_is_no_key_is_refused(opened: Open, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        await opened().create(key, b"x")


async def test_a_store_that_keeps_its_conditions_passes_the_probe_and_keeps_nothing_of_it(opened: Open) -> None:
    await probe(opened(), "primary")

    assert [] == await keys(opened())


# --- one kind


async def test_a_store_without_conditional_writes_is_refused_for_leases(tmp_path: Path) -> None:
    with rclone(tmp_path) as server:
        store = BucketConditional(open_bucket(server.url(), server.credentials), "documents")

        with pytest.raises(SystemFault, match="'cheap' has no conditional writes") as caught:
            await probe(store, "cheap")

    assert caught.value.code is Code.SYSTEM_CONFIGURATION


COUNT_UP = """
import asyncio, sys
from pathlib import Path
from ingestd.storage.conditional import DocumentChangedError, LocalConditional
async def main():
    store, done = LocalConditional(Path(sys.argv[1])), 0
    while done < 25:
        content, tag = await store.read("count")
        try:
            await store.replace("count", str(int(content) + 1).encode(), tag)
            done += 1
        except DocumentChangedError:
            pass
asyncio.run(main())
"""


async def test_processes_that_count_in_one_document_lose_nothing(tmp_path: Path) -> None:
    store = LocalConditional(tmp_path)
    await store.create("count", b"0")
    command = [sys.executable, "-c", COUNT_UP, str(tmp_path)]
    env = {"PYTHONPATH": ":".join(sys.path)}
    running = [subprocess.Popen(command, env=env) for _ in range(3)]

    assert [0, 0, 0] == [await asyncio.to_thread(process.wait) for process in running]
    assert b"75" == (await store.read("count") or (b"", ""))[0]
    assert {".lock", "count"} == {path.name for path in tmp_path.iterdir()}
