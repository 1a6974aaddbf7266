"""The upstream's side of RabbitMQ: publish a request, follow it to its end, watch what happens.

Each call has a connection of its own and fails at once, with what to do about it, when there is none to be had.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Sequence

import structlog
from aio_pika.abc import AbstractChannel
from aiormq.abc import AbstractChannel as WireChannel
from aiormq.abc import DeliveredMessage
from pydantic import ValidationError

from ingestd.config import AmqpSettings
from ingestd.messages import ControlCommand, Event, RequestEnvelope, routing_word
from ingestd.transport.amqp import mail, topology
from ingestd.transport.amqp.connection import BrokerError, TopologyError, answered, connected, explained
from ingestd.transport.amqp.posting import Address, publish

REMEMBERED = 1000
PREFETCH = 100

log = structlog.get_logger(__name__)


async def declare(settings: AmqpSettings) -> None:
    """Declare the topology. Raises `DependencyError` (`dependency.broker`)."""
    async with connected(settings, "ingestd topology") as connection:
        await topology.declare(connection, settings)


async def submit(settings: AmqpSettings, envelope: RequestEnvelope, tenant: str) -> None:
    """Publish a request; it is safe in the broker's queue when this returns.

    Raises `DependencyError` (`dependency.broker`) when the broker is away, the topology missing or the queue full,
    `RequestError` when the request is larger than the bus carries.
    """
    message = mail.request_message(envelope)
    address = Address(exchange=settings.requests, key=mail.request_key(tenant, envelope.data.priority), kept=True)
    async with connected(settings, "ingestd submit") as connection:
        async with answered():
            channel = await connection.channel()
        await publish(channel, address, message)


async def command(settings: AmqpSettings, command: ControlCommand) -> None:
    """Give a command to every worker that is connected now.

    Raises `DependencyError` (`dependency.broker`), also when no worker is there to hear it.
    """
    address = Address(exchange=settings.control, key="", kept=True)
    async with connected(settings, "ingestd command") as connection:
        async with answered():
            channel = await connection.channel()
        try:
            await publish(channel, address, mail.command_message(command))
        except TopologyError as error:
            raise BrokerError("no worker is connected that could hear it", remediation=_NOBODY) from error


_NOBODY = "Start a worker (`ingestd serve`) and give the command again; requests stay in the broker until then."


async def follow(
    settings: AmqpSettings, request_id: str, ready: asyncio.Event, *, tenant: str | None = None
) -> AsyncGenerator[Event, None]:
    """Give every event of one request, its terminal one last. `ready` is set once no event can be missed any more.

    With a tenant only that tenant's events cross the wire. Raises `DependencyError` (`dependency.broker`), also when
    the connection is lost on the way: what came meanwhile cannot be had again here.
    """
    bindings = (f"{routing_word(tenant)}.#",) if tenant else ("#",)
    async with contextlib.aclosing(watch(settings, bindings, ready)) as events:
        async for event in events:
            if event.data.request_id == request_id:
                yield event
                if event.kind.terminal:
                    return


async def watch(
    settings: AmqpSettings, bindings: Sequence[str] = ("#",), ready: asyncio.Event | None = None
) -> AsyncGenerator[Event, None]:
    """Give events and results as they come, for ever, each once. `bindings` are topics, such as `acme.*.succeeded`.

    Raises `DependencyError` (`dependency.broker`).
    """
    arrived: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()
    seen: deque[str] = deque(maxlen=REMEMBERED)
    async with connected(settings, "ingestd watch") as connection:
        async with answered():
            channel = await _listen(await connection.channel(), settings, bindings, arrived)
        closing = channel.closing
        closing.add_done_callback(lambda _: arrived.put_nowait(None))
        if ready is not None:
            ready.set()
        while (message := await arrived.get()) is not None:
            event = _event(message.body)
            if event is not None and event.id not in seen:
                seen.append(event.id)
                yield event
            async with answered():
                await channel.basic_ack(message.delivery_tag or 0)
        cause = closing.exception() if closing.done() and not closing.cancelled() else None
        raise explained(cause) if isinstance(cause, Exception) else BrokerError("the connection was closed")


async def _listen(
    channel: AbstractChannel,
    settings: AmqpSettings,
    bindings: Sequence[str],
    arrived: asyncio.Queue[DeliveredMessage | None],
) -> WireChannel:
    """Bind a queue of our own to events and results, and have put into `arrived` whatever comes; None for the end."""
    queue = await channel.declare_queue(exclusive=True, auto_delete=True)
    for exchange in (settings.events, settings.results):
        for key in bindings:
            await queue.bind(exchange, key)
    underlay = await channel.get_underlay_channel()
    await underlay.basic_qos(prefetch_count=PREFETCH)

    async def arrive(message: DeliveredMessage) -> None:
        arrived.put_nowait(message)

    underlay.on_consumer_cancel_callbacks.add(lambda _: arrived.put_nowait(None))
    await underlay.basic_consume(queue.name, arrive)
    return underlay


def _event(body: bytes) -> Event | None:
    """Read an event, or nothing where somebody else has published something else."""
    try:
        event = Event.model_validate_json(body)
        event.kind  # noqa: B018  a type that is none of ours is no event of ours
    except (ValidationError, ValueError) as error:
        log.debug("not_an_event", reason=str(error)[:200])
        return None
    return event
