"""The worker's side while no broker is there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from ingestd.config import AmqpSettings
from ingestd.errors import Code, SystemFault
from ingestd.transport.amqp.service import AmqpService
from tests.fake_intake import FakeIntake

SECRET = "s3cr3t"


def settings(**changes: Any) -> AmqpSettings:
    return AmqpSettings.model_validate(
        {
            "url": f"amqp://me:{SECRET}@127.0.0.1:1/",
            "reconnect_min_seconds": 0.01,
            "reconnect_max_seconds": 0.02,
        }
        | changes
    )


async def run_for(seconds: float, service: AmqpService) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(service.run(stop))
        await asyncio.sleep(seconds)
        stop.set()


async def test_a_broker_that_is_away_is_tried_for_ever_and_said_once() -> None:
    structlog.reset_defaults()
    service = AmqpService(FakeIntake(), settings())
    with capture_logs() as lines:
        await run_for(0.5, service)

    assert [line["event"] for line in lines] == ["broker_lost"]
    assert service.failure is not None
    assert service.failure.code is Code.DEPENDENCY_BROKER
    assert not service.ready()
    assert SECRET not in repr(lines)


async def test_a_stop_ends_the_longest_wait_at_once() -> None:
    service = AmqpService(FakeIntake(), settings(reconnect_min_seconds=1000, reconnect_max_seconds=1000))

    async with asyncio.timeout(5):
        await run_for(0.2, service)


async def test_a_stop_ends_a_connection_attempt_at_once() -> None:
    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        service = AmqpService(FakeIntake(), settings(url=f"amqp://me:{SECRET}@127.0.0.1:{port}/"))

        async with asyncio.timeout(5):
            await run_for(0.2, service)


async def test_an_address_that_cannot_be_one_ends_the_service() -> None:
    with pytest.raises(SystemFault) as caught:
        await AmqpService(FakeIntake(), settings(url="nonsense")).run(asyncio.Event())

    assert caught.value.code is Code.SYSTEM_CONFIGURATION
