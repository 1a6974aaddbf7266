"""What the tests of the message contract share: a service that runs, and a look into the broker beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from ingestd.config import AmqpSettings
from ingestd.transport.amqp.service import AmqpService
from tests.fake_intake import FakeIntake

LONG = 3600.0


class Looker:
    """Looks into the broker beside the service, and publishes as upstreams do."""

    def __init__(self, settings: AmqpSettings, channel: AbstractChannel) -> None:
        self.settings = settings
        self.channel = channel

    async def publish(self, body: object, key: str = "preservation.request.acme", **properties: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        exchange = await self.channel.get_exchange(self.settings.requests, ensure=False)
        await exchange.publish(aio_pika.Message(data, delivery_mode=2, **properties), key)

    async def count(self, queue: str) -> int:
        return (await self.channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0

    async def get(self, queue: str, *, limit_seconds: float = 10) -> AbstractIncomingMessage:
        found = await self.channel.get_queue(queue, ensure=False)
        async with asyncio.timeout(limit_seconds):
            while (message := await found.get(fail=False)) is None:
                await asyncio.sleep(0.05)
        await message.ack()
        return message

    async def until_count(self, queue: str, expected: int, *, limit_seconds: float = 15) -> None:
        async with asyncio.timeout(limit_seconds):
            while await self.count(queue) != expected:
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def looking(settings: AmqpSettings) -> AsyncIterator[Looker]:
    async with await aio_pika.connect(settings.url.get_secret_value()) as connection:
        yield Looker(settings, await connection.channel())


@contextlib.asynccontextmanager
async def serving(
    intake: FakeIntake, settings: AmqpSettings, *, drained: asyncio.Event | None = None
) -> AsyncIterator[AmqpService]:
    """A running service; it is stopped in order at the end."""
    stop = asyncio.Event()
    service = AmqpService(intake, settings, drain_seconds=3)
    async with asyncio.TaskGroup() as group:
        group.create_task(service.run(stop, drained))
        try:
            await until_ready(service)
            yield service
        finally:
            stop.set()


async def until_ready(service: AmqpService, *, ready: bool = True, limit_seconds: float = 30) -> None:
    async with asyncio.timeout(limit_seconds):
        while service.ready() is not ready:
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def crashing(intake: FakeIntake, settings: AmqpSettings) -> AsyncIterator[AmqpService]:
    """A running service that ends in the middle of whatever it does, with no last word."""
    service = AmqpService(intake, settings)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(service.run(asyncio.Event()))
        try:
            await until_ready(service)
            yield service
        finally:
            running.cancel()


def names(url: str, **changes: Any) -> AmqpSettings:
    """Settings with exchanges and queues of one test's own."""
    own = uuid.uuid4().hex[:8]
    fields = ["requests", "inflight", "control", "events", "results", "unrouted", "dead_letter_exchange", "dead"]
    return AmqpSettings.model_validate(
        {field: f"{own}.{field}" for field in fields}
        | {"url": url, "park_seconds": LONG, "reconnect_min_seconds": 0.05, "reconnect_max_seconds": 0.5}
        | changes
    )


def request(name: str = "r-1", **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "type": "org.ingestd.preservation.request.v1",
        "id": name,
        "source": "urn:repo:acme",
        "data": {"source": {"location": "/srv/a.zip"}, "tenant": "acme", "collection": "books"} | data,
    }
