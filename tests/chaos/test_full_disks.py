"""Disks that run full, of bytes and of files, or may not be written: file systems in memory, mounted by root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ingestd
from ingestd.config import Settings
from ingestd.errors import Code, ResourceError
from ingestd.messages import EventData, EventType, Outcome
from ingestd.storage.conditional import LocalConditional
from tests.acceptance.aips import stored_below
from tests.acceptance.program import NO_DERIVATIVES
from tests.sftp_server import sftp_stores, sshd
from tests.small_service import House

ON_TRUST = {"reserve_bytes": 0, "reserve_files": 0, "factor": 0.01}
"""Nothing is reckoned beforehand: what is tried here is what happens when that was wrong."""


class Disk:
    """A file system in memory: mounted by the first call, changed by the next. Gives its folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.mounted = False

    def __call__(self, options: str, place: Path | None = None) -> Path:
        self.place = place or self.place
        self.place.mkdir(exist_ok=True)
        how = ["-o", f"remount,{options}"] if self.mounted else ["-t", "tmpfs", "-o", options, "none"]
        if subprocess.run(["mount", *how, self.place], capture_output=True, check=False).returncode:
            pytest.skip("a file system can be mounted by root alone")
        self.mounted = True
        return self.place


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Give a way to mount a small disk: `disk("size=1m,nr_inodes=50")`."""
    made = Disk(tmp_path / "disk")
    yield made
    if made.mounted:
        subprocess.run(["umount", "--lazy", made.place], check=True)


async def outcome(folder: Path, source: Path, aips: Path) -> EventData | ResourceError:
    settings = Settings(
        data_dir=folder / "data",
        locations={"primary": aips.as_uri()},
        clamav={"scanner": "off"},
        admission=ON_TRUST,
        processing={**NO_DERIVATIVES, "validate_formats": False, "aip_compression_algorithm": "tar"},
    )
    try:
        async with ingestd.open(settings) as ingest:
            return await ingest.preserve(source)
    except ResourceError as error:
        return error


def small_files(source: Path, count: int) -> None:
    for number in range(count):
        (source / f"{number}.txt").write_text(f"number {number}")


@pytest.mark.tool
@pytest.mark.parametrize(
    ("small", "aips", "files", "code"),
    [
        ("size=400k", "elsewhere", 30, Code.RESOURCE_DISK),  # the service's journal
        ("size=3m", "elsewhere", 30, Code.RESOURCE_DISK),  # the package's journal
        ("size=6m", "disk", 30, Code.RESOURCE_DISK),  # the packed AIP, or its copy in archival storage
        ("size=20m,nr_inodes=4", "elsewhere", 30, Code.RESOURCE_INODES),  # the service's journal
        ("size=20m,nr_inodes=220", "elsewhere", 300, Code.RESOURCE_INODES),  # while the content is received
    ],
)
async def test_a_full_disk_stops_a_package_which_goes_on_when_there_is_room(
    disk: Disk, tmp_path: Path, small: str, aips: str, files: int, code: Code
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        (source / f"{number}.bin").write_bytes(os.urandom(500_000))
    small_files(source, files)
    folder = disk(small)
    stored = tmp_path / aips / "aips"

    stopped = await outcome(folder, source, stored)
    left = stored_below(stored)
    disk("size=100m,nr_inodes=9999")
    done = await outcome(folder, source, stored)

    said = stopped if isinstance(stopped, ResourceError) else stopped.error
    assert said is not None
    assert (code, []) == (said.code, left)
    assert isinstance(done, EventData)
    assert Outcome.SUCCEEDED is done.outcome
    assert done.counts is not None
    assert 4 + files == done.counts.originals
    assert 1 == len(stored_below(stored))


@pytest.mark.tool
async def test_what_may_not_be_written_ends_with_its_name_and_goes_on_when_it_may(disk: Disk, tmp_path: Path) -> None:
    """Archival storage that is read-only, as file systems become after an error: it is said before any work."""
    source = tmp_path / "source"
    source.mkdir()
    small_files(source, 3)
    shelf = disk("size=20m")
    (shelf / "aips").mkdir()
    disk("ro")
    refused = await outcome(tmp_path, source, shelf / "aips")
    disk("rw")
    done = await outcome(tmp_path, source, shelf / "aips")

    assert isinstance(refused, EventData)
    assert refused.error is not None
    assert (Outcome.REJECTED, Code.SYSTEM_CONFIGURATION) == (refused.outcome, refused.error.code)
    assert f"{shelf / 'aips'} cannot be used: Read-only file system" in refused.error.detail
    assert "Mount its file system" in refused.error.remediation
    assert isinstance(done, EventData)
    assert Outcome.SUCCEEDED is done.outcome


async def test_a_working_folder_that_may_not_be_written_costs_no_request_and_not_the_service(
    disk: Disk, tmp_path: Path
) -> None:
    house = House(tmp_path)
    async with house.open() as ingest:
        house.work.mkdir(parents=True)
        disk("ro", house.work)
        await ingest.take(house.envelope(), returning=False)
        await house.until(lambda: any(kind.terminal for kind in house.kinds()))
        failed = house.events[-1].data
        disk("rw")
        await ingest.take(house.envelope("s"), returning=False)
        await house.until(lambda: EventType.AIP_STORED in house.kinds())

    assert failed.error is not None
    assert Code.SYSTEM_CONFIGURATION is failed.error.code
    assert "Read-only file system" in failed.error.detail
    assert str(tmp_path) not in failed.error.detail


async def test_a_worker_whose_working_folder_may_not_be_written_takes_nothing_and_leaves_what_it_took(
    disk: Disk, tmp_path: Path
) -> None:
    house = House(tmp_path)
    async with house.open("one") as one, house.open("two") as two:
        work = tmp_path / "one/data/work"
        work.mkdir(parents=True)
        disk("ro", work)
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: house.envelope().data.package_id() not in one._running)
        short = await one.admission.look()
        await two.take(house.envelope(), returning=True)
        await house.until(lambda: EventType.AIP_STORED in house.kinds())

    assert short is not None
    assert (Code.SYSTEM_CONFIGURATION, False) == (short.code, one.admission.ready())
    assert 1 == house.events[-1].data.attempt


@pytest.mark.tool
async def test_a_disk_that_has_too_few_files_in_all_refuses_the_package_with_the_numbers(
    disk: Disk, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    small_files(source, 3)
    refused = await outcome(disk("size=20m,nr_inodes=150"), source, tmp_path / "aips")

    assert isinstance(refused, EventData)
    assert Outcome.REJECTED is refused.outcome
    assert refused.error is not None
    assert Code.RESOURCE_INODES is refused.error.code
    assert "which has 150 in all" in refused.error.detail


async def test_a_result_that_finds_no_room_is_recorded_when_there_is_some_and_the_service_lives(disk: Disk) -> None:
    folder = disk("size=3m")
    house = House(folder)
    house.settings["admission"] = ON_TRUST
    house.held.add("b")
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False)
        await house.until(lambda: house.ran == ["a", "b"])
        fill(folder / "filler")

        house.held.clear()
        await asyncio.sleep(0.5)
        before = list(house.kinds())
        (folder / "filler").unlink()
        await house.until(lambda: any(kind.terminal for kind in house.kinds()))
        told = await house.told(ingest)

    assert not any(kind.terminal for kind in before)
    assert 1 == len(told)


async def test_a_disk_that_can_hold_no_more_files_costs_no_request_and_not_the_service(disk: Disk) -> None:
    folder = disk("size=20m,nr_inodes=300")
    house = House(folder)
    house.settings["admission"] = ON_TRUST
    async with house.open() as ingest:
        (folder / "filler").mkdir()
        fill_with_files(folder / "filler")
        await ingest.take(house.envelope(), returning=False)
        await house.until(lambda: any(kind.terminal for kind in house.kinds()))
        shutil.rmtree(folder / "filler")
        house.source.joinpath("b").touch()
        await ingest.take(house.envelope("s", idempotency_key="s"), returning=False)
        await house.until(lambda: EventType.AIP_STORED in house.kinds())

    (failed,) = [event.data for event in house.events if event.data.error]
    assert failed.error is not None
    assert (Outcome.FAILED, Code.RESOURCE_INODES) == (failed.outcome, failed.error.code)


async def test_archival_storage_that_can_hold_no_more_documents_says_so(disk: Disk) -> None:
    folder = disk("size=1m,nr_inodes=9")
    documents = LocalConditional(folder)
    await documents.create("requests/1.json", b"{}")
    fill_with_files(folder)

    with pytest.raises(ResourceError) as caught:
        await documents.create("requests/2.json", b"{}")

    assert Code.RESOURCE_INODES is caught.value.code


def fill_with_files(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for number in range(10_000):
            (folder / str(number)).touch()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


@pytest.mark.parametrize(
    ("small", "code"), [("size=2m", Code.RESOURCE_DISK), ("size=20m,nr_inodes=7", Code.RESOURCE_INODES)]
)
async def test_a_full_disk_of_an_sftp_server_is_told_as_one(disk: Disk, tmp_path: Path, small: str, code: Code) -> None:
    source = tmp_path / "source"
    (source / "in").mkdir(parents=True)
    for number in range(4):
        (source / "in" / f"{number}.bin").write_bytes(os.urandom(1_000_000))
    folder = disk(small) / "aips"
    with sshd(tmp_path / "sshd") as server:
        async with sftp_stores(server) as open_store:
            store = open_store(folder)
            with pytest.raises(ResourceError) as caught:
                await store.put("a", source)
            named = [entry.key async for entry in store.list()]
            disk("size=20m,nr_inodes=100")
            await store.put("a", source)
            size = [entry.size_bytes async for entry in store.list()]

    assert (code, []) == (caught.value.code, named)
    assert [1_000_000] * 4 == size
