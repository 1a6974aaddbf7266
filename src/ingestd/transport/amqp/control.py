"""Commands to this worker: every worker hears every command, on a queue of its own that goes with its connection.

They never wait behind requests, nor behind a free slot. What this worker does not know is another's, or is kept for
a request that has yet to come.
"""

from __future__ import annotations

import asyncio
import uuid

import structlog
from aio_pika.abc import AbstractChannel
from aiormq.abc import AbstractChannel as WireChannel
from aiormq.abc import DeliveredMessage

from ingestd.config import AmqpSettings
from ingestd.errors import RequestError
from ingestd.messages import read_command
from ingestd.transport.amqp import mail
from ingestd.transport.amqp.connection import BrokerError, answered, lost, root
from ingestd.transport.amqp.mail import Delivery
from ingestd.transport.amqp.ports import Intake
from ingestd.transport.amqp.posting import Address, publish

log = structlog.get_logger(__name__)

PREFETCH = 20


class Control:
    """Hears commands for `intake`, on a channel of its own."""

    def __init__(self, intake: Intake, settings: AmqpSettings, channel: AbstractChannel) -> None:
        self._intake = intake
        self._settings = settings
        self._channel = channel
        self._arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()

    async def open(self) -> None:
        """Begin to hear: whatever is commanded from now on arrives. Raises `BrokerError`."""
        async with answered():
            queue = await self._channel.declare_queue(
                f"{self._settings.control}.{uuid.uuid4().hex[:12]}", exclusive=True, auto_delete=True
            )
            await queue.bind(self._settings.control)
            underlay = await self._channel.get_underlay_channel()
            await underlay.basic_qos(prefetch_count=PREFETCH)
            underlay.on_consumer_cancel_callbacks.add(lambda _: self._arrived.put_nowait(None))
            await underlay.basic_consume(queue.name, self._on_message)

    async def run(self) -> None:
        """Follow commands until cancelled. Raises `BrokerError`."""
        underlay = await self._channel.get_underlay_channel()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(lost(underlay))
                group.create_task(self._follow(underlay))
        except BaseExceptionGroup as errors:
            raise root(errors) from None

    async def _follow(self, underlay: WireChannel) -> None:
        while (delivery := await self._arrived.get()) is not None:
            try:
                await self._obey(delivery)
            except BrokerError:
                raise
            except Exception:
                log.exception("command_failed", message_id=delivery.message_id)
            async with answered():
                await underlay.basic_ack(delivery.tag)
        raise BrokerError("the broker stopped the delivery of commands")

    async def _on_message(self, message: DeliveredMessage) -> None:
        self._arrived.put_nowait(Delivery.of(message))

    async def _obey(self, delivery: Delivery) -> None:
        try:
            command = read_command(delivery.body)
        except RequestError as error:
            # Every worker reads it; were each to keep it among the dead letters, there would be as many as workers.
            log.warning("command_not_read", message_id=delivery.message_id, reason=error.detail)
            return
        log.info("command", type=command.type, request=command.data.request, by=command.source)
        for record in await self._intake.control(command):
            message, key = mail.parked_anew(record)
            await publish(self._channel, Address(exchange=self._settings.inflight, key=key, kept=True), message)
