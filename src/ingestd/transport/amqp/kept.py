"""Messages that are kept because they found no way on: dead letters, and results that nobody has bound.

They are looked at without being taken, and replayed where they came from: published there first, then removed here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from aiormq.abc import AbstractChannel as WireChannel
from pamqp.commands import Basic

from ingestd.config import AmqpSettings
from ingestd.transport.amqp import mail
from ingestd.transport.amqp.connection import answered, connected
from ingestd.transport.amqp.mail import Delivery
from ingestd.transport.amqp.posting import Address, publish


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """One message that is kept, why, and where it came from."""

    id: str
    reason: str
    code: str
    exchange: str
    routing_key: str
    delivery: Delivery

    @classmethod
    def of(cls, delivery: Delivery) -> Kept:
        headers = delivery.headers
        by_us = mail.EXCHANGE in headers
        death = _last_death(headers)
        keys = death.get("routing-keys") or [delivery.routing_key]
        return cls(
            id=mail.identity(delivery, None),
            reason=str(headers.get(mail.REASON) or death.get("reason") or "nobody has bound it"),
            code=str(headers.get(mail.CODE) or ""),
            exchange=str(headers[mail.EXCHANGE] if by_us else death.get("exchange", delivery.exchange)),
            routing_key=str(headers.get(mail.ROUTING_KEY, "") if by_us else keys[0]),
            delivery=delivery,
        )


def _last_death(headers: Any) -> dict[str, Any]:
    """What RabbitMQ itself noted when it moved the message (`x-death`)."""
    deaths = headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else {}
    return first if isinstance(first, dict) else {}


async def look(settings: AmqpSettings, queue: str) -> AsyncGenerator[Kept, None]:
    """Give the messages of a queue, the oldest first, and leave them there. Raises `DependencyError`."""
    async with connected(settings, "ingestd replay") as connection:
        async with answered():
            channel = await connection.channel()
        async with contextlib.aclosing(_fetched(await channel.get_underlay_channel(), queue)) as found:
            async for one in found:
                yield one


async def replay(
    settings: AmqpSettings, queue: str, *, identity: str | None = None, code: str | None = None
) -> AsyncGenerator[Kept, None]:
    """Publish messages once more where they came from, and give each that is safe there. Raises `DependencyError`.

    `identity` and `code` choose among those there were when it began; one that comes back meanwhile is not looked at.
    """
    async with connected(settings, "ingestd replay") as connection:
        async with answered():
            channel, back = await connection.channel(), await connection.channel()
        underlay = await channel.get_underlay_channel()
        async with contextlib.aclosing(_fetched(underlay, queue)) as found:
            async for one in found:
                if (identity and one.id != identity) or (code and one.code != code):
                    continue
                address = Address(exchange=one.exchange, key=one.routing_key, kept=True)
                await publish(back, address, mail.replayed(one.delivery))
                async with answered():
                    await underlay.basic_ack(one.delivery.tag)
                yield one


async def _fetched(channel: WireChannel, queue: str) -> AsyncGenerator[Kept, None]:
    """What is not acknowledged goes back to its place when the channel is closed."""
    left = 1
    while left > 0:
        async with answered():
            message = await channel.basic_get(queue)
        if not isinstance(message.delivery, Basic.GetOk):
            return
        delivery = Delivery.of(message)
        left = delivery.left if left == 1 else min(left - 1, delivery.left)
        yield Kept.of(delivery)
