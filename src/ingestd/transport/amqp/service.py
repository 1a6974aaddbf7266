"""The worker's side of RabbitMQ: connected for as long as the service runs, whatever happens to the broker.

A connection is never mended: when anything of it fails, all of it is closed and built anew, topology and consumer and
publisher, after a wait that grows and is jittered. What was in hand is in the journal, the outbox and the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import AbstractConnection as Wire

from ingestd.config import AmqpSettings
from ingestd.errors import DependencyError, IngestError, SystemFault
from ingestd.transport.amqp import mail, topology
from ingestd.transport.amqp.connection import (
    Backoff,
    BrokerError,
    answered,
    connected,
    lost,
    root,
    safe_url,
    unless,
    wire,
)
from ingestd.transport.amqp.consumer import Consumer, InHand
from ingestd.transport.amqp.control import Control
from ingestd.transport.amqp.ports import Intake
from ingestd.transport.amqp.posting import Address, publish
from ingestd.transport.amqp.publisher import Publisher, probe

PUT_BACK_SECONDS = 5.0
FLUSH_SECONDS = 1.0
"""Least time that a stop gives the outbox, however long the rest took."""

BLOCKED_SECONDS = 1.0
"""How long the broker may block the connection before this worker is not ready."""
_BLOCKED = BrokerError("the broker has blocked the connection: look at its memory and disk alarms")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Open:
    """A connection with its channels, on a broker that is fit to work with."""

    connection: AbstractConnection
    taking: AbstractChannel
    announcing: AbstractChannel
    control: Control


class AmqpService:
    """Takes requests for `intake` and publishes what it has to announce.

    `drain_seconds` is how long a stop may wait for work to be wound up, for the requests in hand to be put back and
    for the outbox to be emptied.
    """

    def __init__(self, intake: Intake, settings: AmqpSettings, *, drain_seconds: float = 10) -> None:
        self._intake = intake
        self._settings = settings
        self._drain_seconds = drain_seconds
        self._in_hand = InHand()
        self._connected = False
        self._blocked = False
        self._failure: IngestError | None = None
        self._backoff = Backoff(min_seconds=settings.reconnect_min_seconds, max_seconds=settings.reconnect_max_seconds)

    @property
    def connected(self) -> bool:
        """Whether the broker is there, the topology too, and messages are taken and published."""
        return self._connected

    @property
    def failure(self) -> IngestError | None:
        """Why the connection was last lost or not to be had, or is of no use; None while all is well."""
        return _BLOCKED if self._connected and self._blocked else self._failure

    def ready(self) -> bool:
        return self._connected and not self._blocked

    async def run(self, stop: asyncio.Event, drained: asyncio.Event | None = None) -> None:
        """Serve until `stop` is set. No failure of the broker ends it; an address that cannot be one does.

        From `stop` on nothing is taken. The requests in hand are put back when `drained` is set, which says that no
        package is worked on any more (without `drained`, at once); then the outbox is emptied, and all is closed.
        Raises `SystemFault` (`system.configuration`).
        """
        url = safe_url(self._settings)
        while not stop.is_set():
            began = asyncio.get_running_loop().time()
            try:
                await self._session(stop, drained, url)
            except Exception as error:  # noqa: BLE001  whatever it is: say it, wait, connect again
                self._say_lost(root(error), url)
            finally:
                self._connected = False
            if asyncio.get_running_loop().time() - began > self._settings.reconnect_max_seconds:
                self._backoff.reset()
            if not stop.is_set():
                await unless(stop, asyncio.sleep(self._backoff.next_seconds()))

    def _say_lost(self, error: BaseException, url: str) -> None:
        failure = error if isinstance(error, IngestError) else SystemFault(f"{type(error).__name__}: {error}")
        before, self._failure = self._failure, failure
        if before is None or before.detail != failure.detail:
            log.warning(
                "broker_lost",
                url=url,
                code=failure.code.value,
                reason=failure.detail,
                remediation=failure.remediation,
                exc_info=None if isinstance(error, DependencyError) else error,
            )

    async def _session(self, stop: asyncio.Event, drained: asyncio.Event | None, url: str) -> None:
        """One connection, from its opening to its loss or to the stop."""
        async with contextlib.AsyncExitStack() as stack:
            opened = await unless(stop, self._open(stack))
            if opened is not None:
                await self._serve(opened, stop, drained, url)

    async def _open(self, stack: contextlib.AsyncExitStack) -> _Open:
        connection = await stack.enter_async_context(connected(self._settings, "ingestd serve"))
        if self._settings.declare:
            await topology.declare(connection, self._settings)
        else:
            await topology.verify(connection, self._settings)
        async with answered():
            taking, announcing = await connection.channel(), await connection.channel()
            control = Control(self._intake, self._settings, await connection.channel())
        await control.open()  # before any request is taken: no cancellation of it is missed
        await probe(announcing, self._settings)
        return _Open(connection=connection, taking=taking, announcing=announcing, control=control)

    async def _serve(self, opened: _Open, stop: asyncio.Event, drained: asyncio.Event | None, url: str) -> None:
        finishing = asyncio.Event()
        consumer = Consumer(self._intake, self._settings, opened.connection, opened.taking, self._in_hand)
        publisher = Publisher(self._intake, self._settings, opened.connection, opened.announcing)
        announcing = await opened.announcing.get_underlay_channel()
        async with asyncio.TaskGroup() as group:
            losing = group.create_task(lost(wire(opened.connection), announcing))
            publishing = group.create_task(publisher.run(finishing))
            consuming = group.create_task(consumer.run())
            controlling = group.create_task(opened.control.run())
            watching = group.create_task(self._watch(wire(opened.connection)))
            self._connected, self._failure = True, None
            log.info("broker_connected", url=url)
            await stop.wait()
            self._connected = False
            consuming.cancel()
            controlling.cancel()
            await asyncio.wait((consuming, controlling))
            deadline = asyncio.get_running_loop().time() + self._drain_seconds
            await self._drain(opened.announcing, drained)
            finishing.set()
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait((publishing,), timeout=max(FLUSH_SECONDS, left))
            publishing.cancel()
            watching.cancel()
            losing.cancel()

    async def _watch(self, connection: Wire) -> None:
        """See whether the broker has blocked the connection; does not end by itself."""
        while True:
            try:
                await asyncio.wait_for(connection.ready(), BLOCKED_SECONDS)
            except TimeoutError:
                self._blocked = True
            else:
                self._blocked = False
                await asyncio.sleep(BLOCKED_SECONDS)

    async def _drain(self, channel: AbstractChannel, drained: asyncio.Event | None) -> None:
        if drained is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(drained.wait(), self._drain_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PUT_BACK_SECONDS):
                await self._put_back(channel)

    async def _put_back(self, channel: AbstractChannel) -> None:
        """Give the requests in hand to other workers at once, rather than when their parked copies return.

        Those that were resumed from the journal, and whose message has not come round since, return by themselves.
        """
        messages = self._in_hand.of(self._intake)
        for delivery, envelope in messages:
            message, key = mail.parked(delivery, envelope)
            try:
                await publish(channel, Address(exchange=self._settings.requests, key=key, kept=True), message)
            except BrokerError as error:
                log.warning("request_not_put_back", request=envelope.id, reason=error.detail)
        log.info("requests_put_back", count=len(messages))
