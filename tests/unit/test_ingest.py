from __future__ import annotations

import asyncio
import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from ingestd.errors import Code, ContentError, RequestError, ResourceError, SystemFault
from ingestd.ingest import Disposition, running
from ingestd.janitor import Janitor
from ingestd.job import Outcome
from ingestd.journal import ServiceJournal
from ingestd.messages import Event, EventType, VirusScanData, parse_request
from ingestd.messages import Outcome as Result
from ingestd.oais import Facts, Warning_
from tests.small_service import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_a_request_goes_from_its_acceptance_to_its_result_and_leaves_nothing_behind(house: House) -> None:
    async with house.open() as ingest:
        result = await ingest.preserve(house.source)

    assert result.outcome is Result.SUCCEEDED
    assert house.ran == ["a", "b"]
    assert list(house.work.iterdir()) == []
    assert [EventType.REQUEST_ACCEPTED, EventType.REQUEST_STARTED] == house.kinds()[:2]
    assert sum(kind.terminal for kind in house.kinds()) == 1


async def test_what_the_scan_for_malware_counted_is_in_the_result(house: House) -> None:
    counted = {"virus_scan_clean": "2", "virus_scan_infected": "0", "virus_scan_not_scanned": "1", "virus_scanner": "s"}
    house.results["a"] = [Outcome(facts=Facts(package=counted))]
    async with house.open() as ingest:
        result = await ingest.preserve(house.source)
        other = await ingest.preserve(house.source, again=True)

    assert VirusScanData(clean=2, infected=0, not_scanned=1, scanner="s") == result.virus_scan
    assert other.virus_scan is None


async def test_warnings_are_in_the_result_with_their_job_whatever_bytes_their_paths_have(house: House) -> None:
    warning = Warning_(code="c", detail="d", path=os.fsdecode(b"objects/caf\xe9"))
    house.results["a"] = [Outcome(facts=Facts(warnings=[warning]))]
    async with house.open() as ingest:
        result = await ingest.preserve(house.source)

    assert result.outcome is Result.SUCCEEDED_WITH_WARNINGS
    assert ["objects/caf%E9 (a): d"] == result.warnings[0].samples


@pytest.mark.parametrize("error", [ResourceError("disk"), KeyError("bug"), ContentError("bad")])
async def test_a_failure_is_never_told_as_a_success_and_keeps_the_package(house: House, error: Exception) -> None:
    house.results["b"] = [error]
    async with house.open() as ingest:
        first = await ingest.preserve(house.source)
        assert first.outcome is Result.FAILED
        assert first.package_id is not None
        assert first.work_folder == str(house.work / str(first.package_id))
        second = await (await ingest.resume(first.package_id))

    assert second.outcome is Result.SUCCEEDED
    assert house.ran in (["a", "b", "b"], ["a", "b", "c", "b"])
    assert (1, 2) == (first.attempt, second.attempt)


@pytest.mark.parametrize("content", [b"", b'{"size_by', b"[]", b'{"x": 1}'])
async def test_what_a_full_disk_cut_short_of_what_is_needed_is_reckoned_anew(house: House, content: bytes) -> None:
    house.results["b"] = [ResourceError("disk")]
    async with house.open() as ingest:
        first = await ingest.preserve(house.source)
        assert first.package_id is not None
        (house.work / str(first.package_id) / "need.json").write_bytes(content)

        assert (await (await ingest.resume(first.package_id))).outcome is Result.SUCCEEDED


async def test_what_is_wrong_with_a_fresh_request_rejects_it(house: House) -> None:
    async with house.open() as ingest:
        missing = await ingest.preserve(house.tmp_path / "nothing")
        unknown = await ingest.preserve(house.source, target={"location": "moon"})

    assert [Result.REJECTED, Result.REJECTED] == [missing.outcome, unknown.outcome]
    assert unknown.error is not None
    assert unknown.error.code is Code.REQUEST_UNKNOWN_LOCATION
    assert list(house.work.iterdir()) == []


async def test_what_was_begun_is_not_thrown_away_when_the_settings_changed(house: House) -> None:
    house.settings = {"locations": {"x": (house.tmp_path / "x").as_uri()}, "default_location": "x"}
    house.results["b"] = [ResourceError("disk")]
    async with house.open() as ingest:
        first = await ingest.preserve(house.source, target={"location": "x"})
    house.settings = {}
    assert first.package_id is not None
    async with house.open() as ingest:
        second = await (await ingest.resume(first.package_id))

    assert second.outcome is Result.FAILED
    assert (house.work / str(first.package_id) / "journal.db").exists()


async def test_a_damaged_journal_fails_its_package_and_no_other(house: House) -> None:
    house.results["b"] = [ResourceError("disk")]
    async with house.open() as ingest:
        first = await ingest.preserve(house.source)
        assert first.package_id is not None
        (house.work / str(first.package_id) / "journal.db").write_bytes(b"no database" * 500)
        for path in (house.work / str(first.package_id)).glob("journal.db-*"):
            path.unlink()
        second = await (await ingest.resume(first.package_id))
        other = await ingest.preserve(house.source, again=True)

    assert (Result.FAILED, Result.SUCCEEDED) == (second.outcome, other.outcome)


async def test_stopped_it_is_taken_up_where_it_was(house: House) -> None:
    house.gate.clear()
    async with house.open() as ingest:
        stopped = await ingest.begin(house.source)
        while not house.ran:
            await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await stopped
    house.gate.set()

    async with house.open() as ingest:
        again = await ingest.begin(house.source)
        assert again.package == stopped.package
        assert (await again).outcome is Result.SUCCEEDED
    assert house.ran == ["a", "a", "b"]


async def test_a_deadline_cancels_and_counts_from_the_acceptance(house: House) -> None:
    house.gate.clear()
    async with house.open() as ingest:
        result = await ingest.preserve(house.source, deadline_seconds=0.3)
        house.gate.set()
        other = await ingest.preserve(house.source, again=True)

    assert result.outcome is Result.CANCELLED
    assert result.error is not None
    assert result.error.code is Code.CANCELLED_BY_DEADLINE
    assert other.outcome is Result.SUCCEEDED  # the journal of the service was not left in a transaction


async def test_the_same_key_is_done_once_and_told_again(house: House) -> None:
    async with house.open() as ingest:
        first = await ingest.preserve(house.source, idempotency_key="k")
        second = await ingest.preserve(house.source, idempotency_key="k")
        with pytest.raises(RequestError) as caught:
            await ingest.begin(house.source, idempotency_key="k", name="other")

    assert first.package_id == second.package_id
    assert house.ran == ["a", "b"]
    assert caught.value.code is Code.REQUEST_IDEMPOTENCY_CONFLICT


async def test_a_request_that_comes_twice_at_once_is_taken_once(house: House) -> None:
    house.gate.clear()
    async with house.open() as ingest:
        both = await asyncio.gather(*(ingest.take(house.envelope(), returning=False) for _ in range(2)))
        house.gate.set()
        while ingest.in_hand():
            await asyncio.sleep(0.01)
        done = await ingest.take(house.envelope(), returning=True)
        before = await ingest.published("r")
        await ingest.confirm([item.id for item in await ingest.outbox()])
        after = await ingest.published("r")

    assert [Disposition.TAKEN, Disposition.IN_HAND] == both
    assert (Disposition.DONE, False, True) == (done, before, after)
    assert house.ran == ["a", "b"]


async def test_a_key_for_something_else_is_refused_with_a_result(house: House) -> None:
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False)
        other = house.envelope(name="other", client_context={"n": 1})
        assert await ingest.take(other, returning=False) is Disposition.ANSWERED
        while ingest.in_hand():
            await asyncio.sleep(0.01)
        (refused,) = [item.event for item in await ingest.outbox() if item.event.kind is EventType.REQUEST_REJECTED]

    assert refused.data.client_context == {"n": 1}
    assert refused.data.error is not None
    assert refused.data.error.code is Code.REQUEST_IDEMPOTENCY_CONFLICT


async def test_an_answer_can_be_waited_for_until_it_is_published(house: House) -> None:
    async with house.open() as ingest:
        refused = [RequestError("no"), RequestError("no"), RequestError("not at all")]
        for error in refused:
            await ingest.reject(b"{}", error, name="m", reply_to=None, correlation_id=None)
        soon = await ingest.published("m", within_seconds=0.05)
        waiting = asyncio.create_task(ingest.published("m", within_seconds=10))
        await asyncio.sleep(0.05)
        told = await house.told(ingest)
        late = await waiting

    assert (False, True) == (soon, late)
    assert ["no", "not at all"] == [event.data.error.detail for event in told if event.data.error]


async def test_no_event_for_others_names_a_folder_of_this_server(house: House) -> None:
    house.results["b"] = [OSError(5, "Input/output error", str(house.work / "x"))]
    async with house.open() as ingest:
        await ingest.take(house.envelope(), returning=False)
        while ingest.in_hand():
            await asyncio.sleep(0.01)
        told = [item.event.model_dump_json() for item in await ingest.outbox()]

    assert any('"failed"' in text for text in told)
    assert str(house.work) not in "".join(told)


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "1", "data": null}',
        b'{"id": "1", "data": {"tenant": 3, "client_context": [1]}}',
        b'{"id": "1", "client_context": {"a": NaN}, "tenant": "\\ud800"}',
        b'{"id": "\\ud800", "data": {"collection": "' + b"x" * 5000 + b'"}}',
        b'{"client_context": {"a": ' + b"[" * 300 + b"]" * 300 + b"}}",
    ],
)
async def test_whatever_is_refused_can_be_told(house: House, body: bytes) -> None:
    async with house.open() as ingest:
        error = RequestError("no \udcff")
        await ingest.reject(body, error, name="m", reply_to="q", correlation_id="c")
        (item,) = await ingest.outbox()

    assert json.loads(item.event.model_dump_json())["data"]["outcome"] == "rejected"
    assert (item.reply_to, item.correlation_id) == ("q", "c")


async def test_whoever_is_refused_is_told_under_the_tenant_that_is_known(house: House) -> None:
    async with house.open() as ingest:
        for number, body in enumerate((b'{"id": "1"}', b'{"id": "2", "tenant": "own"}')):
            named: Any = {"reply_to": None, "correlation_id": None, "name": str(number)}
            await ingest.reject(body, RequestError("no"), tenant="acme", **named)
        tenants = [item.event.data.tenant for item in await ingest.outbox()]

    assert ["acme", "own"] == tenants


async def test_who_does_not_look_at_progress_does_not_pile_it_up(house: House) -> None:
    house.gate.clear()
    async with house.open() as ingest:
        preservation = await ingest.begin(house.source)
        glance = Event(type=EventType.REQUEST_PROGRESS.full, subject="r", data=_data())
        for _ in range(5000):
            preservation.tell(glance)
        assert preservation._events.qsize() < 200
        house.gate.set()
        assert (await preservation).outcome is Result.SUCCEEDED


def _data() -> Any:
    from ingestd.messages import EventData, RequestState

    return EventData(request_id="r", sequence=0, state=RequestState.RUNNING)


async def test_a_source_whose_path_is_not_utf_8_can_be_preserved(house: House) -> None:
    source = house.tmp_path / os.fsdecode(b"caf\xe9 %41")
    source.mkdir()
    (source / "a").write_text("a")
    async with house.open() as ingest:
        result = await ingest.preserve(source)

    assert result.outcome is Result.SUCCEEDED
    assert "caf%E9" in (result.package_name or "")


async def test_a_folder_that_cannot_be_made_fails_its_package_and_stops_no_other(house: House) -> None:
    house.gate.clear()
    async with house.open() as ingest:
        other = await ingest.begin(house.source)
        await house.until(lambda: bool(house.ran))
        asked = {"id": "1", "source": "s", "data": {"source": {"location": "/a"}, "idempotency_key": "k"}}
        (house.work / str(parse_request(asked).data.package_id())).write_text("in its way")
        result = await ingest.preserve(house.source, idempotency_key="k")
        house.gate.set()

        assert (Result.FAILED, Result.SUCCEEDED) == (result.outcome, (await other).outcome)


async def test_a_fault_of_the_journal_stops_one_package_and_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = ServiceJournal.advance

    async def fail(self: ServiceJournal, package: uuid.UUID, *of: Any, **more: Any) -> Event:
        if package != other.package:
            raise SystemFault("the journal failed: database is locked")
        return await advance(self, package, *of, **more)

    house.gate.clear()
    async with house.open() as ingest:
        other = await ingest.begin(house.source)
        await house.until(lambda: bool(house.ran))
        monkeypatch.setattr(ServiceJournal, "advance", fail)
        with pytest.raises(SystemFault, match="locked"):
            await ingest.preserve(house.source, idempotency_key="k")
        house.gate.set()

        assert (await other).outcome is Result.SUCCEEDED


async def test_what_fails_beside_the_packages_is_begun_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "AGAIN_SECONDS", 0.01)
    sweeps: list[Janitor] = []

    async def sweep(self: Janitor, **_: bool) -> None:
        sweeps.append(self)
        if len(sweeps) < 3:
            raise SystemFault("the journal failed: database is locked")

    monkeypatch.setattr(Janitor, "sweep", sweep)
    async with house.open() as ingest:
        await house.until(lambda: len(sweeps) == 3)

        assert (await ingest.preserve(house.source)).outcome is Result.SUCCEEDED
