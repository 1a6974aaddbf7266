"""The outbox, emptied: each event published with a confirm, and only then marked.

The events of one request go one after the other, those of different requests side by side. An event that the broker
confirmed and whose mark was lost is published again with the same id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractConnection

from ingestd.config import AmqpSettings
from ingestd.messages import Event, EventType
from ingestd.transport.amqp import mail
from ingestd.transport.amqp.connection import (
    Backoff,
    BrokerError,
    RefusedError,
    answered,
    root,
    unless,
    wire,
)
from ingestd.transport.amqp.ports import Intake, OutboxItem
from ingestd.transport.amqp.posting import Address, publish
from ingestd.transport.amqp.topology import lanes

BATCH = 100
QUIET_SECONDS = 0.25
"""At the end: how long the outbox must give nothing to count as empty."""

log = structlog.get_logger(__name__)


def addresses(event: Event, settings: AmqpSettings) -> tuple[Address, ...]:
    """Where an event goes, in order: to those who watch progress, to those who wait for results, or to both.

    Nobody need watch progress; a result always finds a queue, since its exchange has an alternate one.
    """
    watched = Address(exchange=settings.events, key=mail.progress_key(event), kept=False)
    awaited = Address(exchange=settings.results, key=event.routing_key(), kept=True)
    if event.kind is EventType.BATCH_COMPLETED:
        return (watched, awaited)
    if not event.kind.terminal:
        return (watched,)
    return (watched, awaited) if mail.in_progress(event) else (awaited,)


class Publisher:
    """Publishes what `intake` has to announce, on a channel of its own."""

    def __init__(
        self, intake: Intake, settings: AmqpSettings, connection: AbstractConnection, channel: AbstractChannel
    ) -> None:
        self._intake = intake
        self._settings = settings
        self._connection = connection
        self._channel = channel
        self._own_queues = {*lanes(settings).values(), settings.inflight, settings.unrouted, settings.dead}
        self._backoff = Backoff(min_seconds=settings.reconnect_min_seconds, max_seconds=settings.reconnect_max_seconds)

    async def run(self, finishing: asyncio.Event) -> None:
        """Publish until `finishing` is set, then whatever is left, and return. Raises `BrokerError`."""
        while not finishing.is_set():
            items = await unless(finishing, self._intake.outbox(BATCH))
            if items:
                await self._publish_all(items, finishing)
        while items := await self._rest():
            await self._publish_all(items, finishing)

    async def _rest(self) -> Sequence[OutboxItem]:
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                return await self._intake.outbox(BATCH)
        except TimeoutError:
            return ()

    async def _publish_all(self, items: Sequence[OutboxItem], finishing: asyncio.Event) -> None:
        await wire(self._connection).ready()  # waits while the broker says that it is blocked
        confirmed: list[int] = []
        refusals: list[RefusedError] = []
        by_request: dict[str, list[OutboxItem]] = {}
        for item in items:
            by_request.setdefault(item.event.data.request_id, []).append(item)
        try:
            async with asyncio.TaskGroup() as group:
                for one in by_request.values():
                    group.create_task(self._publish_in_order(one, confirmed, refusals))
        except BaseExceptionGroup as errors:
            raise root(errors) from None
        finally:
            if confirmed:
                await self._intake.confirm(sorted(confirmed))
        if refusals:
            log.warning("event_refused", reason=refusals[0].detail, remediation=refusals[0].remediation)
            if finishing.is_set():
                await asyncio.sleep(QUIET_SECONDS)
            else:
                await unless(finishing, asyncio.sleep(self._backoff.next_seconds()))
        else:
            self._backoff.reset()

    async def _publish_in_order(
        self, items: Sequence[OutboxItem], confirmed: list[int], refusals: list[RefusedError]
    ) -> None:
        for item in items:
            try:
                await self._publish_item(item)
            except RefusedError as error:
                refusals.append(error)
                return  # what follows it would overtake it
            confirmed.append(item.id)

    async def _publish_item(self, item: OutboxItem) -> None:
        message = mail.event_message(item.event, correlation_id=item.correlation_id)
        for address in addresses(item.event, self._settings):
            await publish(self._channel, address, message)
        if item.reply_to and item.event.kind.terminal:
            await self._reply(item.reply_to, message)

    async def _reply(self, reply_to: str, message: Message) -> None:
        """Send a result where its request asked for it; a queue that is gone or full is the asker's loss alone."""
        if reply_to in self._own_queues or len(reply_to.encode("utf-8", "replace")) > 255:
            log.warning("reply_not_sent", reply_to=reply_to, reason="not a queue that may be replied to")
            return
        try:
            await publish(self._channel, Address(exchange="", key=reply_to, kept=False), message)
        except RefusedError as error:
            log.warning("reply_not_sent", reply_to=reply_to, reason=error.detail)


async def probe(channel: AbstractChannel, settings: AmqpSettings) -> None:
    """Return once the broker takes messages at all.

    RabbitMQ tells a connection that it is blocked (memory or disk alarm) only when it publishes, and takes that first
    message still. So two messages that no queue is bound for are published before any request is taken: no request is
    taken that could not be parked.
    """
    exchange = await channel.get_exchange(settings.requests, ensure=False)
    confirmed, said = 0, False
    while confirmed < 2:
        try:
            async with answered(limit_seconds=10):
                await exchange.publish(Message(b""), "ingestd.probe", mandatory=False)
            confirmed += 1
        except BrokerError as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
            if not said:
                log.warning("broker_blocked", reason="RabbitMQ takes no messages: look at its memory and disk alarms")
                said = True
