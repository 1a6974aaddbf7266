from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ingestd.errors import Code, RequestError, ResourceError
from ingestd.ingest import Disposition, Ingest
from ingestd.messages import Cancel, CancelData, EventType, Retry, RetryData, read_command
from ingestd.messages import Outcome as Result
from tests.small_service import B, House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def cancel(request: str = "r", **more: str) -> Cancel:
    return Cancel(id="c", source="me", data=CancelData.model_validate({"request": request, **more}))


def retry(request: str = "r", **more: str) -> Retry:
    return Retry(id="c", source="me", data=RetryData.model_validate({"request": request, **more}))


async def ended(house: House, ingest: Ingest) -> Result | None:
    """Wait for the terminal event that is to be published; how it ended."""
    await house.until(lambda: any(event.kind.terminal for event in house.events))
    (event,) = await house.told(ingest)
    house.events.clear()
    return event.data.outcome


# --- cancel


async def test_what_is_at_work_is_cancelled_at_once_and_says_so_once(house: House) -> None:
    house.gate.clear()
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False)
        await house.until(lambda: house.ran == ["a"])
        await ingest.control(cancel(reason="wrong folder"))
        await house.until(lambda: EventType.REQUEST_CANCELLED in house.kinds())
        (event,) = await house.told(ingest)

    assert event.data.outcome is Result.CANCELLED
    assert event.data.error is not None
    assert (Code.CANCELLED_BY_USER, "cancelled: wrong folder") == (event.data.error.code, event.data.error.detail)
    assert sum(kind.terminal for kind in house.kinds()) == 1


async def test_what_waits_for_a_slot_is_cancelled_without_one(house: House) -> None:
    house.settings = {"concurrent_packages": 1}
    house.gate.clear()
    async with house.open() as ingest:
        await ingest.begin(house.source)
        await house.until(lambda: house.ran == ["a"])
        waiting = await ingest.begin(house.source, again=True, name="second")
        assert await ingest.cancel(str(waiting.package))

        assert (await waiting).outcome is Result.CANCELLED
    assert house.ran == ["a"]
    assert not (house.work / str(waiting.package)).exists()


async def test_a_cancellation_may_come_before_its_request_and_survives_a_restart(house: House) -> None:
    async with house.open() as ingest:
        await ingest.control(cancel())
    async with house.open() as ingest:
        disposition = await ingest.take(house.envelope(), returning=False)

        assert await ended(house, ingest) is Result.CANCELLED
    assert (disposition, house.ran) == (Disposition.TAKEN, [])


async def test_a_cancellation_is_forgotten_after_its_time(house: House) -> None:
    house.settings = {"keep_cancellations_seconds": 0.01}
    async with house.open() as ingest:
        await ingest.control(cancel())
        await asyncio.sleep(0.05)
        await ingest.take(house.envelope(), returning=False)

        assert await ended(house, ingest) is Result.SUCCEEDED


async def test_another_tenants_request_of_the_same_id_is_not_cancelled(house: House) -> None:
    async with house.open() as ingest:
        await ingest.control(cancel(tenant="other"))
        await ingest.take(house.envelope(), returning=False)

        assert await ended(house, ingest) is Result.SUCCEEDED


async def test_another_process_of_the_same_data_folder_is_told_by_the_journal(house: House) -> None:
    house.gate.clear()
    async with house.open() as at_work, house.open() as beside:
        preservation = await at_work.begin(house.source)
        await house.until(lambda: house.ran == ["a"])
        await beside.cancel(str(preservation.package))

        assert (await preservation).outcome is Result.CANCELLED


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_what_is_being_stored_is_not_cancelled(house: House, how: str) -> None:
    house.last, house.held = "store_aip", {"store_aip"}
    more: dict[str, Any] = {"deadline_seconds": 0.5} if how == "deadline" else {}
    async with house.open() as ingest:
        await ingest.take(house.envelope(**more), returning=False)
        await house.until(lambda: house.ran == ["a", "store_aip"])
        if how == "cancelled":
            await ingest.control(cancel())
        await asyncio.sleep(0.6)
        house.held.clear()

        assert await ended(house, ingest) is Result.SUCCEEDED


async def test_what_was_being_stored_when_the_service_stopped_is_not_cancelled_when_it_goes_on(house: House) -> None:
    house.last, house.held = "store_aip", {"store_aip"}
    async with house.open() as ingest:
        await ingest.take(house.envelope(deadline_seconds=0.5), returning=False)
        await house.until(lambda: house.ran == ["a", "store_aip"])
    await asyncio.sleep(0.5)
    house.held.clear()
    async with house.open() as ingest:
        await ingest.control(cancel())
        await ingest.take_up_interrupted()

        assert await ended(house, ingest) is Result.SUCCEEDED


async def test_what_has_ended_is_not_cancelled_and_says_nothing_more(house: House) -> None:
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False)
        assert await ended(house, ingest) is Result.SUCCEEDED
        await ingest.control(cancel())
        await ingest.take(house.envelope("other"), returning=False)

        assert [Result.SUCCEEDED] == [event.data.outcome for event in await house.told(ingest)]


# --- retry


async def test_a_retry_is_the_next_attempt_from_the_link_that_failed(house: House) -> None:
    house.results["b"] = [ResourceError("disk")]
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False)
        assert await ended(house, ingest) is Result.FAILED
        (record,) = await ingest.control(retry())
        await house.until(lambda: EventType.AIP_STORED in house.kinds())
        (event,) = await house.told(ingest)

    assert house.ran == ["a", "b", "b"]
    assert (record.attempt, event.data.attempt) == (2, 2)
    assert event.data.request_id == "r"


@pytest.mark.parametrize(("start", "ran"), [("start", ["a", "b"]), ("a", ["a", "b"]), ("b", ["b"]), (B, ["b"])])
async def test_a_retry_begins_where_it_is_told_to(house: House, start: str, ran: list[str]) -> None:
    house.results["b"] = [ResourceError("disk")]
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False)
        assert await ended(house, ingest) is Result.FAILED
        house.ran.clear()
        await ingest.control(retry(**{"from": start}))

        assert await ended(house, ingest) is Result.SUCCEEDED
    assert house.ran == ran


async def test_what_was_cancelled_can_be_retried_and_its_deadline_counts_anew(house: House) -> None:
    house.gate.clear()
    async with house.open() as ingest:
        await ingest.take(house.envelope(deadline_seconds=1), returning=False)
        await house.until(lambda: house.ran == ["a"])
        await ingest.control(cancel())
        assert await ended(house, ingest) is Result.CANCELLED
        await asyncio.sleep(1)
        house.gate.set()
        await ingest.control(retry())

        assert await ended(house, ingest) is Result.SUCCEEDED


@pytest.mark.parametrize("start", ["nothing", "b"])
async def test_a_retry_that_cannot_be_done_is_answered_and_changes_nothing(house: House, start: str) -> None:
    house.results["a"] = [ResourceError("disk")]
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False)
        assert await ended(house, ingest) is Result.FAILED
        assert await ingest.control(retry(**{"from": start})) == ()
        assert house.kinds() == [EventType.CONTROL_REFUSED]
        assert house.events[0].data.error is not None
        with pytest.raises(RequestError):
            await ingest.retry("r", start=start)


async def test_what_succeeded_is_not_attempted_again(house: House) -> None:
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False)
        assert await ended(house, ingest) is Result.SUCCEEDED
        with pytest.raises(RequestError, match="succeeded"):
            await ingest.retry("r")


async def test_commands_for_requests_that_nobody_knows_here_do_no_harm(house: House) -> None:
    async with house.open() as ingest:
        assert await ingest.control(retry("other")) == ()
        with pytest.raises(RequestError):
            await ingest.retry("other")


# --- the same request, in other ways


async def test_who_asks_for_what_is_at_work_by_another_id_is_answered_when_it_ends(house: House) -> None:
    house.gate.clear()
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False, reply_to="q1")
        await house.until(lambda: house.ran == ["a"])
        second = house.envelope("s", client_context={"who": "s"})
        for returning in (False, True):
            disposition = await ingest.take(second, returning=returning, correlation_id="c2")
            assert disposition is Disposition.IN_HAND
        house.gate.set()
        await house.until(lambda: EventType.AIP_STORED in house.kinds())
        items = [item for item in await ingest.outbox() if item.event.kind.terminal]
        again = await ingest.take(second, returning=True)

    assert ["r", "s"] == [item.event.data.request_id for item in items]
    assert ["q1", ""] == [item.reply_to for item in items]
    assert ({"who": "s"}, "c2") == (items[1].event.data.client_context, items[1].correlation_id)
    assert again is Disposition.DONE


async def test_who_asks_by_another_id_and_asks_again_gets_the_same_event_again(house: House) -> None:
    """One of its messages may have been delivered twice, or to two workers."""
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False)
        assert await ended(house, ingest) is Result.SUCCEEDED
        for _ in range(2):
            assert await ingest.take(house.envelope("s"), returning=False) is Disposition.ANSWERED
        await ingest.take(house.envelope("t"), returning=False)
        told = await house.told(ingest)

    ids = {name: {event.id for event in told if event.data.request_id == name} for name in "st"}
    assert [len(found) for found in ids.values()] == [1, 1]
    assert len(set.union(*ids.values())) == 2


async def test_a_failed_request_that_is_sent_anew_is_attempted_again_and_its_repetition_told_again(
    house: House,
) -> None:
    house.results["b"] = [ResourceError("disk")]
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False)
        assert await ended(house, ingest) is Result.FAILED
        assert await ingest.take(house.envelope(), returning=False) is Disposition.ANSWERED
        assert [Result.FAILED] == [event.data.outcome for event in await house.told(ingest)]
        assert await ingest.take(house.envelope("s"), returning=False) is Disposition.TAKEN
        await house.until(lambda: EventType.AIP_STORED in house.kinds())
        told = await house.told(ingest)

    assert [("r", 2), ("s", 2)] == [(event.data.request_id, event.data.attempt) for event in told]


# --- commands as messages


def test_a_command_is_known_by_its_type_and_what_is_wrong_with_it_is_said() -> None:
    body = retry(**{"from": "start"}).model_dump_json(by_alias=True).encode()
    assert read_command(body) == retry(**{"from": "start"})
    for wrong in (b"{", b"[]", b'{"type": "org.ingestd.control.stop.v1"}', body.replace(b'"request"', b'"x"')):
        with pytest.raises(RequestError):
            read_command(wrong)
