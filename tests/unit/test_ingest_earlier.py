"""What was asked for before without a broker, and whose end nobody heard."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from pathlib import Path

import pytest

from ingestd.config import SourceSettings
from ingestd.errors import ContentError, RequestError, ResourceError
from ingestd.journal import ServiceJournal
from ingestd.messages import EventData, Outcome
from ingestd.sources import written_since
from tests.small_service import House

UNSAID = "could not say so"


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def come_to_a_result(house: House, **request: object) -> uuid.UUID:
    """Come to a result that nobody takes, as a process does that dies right after it was recorded."""
    async with house.open() as ingest:
        preservation = await ingest.begin(house.source, **request)  # type: ignore[arg-type]
        await house.until(lambda: any(event.kind.terminal for event in house.events))
        await house.until(lambda: not ingest.in_hand())
    house.events.clear()
    return preservation.package


async def ask(house: House, **request: object) -> tuple[EventData, str]:
    """Ask for it as a new process does; give the result, and what is said of an earlier run."""
    async with house.open() as ingest:
        preservation = await ingest.begin(house.source, **request)  # type: ignore[arg-type]
        return await preservation, preservation.remark


async def test_a_result_that_nobody_was_told_is_given_once_to_who_asks_for_the_same(house: House) -> None:
    package = await come_to_a_result(house)

    again, said = await ask(house)
    anew, nothing = await ask(house)

    assert (package, Outcome.SUCCEEDED) == (again.package_id, again.outcome)
    assert UNSAID in said
    assert anew.package_id != package
    assert nothing == ""
    assert house.ran == ["a", "b", "a", "b"]


async def test_who_asks_for_something_else_or_anew_is_given_no_earlier_result(house: House) -> None:
    package = await come_to_a_result(house)

    other, _ = await ask(house, name="other")
    anew, said = await ask(house, again=True)

    assert package not in {other.package_id, anew.package_id}
    assert said == ""


async def test_a_result_is_told_when_who_iterates_comes_back_from_its_event(house: House) -> None:
    async with house.open() as ingest:
        cut = await ingest.begin(house.source)
        async for event in cut:
            if event.kind.terminal:
                break
    async with house.open() as ingest:
        again = await ingest.begin(house.source)
        async for _ in again:
            pass
    anew, _ = await ask(house)

    assert again.package == cut.package
    assert anew.package_id != cut.package


async def test_a_result_that_waits_in_its_handle_is_nobody_elses(house: House) -> None:
    async with house.open() as ingest:
        first = await ingest.begin(house.source)
        await house.until(lambda: not ingest.in_hand())
        second = await ingest.begin(house.source)

        assert {first.package, second.package} == {(await first).package_id, (await second).package_id}
    assert first.package != second.package


async def test_a_failure_that_nobody_was_told_is_told_and_then_all_begins_anew(house: House) -> None:
    house.results["b"] = [ResourceError("disk")]
    package = await come_to_a_result(house)

    again, said = await ask(house)
    anew, _ = await ask(house)

    assert (package, Outcome.FAILED) == (again.package_id, again.outcome)
    assert "failed" in said
    assert Outcome.SUCCEEDED is anew.outcome


async def test_what_was_cancelled_and_not_told_is_told(house: House) -> None:
    house.gate.clear()
    package = await come_to_a_result(house, deadline_seconds=0.1)
    house.gate.set()

    again, _ = await ask(house)

    assert (package, Outcome.CANCELLED) == (again.package_id, again.outcome)


async def test_what_was_refused_and_not_told_is_looked_at_anew(house: House) -> None:
    away = house.source.rename(house.tmp_path / "away")
    package = await come_to_a_result(house)
    away.rename(house.source)

    again, said = await ask(house)

    assert package != again.package_id
    assert (Outcome.SUCCEEDED, "") == (again.outcome, said)


async def test_a_result_is_not_given_for_a_source_that_was_written_since(house: House) -> None:
    package = await come_to_a_result(house)
    (house.source / "new").write_text("new")

    anew, said = await ask(house)
    _, nothing = await ask(house)

    assert anew.package_id != package
    assert UNSAID in said
    assert "source was written" in said
    assert nothing == ""


async def test_what_was_interrupted_is_gone_on_with_and_says_that_its_source_was_written_since(house: House) -> None:
    house.gate.clear()
    async with house.open() as ingest:
        stopped = await ingest.begin(house.source)
        await house.until(lambda: bool(house.ran))
    house.gate.set()
    (house.source / "a").write_text("other")

    again, said = await ask(house)

    assert again.package_id == stopped.package
    assert " a was written" in said


async def test_what_is_stored_and_was_not_told_is_told_to_who_resumes_it_once(house: House) -> None:
    package = await come_to_a_result(house)
    async with house.open() as ingest:
        result = await (await ingest.resume(package))
        with pytest.raises(RequestError, match="nothing to attempt again"):
            await ingest.resume(package)

    assert (package, Outcome.SUCCEEDED) == (result.package_id, result.outcome)
    assert house.ran == ["a", "b"]


async def test_what_failed_and_was_not_told_is_gone_on_with_by_who_resumes_it(house: House) -> None:
    house.results["b"] = [ContentError("bad")]
    package = await come_to_a_result(house)
    async with house.open() as ingest:
        result = await (await ingest.resume(package))
    anew, _ = await ask(house)

    assert (package, Outcome.SUCCEEDED) == (result.package_id, result.outcome)
    assert anew.package_id != package


async def test_who_gives_a_key_has_no_need_of_it(house: House) -> None:
    package = await come_to_a_result(house, idempotency_key="k")

    results = [await ask(house, idempotency_key="k") for _ in range(2)]

    assert [package, package] == [result.package_id for result, _ in results]


async def test_a_result_is_given_though_its_telling_cannot_be_recorded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise ResourceError("no space is left")

    with monkeypatch.context() as patched:
        patched.setattr(ServiceJournal, "told", full)
        first, _ = await ask(house)
    again, said = await ask(house)

    assert first.model_dump_json() == again.model_dump_json()
    assert UNSAID in said


async def test_a_result_can_be_taken_after_the_service_was_left(house: House) -> None:
    async with house.open() as ingest:
        preservation = await ingest.begin(house.source)
        await house.until(lambda: not ingest.in_hand())

    assert (await preservation).outcome is Outcome.SUCCEEDED


async def test_two_who_ask_at_once_for_what_nobody_was_told_make_no_third_of_one(house: House) -> None:
    package = await come_to_a_result(house)
    async with house.open() as ingest:
        first, second = await asyncio.gather(ingest.begin(house.source), ingest.begin(house.source))
        results = [await first, await second]

    assert results[0].package_id == package
    assert results[1].package_id != package


# --- whether a source was written


@pytest.mark.parametrize("name", ["plain", "new\nline", os.fsdecode(b"caf\xe9")])
def test_what_was_written_in_a_source_is_named(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / name).write_text("x")
    at = time.time() + 10
    assert written(source, at) == ""

    os.utime(source / "deep" / name, (at + 1, at + 1))
    in_place = written(source, at)
    os.utime(source / "deep" / name, (0, 0))
    os.utime(source / "deep", (at + 1, at + 1))

    assert in_place.startswith("deep/")
    assert in_place.isprintable()
    assert written(source, at) == "deep"
    assert written(source / "deep", at) == "deep"
    assert written(source / "deep" / name, at) == ""


def test_of_what_is_gone_or_elsewhere_nobody_can_tell(tmp_path: Path) -> None:
    (tmp_path / "closed").symlink_to(tmp_path / "nothing")

    assert ["", "", "", ""] == [
        written(place, 0)
        for place in (
            tmp_path / "gone",
            tmp_path / "closed",
            "https://example.org/a.zip",
            "urn:uuid:" + str(uuid.uuid4()),
        )
    ]


def written(source: Path | str, at: float) -> str:
    return written_since(str(source), SourceSettings(), at)
