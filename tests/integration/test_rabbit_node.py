"""The suite's own broker and proxy do what the chaos tests trust them to do."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aio_pika
import pytest
from pamqp.common import FieldTable

import tests.rabbit as rabbit_module
from tests.proxy import proxy, until
from tests.rabbit import RabbitMissingError, RabbitNode, processes_with

pytestmark = pytest.mark.broker

QUORUM: FieldTable = {"x-queue-type": "quorum"}

SETTLED_SECONDS = 2
"""RabbitMQ 3.10 writes down which quorum queues it has about a second after they are declared: one that is killed
sooner can never lead the queue again, whatever it confirmed."""


async def publish(url: str, body: bytes) -> None:
    """Publish to a quorum queue named like the message, and wait for the confirm."""
    async with await aio_pika.connect(url, timeout=10) as connection:
        channel = await connection.channel()
        await channel.declare_queue(body.decode(), durable=True, arguments=QUORUM)
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, body.decode())


async def is_kept(url: str, body: bytes) -> bool:
    """Take the message from its queue; a node that has just started needs a moment to lead the queue."""
    async with await aio_pika.connect(url, timeout=10) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(body.decode(), durable=True, arguments=QUORUM)
        async with asyncio.timeout(20):
            while (message := await queue.get(fail=False)) is None:
                await asyncio.sleep(0.1)
        await message.ack()
        return message.body == body


async def test_a_confirmed_message_is_there_after_a_restart(rabbit: RabbitNode) -> None:
    await publish(rabbit.start().url, b"restart")
    await asyncio.to_thread(rabbit.restart)

    assert await is_kept(rabbit.url, b"restart")


async def test_a_confirmed_message_is_there_after_the_broker_was_killed(rabbit: RabbitNode) -> None:
    await publish(rabbit.start().url, b"kill")
    await asyncio.sleep(SETTLED_SECONDS)
    await publish(rabbit.url, b"kill")
    await asyncio.to_thread(rabbit.kill)
    with socket.socket() as probe:
        refused = probe.connect_ex(("127.0.0.1", rabbit.port))
    await asyncio.to_thread(rabbit.start)

    assert refused != 0
    assert await is_kept(rabbit.url, b"kill")
    assert await is_kept(rabbit.url, b"kill")  # the one that was confirmed a moment before


async def test_a_frozen_broker_answers_again_once_it_goes_on(rabbit: RabbitNode) -> None:
    with rabbit.start().frozen(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await publish(rabbit.url, b"frozen")
    await publish(rabbit.url, b"thawed")

    assert await is_kept(rabbit.url, b"thawed")


async def test_a_memory_alarm_holds_publishers_until_it_is_lifted(rabbit: RabbitNode) -> None:
    await asyncio.to_thread(rabbit.start().block_publishers)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await publish(rabbit.url, b"held")
    finally:
        await asyncio.to_thread(rabbit.unblock_publishers)
    await publish(rabbit.url, b"let go")

    assert await is_kept(rabbit.url, b"let go")


async def test_nothing_of_a_node_is_left_when_it_is_closed(tmp_path: Path) -> None:
    node = RabbitNode(tmp_path)
    with node:
        names = processes_with(f"RABBITMQ_NODENAME={node.name}")

    assert names
    # One that was told to end may need a moment to be gone.
    await until(lambda: not processes_with(f"RABBITMQ_NODENAME={node.name}"), limit_seconds=10)


def test_a_missing_broker_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rabbit_module, "SERVER_PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(RabbitMissingError, match="apt-get install rabbitmq-server"):
        RabbitNode(tmp_path)


async def test_a_cut_connection_is_lost_and_a_new_one_works(rabbit: RabbitNode) -> None:
    rabbit.start()
    async with proxy(rabbit.port) as between:
        connection = await aio_pika.connect(rabbit.url_for(between.port))
        lost = asyncio.Event()
        connection.close_callbacks.add(lambda *_: lost.set())
        between.cut()
        async with asyncio.timeout(10):
            await lost.wait()
        await publish(rabbit.url_for(between.port), b"after the cut")

        assert between.accepted == 2
    assert await is_kept(rabbit.url, b"after the cut")


async def test_a_stalled_connection_carries_nothing_until_it_is_resumed(rabbit: RabbitNode) -> None:
    rabbit.start()
    async with proxy(rabbit.port) as between:
        between.stall()
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(publish(rabbit.url_for(between.port), b"stalled"))
            await until(lambda: between.connections == 1)
            await asyncio.sleep(0.3)
            waited = not publishing.done()
            between.resume()

        assert waited
    assert await is_kept(rabbit.url, b"stalled")


async def test_a_slow_proxy_delays_and_a_refusing_one_lets_nobody_in(rabbit: RabbitNode) -> None:
    rabbit.start()
    async with proxy(rabbit.port) as between:
        between.delay_seconds = 0.05
        started = asyncio.get_running_loop().time()
        await publish(rabbit.url_for(between.port), b"slow")
        seconds = asyncio.get_running_loop().time() - started
        between.refusing = True
        with pytest.raises(aio_pika.exceptions.AMQPConnectionError):
            await publish(rabbit.url_for(between.port), b"refused")

        assert seconds > 0.2
    assert await is_kept(rabbit.url, b"slow")
