from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingestd.errors import SystemFault
from ingestd.journal import RequestRecord, RuleCount, ServiceJournal
from ingestd.messages import Event, EventData, EventType, Outcome, RequestEnvelope, RequestState, parse_request


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[ServiceJournal]:
    journal = await ServiceJournal.open(tmp_path / "service.db")
    yield journal
    await journal.close()


def envelope(key: str = "k") -> RequestEnvelope:
    return parse_request({"id": key, "source": "me", "data": {"source": {"location": "/x"}, "idempotency_key": key}})


async def added(journal: ServiceJournal, key: str = "k", **more: Any) -> RequestRecord:
    return await journal.add(envelope(key), origin="amqp", **more)


def event(kind: EventType = EventType.REQUEST_STARTED, detail: str = "r", **more: Any) -> Event:
    data = EventData(request_id=detail, sequence=0, state=RequestState.RECEIVED, **more)
    return Event(type=kind.full, subject=detail, data=data)


DONE = event(EventType.AIP_STORED, outcome=Outcome.SUCCEEDED)


async def test_a_request_comes_back_as_it_was_journalled(tmp_path: Path, journal: ServiceJournal) -> None:
    record = await added(journal, reply_to="q", correlation="c", attempt=3)
    again = await ServiceJournal.open(tmp_path / "service.db")

    assert record == await again.get(record.package)
    assert (envelope(), RequestState.RECEIVED, 3, 0) == (record.envelope, record.state, record.attempt, record.sequence)
    await again.close()


async def test_the_same_request_is_not_journalled_twice(journal: ServiceJournal) -> None:
    await added(journal)

    with pytest.raises(SystemFault):
        await added(journal)


async def test_nobody_is_nothing(journal: ServiceJournal) -> None:
    assert await journal.get(uuid.uuid4()) is None


async def test_sequences_strictly_increase_within_an_attempt_and_begin_anew_with_the_next(
    journal: ServiceJournal,
) -> None:
    package = (await added(journal)).package

    async def advance(state: RequestState) -> int:
        return (await journal.advance(package, state, event(), publish=True)).data.sequence

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(advance(RequestState.RUNNING)) for _ in range(20)]
    assert list(range(1, 21)) == sorted(task.result() for task in tasks)

    await journal.begin_attempt(package, 2)
    assert await advance(RequestState.RUNNING) == 1
    assert await advance(RequestState.RUNNING) == 2
    published = [item.event.data.sequence for item in await journal.outbox(100)]
    assert [*range(1, 21), 1, 2] == published


async def test_a_state_and_its_event_become_true_together(journal: ServiceJournal) -> None:
    package = (await added(journal)).package
    told = await journal.advance(package, RequestState.SUCCEEDED, DONE, publish=True)
    record = await journal.get(package)

    assert record is not None
    assert (RequestState.SUCCEEDED, RequestState.SUCCEEDED) == (record.state, told.data.state)
    assert record.result is not None
    assert record.result.id == told.id == (await journal.outbox(1))[0].event.id
    assert record.finished_at is not None


@pytest.mark.parametrize("moment", range(16))
async def test_whenever_it_is_cancelled_both_are_true_or_neither_and_the_journal_goes_on(
    journal: ServiceJournal, moment: int
) -> None:
    package = (await added(journal)).package
    async with asyncio.TaskGroup() as group:
        task = group.create_task(journal.advance(package, RequestState.SUCCEEDED, DONE, publish=True))
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()

    other = (await added(journal, "other")).package
    await journal.advance(other, RequestState.RUNNING, event(), publish=False)
    record = await journal.get(package)

    assert record is not None
    assert (record.state is RequestState.SUCCEEDED) == bool(await journal.outbox(1)) == (record.result is not None)


async def test_the_outbox_keeps_its_order_until_it_is_confirmed(journal: ServiceJournal) -> None:
    packages = [(await added(journal, key)).package for key in ("a", "b")]
    for number in range(6):
        await journal.advance(packages[number % 2], RequestState.RUNNING, event(detail=f"{number}"), publish=True)
    await journal.advance(packages[0], RequestState.RUNNING, event(detail="quiet"), publish=False)

    items = await journal.outbox(4)
    assert ["0", "1", "2", "3"] == [item.event.subject for item in items]
    await journal.confirm([items[0].id, items[2].id])

    assert ["1", "3", "4", "5"] == [item.event.subject for item in await journal.outbox(100)]
    assert await journal.count_unconfirmed() == 4
    await journal.confirm([item.id for item in await journal.outbox(100)])
    assert await journal.outbox(100) == []


async def test_a_confirmed_row_is_never_the_number_of_another(journal: ServiceJournal) -> None:
    package = (await added(journal)).package
    await journal.advance(package, RequestState.RUNNING, event(), publish=True)
    (first,) = await journal.outbox(1)
    await journal.confirm([first.id])
    await journal.advance(package, RequestState.RUNNING, event(), publish=True)

    (second,) = await journal.outbox(1)
    await journal.confirm([first.id])

    assert second.id > first.id
    assert await journal.count_unconfirmed() == 1


async def test_a_result_is_known_to_be_confirmed_only_after_it_was(journal: ServiceJournal) -> None:
    package = (await added(journal)).package
    await journal.advance(package, RequestState.SUCCEEDED, DONE, publish=True)
    assert not await journal.result_confirmed(package)

    await journal.confirm([item.id for item in await journal.outbox(10)])

    assert await journal.result_confirmed(package)


async def test_answers_go_to_whom_the_request_named_unless_others_are_given(journal: ServiceJournal) -> None:
    package = (await added(journal, reply_to="asker", correlation="c")).package
    await journal.advance(package, RequestState.RUNNING, event(), publish=True)
    await journal.publish(event(), package=package, reply_to="other", correlation="d")
    await journal.publish(event(), package=None, reply_to=None, correlation=None)

    assert [("asker", "c"), ("other", "d"), (None, None)] == [
        (item.reply_to, item.correlation_id) for item in await journal.outbox(10)
    ]


async def test_unfinished_requests_are_those_without_a_result(journal: ServiceJournal) -> None:
    done, open_ = (await added(journal, "done")).package, (await added(journal, "open")).package
    await journal.advance(done, RequestState.SUCCEEDED, DONE, publish=False)

    assert [open_] == [record.package for record in await journal.unfinished()]
    assert [open_] == [record.package for record in await journal.unfinished(origin="amqp")]
    assert await journal.unfinished(origin="embedded") == []


async def test_without_a_broker_what_has_no_result_that_was_told_is_unanswered(journal: ServiceJournal) -> None:
    open_, done, refused, told = [
        await journal.add(envelope(key), origin="embedded") for key in ("open", "done", "refused", "told")
    ]
    await journal.add(envelope("of a message"), origin="amqp")
    for record, state in (
        (done, RequestState.SUCCEEDED),
        (refused, RequestState.REJECTED),
        (told, RequestState.FAILED),
    ):
        await journal.advance(record.package, state, DONE, publish=False)
    await journal.told(told.package)

    found = await journal.unanswered(open_.content_digest)
    assert [(open_.package, False), (done.package, True)] == [(one.package, one.untold) for one in found]
    assert await journal.unanswered("other") == []


async def test_what_ended_before_there_was_such_a_mark_was_told(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    journal = await ServiceJournal.open(path)
    record = await journal.add(envelope(), origin="embedded")
    await journal.advance(record.package, RequestState.SUCCEEDED, DONE, publish=False)
    await journal.close()
    with contextlib.closing(sqlite3.connect(path)) as older:
        older.execute("ALTER TABLE request DROP COLUMN untold")
    journal = await ServiceJournal.open(path)

    assert await journal.unanswered(record.content_digest) == []
    await journal.close()


async def test_a_failed_request_that_is_taken_up_has_no_result_any_more(journal: ServiceJournal) -> None:
    package = (await added(journal)).package
    await journal.advance(package, RequestState.FAILED, event(EventType.REQUEST_FAILED), publish=False)
    record = await journal.reopen(package, 2)

    assert (None, None, 2) == (record.result, record.finished_at, record.attempt)
    assert [package] == [one.package for one in await journal.unfinished()]


def counted(attempts: int, okay: int, command: str = "convert") -> RuleCount:
    return RuleCount(rule="preservation:fmt/116", command=command, attempts=attempts, okay=okay)


async def test_rules_are_counted_with_the_end_of_a_request_and_once_however_often_it_ends(
    journal: ServiceJournal,
) -> None:
    one, other = (await added(journal)).package, (await added(journal, "other")).package

    await journal.advance(one, RequestState.FAILED, DONE, publish=False, rules=[counted(3, 1)])
    await journal.advance(one, RequestState.FAILED, DONE, publish=False, rules=[counted(3, 1)])
    await journal.advance(one, RequestState.SUCCEEDED, DONE, publish=False, rules=[counted(5, 3), counted(1, 1, "gm")])
    await journal.advance(other, RequestState.SUCCEEDED, DONE, publish=False, rules=[counted(2, 2)])

    assert [counted(7, 5), counted(1, 1, "gm")] == await journal.rule_counts()
    assert 2 == counted(7, 5).not_okay


async def test_a_package_that_is_begun_anew_is_counted_anew(journal: ServiceJournal) -> None:
    package = (await added(journal)).package

    await journal.advance(package, RequestState.FAILED, DONE, publish=False, rules=[counted(3, 1)])
    await journal.advance(package, RequestState.SUCCEEDED, DONE, publish=False, rules=[counted(2, 2)])

    assert [counted(5, 3)] == await journal.rule_counts()
