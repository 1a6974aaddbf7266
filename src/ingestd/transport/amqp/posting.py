"""Publishing one message, with the broker's confirm."""

from __future__ import annotations

from dataclasses import dataclass

from aio_pika import Message
from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage

from ingestd.transport.amqp.connection import ANSWER_SECONDS, TopologyError, answered


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a message goes. `kept`: it must reach a queue, and it is an error when none is bound."""

    exchange: str
    key: str
    kept: bool


async def publish(
    channel: AbstractChannel, address: Address, message: Message, *, limit_seconds: float = ANSWER_SECONDS
) -> None:
    """Publish one message and wait for the broker's confirm.

    Raises `RefusedError` when the broker takes it not, `TopologyError` when it must reach a queue and none is bound,
    `BrokerError` when the connection is lost.
    """
    async with answered(limit_seconds):
        exchange = (
            await channel.get_exchange(address.exchange, ensure=False) if address.exchange else channel.default_exchange
        )
        result = await exchange.publish(message, address.key, mandatory=True)
    if address.kept and isinstance(result, DeliveredMessage):
        raise TopologyError(
            f"nothing is bound to exchange {address.exchange!r} for {address.key!r}",
            remediation="Declare the topology with `ingestd topology`.",
        )
