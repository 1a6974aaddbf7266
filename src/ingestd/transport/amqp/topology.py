"""Exchanges, queues and bindings: what `ingestd` promises on the broker, as data, and its declaration.

Declaring is idempotent. What is there with other arguments is never changed: that is said, with what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import aio_pika.abc
from aio_pika import ExchangeType

from ingestd.config import AmqpSettings
from ingestd.messages import Priority
from ingestd.transport.amqp.connection import answered

REQUEST_KEYS = {
    Priority.HIGH: "preservation.high",
    Priority.NORMAL: "preservation.request",
    Priority.LOW: "preservation.low",
}
"""First words of a request's routing key, which choose its queue; the tenant's follows."""

UNLIMITED = 1_000_000_000
"""Deliveries of a queue that only people read: RabbitMQ 4 would otherwise drop a message after 20 looks at it."""

Arguments: TypeAlias = dict[str, str | int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    name: str
    kind: ExchangeType
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    name: str
    arguments: Arguments


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    exchange: str
    queue: str
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """Everything that must be on the broker; `request_queues` are those that a worker consumes, first things first."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    request_queues: tuple[str, ...]

    @classmethod
    def of(cls, settings: AmqpSettings) -> Topology:
        """Name and lay out everything as the settings say."""
        return cls(
            exchanges=(
                Exchange(name=settings.dead_letter_exchange, kind=ExchangeType.FANOUT),
                Exchange(name=settings.unrouted, kind=ExchangeType.FANOUT),
                Exchange(name=settings.requests, kind=ExchangeType.TOPIC),
                # Parked copies go through an exchange of their own, and not through the default one: so they keep
                # their routing key, and with it the broker routes them back by itself when their time is over.
                Exchange(name=settings.inflight, kind=ExchangeType.FANOUT),
                Exchange(name=settings.control, kind=ExchangeType.FANOUT),
                Exchange(name=settings.events, kind=ExchangeType.TOPIC),
                Exchange(
                    name=settings.results,
                    kind=ExchangeType.TOPIC,
                    arguments={"alternate-exchange": settings.unrouted},
                ),
            ),
            queues=(
                Queue(name=settings.dead, arguments=_quorum()),
                Queue(name=settings.unrouted, arguments=_quorum()),
                *(
                    Queue(
                        name=name,
                        arguments=_quorum(delivery_limit=settings.delivery_limit)
                        | _dead_letters(settings.dead_letter_exchange),
                    )
                    for name in lanes(settings).values()
                ),
                Queue(
                    name=settings.inflight,
                    arguments=_quorum()
                    | _dead_letters(settings.requests)
                    | {"x-message-ttl": max(1, round(settings.park_seconds * 1000))},
                ),
            ),
            bindings=(
                Binding(exchange=settings.dead_letter_exchange, queue=settings.dead, key=""),
                Binding(exchange=settings.unrouted, queue=settings.unrouted, key=""),
                *(
                    Binding(exchange=settings.requests, queue=name, key=f"{REQUEST_KEYS[priority]}.#")
                    for priority, name in lanes(settings).items()
                ),
                Binding(exchange=settings.inflight, queue=settings.inflight, key=""),
            ),
            request_queues=tuple(lanes(settings).values()),
        )


def lanes(settings: AmqpSettings) -> dict[Priority, str]:
    """The queues of requests by priority, the most urgent first.

    Quorum queues of RabbitMQ 3 know no priorities, those of 4 two: so each priority is a queue.
    """
    return {
        Priority.HIGH: f"{settings.requests}.high",
        Priority.NORMAL: settings.requests,
        Priority.LOW: f"{settings.requests}.low",
    }


def _quorum(*, delivery_limit: int = UNLIMITED) -> Arguments:
    return {"x-queue-type": "quorum", "x-delivery-limit": delivery_limit}


def _dead_letters(exchange: str) -> Arguments:
    """Dead letters that are kept until another queue has confirmed them; that needs `reject-publish`."""
    return {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


async def declare(connection: aio_pika.abc.AbstractConnection, settings: AmqpSettings) -> None:
    """Declare everything. Raises `TopologyError` for what is there with other arguments, or may not be declared."""
    topology = Topology.of(settings)
    async with answered():
        channel = await connection.channel()
        for exchange in topology.exchanges:
            await channel.declare_exchange(
                exchange.name, exchange.kind, durable=True, arguments=dict(exchange.arguments) or None
            )
        for queue in topology.queues:
            await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in topology.bindings:
            queue_ = await channel.get_queue(binding.queue, ensure=False)
            await queue_.bind(binding.exchange, binding.key)
        await channel.close()


async def verify(connection: aio_pika.abc.AbstractConnection, settings: AmqpSettings) -> None:
    """See that everything is there, and declare nothing. Raises `TopologyError` for what is missing."""
    topology = Topology.of(settings)
    async with answered():
        channel = await connection.channel()
        for exchange in topology.exchanges:
            await channel.declare_exchange(exchange.name, exchange.kind, passive=True)
        for queue in topology.queues:
            await channel.declare_queue(queue.name, passive=True)
        await channel.close()
