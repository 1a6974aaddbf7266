"""What an upstream of ingestd is, in aio-pika alone: it publishes requests and reads events and results.

Whatever comes is held against the published schema and against what must never be on the bus.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from tests.acceptance.program import event_schema

MAX_BODY_BYTES = 64 * 1024
PREFIX = "org.ingestd."
TERMINAL = {"aip.stored", "request.failed", "request.rejected", "request.cancelled", "request.outcome_unknown"}


class Message:
    """An event or a result, with how it came."""

    def __init__(self, raw: AbstractIncomingMessage) -> None:
        self.body = raw.body
        self.exchange = raw.exchange
        self.key = raw.routing_key or ""
        self.correlation_id = raw.correlation_id
        self.content_type = raw.content_type
        self.event: dict[str, Any] = json.loads(raw.body)
        self.data: dict[str, Any] = self.event["data"]

    @property
    def id(self) -> str:
        return str(self.event["id"])

    @property
    def kind(self) -> str:
        return str(self.event["type"]).removeprefix(PREFIX).removesuffix(".v1")

    @property
    def terminal(self) -> bool:
        return self.kind in TERMINAL


class Upstream:
    """Reads everything that is announced into `messages`, from the time it was opened."""

    def __init__(self, channel: AbstractChannel, queue: str, topology: str) -> None:
        self.channel = channel
        self.topology = topology
        self.queue = queue
        self.messages: list[Message] = []

    async def request(
        self,
        data: object,
        *,
        identity: str | None = None,
        key: str = "preservation.request.acme",
        **properties: Any,
    ) -> str:
        """Publish a request as a CloudEvent; give its id."""
        identity = identity or str(uuid.uuid4())
        event = {
            "specversion": "1.0",
            "type": "org.ingestd.preservation.request.v1",
            "id": identity,
            "source": "urn:repository:acme",
            "data": data,
        }
        await self.send(json.dumps(event).encode(), key=key, **properties)
        return identity

    async def send(self, body: bytes, *, key: str = "preservation.request.acme", **properties: Any) -> None:
        exchange = await self.channel.get_exchange(f"{self.topology}.requests", ensure=False)
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, **properties)
        await exchange.publish(message, key, mandatory=True)

    async def result(self, request: str, *, seconds: float = 40) -> Message:
        """Wait for a result of a request, as it comes from the exchange of results."""
        return await self.until(
            lambda message: (
                message.terminal
                and message.exchange == f"{self.topology}.results"
                and message.data["request_id"] == request
            ),
            f"the result of {request}",
            seconds=seconds,
        )

    async def until(self, wanted: Callable[[Message], bool], what: str, *, seconds: float = 40) -> Message:
        seen = 0
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for message in self.messages[seen:]:
                        seen += 1
                        if wanted(message):
                            return message
                    await asyncio.sleep(0.01)
        except TimeoutError:
            said = [
                (message.kind, message.data["link"] and message.data["link"]["execute"]) for message in self.messages
            ]
            raise AssertionError(f"waited {seconds} s for {what}; there came: {said[-20:]}") from None

    def of(self, request: str) -> list[Message]:
        """Give what came for a request, each event once, in order."""
        found = {message.id: message for message in self.messages if message.data["request_id"] == request}
        return list(found.values())

    async def get(self, queue: str, *, seconds: float = 15) -> AbstractIncomingMessage:
        """Take one message from a queue."""
        found = await self.channel.get_queue(queue, ensure=False)
        async with asyncio.timeout(seconds):
            while (message := await found.get(fail=False)) is None:
                await asyncio.sleep(0.05)
        await message.ack()
        return message

    async def count(self, queue: str) -> int:
        declared = await self.channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


@contextlib.asynccontextmanager
async def upstream(url: str, queue: str | None = None, *, topology: str = "ingestd") -> AsyncIterator[Upstream]:
    """Connect to a broker on which the topology is declared. A named `queue` keeps what comes while nobody reads it."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        own = await channel.declare_queue(queue or "", durable=bool(queue), exclusive=not queue)
        for exchange in ("events", "results"):
            await own.bind(f"{topology}.{exchange}", "#")
        opened = Upstream(channel, own.name, topology)

        async def read(message: AbstractIncomingMessage) -> None:
            await message.ack()
            opened.messages.append(Message(message))

        await own.consume(read)
        yield opened


def hold_against_contract(messages: list[Message], *, never: list[str], work: str) -> None:
    """Every message is what the schema says, small, and tells no secret, nor where ingestd works."""
    schema = event_schema()
    for message in messages:
        assert [error.message for error in schema.iter_errors(message.event)] == [], message.event
        assert len(message.body) <= MAX_BODY_BYTES
        assert message.content_type == "application/cloudevents+json"
        text = message.body.decode()
        assert [word for word in never if word in text] == []
        data = {name: value for name, value in message.data.items() if name != "work_folder"}
        assert work not in json.dumps({**message.event, "data": data}, ensure_ascii=False)


def hold_order(messages: list[Message]) -> None:
    """The events of one request: numbered upwards within an attempt, one terminal event, and nothing after it."""
    for attempt in {message.data["attempt"] for message in messages}:
        numbers = [message.data["sequence"] for message in messages if message.data["attempt"] == attempt]
        assert numbers == sorted(set(numbers))
    assert [index for index, message in enumerate(messages) if message.terminal] == [len(messages) - 1]
