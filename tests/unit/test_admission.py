from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingestd.admission import Admission, Need, NeverError, available_memory, need_of
from ingestd.config import Settings
from ingestd.errors import Code, ResourceError
from ingestd.ingest import Ingest
from ingestd.messages import EventType
from ingestd.messages import Outcome as Result
from ingestd.sections import AdmissionSettings
from tests.small_service import House

MIB = 2**20
PLENTY = {"reserve_bytes": 0, "reserve_files": 0, "reserve_memory_bytes": 0, "look_seconds": 0.02}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB and 500 files."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=500", "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def admission(data: Path, **more: Any) -> Admission:
    return Admission(Settings(data_dir=data, admission=AdmissionSettings(**{**PLENTY, **more})))


def test_the_need_grows_with_what_the_workflow_will_do() -> None:
    def need(steps: set[str], **more: Any) -> int:
        fields: dict[str, Any] = {"files": 10, "size_bytes": 1000, "source_bytes": None, "remote": False, **more}
        fields.setdefault("options", {"normalize": True, "extract_packages": True})
        return need_of(AdmissionSettings(factor=1), steps=steps, **fields).size_bytes

    plain = need(set())

    assert plain == 2000  # received, and packed
    assert need(set(), options={"aip_compression_algorithm": "uncompressed"}) == 1000
    assert need({"normalize"}) == 4000
    assert need({"normalize", "extract_contents"}) == 5000
    assert need({"normalize"}, options={"normalize": False}) == plain
    assert need(set(), size_bytes=None, source_bytes=100, remote=True) == 100 + 2 * 300


async def never(short: ResourceError) -> None:
    raise AssertionError(short.detail)


async def test_packages_in_hand_count_together_and_the_next_waits_for_them(disk: Path) -> None:
    one, told = admission(disk), asyncio.Event()

    async def wait(short: ResourceError) -> None:
        assert short.code is Code.RESOURCE_DISK
        assert str(10 * MIB) in short.violations[0].expected
        assert "free" in short.violations[0].actual
        told.set()

    async with asyncio.TaskGroup() as group:
        async with one.room_for(uuid.uuid4(), Need(size_bytes=10 * MIB, files=1), never):
            second = group.create_task(_hold(one, Need(size_bytes=10 * MIB, files=1), wait))
            await asyncio.wait_for(told.wait(), 10)
            async with one.room_for(uuid.uuid4(), Need(size_bytes=1 * MIB, files=1), never):
                assert not second.done()  # a small one goes on meanwhile
                assert one.waiting == 1
        await asyncio.wait_for(second, 10)
    assert list((disk / "admitted").iterdir()) == []


async def _hold(one: Admission, need: Need, wait: Any) -> None:
    async with one.room_for(uuid.uuid4(), need, wait):
        pass


async def test_what_a_package_has_taken_of_its_room_is_not_counted_twice(disk: Path) -> None:
    one, package = admission(disk), uuid.uuid4()
    async with one.room_for(package, Need(size_bytes=10 * MIB, files=1), never):
        (disk / "work" / str(package)).mkdir(parents=True)
        (disk / "work" / str(package) / "a").write_bytes(bytes(9 * MIB))
        await one.look()

    assert one.room is not None
    assert one.room.promised_bytes == MIB
    assert one.room.free_bytes < 8 * MIB


@pytest.mark.parametrize(
    ("need", "code", "has"),
    [
        (
            Need(size_bytes=17 * MIB, files=1),
            Code.RESOURCE_DISK,
            f"{17 * MIB} bytes on the working disk, which has {16 * MIB}",
        ),
        (Need(size_bytes=1, files=501), Code.RESOURCE_INODES, "501 files on the working disk, which has 500"),
    ],
)
async def test_what_can_never_fit_is_told_with_the_numbers(disk: Path, need: Need, code: Code, has: str) -> None:
    async def give_up(short: ResourceError) -> None:
        raise short

    with pytest.raises(NeverError) as caught:
        async with admission(disk).room_for(uuid.uuid4(), need, give_up):
            pass

    assert caught.value.code is code
    assert has in caught.value.detail


async def test_files_that_are_there_now_are_waited_for(disk: Path) -> None:
    told = asyncio.Event()

    async def wait(short: ResourceError) -> None:
        assert short.code is Code.RESOURCE_INODES
        assert "files are free" in short.detail
        told.set()

    for number in range(400):
        (disk / str(number)).touch()
    async with asyncio.TaskGroup() as group:
        held = group.create_task(_hold(admission(disk), Need(size_bytes=1, files=300), wait))
        await asyncio.wait_for(told.wait(), 10)
        for number in range(400):
            (disk / str(number)).unlink()
        await asyncio.wait_for(held, 10)


async def test_files_run_out_as_bytes_do(disk: Path) -> None:
    one = admission(disk, reserve_files=1000)
    short = await one.look()

    assert short is not None
    assert short.code is Code.RESOURCE_INODES
    assert not one.ready()
    assert one.failure is short


async def test_no_memory_means_no_room(tmp_path: Path) -> None:
    settings = AdmissionSettings(**{**PLENTY, "reserve_memory_bytes": 2})
    one = Admission(Settings(data_dir=tmp_path, admission=settings), memory=lambda: 1)
    short = await one.look()

    assert short is not None
    assert short.code is Code.RESOURCE_MEMORY


def test_memory_is_that_of_the_tightest_control_group(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (groups / "a/b").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    alone = available_memory(proc, groups)
    (proc / "self/cgroup").write_text("0::/a/b\n")
    for group, most in (("a", "1000000"), ("a/b", "max")):
        (groups / group / "memory.max").write_text(f"{most}\n")
        (groups / group / "memory.current").write_text("900000\n")
        (groups / group / "memory.stat").write_text("anon 1\ninactive_file 500000\n")

    assert alone == 8000 * 1024
    assert available_memory(proc, groups) == 600000


def _promise_and_stay(data: str, ready: Any) -> None:
    async def hold() -> None:
        async with admission(Path(data)).room_for(uuid.uuid4(), Need(size_bytes=10 * MIB, files=1), never):
            ready.set()
            await asyncio.sleep(60)

    asyncio.run(hold())


async def test_another_process_on_the_same_folder_is_counted_until_it_is_killed(disk: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_promise_and_stay, args=(str(disk), ready), daemon=True)
    other.start()
    try:
        assert await asyncio.to_thread(ready.wait, 60)
        one = admission(disk)
        await one.look()
        assert one.room is not None
        assert (one.room.packages, one.room.promised_bytes) == (1, 10 * MIB)
    finally:
        assert other.pid is not None
        os.kill(other.pid, signal.SIGKILL)
        await asyncio.to_thread(other.join)
    await one.look()

    assert one.room is not None
    assert (one.room.packages, one.room.promised_bytes) == (0, 0)


# --- in the service --------------------------------------------------------------------------------------------------


async def test_a_package_waits_for_room_and_is_done_when_there_is(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.settings = {"admission": PLENTY}
    async with house.open() as ingest:
        no_room(ingest, short := [True])
        preservation = await ingest.begin(house.source)
        await house.until(lambda: EventType.REQUEST_WAITING in house.kinds())
        assert house.ran == []
        short.clear()
        result = await preservation

    assert result.outcome is Result.SUCCEEDED
    assert house.kinds()[:3] == [EventType.REQUEST_ACCEPTED, EventType.REQUEST_WAITING, EventType.REQUEST_STARTED]
    waiting = house.events[1].data.error
    assert waiting is not None
    assert waiting.code is Code.RESOURCE_MEMORY


async def test_a_package_that_waits_can_be_cancelled(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.settings = {"admission": PLENTY}
    async with house.open() as ingest:
        no_room(ingest, [True])
        preservation = await ingest.begin(house.source)
        await house.until(lambda: EventType.REQUEST_WAITING in house.kinds())
        await ingest.cancel(str(preservation.package))
        result = await preservation

    assert result.outcome is Result.CANCELLED
    assert list(house.work.iterdir()) == []


async def test_no_request_is_asked_for_while_there_is_no_room(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.settings = {"admission": PLENTY}
    async with house.open() as ingest:
        no_room(ingest, short := [True])
        asking = asyncio.create_task(ingest.wait_for_slot())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asking), 0.1)
        assert not asking.done()
        short.clear()
        await asyncio.wait_for(asking, 10)


async def test_a_request_that_could_never_fit_is_rejected(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.settings = {"admission": {**PLENTY, "factor": 1e18}}
    async with house.open() as ingest:
        result = await ingest.preserve(house.source)

    assert result.outcome is Result.REJECTED
    assert result.error is not None
    assert result.error.code is Code.RESOURCE_DISK
    assert "bytes on the working disk" in result.error.detail


def no_room(ingest: Ingest, short: list[bool]) -> None:
    """No memory is free for as long as `short` has something."""
    ingest.admission._settings = AdmissionSettings(**{**PLENTY, "reserve_memory_bytes": 1})
    ingest.admission._memory = lambda: 0 if short else 2**40
