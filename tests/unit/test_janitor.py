from __future__ import annotations

import os
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingestd.errors import ContentError, RequestError
from ingestd.ingest import Ingest
from ingestd.janitor import Kept
from ingestd.messages import Outcome as Result
from ingestd.premis import now
from ingestd.workfolder import FolderBusy, hold_folder
from tests.small_service import House

OLD = (now() - timedelta(days=400)).timestamp()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def leave(house: House, package: uuid.UUID | None = None) -> Path:
    """Leave a folder as a process that was killed does, long ago."""
    folder = house.work / str(package or uuid.uuid4())
    (folder / "transfer").mkdir(parents=True)
    (folder / "transfer" / "a").write_text("left")
    (folder / "lock").touch()
    os.utime(folder, (OLD, OLD))
    return folder


async def fail(house: House, ingest: Ingest) -> uuid.UUID:
    house.results["b"] = [ContentError("bad")]
    result = await ingest.preserve(house.source)
    assert result.outcome is Result.FAILED
    assert result.package_id is not None
    return result.package_id


def folders(found: Any) -> set[Path]:
    return {kept.folder for kept in found}


async def test_what_nobody_asked_for_is_removed_and_a_dry_run_only_says_so(house: House) -> None:
    async with house.open() as ingest:
        await ingest.janitor.swept.wait()
        left = leave(house)
        would = await ingest.janitor.sweep(dry_run=True)
        assert left.exists()
        removed = await ingest.janitor.sweep()

    assert {left} == folders(would) == folders(removed)
    assert list(house.work.iterdir()) == []


async def test_what_a_process_holds_or_goes_on_with_is_never_touched(house: House) -> None:
    async with house.open() as ingest:
        await ingest.janitor.swept.wait()
        held, fresh = leave(house), leave(house)
        os.utime(fresh)
        house.held.add("a")
        preservation = await ingest.begin(house.source)
        await house.until(lambda: "a" in house.ran)
        with hold_folder(held):
            os.utime(held, (OLD, OLD))
            removed = await ingest.janitor.sweep()
        states = {kept.package: (kept.state, kept.at_work) for kept in await ingest.janitor.packages()}
        with pytest.raises(RequestError, match="at work"):
            await ingest.janitor.remove(preservation.package)
        with pytest.raises(RequestError, match="at work"):
            await ingest.janitor.fetch(preservation.package, house.tmp_path / "out")
        house.held.clear()
        await preservation

    assert [] == removed
    assert ("running", True) == states[preservation.package]
    assert held.exists()
    assert fresh.exists()


async def test_what_was_interrupted_is_kept_for_the_restart(house: House) -> None:
    async with house.open() as ingest:
        await ingest.janitor.swept.wait()
        house.held.add("a")
        preservation = await ingest.begin(house.source)
        await house.until(lambda: "a" in house.ran)
        await ingest.halt()
        folder = house.work / str(preservation.package)
        os.utime(folder, (OLD, OLD))
        os.utime(folder / "journal.db", (OLD, OLD))
        assert [] == await ingest.janitor.sweep()
        with pytest.raises(RequestError, match="gone on with"):
            await ingest.janitor.remove(preservation.package)

    assert folder.exists()


async def test_what_failed_is_kept_fetched_and_removed_when_its_time_is_over(house: House) -> None:
    async with house.open() as ingest:
        await ingest.janitor.swept.wait()
        package = await fail(house, ingest)
        assert [] == await ingest.janitor.sweep()
        (kept,) = await ingest.janitor.packages()
        fetched = await ingest.janitor.fetch(package, house.tmp_path / "out")
        with pytest.raises(RequestError, match="already"):
            await ingest.janitor.fetch(package, house.tmp_path / "out")
    house.settings = {"janitor": {"keep_failed_seconds": 0}}
    async with house.open() as ingest:
        await ingest.janitor.swept.wait()
        await house.until(lambda: not kept.folder.exists())  # at the start, by itself
        with pytest.raises(RequestError, match="no package"):
            await ingest.janitor.remove(package)

    assert ("failed", "content.structure_invalid", "source") == (kept.state, kept.code, kept.name)
    assert (fetched / "journal.db").exists()
    assert not (fetched / "lock").exists()


async def test_a_failed_package_can_be_removed_by_hand(house: House) -> None:
    async with house.open() as ingest:
        await ingest.janitor.swept.wait()
        removed = await ingest.janitor.remove(await fail(house, ingest))

    assert isinstance(removed, Kept)
    assert list(house.work.iterdir()) == []


@pytest.mark.parametrize("keep", [False, True])
async def test_what_is_stored_and_whose_removal_was_cut_is_removed_unless_it_is_to_be_kept(
    house: House, keep: bool
) -> None:
    house.settings = {"keep_work": keep}
    async with house.open() as ingest:
        await ingest.janitor.swept.wait()
        result = await ingest.preserve(house.source)
        assert result.package_id is not None
        folder = house.work / str(result.package_id)
        if not keep:
            leave(house, result.package_id)
        await ingest.janitor.sweep()

    assert keep == folder.exists()


async def test_what_a_janitor_that_died_had_moved_away_goes(house: House) -> None:
    async with house.open() as ingest:
        await ingest.janitor.swept.wait()
        leave(house).rename(house.work / ".removed-1")
        strange = house.work / "not-a-package"
        strange.mkdir()
        await ingest.janitor.sweep()

    assert [strange] == list(house.work.iterdir())


def test_a_lock_of_a_folder_that_was_moved_away_is_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with hold_folder(folder):
        folder.rename(tmp_path / "b")
        with hold_folder(folder), pytest.raises(FolderBusy), hold_folder(folder):
            pass
