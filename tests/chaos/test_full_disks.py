"""Disks that run full, of bytes and of files: small file systems in memory, which only root can mount."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ingestd
from ingestd.config import Settings
from ingestd.errors import Code, ResourceError
from ingestd.messages import EventData, Outcome
from tests.acceptance.aips import stored_below
from tests.acceptance.program import NO_DERIVATIVES
from tests.small_service import House

Disk = Callable[[str], Path]
ON_TRUST = {"reserve_bytes": 0, "reserve_files": 0, "factor": 0.01}
"""Nothing is reckoned beforehand: what is tried here is what happens when that was wrong."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mount, or change, a file system in memory: `disk("size=1m,nr_inodes=50")` gives its folder."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted: list[str] = []

    def mount(options: str) -> Path:
        remount = ["-o", f"remount,{options}"] if mounted else ["-t", "tmpfs", "-o", options, "none"]
        if subprocess.run(["mount", *remount, place], capture_output=True, check=False).returncode:
            pytest.skip("a file system can be mounted by root alone")
        mounted.append(options)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", place], check=True)


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


@pytest.mark.tool
@pytest.mark.parametrize(
    ("small", "aips", "code"),
    [
        ("size=400k", "elsewhere", Code.RESOURCE_DISK),  # the service's journal
        ("size=3m", "elsewhere", Code.RESOURCE_DISK),  # the package's journal
        ("size=6m", "disk", Code.RESOURCE_DISK),  # the packed AIP, or its copy in archival storage
    ],
)
async def test_a_full_disk_stops_a_package_which_goes_on_when_there_is_room(
    disk: Disk, tmp_path: Path, small: str, aips: str, code: Code
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        (source / f"{number}.bin").write_bytes(os.urandom(500_000))
    for number in range(30):
        (source / f"{number}.txt").write_text(f"number {number}")
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
    assert 34 == done.counts.originals
    assert 1 == len(stored_below(stored))


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


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
