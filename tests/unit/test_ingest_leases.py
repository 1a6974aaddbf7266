"""Several workers that share archival storage, and neither journal nor working folder."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingestd import leases as leases_module
from ingestd.errors import Code, ResourceError
from ingestd.ingest import Disposition, Ingest
from ingestd.ingest.running import LOOK_SECONDS
from ingestd.job import Outcome
from ingestd.journal import ServiceJournal
from ingestd.leases import Claim, HeldError, LeaseLostError, Leases
from ingestd.messages import Cancel, CancelData, Event, EventType, RequestState, Retry, RetryData
from ingestd.messages import Outcome as Result
from ingestd.oais import Facts
from ingestd.premis import now
from ingestd.storage.conditional import DocumentChangedError
from tests.small_service import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def changed(house: House, **update: Any) -> Claim:
    """Change the request's document behind everybody's back."""
    (key,) = [key async for key in house.documents.list("requests")]
    while True:
        found = await house.documents.read(key)
        assert found is not None
        claim = Claim.model_validate_json(found[0]).model_copy(update=update)
        if not update:
            return claim
        with contextlib.suppress(DocumentChangedError):  # its holder renewed it in this moment
            await house.documents.replace(key, claim.model_dump_json().encode(), found[1])
            return claim


async def lapse(house: House) -> None:
    await changed(house, until=now() - timedelta(seconds=leases_module.SKEW_SECONDS + 1))


@contextlib.asynccontextmanager
async def dying(house: House, worker: str) -> AsyncIterator[Ingest]:
    """A worker that ends without a last word to the others."""
    async with house.open(worker) as ingest:
        try:
            yield ingest
        finally:
            house.shared[worker].away = True


async def begun(house: House, worker: str, *, execute: str = "a", **more: Any) -> None:
    """Have a worker die while it is at a step."""
    house.held = {execute}
    async with dying(house, worker) as ingest:
        await ingest.take(house.envelope(**more), returning=False)
        await house.until(lambda: execute in house.ran)
    house.held.clear()
    house.ran.clear()
    house.events.clear()


async def ended(house: House, ingest: Ingest) -> list[tuple[str, int, Result | None]]:
    await house.until(lambda: any(event.kind.terminal for event in house.events))
    return [(e.data.request_id, e.data.attempt, e.data.outcome) for e in await house.told(ingest)]


# --- who may work


async def test_what_another_worker_has_in_hand_is_parked_again(house: House) -> None:
    house.gate.clear()
    async with house.open("one") as one, house.open("two") as two:
        assert await one.take(house.envelope(), returning=False) is Disposition.TAKEN
        assert await two.take(house.envelope(), returning=True) is Disposition.ELSEWHERE
        assert await two.take(house.envelope("s"), returning=False) is Disposition.ELSEWHERE
        assert await one.take(house.envelope(), returning=True) is Disposition.IN_HAND
        assert two.in_hand() == []


async def test_of_two_workers_that_take_at_once_one_has_it(house: House) -> None:
    house.gate.clear()
    async with house.open("one") as one, house.open("two") as two:
        came = await asyncio.gather(*(w.take(house.envelope(), returning=False) for w in (one, two)))

    assert sorted(came) == [Disposition.ELSEWHERE, Disposition.TAKEN]


async def test_a_lapsed_lease_is_taken_over_as_the_next_attempt_from_the_start(house: House) -> None:
    await begun(house, "one", execute="b")
    async with house.open("two") as two:
        assert await two.take(house.envelope(), returning=True) is Disposition.ELSEWHERE
        await lapse(house)
        assert await two.take(house.envelope(), returning=True) is Disposition.TAKEN

        assert await ended(house, two) == [("r", 2, Result.SUCCEEDED)]
    assert house.ran == ["a", "b"]
    assert house.kinds()[0] is EventType.REQUEST_STARTED  # it was accepted before


async def test_a_worker_that_was_killed_goes_on_at_once_when_it_is_started_again(house: House) -> None:
    await begun(house, "one", execute="b")
    async with house.open("one") as one:
        assert await one.take_up_interrupted() == 1

        assert await ended(house, one) == [("r", 2, Result.SUCCEEDED)]
    assert house.ran == ["b"]


async def test_a_clean_stop_gives_the_lease_back_at_once_and_is_no_death(house: House) -> None:
    house.held = {"a"}
    async with house.open("one") as one:
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: house.ran == ["a"])
    house.held.clear()
    claim = await changed(house)
    async with house.open("two") as two:
        assert await two.take(house.envelope(), returning=True) is Disposition.TAKEN
        assert await ended(house, two) == [("r", 2, Result.SUCCEEDED)]

    assert (claim.released, claim.deaths) == (True, 0)


async def test_a_worker_that_lost_its_lease_stops_says_nothing_and_lets_go(house: House) -> None:
    house.lease_seconds = 0.3
    house.held = {"a"}
    async with house.open("one") as one:
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: house.ran == ["a"])
        await changed(house, holder="two", token=7)
        await one.wait_for_slot()
        await house.until(one.has_slot)

        assert one.in_hand() == []
        assert not any(event.kind.terminal for event in house.events)
        assert await one.requests() == []


async def test_a_worker_that_lost_its_lease_can_store_nothing(house: House) -> None:
    house.last, house.held = "fenced", {"fenced"}
    packed = {"aip_size": "1", "aip_digest": "0" * 64, "mets_digest": "0" * 64}
    house.results["a"] = [Outcome(facts=Facts(package=packed))]
    async with house.open("one") as one:
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: house.ran == ["a", "fenced"])
        await changed(house, holder="two", token=7)
        house.held.clear()
        await house.until(lambda: one.in_hand() == [])

    assert house.ran == ["a", "fenced"]
    assert house.passed == []


async def test_no_worker_ends_what_is_another_s(house: House) -> None:
    house.held = {"b"}
    async with house.open("one") as one:
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: house.ran == ["a", "b"])
        await changed(house, holder="two", token=7)
        house.held.clear()
        await house.until(lambda: one.in_hand() == [])

        assert not any(event.kind.terminal for event in house.events)


async def test_what_was_at_work_here_and_was_taken_over_is_not_gone_on_with(house: House) -> None:
    await begun(house, "one")
    await changed(house, holder="two", token=7, until=now() + timedelta(seconds=60))
    async with house.open("one") as one:
        assert await one.take_up_interrupted() == 0
        assert await one.requests() == []


async def test_workers_that_die_too_often_fail_the_request(house: House) -> None:
    house.settings = {"crash_limit": 2}
    await begun(house, "one")
    await lapse(house)
    await begun(house, "two")
    await lapse(house)
    async with house.open("three") as three:
        await three.take(house.envelope(), returning=True)
        assert await ended(house, three) == [("r", 3, Result.FAILED)]

    error = house.events[-1].data.error
    assert error is not None
    assert error.code is Code.SYSTEM_CRASH_LOOP
    assert house.ran == []


async def test_a_request_that_failed_so_may_be_retried(house: House) -> None:
    house.settings = {"crash_limit": 1}
    await begun(house, "one")
    async with house.open("one") as one:
        await one.take_up_interrupted()
        assert await ended(house, one) == [("r", 2, Result.FAILED)]
        house.events.clear()
        await one.control(Retry(id="c", source="me", data=RetryData(request="r")))

        assert await ended(house, one) == [("r", 3, Result.SUCCEEDED)]


# --- what has ended


async def test_a_returning_request_that_another_worker_finished_is_dropped(house: House) -> None:
    async with house.open("one") as one, house.open("two") as two:
        await one.take(house.envelope(), returning=False)
        await ended(house, one)
        await house.until_async(lambda: confirmed(house))

        assert await two.take(house.envelope(), returning=True) is Disposition.DONE
        assert await house.told(two) == []
        assert await two.take(house.envelope("s"), returning=False) is Disposition.ANSWERED
        assert ["s"] == [event.data.request_id for event in await house.told(two)]
    assert house.ran == ["a", "b"]


async def test_a_result_that_was_not_published_when_its_disk_was_lost_is_published_by_another(house: House) -> None:
    async with house.open("one") as one:
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: EventType.AIP_STORED in house.kinds())
    (told,) = [event for event in house.events if event.kind.terminal]
    shutil.rmtree(house.tmp_path / "one")
    async with house.open("two") as two:
        publisher = asyncio.create_task(two.outbox())
        assert await two.take(house.envelope(), returning=True) is Disposition.ELSEWHERE
        await lapse(house)
        for _ in range(2):
            assert await two.take(house.envelope(), returning=True) is Disposition.DONE
        (again,) = [item.event for item in await asyncio.wait_for(publisher, 10)]

    assert (told.id, told.data.sequence) == (again.id, again.data.sequence)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_worker_that_dies_before_it_journals_its_result_keeps_the_working_folder_if_it_is_to_be_kept(
    house: House, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    house.settings = {"keep_work": keep}
    advance = ServiceJournal.advance

    async def die(self: ServiceJournal, package: uuid.UUID, state: RequestState, *of: Any, **more: Any) -> Event:
        if state.terminal:
            await asyncio.Event().wait()
        return await advance(self, package, state, *of, **more)

    with monkeypatch.context() as patched:
        patched.setattr(ServiceJournal, "advance", die)
        async with dying(house, "one") as ingest:
            await ingest.take(house.envelope(), returning=False)
            while (await changed(house)).result is None:
                await asyncio.sleep(0.01)
            folder = ingest.settings.work_dir / str(house.envelope().data.package_id())
            assert (folder / "journal.db").exists()
    async with house.open("one") as ingest:
        await ingest.janitor.swept.wait()  # while it looks at a folder, nobody else removes it
        assert await ingest.take_up_interrupted() == 0
        told = await house.told(ingest)

    assert [Result.SUCCEEDED] == [event.data.outcome for event in told]
    assert folder.exists() == keep


async def test_what_failed_at_one_worker_and_is_sent_anew_is_attempted_at_another(house: House) -> None:
    house.results["b"] = [ResourceError("disk")]
    async with house.open("one") as one, house.open("two") as two:
        await one.take(house.envelope(), returning=False)
        assert await ended(house, one) == [("r", 1, Result.FAILED)]
        await house.until_async(lambda: confirmed(house))
        house.events.clear()
        assert await two.take(house.envelope("s"), returning=False) is Disposition.TAKEN

        assert await ended(house, two) == [("r", 2, Result.SUCCEEDED), ("s", 2, Result.SUCCEEDED)]


async def test_a_key_that_another_worker_knows_for_other_content_is_a_conflict(house: House) -> None:
    """It is told at once, be the other at work or gone; whoever tells it once more tells the same."""
    house.gate.clear()
    async with house.open("one") as one, house.open("two") as two, house.open("three") as three:
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: house.ran == ["a"])
        assert await two.take(house.envelope("s", name="other"), returning=False) is Disposition.ANSWERED
        (told,) = await house.told(two)
        await lapse(house)
        assert await three.take(house.envelope("s", name="other"), returning=True) is Disposition.ANSWERED
        (again,) = [event for event in await house.told(three) if event.data.request_id == "s"]

    assert told.data.error is not None
    assert told.data.error.code is Code.REQUEST_IDEMPOTENCY_CONFLICT
    assert (told.id, told.data) == (again.id, again.data)


# --- messages that are delivered again


@pytest.fixture
def missing(house: House) -> dict[str, Any]:
    """A source that is not there: the request is refused."""
    return {"source": {"location": str(house.source / "missing")}}


async def test_a_refused_message_that_is_delivered_again_is_told_the_same_and_a_new_one_is_looked_at(
    house: House, missing: dict[str, Any]
) -> None:
    async with house.open("one") as one, house.open("two") as two:
        await one.take(house.envelope(**missing), returning=False, message="first")
        first = await refusals(house, one)
        for worker in (one, two):  # the first died, in a way, before it acknowledged
            asked = worker.take(house.envelope(**missing), returning=False, redelivered=True, message="first")
            assert await asked is Disposition.ANSWERED
        again = [event for worker in (one, two) for event in await house.told(worker)]
        before = first[0].time - timedelta(seconds=1)  # of two copies that were set back, the second
        asked = two.take(house.envelope(**missing), returning=False, known_since=before)
        assert await asked is Disposition.ANSWERED
        again += await house.told(two)
        await two.take(house.envelope(**missing), returning=False, known_since=now(), message="second")
        second = await refusals(house, two)

    assert [("r", 1)] == [(event.data.request_id, event.data.attempt) for event in first]
    assert first * 3 == again
    assert [("r", 2)] == [(event.data.request_id, event.data.attempt) for event in second]


async def refusals(house: House, worker: Ingest) -> list[Event]:
    await house.until(lambda: EventType.REQUEST_REJECTED in house.kinds() and worker.has_slot())
    house.events.clear()
    found = await house.told(worker)
    await house.until_async(lambda: confirmed(house))
    return found


async def test_who_waited_for_what_failed_is_told_so_by_another_worker_and_begins_nothing(house: House) -> None:
    """Its message was parked while the work went on, and comes back to a worker that knows nothing of it."""
    house.results["b"] = [ResourceError("disk")]
    house.gate.clear()
    async with house.open("one") as one, house.open("two") as two:
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: house.ran == ["a"])
        assert await one.take(house.envelope("s"), returning=False) is Disposition.IN_HAND
        house.gate.set()
        assert await ended(house, one) == [("r", 1, Result.FAILED), ("s", 1, Result.FAILED)]
        await house.until_async(lambda: confirmed(house))
        assert await two.take(house.envelope("s"), returning=True) is Disposition.ANSWERED
        told = await house.told(two)

    assert [("s", 1)] == [(event.data.request_id, event.data.attempt) for event in told]
    assert house.ran == ["a", "b"]


# --- cancellations


async def test_a_worker_that_did_not_hear_a_cancellation_knows_it_all_the_same(house: House) -> None:
    async with house.open("one") as one:
        await one.control(Cancel(id="c", source="me", data=CancelData(request="r", reason="no")))
    async with house.open("two") as two:
        await two.take(house.envelope(), returning=False)

        assert await ended(house, two) == [("r", 1, Result.CANCELLED)]
    assert house.ran == []


async def test_a_retry_takes_a_cancellation_back_for_every_worker(house: House) -> None:
    house.held = {"a"}
    async with house.open("two") as two, dying(house, "one") as one:
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: house.ran == ["a"])
        for worker in (one, two):
            await worker.control(Cancel(id="c", source="me", data=CancelData(request="r")))
        assert await ended(house, one) == [("r", 1, Result.CANCELLED)]
        await one.control(Retry(id="c", source="me", data=RetryData(request="r")))
        await house.until(lambda: house.ran == ["a", "a"])
    await lapse(house)
    house.ran.clear()
    house.events.clear()
    async with house.open("two") as two:
        await two.take(house.envelope(), returning=True)
        await house.until(lambda: house.ran == ["a"])
        await asyncio.sleep(LOOK_SECONDS + 0.2)
        house.held.clear()

        assert await ended(house, two) == [("r", 3, Result.SUCCEEDED)]


# --- archival storage is away


async def test_nothing_is_taken_while_archival_storage_does_not_say_whose_it_is(house: House) -> None:
    async with house.open("one") as one:
        house.shared["one"].away = True
        assert await one.take(house.envelope(), returning=False) is Disposition.ELSEWHERE
        house.shared["one"].away = False
        assert await one.take(house.envelope(), returning=True) is Disposition.TAKEN

        assert await ended(house, one) == [("r", 1, Result.SUCCEEDED)]


async def test_a_result_waits_for_archival_storage(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestd.ingest.running.MARK_SECONDS", 0.05)
    house.held = {"b"}
    async with house.open("one") as one:
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: house.ran == ["a", "b"])
        house.shared["one"].away = True
        house.held.clear()
        await asyncio.sleep(0.3)
        assert not any(event.kind.terminal for event in house.events)
        house.shared["one"].away = False

        assert await ended(house, one) == [("r", 1, Result.SUCCEEDED)]


# --- the lease itself


async def test_a_lease_is_renewed_and_its_holder_proves_it_in_the_store(house: House) -> None:
    one = Leases(house.documents, worker="one", seconds=0.3)
    lease = await one.take(house.envelope().data.package_id(), request="r", content_digest="d", attempt=1)
    before = lease.claim.until
    async with lease.kept(lambda: None):
        await asyncio.sleep(0.3)
    assert lease.claim.until > before
    with pytest.raises(HeldError):
        await Leases(house.documents, worker="two", seconds=1).take(
            lease.claim.package, request="r", content_digest="d", attempt=1
        )
    await changed(house, token=9)
    with pytest.raises(LeaseLostError):
        await lease.prove()


async def confirmed(house: House) -> bool:
    return (await changed(house)).confirmed


async def test_a_damaged_document_is_as_one_that_cannot_be_had(house: House) -> None:
    house.gate.clear()
    async with house.open("one") as one, house.open("two") as two:
        await one.take(house.envelope(), returning=False)
        await house.until(lambda: bool(house.ran))
        (key,) = [key async for key in house.documents.list("requests")]
        found = await house.documents.read(key)
        assert found is not None
        tag = await house.documents.replace(key, b'{"damaged', found[1])

        assert await two.take(house.envelope(), returning=True) is Disposition.ELSEWHERE
        assert two.in_hand() == []

        await house.documents.replace(key, found[0], tag)
        house.gate.set()
        assert [("r", 1, Result.SUCCEEDED)] == await ended(house, one)
