"""Requests, taken one at a time and settled at once, each in its turn (`turns`).

A delivery is in hand only for as long as it takes to journal it and to park a copy: never while a slot is waited for,
never while a package is worked on. So the broker stays the queue, no delivery grows old, and a dropped connection
costs at most one redelivery.
"""

from __future__ import annotations

import asyncio

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import AbstractChannel as WireChannel
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from ingestd.config import AmqpSettings
from ingestd.errors import Code, IngestError, RequestError, SystemFault
from ingestd.messages import Priority, RequestEnvelope
from ingestd.transport.amqp import mail
from ingestd.transport.amqp.connection import Backoff, BrokerError, answered, lost, root, wire
from ingestd.transport.amqp.mail import Delivery, Invalid, Unreadable
from ingestd.transport.amqp.ports import Disposition, Intake
from ingestd.transport.amqp.posting import Address, publish
from ingestd.transport.amqp.topology import lanes
from ingestd.transport.amqp.turns import Priorities, Tenants

log = structlog.get_logger(__name__)

_TOLD_WITHIN_SECONDS = {Disposition.ANSWERED: 1.0, Disposition.DONE: 0.0}
"""How long it is waited that what is to be told is confirmed, before a copy of the message is parked instead."""


class InHand:
    """The messages of the requests that this worker has in hand, so that a stop can put them back at once."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, str], tuple[Delivery, RequestEnvelope]] = {}

    def keep(self, delivery: Delivery, envelope: RequestEnvelope) -> None:
        self._messages[envelope.source, envelope.id] = (delivery, envelope)

    def of(self, intake: Intake) -> list[tuple[Delivery, RequestEnvelope]]:
        """Those that `intake` still has in hand; the others are forgotten."""
        names = {(envelope.source, envelope.id) for envelope in intake.in_hand()}
        self._messages = {name: message for name, message in self._messages.items() if name in names}
        return list(self._messages.values())


class Consumer:
    """Takes requests from the broker while `intake` has a free slot, on a channel of its own."""

    def __init__(
        self,
        intake: Intake,
        settings: AmqpSettings,
        connection: AbstractConnection,
        channel: AbstractChannel,
        in_hand: InHand,
        *,
        pauses: Backoff | None = None,
    ) -> None:
        self._intake = intake
        self._settings = settings
        self._connection = connection
        self._channel = channel
        self._in_hand = in_hand
        self._arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._queues = tuple(lanes(settings).values())
        self._priorities = Priorities(lanes(settings))
        self._tenants = {priority: Tenants() for priority in Priority}
        self._pauses = pauses or Backoff(min_seconds=1, max_seconds=60)

    async def run(self) -> None:
        """Consume until cancelled; what is in hand then is the broker's again. Raises `BrokerError`."""
        underlay = await self._channel.get_underlay_channel()
        async with answered():
            await underlay.basic_qos(prefetch_count=1)
        underlay.on_consumer_cancel_callbacks.add(self._on_cancel)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(lost(underlay))
                group.create_task(self._consume(underlay))
        except BaseExceptionGroup as errors:
            raise root(errors) from None

    async def _consume(self, underlay: WireChannel) -> None:
        while True:
            await self._intake.wait_for_slot()
            await wire(self._connection).ready()  # waits while the broker says that it is blocked
            delivery = await self._fetched(underlay)
            for one in [delivery] if delivery else await self._awaited(underlay):
                done = await self._is_done_with(one)
                async with answered():
                    if done:
                        await underlay.basic_ack(one.tag)
                    else:
                        await underlay.basic_nack(one.tag, requeue=True)

    async def _fetched(self, underlay: WireChannel) -> Delivery | None:
        """The next request of those that wait; None when none does."""
        for queue in self._priorities.order():
            async with answered():
                message = await underlay.basic_get(queue)
            if isinstance(message.delivery, Basic.GetOk):
                return Delivery.of(message)
        return None

    async def _awaited(self, underlay: WireChannel) -> list[Delivery]:
        """Wait until something comes; it may be one of each priority, rarely."""
        tags = []
        for queue in self._queues:
            async with answered():
                tags.append(str((await underlay.basic_consume(queue, self._on_message)).consumer_tag))
        came = [await self._arrived.get()]
        for tag in tags:
            async with answered():
                await underlay.basic_cancel(tag)
        while not self._arrived.empty():
            came.append(self._arrived.get_nowait())
        if None in came:
            raise BrokerError("the broker stopped the delivery of requests: was a queue deleted?")
        return [delivery for delivery in came if delivery is not None]

    async def _on_message(self, message: DeliveredMessage) -> None:
        self._arrived.put_nowait(Delivery.of(message))

    def _on_cancel(self, _frame: Basic.Cancel) -> None:
        self._arrived.put_nowait(None)

    async def _is_done_with(self, delivery: Delivery) -> bool:
        """Handle one delivery; whether it may be acknowledged, or must be given again."""
        if not self._intake.has_slot():
            return False  # another way in has taken the last slot meanwhile
        try:
            await self._handle(delivery)
        except BrokerError:
            raise
        except Exception as error:  # noqa: BLE001  one message must not stop all others
            return await self._is_done_after(error, delivery)
        self._pauses.reset()
        return True

    async def _is_done_after(self, error: Exception, delivery: Delivery) -> bool:
        """Wait, so that what is out of order can recover; at the last delivery say why, which the broker cannot."""
        code = error.code if isinstance(error, IngestError) else Code.SYSTEM_BUG
        last = delivery.count >= self._settings.delivery_limit
        log.error(
            "request_not_taken",
            message_id=delivery.message_id,
            deliveries=delivery.count + 1,
            last=last,
            code=code.value,
            exc_info=error,
        )
        if last:
            await self._bury(delivery, SystemFault(f"it could not be taken: {error}", code=code))
            return True
        await asyncio.sleep(self._pauses.next_seconds())
        return False

    async def _handle(self, delivery: Delivery) -> None:
        reading = mail.read(delivery)
        match reading:
            case Unreadable():
                await self._bury(delivery, reading.error)
            case Invalid():
                await self._settle(await self._reject(delivery, reading.error, reading.name), delivery, reading)
            case RequestEnvelope():
                await self._settle(await self._take(delivery, reading), delivery, reading)

    async def _take(self, delivery: Delivery, envelope: RequestEnvelope) -> Disposition | None:
        """Take a request, or set it back (None) so that another tenant has its turn."""
        tenants = self._tenants[mail.priority_of(delivery)]
        if not delivery.returning and not tenants.takes(envelope.data.tenant, left=delivery.left):
            self._priorities.again()
            message, key = mail.set_back(delivery, envelope)
            await publish(self._channel, Address(exchange=self._settings.requests, key=key, kept=True), message)
            return None
        try:
            return await self._intake.take(
                envelope,
                returning=delivery.returning,
                redelivered=delivery.redelivered,
                known_since=delivery.known_since,
                message=mail.digest(delivery, envelope),
                reply_to=delivery.reply_to,
                correlation_id=delivery.correlation_id,
                attempt=delivery.attempt,
            )
        except RequestError as error:
            return await self._reject(delivery, error, envelope.id)

    async def _reject(self, delivery: Delivery, error: IngestError, name: str) -> Disposition:
        return await self._intake.reject(
            delivery.body,
            error,
            name=name,
            reply_to=delivery.reply_to,
            correlation_id=delivery.correlation_id,
            tenant=mail.tenant_of(delivery),
        )

    async def _settle(
        self, disposition: Disposition | None, delivery: Delivery, reading: RequestEnvelope | Invalid
    ) -> None:
        """See that the broker has a copy until all is told; `None`: it was set back, with a copy of its own."""
        envelope = reading if isinstance(reading, RequestEnvelope) else None
        if disposition and not await self._is_told(disposition, reading):
            message, key = mail.parked(delivery, envelope)
            await publish(self._channel, Address(exchange=self._settings.inflight, key=key, kept=True), message)
        if envelope and disposition in {Disposition.TAKEN, Disposition.IN_HAND}:
            self._in_hand.keep(delivery, envelope)
            self._in_hand.of(self._intake)  # forget those that have ended
        log.debug("request_settled", disposition=disposition or "set back", message_id=delivery.message_id)

    async def _is_told(self, disposition: Disposition, reading: RequestEnvelope | Invalid) -> bool:
        """Whether nothing is left to do: a new answer is waited for, other results are published when they are."""
        if disposition not in _TOLD_WITHIN_SECONDS:
            return False
        name = reading.id if isinstance(reading, RequestEnvelope) else reading.name
        return await self._intake.published(name, within_seconds=_TOLD_WITHIN_SECONDS[disposition])

    async def _bury(self, delivery: Delivery, error: IngestError) -> None:
        address = Address(exchange=self._settings.dead_letter_exchange, key=delivery.routing_key, kept=True)
        await publish(self._channel, address, mail.dead(delivery, error))
        log.warning("message_dead_lettered", message_id=delivery.message_id, code=error.code.value, reason=error.detail)
