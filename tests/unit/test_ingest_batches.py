from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from ingestd.errors import Code, ResourceError
from ingestd.ingest import Ingest
from ingestd.messages import Event, EventType, Retry, RetryData
from ingestd.messages import Outcome as Result
from ingestd.premis import now, rfc3339
from tests.small_service import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def member(house: House, ingest: Ingest, name: str, *, size: int = 2, stop: bool = False) -> Event:
    """Take one request of the batch and see it to its end."""
    batch = {"id": "b", "size": size, "stop_on_failure": stop}
    await ingest.take(house.envelope(name, idempotency_key=name, batch=batch), returning=False)
    await house.until(lambda: any(e.kind.terminal and e.data.request_id == name for e in house.events))
    return next(e for e in house.events if e.kind.terminal and e.data.request_id == name)


async def completed(house: House, ingest: Ingest) -> Event:
    found: list[Event] = []

    async def told() -> bool:
        items = await ingest.outbox()
        await ingest.confirm([item.id for item in items])
        found.extend(item.event for item in items if item.event.kind is EventType.BATCH_COMPLETED)
        return bool(found)

    await house.until_async(told)
    return found[0]


async def test_when_all_of_a_batch_have_ended_at_whatever_worker_it_is_told_once_with_counts(house: House) -> None:
    house.results["b"] = [ResourceError("disk")]
    async with house.open("one") as one, house.open("two") as two:
        await member(house, one, "r")
        await member(house, two, "s")
        event = await completed(house, two)

        assert event.data.batch is not None
        assert event.data.batch.outcomes == {Result.FAILED: 1, Result.SUCCEEDED: 1}
        await one.control(Retry(id="c", source="me", data=RetryData(request="r")))
        again = await completed(house, one)

    assert again.data.batch is not None
    assert again.data.batch.outcomes == {Result.SUCCEEDED: 2}
    assert again.id != event.id
    assert event.routing_key() == "default.batch.completed"


async def test_a_batch_that_stops_on_failure_begins_nothing_after_one(house: House) -> None:
    house.results["b"] = [ResourceError("disk")]
    async with house.open("one") as one, house.open("two") as two:
        await member(house, one, "r", size=3, stop=True)
        await house.until_async(lambda: stopped(house))
        second = await member(house, two, "s", size=3, stop=True)
        third = await member(house, one, "t", size=3, stop=True)
        event = await completed(house, one)

    assert (second.data.outcome, third.data.outcome) == (Result.CANCELLED, Result.CANCELLED)
    assert second.data.error is not None
    assert second.data.error.code is Code.CANCELLED_BY_BATCH
    assert event.data.batch is not None
    assert event.data.batch.outcomes == {Result.CANCELLED: 2, Result.FAILED: 1}
    assert house.ran == ["a", "b"]


async def test_what_was_not_counted_while_archival_storage_was_away_is_counted_after_a_restart(house: House) -> None:
    async with house.open("one") as one:
        await member(house, one, "r", size=1)
        house.shared["one"].away = True
    async with house.open("one") as one:
        assert (await completed(house, one)).data.batch is not None


async def stopped(house: House) -> bool:
    return bool([key async for key in house.documents.list("batches")])


# --- expiry


async def test_a_request_that_comes_too_late_is_rejected_as_expired(house: House) -> None:
    async with house.open() as ingest:
        late = house.envelope(expires_at=rfc3339(now() - timedelta(seconds=1)))
        await ingest.take(late, returning=False)
        await house.until(lambda: EventType.REQUEST_REJECTED in house.kinds())

    error = house.events[-1].data.error
    assert error is not None
    assert error.code is Code.REQUEST_EXPIRED
    assert house.ran == []


async def test_what_was_begun_in_time_does_not_expire(house: House) -> None:
    async with house.open() as ingest:
        await ingest.take(house.envelope(expires_at=rfc3339(now() + timedelta(seconds=60))), returning=False)
        await house.until(lambda: EventType.AIP_STORED in house.kinds())
