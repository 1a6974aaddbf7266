"""Priorities, turns, commands and kept messages on a real broker."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import aio_pika
import pytest

from ingestd.config import AmqpSettings
from ingestd.errors import DependencyError
from ingestd.messages import Cancel, CancelData, Priority, parse_request
from ingestd.transport.amqp import client, kept
from tests.broker_tests import looking, names, request, serving
from tests.fake_intake import FakeIntake

pytestmark = pytest.mark.broker


@pytest.fixture
def settings(rabbit_url: str) -> AmqpSettings:
    return names(rabbit_url)


async def test_every_priority_has_its_queue_and_none_waits_behind_all_of_another(settings: AmqpSettings) -> None:
    await client.declare(settings)
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        for number in range(3):
            envelope = parse_request(request(f"{priority}-{number}", priority=priority, tenant=f"t{number}"))
            await client.submit(settings, envelope, f"t{number}")
    intake = FakeIntake(slots=9)
    async with serving(intake, settings):
        await intake.until(lambda: len(intake.taken) == 9)

    order = [taken.envelope.id for taken in intake.taken]
    assert [name for name in order if name.startswith("high")] == ["high-0", "high-1", "high-2"]
    assert order.index("high-2") < order.index("normal-2")
    assert order.index("low-0") < 8


async def test_a_tenant_s_requests_of_each_priority_come_in_their_order(settings: AmqpSettings) -> None:
    await client.declare(settings)
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        for number in range(4):
            envelope = parse_request(request(f"{priority}-{number}", priority=priority, tenant="a"))
            await client.submit(settings, envelope, "a")
    intake = FakeIntake(slots=12)
    async with serving(intake, settings):
        await intake.until(lambda: len(intake.taken) == 12)

    order = [taken.envelope.id for taken in intake.taken]
    for priority in Priority:
        assert [f"{priority}-{number}" for number in range(4)] == [name for name in order if name.startswith(priority)]
    assert order.index("high-3") < order.index("low-1")


async def test_one_tenant_s_many_requests_do_not_hold_up_another_s_one(settings: AmqpSettings) -> None:
    await client.declare(settings)
    intake = FakeIntake(slots=2)
    async with looking(settings) as look:
        for number in range(60):
            await look.publish(request(f"many-{number}", tenant="many"), key="preservation.request.many")
        await look.publish(request("one", tenant="one"), key="preservation.request.one")
        async with serving(intake, settings):
            await intake.until(lambda: len(intake.taken) == 2)
            assert await look.count(settings.requests) == 59

    assert [taken.envelope.id for taken in intake.taken] == ["many-0", "one"]


async def test_what_is_parked_comes_back_to_the_queue_of_its_priority(rabbit_url: str) -> None:
    settings = names(rabbit_url, park_seconds=0.3)
    intake = FakeIntake(slots=2)
    await client.declare(settings)
    async with serving(intake, settings):
        await client.submit(settings, parse_request(request("r", priority="high")), "acme")
        await intake.until(lambda: len(intake.taken) >= 3)

    assert {taken.envelope.id for taken in intake.taken} == {"r"}


async def test_the_lifetime_of_a_message_is_when_its_request_expires(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    sent = datetime.now(UTC).replace(microsecond=0)
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(request("r"), expiration=60, timestamp=sent)
        await intake.until(lambda: bool(intake.taken))

    assert intake.taken[0].envelope.data.expires_at == sent + timedelta(seconds=60)


# --- commands


async def test_every_worker_hears_a_command_at_once_though_it_has_no_free_slot(settings: AmqpSettings) -> None:
    one, two = FakeIntake(slots=0), FakeIntake(slots=0)
    command = Cancel(id="c", source="me", data=CancelData(request="r", reason="é"))
    async with serving(one, settings), serving(two, settings), looking(settings) as look:
        exchange = await look.channel.get_exchange(settings.control, ensure=False)

        await exchange.publish(aio_pika.Message(b"no command"), "")
        await client.command(settings, command)
        for intake in (one, two):
            async with asyncio.timeout(5):
                await intake.until(lambda intake=intake: bool(intake.commands))

    assert one.commands == two.commands == [command]


async def test_a_command_that_nobody_hears_is_an_error(settings: AmqpSettings) -> None:
    await client.declare(settings)

    with pytest.raises(DependencyError, match="no worker"):
        await client.command(settings, Cancel(id="c", source="me", data=CancelData(request="r")))


# --- kept messages


async def test_dead_letters_are_listed_with_their_reason_and_stay(settings: AmqpSettings) -> None:
    async with looking(settings) as look, serving(FakeIntake(), settings):
        for number in range(3):
            await look.publish(b"no request", message_id=f"m-{number}")
        await look.until_count(settings.dead, 3)
        found: list[kept.Kept] = []
        for _ in range(2):
            found = [one async for one in kept.look(settings, settings.dead)]
            assert ["m-0", "m-1", "m-2"] == [one.id for one in found]

        await look.until_count(settings.dead, 3)
    assert (found[0].code, found[0].exchange) == ("request.schema_invalid", settings.requests)
    assert found[0].routing_key == "preservation.request.acme"


async def test_one_dead_letter_or_all_are_replayed_where_they_came_from(settings: AmqpSettings) -> None:
    intake = FakeIntake(slots=9)
    await client.declare(settings)
    async with looking(settings) as look:
        async with serving(intake, settings):
            for number in range(3):
                await look.publish(b"no request", message_id=f"m-{number}")
            await look.until_count(settings.dead, 3)
        assert ["m-1"] == [one.id async for one in kept.replay(settings, settings.dead, identity="m-1")]
        await look.until_count(settings.requests, 1)
        assert [] == [one.id async for one in kept.replay(settings, settings.dead, code="system.bug")]
        assert ["m-0", "m-2"] == [one.id async for one in kept.replay(settings, settings.dead)]
        await look.until_count(settings.requests, 3)


async def test_what_expired_in_its_queue_is_a_dead_letter_that_can_be_replayed(settings: AmqpSettings) -> None:
    await client.declare(settings)
    intake = FakeIntake()
    async with looking(settings) as look:
        await look.publish(request("r"), expiration=0.05)
        await look.until_count(settings.dead, 1)
        (one,) = [one async for one in kept.replay(settings, settings.dead)]
        async with serving(intake, settings):
            await intake.until(lambda: bool(intake.taken))

    assert one.reason == "expired"
    assert intake.taken[0].envelope.id == "r"


async def test_an_unrouted_result_is_replayed_once_somebody_has_bound_a_queue(settings: AmqpSettings) -> None:
    intake = FakeIntake()
    async with looking(settings) as look, serving(intake, settings):
        await look.publish(request("r"))
        await intake.until(lambda: bool(intake.taken))
        await intake.finish("r")
        await look.until_count(settings.unrouted, 1)
        mine = await look.channel.declare_queue(exclusive=True)
        await mine.bind(settings.results, "#")
        assert 1 == len([one async for one in kept.replay(settings, settings.unrouted)])
        await look.until_count(mine.name, 1)
        await look.until_count(settings.unrouted, 0)
