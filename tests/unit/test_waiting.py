"""What finds no room, and is left to whichever worker has some."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingestd.admission import Need
from ingestd.errors import Code
from ingestd.ingest import Disposition, Ingest
from ingestd.messages import Cancel, CancelData, Event, EventType, Retry, RetryData
from ingestd.messages import Outcome as Result
from ingestd.premis import now
from ingestd.sections import AdmissionSettings
from tests.small_service import House
from tests.unit.test_admission import MIB, PLENTY, never, no_room
from tests.unit.test_ingest_leases import changed, lapse

ACCEPTED, WAITING, STARTED = EventType.REQUEST_ACCEPTED, EventType.REQUEST_WAITING, EventType.REQUEST_STARTED


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    made.settings = {"admission": PLENTY}
    return made


async def left(house: House, worker: Ingest, *, returning: bool = False, **more: Any) -> None:
    """Have a worker take the request, find no room, and leave it."""
    assert await worker.take(house.envelope(**more), returning=returning, reply_to="me") is Disposition.TAKEN
    await let_go(house, worker)


async def let_go(house: House, worker: Ingest) -> None:
    async with asyncio.timeout(10):
        while house.envelope().data.package_id() in worker._running:
            await house.told(worker)
            await asyncio.sleep(0.01)


async def done(house: House, worker: Ingest, *, returning: bool = True) -> Event:
    assert await worker.take(house.envelope(), returning=returning, reply_to="me") is Disposition.TAKEN
    return await result(house)


async def result(house: House) -> Event:
    await house.until(lambda: any(event.kind.terminal for event in house.events))
    (found,) = [event for event in house.events if event.kind.terminal]
    return found


async def test_what_finds_no_room_is_done_by_a_worker_that_has_some_in_the_same_attempt(house: House) -> None:
    async with house.open("one") as one, house.open("two") as two:
        no_room(one, [True])
        await left(house, one)
        assert [ACCEPTED, WAITING] == house.kinds()
        assert [] == await one.requests()
        assert [] == list((house.tmp_path / "one/data/work").iterdir())
        claim = await changed(house)
        end = await done(house, two)
        told = [item.reply_to for item in await two.outbox() if item.event.kind.terminal]

    assert ("", 0, 1) == (claim.holder, claim.deaths, claim.attempt)
    assert (Result.SUCCEEDED, 1) == (end.data.outcome, end.data.attempt)
    assert 1 == house.kinds().count(STARTED)
    assert list(range(1, len(house.events) + 1)) == [event.data.sequence for event in house.events]
    assert ["me"] == told


async def test_what_was_told_is_published_before_another_worker_can_have_it(house: House) -> None:
    async with house.open("one") as one, house.open("two") as two:
        no_room(one, [True])
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: WAITING in house.kinds())
        await asyncio.sleep(0.2)  # ten looks
        assert 1 == len(one.in_hand())
        assert await two.take(house.envelope(), returning=True) is Disposition.ELSEWHERE
        await house.told(one)
        await house.until(lambda: not one.in_hand())


async def test_a_worker_without_room_leaves_what_comes_back_and_says_so_now_and_then(house: House) -> None:
    async with house.open("one") as one:
        no_room(one, short := [True])
        await left(house, one)
        token = (await changed(house)).token
        for _ in range(3):
            assert await one.take(house.envelope(), returning=True) is Disposition.ELSEWHERE
        assert token == (await changed(house)).token  # it was not even taken
        assert 1 == house.kinds().count(WAITING)

        await ago(house, seconds=PLENTY_OF_TIME)
        await left(house, one, returning=True)
        assert 2 == house.kinds().count(WAITING)
        assert await one.take(house.envelope(), returning=True) is Disposition.ELSEWHERE

        short.clear()
        end = await done(house, one)

    assert (Result.SUCCEEDED, 1) == (end.data.outcome, end.data.attempt)
    assert [ACCEPTED, WAITING, WAITING, STARTED] == house.kinds()[:4]
    assert list(range(1, len(house.events) + 1)) == [event.data.sequence for event in house.events]


PLENTY_OF_TIME = 280
"""Nearly `tell_seconds`: what comes back from being parked comes a moment early."""


async def ago(house: House, *, seconds: float) -> None:
    """Have the request be told as waiting some time ago."""
    waiting = (await changed(house)).waiting
    assert waiting is not None
    await changed(house, waiting=waiting.model_copy(update={"told_at": now() - timedelta(seconds=seconds)}))


async def test_workers_without_room_tell_of_it_no_more_often_together(house: House) -> None:
    async with house.open("one") as one, house.open("two") as two:
        for worker in (one, two):
            no_room(worker, [True])
            await left(house, worker, returning=worker is two)
        claim = await changed(house)

    assert [ACCEPTED, WAITING] == house.kinds()
    assert (1, 0) == (claim.attempt, claim.deaths)


@pytest.mark.parametrize("by", ["request", "package"])
async def test_what_was_left_is_cancelled_when_it_comes_back(house: House, by: str) -> None:
    async with house.open("one") as one:
        no_room(one, [True])
        await left(house, one)
        name = "r" if by == "request" else str(house.envelope().data.package_id())
        await one.control(Cancel(id="c", source="me", data=CancelData(request=name)))
        end = await done(house, one)

    assert (Result.CANCELLED, 1) == (end.data.outcome, end.data.attempt)
    assert [] == list((house.tmp_path / "one/data/work").iterdir())


async def test_the_deadline_of_what_was_left_counts_from_when_it_was_first_taken(house: House) -> None:
    async with house.open("one") as one:
        no_room(one, [True])
        await left(house, one, deadline_seconds=60)
        envelope = house.envelope(deadline_seconds=60)
        assert await one.take(envelope, returning=True) is Disposition.ELSEWHERE
        await changed(house, asked_at=now() - timedelta(seconds=61))
        assert await one.take(envelope, returning=True) is Disposition.TAKEN
        end = await result(house)

    assert end.data.error is not None
    assert (Code.CANCELLED_BY_DEADLINE, 1) == (end.data.error.code, end.data.attempt)


async def test_what_has_begun_stays_with_its_worker_while_it_waits(house: House) -> None:
    house.held = {"b"}
    async with house.open("one") as one:
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: "b" in house.ran)
    async with house.open("two") as two, house.open("one") as one:
        no_room(one, short := [True])
        await one.take_up_interrupted()
        await house.until(lambda: WAITING in house.kinds())
        await house.told(one)
        await asyncio.sleep(0.2)  # ten looks
        assert await two.take(house.envelope(), returning=True) is Disposition.ELSEWHERE
        short.clear()
        house.held.clear()
        end = await result(house)

    assert (Result.SUCCEEDED, 2) == (end.data.outcome, end.data.attempt)
    assert ["a", "b", "b"] == house.ran


async def test_a_stop_while_it_waits_is_no_attempt(house: House) -> None:
    async with house.open("one") as one:
        no_room(one, [True])
        one.admission._settings = one.admission._settings.model_copy(update={"look_seconds": 60})
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: WAITING in house.kinds())
        await house.told(one)
    async with house.open("two") as two:
        end = await done(house, two)

    assert (Result.SUCCEEDED, 1) == (end.data.outcome, end.data.attempt)


async def test_a_worker_that_dies_after_it_took_what_was_left_counts(house: House) -> None:
    async with house.open("one") as one:
        no_room(one, [True])
        await left(house, one)
    house.held = {"a"}
    async with house.open("two") as two:
        await two.take(house.envelope(), returning=True)
        await house.until(lambda: "a" in house.ran)
        house.shared["two"].away = True
    house.held.clear()
    house.events.clear()
    await lapse(house)
    async with house.open("three") as three:
        end = await done(house, three)
        claim = await changed(house)

    assert (Result.SUCCEEDED, 2) == (end.data.outcome, end.data.attempt)
    assert claim.waiting is None


async def test_a_retry_from_the_start_may_be_done_by_another_worker(house: House) -> None:
    house.results["a"] = [ValueError("no")]
    async with house.open("one") as one, house.open("two") as two:
        await one.take(house.envelope(), returning=False)
        await result(house)
        await house.told(one)
        no_room(one, [True])
        house.events.clear()
        retry = Retry(id="c", source="me", data=RetryData.model_validate({"request": "r", "from": "start"}))
        assert 1 == len(await one.control(retry))
        await let_go(house, one)
        end = await done(house, two)

    assert (Result.SUCCEEDED, 2) == (end.data.outcome, end.data.attempt)
    assert [event.data.sequence for event in house.events] == list(range(1, len(house.events) + 1))


# --- disks of other sizes


async def test_what_is_too_large_for_a_disk_is_done_on_a_larger_one(house: House) -> None:
    house.settings = {"admission": {**PLENTY, "factor": 1e18}}
    async with house.open("small") as small:
        await left(house, small)
        assert [WAITING] == house.kinds()
        assert not (await changed(house)).accepted
        assert await small.take(house.envelope(), returning=True) is Disposition.ELSEWHERE
        house.settings = {"admission": PLENTY}
        async with house.open("large") as large:
            end = await done(house, large)

    assert (Result.SUCCEEDED, 1) == (end.data.outcome, end.data.attempt)
    assert [WAITING, ACCEPTED, STARTED] == house.kinds()[:3]


async def test_what_no_disk_was_large_enough_for_is_rejected_in_the_end(house: House) -> None:
    house.settings = {"admission": {**PLENTY, "factor": 1e18, "elsewhere_seconds": 100}}
    async with house.open("small") as small:
        await left(house, small)
        await ago(house, seconds=PLENTY_OF_TIME)
        await changed(house, asked_at=now() - timedelta(seconds=101))
        end = await done(house, small)

    assert end.data.error is not None
    assert (Result.REJECTED, Code.RESOURCE_DISK) == (end.data.outcome, end.data.error.code)
    assert "bytes on the working disk" in end.data.error.detail


async def test_what_some_worker_accepted_is_never_ended_by_one_with_a_smaller_disk(house: House) -> None:
    async with house.open("large") as large:
        no_room(large, [True])
        await left(house, large)
    await changed(house, asked_at=now() - timedelta(days=1))
    house.settings = {"admission": {**PLENTY, "factor": 1e18}}
    async with house.open("small") as small:
        await left(house, small, returning=True)

    assert [ACCEPTED, WAITING] == house.kinds()


async def test_one_that_is_too_large_is_rejected_at_once_where_all_disks_are_alike(house: House) -> None:
    house.settings = {"admission": {**PLENTY, "factor": 1e18, "elsewhere_seconds": 0}}
    async with house.open("one") as one:
        end = await done(house, one, returning=False)

    assert Result.REJECTED is end.data.outcome


async def test_room_that_another_package_gives_back_is_room_for_what_was_left(house: House) -> None:
    async with house.open("one") as one:
        await one.admission.look()
        assert one.admission.room is not None
        nearly_all = Need(size_bytes=one.admission.room.free_bytes - MIB, files=1)
        async with one.admission.room_for(uuid.uuid4(), nearly_all, never):
            one.admission._settings = AdmissionSettings(**{**PLENTY, "reserve_bytes": 100 * MIB})
            await left(house, one)
            assert await one.take(house.envelope(), returning=True) is Disposition.ELSEWHERE
        end = await done(house, one)

    assert Result.SUCCEEDED is end.data.outcome
