"""ingestd within another program: no broker, no process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import ingestd
from ingestd.config import Settings
from ingestd.errors import RequestError
from ingestd.ingest import Ingest
from ingestd.messages import Event, EventType, Outcome, RequestState
from tests.acceptance.aips import open_aip, stored_below, stored_path
from tests.acceptance.corpora import SMALL_FILES, many_files, small_transfer
from tests.acceptance.program import NO_DERIVATIVES

pytestmark = [pytest.mark.tool]


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder / "data", concurrent_packages=2, processing=NO_DERIVATIVES)


@pytest.fixture
async def ingest(tmp_path: Path) -> AsyncIterator[Ingest]:
    async with ingestd.open(settings_in(tmp_path)) as opened:
        yield opened


async def test_a_folder_is_preserved_and_its_events_are_iterated_over(ingest: Ingest, tmp_path: Path) -> None:
    preservation = await ingest.begin(small_transfer(tmp_path / "photographs"), name="Photographs")
    events: list[Event] = [event async for event in preservation]
    result = await preservation

    kinds = [event.kind for event in events]
    assert kinds[:2] == [EventType.REQUEST_ACCEPTED, EventType.REQUEST_STARTED]
    assert kinds[-1] is EventType.AIP_STORED
    assert [kind for kind in kinds if kind.terminal] == [EventType.AIP_STORED]
    assert EventType.AIP_CREATED in kinds
    sequences = [event.data.sequence for event in events if event.kind is not EventType.REQUEST_PROGRESS]
    assert sequences == sorted(set(sequences))
    assert result == events[-1].data
    assert result.outcome in {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}
    assert result.package_name == "Photographs"
    aip = open_aip(stored_path(result.model_dump(mode="json")), tmp_path / "opened")
    assert len(aip.of("original")) == SMALL_FILES


async def test_the_result_can_be_awaited_alone_and_more_than_once(ingest: Ingest, tmp_path: Path) -> None:
    preservation = await ingest.begin(small_transfer(tmp_path / "photographs"))

    first, second = await asyncio.gather(preservation, preservation)

    assert first == second == await preservation
    assert first.aip is not None


async def test_two_packages_at_once_are_two_aips(ingest: Ingest, tmp_path: Path) -> None:
    sources = [many_files(tmp_path / name, 20) for name in ("first", "second")]

    preservations = [await ingest.begin(source, name="same name") for source in sources]
    results = await asyncio.gather(*preservations)

    assert [result.counts.originals for result in results if result.counts] == [20, 20]
    assert len({result.package_id for result in results}) == 2
    assert len(stored_below(tmp_path / "data" / "aips")) == 2


async def test_more_packages_than_slots_wait_for_their_turn(ingest: Ingest, tmp_path: Path) -> None:
    preservations = [await ingest.begin(small_transfer(tmp_path / f"number {n}")) for n in range(5)]

    results = await asyncio.gather(*preservations)

    assert len({result.package_id for result in results}) == 5
    assert all(result.aip for result in results)


async def test_what_cannot_be_preserved_is_a_result_and_no_exception(ingest: Ingest, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    missing = await ingest.preserve(tmp_path / "missing")
    empty = await ingest.preserve(tmp_path / "empty")

    assert (missing.outcome, missing.state) == (Outcome.REJECTED, RequestState.REJECTED)
    assert missing.error is not None
    assert missing.error.code == "source.not_found"
    assert empty.outcome is Outcome.REJECTED
    assert empty.error is not None
    assert empty.error.code == "content.empty"


async def test_a_request_that_is_none_is_an_exception_at_once(ingest: Ingest, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as raised:
        await ingest.begin(tmp_path, name="a/b")

    assert [violation.path for violation in raised.value.violations] == ["data.name"]
    assert await ingest.requests() == []


def begins(event: Event) -> bool:
    return event.kind in {EventType.LINK_STARTED, EventType.LINK_RETRYING}


async def test_leaving_stops_the_work_and_opening_again_goes_on_with_it(tmp_path: Path) -> None:
    source = many_files(tmp_path / "many", 120)
    interrupted = ""
    async with ingestd.open(settings_in(tmp_path)) as ingest:
        first = await ingest.begin(source)
        async for event in first:
            if event.kind is EventType.LINK_STARTED and event.data.link and "Identify" in event.data.link.name:
                interrupted = event.data.link.id
                break

    with pytest.raises(asyncio.CancelledError):
        await first
    assert stored_below(tmp_path / "data" / "aips") == []

    async with ingestd.open(settings_in(tmp_path)) as ingest:
        (waiting,) = await ingest.requests()
        assert waiting.package == first.package
        second = await ingest.begin(source)
        kinds = {event.data.link.id: event.kind async for event in second if event.data.link and begins(event)}
        result = await second

    assert EventType.LINK_RETRYING is kinds.pop(interrupted)
    assert {EventType.LINK_STARTED} == set(kinds.values())
    assert result.package_id == first.package
    assert result.attempt == 2
    assert result.counts is not None
    assert result.counts.originals == 120
    assert len(stored_below(tmp_path / "data" / "aips")) == 1


async def test_cancelling_who_waits_does_not_cancel_the_work(ingest: Ingest, tmp_path: Path) -> None:
    preservation = await ingest.begin(many_files(tmp_path / "some", 30))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await preservation

    assert (await preservation).aip is not None


async def test_a_deadline_ends_a_package_as_cancelled(ingest: Ingest, tmp_path: Path) -> None:
    result = await ingest.preserve(many_files(tmp_path / "some", 200), deadline_seconds=0.05)

    assert result.outcome is Outcome.CANCELLED
    assert result.error is not None
    assert result.error.code == "cancelled.by_deadline"
    assert stored_below(tmp_path / "data" / "aips") == []


@pytest.mark.parametrize(
    ("reached", "from_", "first"),
    [
        ("verify_aip", "characterize_file", "receive_transfer"),  # its files are in the bag now
        ("generate_mets", "identify_file_format", "identify_file_format"),
        ("generate_mets", "save_directory_tree", "receive_transfer"),  # metadata are in another place now
        ("characterize_file", "receive_transfer", "receive_transfer"),
    ],
)
async def test_a_retry_comes_to_any_link_that_was_reached(
    ingest: Ingest, tmp_path: Path, reached: str, from_: str, first: str
) -> None:
    """From where the files are as that link found them: there, or else at the start."""
    source = small_transfer(tmp_path / "source")
    (source / "metadata/submissionDocumentation").mkdir(parents=True)
    (source / "metadata/submissionDocumentation/agreement.txt").write_text("yes")
    preservation = await ingest.begin(source, processing={"validate_formats": False, "scan_for_viruses": False})
    links: dict[str, str] = {}
    async for event in preservation:
        link = event.data.link
        if link is not None and event.kind is EventType.LINK_STARTED:
            links.setdefault(link.execute, link.id)
            if link.execute == reached:
                await ingest.cancel(str(preservation.package))
    again = await ingest.retry(str(preservation.package), start=links[from_])
    starts = {EventType.LINK_STARTED, EventType.LINK_RETRYING}
    begun = [event.data.link.execute async for event in again if event.data.link and event.kind in starts]
    result = await again

    assert result.outcome in {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}, result.error
    assert result.counts is not None
    assert (SMALL_FILES, 1) == (result.counts.originals, result.counts.submission_documentation)
    assert (first, True) == (begun[0], from_ in begun)
