from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ingestd.errors import SystemFault
from ingestd.journal import PackageJournal
from ingestd.oais import Directory, Facts, File, Rename, Warning_
from ingestd.premis import Agent, AgentType, Event, EventType, Program
from tests.steps import AT, a_file


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[PackageJournal]:
    journal = await PackageJournal.open(tmp_path / "journal.db")
    yield journal
    await journal.close()


async def all_files(journal: PackageJournal, **more: object) -> list[File]:
    return [file async for window in journal.files(**more) for file in window]  # type: ignore[arg-type]


async def test_what_is_recorded_is_there_when_the_journal_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.db"
    first = await PackageJournal.open(path)
    await first.record(Facts(files=[a_file("objects/a")], package={"name": "n"}))
    await first.close()

    again = await PackageJournal.open(path)

    assert ["objects/a"] == [file.path for file in await all_files(again)]
    assert await again.facts() == {"name": "n"}
    await again.close()


async def test_facts_are_recorded_all_or_none(journal: PackageJournal) -> None:
    twin = replace(a_file("objects/a"), id=uuid.uuid4())

    with pytest.raises(SystemFault):
        await journal.record(
            Facts(
                package={"k": "v"}, directories=[Directory(path="d", original="d")], files=[a_file("objects/a"), twin]
            )
        )

    assert await journal.facts() == {}
    assert await all_files(journal) == []
    assert await journal.taken(["d"]) == frozenset()


@pytest.mark.parametrize("moment", range(12))
async def test_a_cancelled_record_leaves_the_journal_able_to_write(journal: PackageJournal, moment: int) -> None:
    async def record() -> None:
        await journal.record(Facts(files=[a_file("objects/a")]))

    async with asyncio.TaskGroup() as group:
        task = group.create_task(record())
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()

    await journal.record(Facts(package={"k": "v"}))

    assert await journal.facts() == {"k": "v"}
    assert (await journal.totals()).files in {0, 1}


async def test_a_reader_never_sees_half_of_a_window(journal: PackageJournal) -> None:
    """Two records of one transaction are both seen, or neither."""
    seen: set[int] = set()

    async def look() -> None:
        for _ in range(60):
            seen.add((await journal.totals()).files)

    async def write() -> None:
        for number in range(20):
            await journal.record(Facts(files=[a_file(f"a{number}"), a_file(f"b{number}")]))

    async with asyncio.TaskGroup() as group:
        group.create_task(look())
        group.create_task(write())

    assert all(count % 2 == 0 for count in seen)


async def test_renames_of_a_window_are_made_in_their_order(journal: PackageJournal) -> None:
    await journal.record(Facts(files=[a_file("a/x"), a_file("b/x")]))

    await journal.record(Facts(renames=[Rename(old="a", new="c"), Rename(old="b", new="a"), Rename(old="c", new="b")]))

    assert {"a/x": "b/x", "b/x": "a/x"} == {file.original: file.path for file in await all_files(journal)}


async def plans(tmp_path: Path, journal: PackageJournal, work: Callable[[], Awaitable[object]]) -> list[str]:
    """How SQLite goes about each statement of `work` that looks for rows."""
    told: list[str] = []
    connection = journal._db._connection
    await connection.set_trace_callback(told.append)
    await work()
    await connection.set_trace_callback(lambda _: None)
    steps: list[str] = []
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as other:
        for statement in told:
            if statement.startswith(("SELECT", "UPDATE")):
                steps += [f"{row[3]}: {statement}" for row in other.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert steps
    return steps


@pytest.mark.parametrize("as_received", [False, True])
async def test_a_rename_looks_at_what_it_moves_and_at_nothing_else(
    tmp_path: Path, journal: PackageJournal, as_received: bool
) -> None:
    async def rename() -> None:
        await journal.record(Facts(renames=[Rename(old="a", new="objects/a", as_received=as_received)]))

    assert not [step for step in await plans(tmp_path, journal, rename) if step.startswith("SCAN")]


@pytest.mark.parametrize("by_path", [False, True])
async def test_a_page_is_read_in_order_without_sorting_all_there_is(
    tmp_path: Path, journal: PackageJournal, by_path: bool
) -> None:
    async def page() -> None:
        await all_files(journal, under="objects", by_path=by_path)
        await all_files(journal, by_path=by_path)

    steps = await plans(tmp_path, journal, page)

    assert not [step for step in steps if "TEMP B-TREE" in step]
    assert all(step.startswith("SEARCH") for step in steps), steps


async def test_looking_files_up_uses_an_index(tmp_path: Path, journal: PackageJournal) -> None:
    async def look() -> None:
        some = uuid.uuid4()
        await journal.files_at(["a", "b"])
        await journal.file_at("a")
        await journal.taken(["a", "b"])
        await journal.files_received_as(["a"])
        await journal.directory_received_as("a")
        await journal.events([some])
        await journal.extensions([some])
        await journal.descriptions([some])
        await journal.derivatives([some])

    steps = [step for step in await plans(tmp_path, journal, look) if "SCAN (subquery" not in step]

    assert not [step for step in steps if step.startswith("SCAN")], steps


async def test_a_job_that_was_interrupted_is_taken_up_with_its_cursor_and_its_exit_code(
    journal: PackageJournal,
) -> None:
    job = await journal.start_job("link", "Name", "step")
    await journal.record(Facts(), job=job.row, cursor=7, files_done=3, exit_code=2)
    await journal.record(Facts(), job=job.row, cursor=5, files_done=1, exit_code=1)

    again = await journal.start_job("link", "Name", "step")

    assert (job.row, 7, 4, 2) == (again.row, again.cursor, again.files_done, again.exit_code)
    assert again.ended_at is None
    assert (job.again, again.again) == (False, True)


async def test_a_job_that_ended_is_not_taken_up_and_its_end_says_where_to_go_on(journal: PackageJournal) -> None:
    job = await journal.start_job("link", "Name", "step")
    await journal.end_job(job.row, 1, 0.5, "next", Facts(package={"failed_link": "link"}))

    again = await journal.start_job("link", "Name", "step")

    assert again.row != job.row
    assert again.again
    assert {"next_link": "next", "failed_link": "link"} == await journal.facts()
    assert [(1, 0.5), (None, 0.0)] == [(job.exit_code, job.seconds) for job in await journal.jobs()]


async def test_warnings_are_said_once_counted_and_sampled(journal: PackageJournal) -> None:
    same = Warning_(code="c", detail="d", path=os.fsdecode(b"caf\xe9"))
    await journal.record(Facts(warnings=[same, same]))
    await journal.record(Facts(warnings=[same, *(replace(same, path=str(number)) for number in range(5))]))
    await journal.record(Facts(warnings=[Warning_(code="b", detail="other")]))

    counted = await journal.count_warnings()

    assert [("c", 6), ("b", 1)] == [(code, count) for code, count, _ in counted]
    assert ["caf\udce9: d", "0: d", "1: d"] == counted[0][2]
    assert 7 == sum([len(window) async for window in journal.warnings()])


async def test_agents_and_tools_are_kept_once(journal: PackageJournal) -> None:
    agent = Agent(identifier_type="t", identifier="i", name="n", type=AgentType.SOFTWARE)
    await journal.add_agents([agent])
    await journal.add_agents([agent])
    await journal.record(Facts(), tools=[("7z", "26", "packing"), ("7z", "26", "unpacking"), ("7z", "26", "packing")])

    assert [agent] == await journal.agents()
    assert [("7z", "26", "packing, unpacking")] == await journal.tools()


async def test_the_programs_of_an_event_are_kept_also_in_a_journal_of_an_earlier_version(tmp_path: Path) -> None:
    file = a_file("a")
    journal = await PackageJournal.open(tmp_path / "package.db")
    await journal.record(Facts(files=[file], events=[Event(object=file.id, type=EventType.INGESTION, at=AT)]))
    await journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "package.db")) as database:
        database.execute("ALTER TABLE event DROP COLUMN programs")
    program = Program("Siegfried", "1.11")
    journal = await PackageJournal.open(tmp_path / "package.db")

    await journal.record(Facts(events=[Event(object=file.id, type=EventType.CREATION, at=AT, programs=[program])]))

    assert [[], [program]] == [list(event.programs) for event in (await journal.events([file.id]))[file.id]]
    await journal.close()


async def test_what_cannot_be_recorded_takes_all_back_that_came_with_it(journal: PackageJournal) -> None:
    with pytest.raises(OverflowError):
        await journal.record(Facts(files=[a_file("a"), replace(a_file("b"), size_bytes=2**63)]))

    assert (await journal.totals()).files == 0


async def test_text_that_is_no_unicode_is_recorded_as_far_as_it_is(journal: PackageJournal) -> None:
    event = Event(object=uuid.uuid4(), type=EventType.CREATION, at=AT, detail="caf\udce9 \ud800 \u00e9")
    await journal.record(Facts(events=[event], warnings=[Warning_(code="a.b", detail="\udfff")]))

    assert ["caf%E9 %00 \u00e9"] == [one.detail for one in (await journal.events([event.object]))[event.object]]
    assert [("a.b", 1, ["%FF"])] == await journal.count_warnings()


async def test_a_file_that_is_no_database_is_a_fault_of_the_journal(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"nothing like a database, but long enough to look at" * 100)

    with pytest.raises(SystemFault, match="journal"):
        await PackageJournal.open(tmp_path / "journal.db")


async def test_count_identified_counts_files_of_a_known_format_that_are_there(journal: PackageJournal) -> None:
    from ingestd.premis import Format

    png = Format(name="PNG", puid="fmt/13")
    await journal.record(
        Facts(
            files=[
                a_file("a", format=png),
                a_file("b", format=Format(name="Unknown")),
                a_file("c", format=png, removed=True),
                a_file("d"),
                a_file("e", format=Format(name="Canon CR2 Raw", version="2.0")),
            ]
        )
    )

    assert await journal.count_identified() == 2
