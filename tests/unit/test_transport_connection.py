"""Failures of the broker, said so that somebody can act; and the traps of the AMQP library."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest
from aio_pika import Connection, exceptions

from ingestd.config import AmqpSettings
from ingestd.errors import Code, SystemFault
from ingestd.transport.amqp.connection import (
    Backoff,
    BrokerError,
    RefusedError,
    TopologyError,
    answered,
    connected,
    explained,
    root,
    safe_url,
    unless,
)

SECRET = "s3cr%40t"


def settings(url: str) -> AmqpSettings:
    return AmqpSettings.model_validate({"url": url})


async def test_a_connection_that_failed_is_closed() -> None:
    """The library's own is not, and wants to be when it is collected: on its loop, which may be gone."""
    kept: list[BrokerError] = []
    try:
        async with connected(settings("amqp://127.0.0.1:1/"), "test"):
            pass
    except BrokerError as error:
        kept.append(error)  # and with it all that stood on the way

    found = [one for one in gc.get_objects() if isinstance(one, Connection) and one.url.port == 1]

    assert kept
    assert found
    assert all(connection.is_closed for connection in found)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"amqp://me:{SECRET}@broker:5672/a", "amqp://me@broker:5672/a"),
        (f"amqps://me:{SECRET}@broker", "amqps://me@broker"),
        (f"amqp://me:{SECRET}@[::1]:5672/?cafile={SECRET}", "amqp://me@[::1]:5672/"),
        ("amqp://broker/", "amqp://broker/"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, expected: str) -> None:
    assert expected == safe_url(settings(url))


@pytest.mark.parametrize("url", ["", "nonsense", f"http://me:{SECRET}@broker/", f"amqp://me:{SECRET}@broker:port/"])
def test_an_address_that_cannot_be_one_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SystemFault) as caught:
        safe_url(settings(url))

    assert caught.value.code is Code.SYSTEM_CONFIGURATION
    assert SECRET not in str(caught.value)


async def test_a_broker_that_is_away_is_named_without_the_password() -> None:
    with pytest.raises(BrokerError) as caught:
        async with connected(settings(f"amqp://me:{SECRET}@127.0.0.1:1/"), "a test"):
            pass

    said = f"{caught.value!r} {caught.value.detail} {caught.value.remediation} {caught.value.__cause__}"

    assert caught.value.code is Code.DEPENDENCY_BROKER
    assert "amqp://me@127.0.0.1:1/" in caught.value.detail
    assert "s3cr" not in said


async def test_an_answer_that_does_not_come_in_time_is_a_lost_broker() -> None:
    with pytest.raises(BrokerError, match="did not answer"):
        async with answered(0.01):
            await asyncio.sleep(10)


async def test_a_cancellation_that_nobody_asked_for_is_a_lost_connection() -> None:
    with pytest.raises(BrokerError, match="closed"):
        async with answered():
            raise asyncio.CancelledError


async def test_a_cancellation_that_was_asked_for_is_one() -> None:
    async def work() -> None:
        async with answered():
            await asyncio.sleep(10)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        await asyncio.sleep(0)
        task.cancel()

    assert task.cancelled()


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (exceptions.ChannelPreconditionFailed("inequivalent arg 'x-message-ttl'"), TopologyError, "other arguments"),
        (exceptions.ChannelNotFoundEntity("no exchange 'ingestd.requests'"), TopologyError, "ingestd topology"),
        (exceptions.ProbableAuthenticationError("ACCESS_REFUSED"), BrokerError, "password"),
        (exceptions.ChannelClosed(403, "ACCESS_REFUSED - access to exchange"), BrokerError, "amqp.declare"),
        (exceptions.InvalidFrameError("got <Connection.Close object>"), BrokerError, "virtual host"),
        (ConnectionResetError(104, "reset"), BrokerError, "RabbitMQ"),
    ],
)
def test_every_failure_says_what_to_do(error: Exception, kind: type[BrokerError], word: str) -> None:
    said = explained(error)

    assert type(said) is kind
    assert word in said.remediation


def test_a_refused_message_is_told_from_a_lost_broker() -> None:
    from pamqp.commands import Basic

    assert isinstance(explained(exceptions.DeliveryError(None, Basic.Nack(delivery_tag=1))), RefusedError)


def test_waits_double_up_to_the_longest_and_are_jittered() -> None:
    backoff = Backoff(min_seconds=1, max_seconds=8, rng=random.Random(1))
    waits = [backoff.next_seconds() for _ in range(2000)]

    assert all(wait <= bound for wait, bound in zip(waits, [1, 2, 4, 8, 8], strict=False))
    assert max(waits) > 7.5
    assert min(waits[4:]) < 0.5


def test_waits_begin_anew_after_a_reset() -> None:
    backoff = Backoff(min_seconds=1, max_seconds=1000)
    for _ in range(20):
        backoff.next_seconds()
    backoff.reset()

    assert backoff.next_seconds() <= 1


async def test_work_is_cut_by_a_stop_and_otherwise_gives_its_result() -> None:
    stop = asyncio.Event()

    async def answer() -> int:
        return 42

    assert await unless(stop, answer()) == 42
    stop.set()
    assert await unless(stop, asyncio.sleep(60, 1)) is None


def test_the_first_error_of_nested_groups_is_found() -> None:
    error = OSError("it")

    assert root(ExceptionGroup("a", [ExceptionGroup("b", [error]), ValueError()])) is error
