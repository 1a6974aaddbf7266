"""A broker with every trouble, behind a proxy, while requests come and are worked on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aio_pika
import pytest

from tests.chaos.archives import folder_shelf, hold_archive
from tests.chaos.fleet import DONE, LONG, Client, Fleet, chance, client, figure, hold_account, hold_links, request
from tests.proxy import Proxy, proxy
from tests.rabbit import RabbitNode

pytestmark = [pytest.mark.broker, pytest.mark.tool, pytest.mark.slow, pytest.mark.timeout(1800)]

VHOST = "trouble"


@pytest.fixture(scope="module")
def url(rabbit: RabbitNode) -> str:
    rabbit.start()
    rabbit.control("add_vhost", VHOST)
    rabbit.control("set_permissions", "-p", VHOST, "guest", ".*", ".*", ".*")
    return rabbit.url_for(rabbit.port, VHOST)


class Trouble:
    """What befalls a broker, by name."""

    def __init__(self, node: RabbitNode, between: Proxy, dice: random.Random) -> None:
        self.node = node
        self.between = between
        self.dice = dice
        self.kinds = {
            "restart": self.restart,
            "kill -9": self.kill,
            "connections cut": self.cut,
            "connections closed by the broker": self.close,
            "memory alarm": self.memory_alarm,
            "disk alarm": self.disk_alarm,
            "slow": self.slow,
            "stalled": self.stall,
            "confirms lost": self.lose_confirms,
            "refused": self.refuse,
        }

    async def restart(self) -> None:
        await asyncio.to_thread(self.node.stop)
        await self._back()

    async def kill(self) -> None:
        await asyncio.to_thread(self.node.kill)
        await self._back()

    async def _back(self) -> None:
        await asyncio.to_thread(self.node.start)
        await asyncio.to_thread(self.node.elect)

    async def cut(self) -> None:
        for _ in range(self.dice.randint(1, 5)):
            self.between.cut()
            await asyncio.sleep(self.dice.uniform(0, 0.4))

    async def close(self) -> None:
        await asyncio.to_thread(self.node.close_connections)

    async def memory_alarm(self) -> None:
        await asyncio.to_thread(self.node.block_publishers)
        await asyncio.sleep(1)
        await asyncio.to_thread(self.node.unblock_publishers)

    async def disk_alarm(self) -> None:
        await asyncio.to_thread(self.node.control, "set_disk_free_limit", str(10**15))
        await asyncio.sleep(1)
        await asyncio.to_thread(self.node.control, "set_disk_free_limit", str(50 * 10**6))

    async def slow(self) -> None:
        self.between.delay_seconds = 0.05
        await asyncio.sleep(2)
        self.between.delay_seconds = 0

    async def stall(self) -> None:
        self.between.stall()
        await asyncio.sleep(1.5)
        self.between.resume()

    async def lose_confirms(self) -> None:
        """What the worker publishes arrives, and it never hears so."""
        self.between.hold_answers()
        await asyncio.sleep(self.dice.uniform(0.2, 0.6))
        self.between.cut()
        self.between.resume()

    async def refuse(self) -> None:
        self.between.refusing = True
        self.between.cut()
        await asyncio.sleep(1)
        self.between.refusing = False


def some(trouble: Trouble, dice: random.Random) -> list[str]:
    """A death of the broker, the loss of confirms, and two others."""
    rest = sorted(trouble.kinds.keys() - {"restart", "kill -9", "confirms lost"})
    return [dice.choice(["restart", "kill -9"]), "confirms lost", *dice.sample(rest, 2)]


def behind(node: RabbitNode) -> AbstractAsyncContextManager[Proxy]:
    return proxy(node.port)


async def test_no_trouble_of_the_broker_costs_a_request_or_a_result(
    url: str, rabbit: RabbitNode, tmp_path: Path
) -> None:
    """One worker and one trouble after another, each in the midst of work. The upstream hears everything in the end."""
    dice = chance("broker")
    shelf = folder_shelf(tmp_path / "aips")
    async with behind(rabbit) as between:
        fleet = Fleet(
            tmp_path / "fleet",
            rabbit.url_for(between.port, VHOST),
            shelf=shelf,
            AMQP__HEARTBEAT_SECONDS=5,
        )
        trouble = Trouble(rabbit, between, dice)
        names = dice.sample(sorted(trouble.kinds), len(trouble.kinds)) * 3 if LONG else some(trouble, dice)
        requests: list[str] = []
        with fleet.at_work():
            await fleet.one.ready()
            async with client(url, fleet) as acme:
                for turn, name in enumerate(names):
                    for number in range(2):
                        identity = f"{turn} {name} {number}"
                        requests.append(await acme.request(fleet.source(identity), identity))
                    await acme.until(lambda: acme.of(*requests[-2:]), f"work before {name}")
                    await asyncio.sleep(dice.uniform(0, 0.5))
                    await trouble.kinds[name]()
                found = await acme.results(requests, seconds=120)
                if LONG:  # what was on its way back from being parked as the broker died is sent again after 3 minutes
                    await acme.drained(seconds=300)
                hold_account(acme, requests)
                for identity in requests:
                    hold_links(acme, identity)
                repeated = len(acme.messages) - len({(message.id, message.exchange) for message in acme.messages})
    assert {message.data["outcome"] for message in found.values()} <= DONE
    assert {message.data["attempt"] for message in found.values()} == {1}
    assert len({message.data["aip"]["id"] for message in found.values()}) == len(requests)
    await hold_archive(shelf, {message.data["aip"]["id"] for message in found.values()}, tmp_path / "fetched")
    assert fleet.one.complaints() == []
    figure(
        "broker",
        troubles=dict(Counter(names)),
        requests=len(requests),
        connections=between.accepted,
        events=len(acme.messages),
        events_published_twice=repeated,
    )


async def test_events_whose_confirms_are_lost_come_again_under_the_same_id(
    url: str, rabbit: RabbitNode, tmp_path: Path
) -> None:
    async with behind(rabbit) as between:
        fleet = Fleet(tmp_path / "fleet", rabbit.url_for(between.port, VHOST))
        with fleet.at_work():
            await fleet.one.ready()
            async with client(url, fleet) as acme:
                identity = await acme.request(fleet.source("confirmed late"), "confirmed late")
                await acme.until(lambda: acme.of(identity), "work")
                between.hold_answers()
                before = len(acme.messages)
                with contextlib.suppress(AssertionError):  # none follows the first, if that one's confirm is held back
                    await acme.until(lambda: len(acme.messages) > before, "an event that is not confirmed", seconds=5)
                between.cut()
                between.resume()
                await acme.results([identity])
                await acme.drained()
                hold_account(acme, [identity])
    times = Counter((message.id, message.exchange) for message in acme.messages)
    assert max(times.values()) > 1
    bodies = {message.id: set[bytes]() for message in acme.messages}
    for message in acme.messages:
        bodies[message.id].add(message.body)
    assert all(len(said) == 1 for said in bodies.values())


@contextlib.asynccontextmanager
async def impatient(node: RabbitNode) -> AsyncIterator[None]:
    """A broker that closes the channel of whoever holds a delivery for longer than two seconds."""
    await asyncio.to_thread(set_timeout, node, 2000, 500)
    try:
        yield
    finally:
        await asyncio.to_thread(set_timeout, node, 1_800_000, 60_000)


def set_timeout(node: RabbitNode, milliseconds: int, tick_milliseconds: int) -> None:
    node.control("eval", f"application:set_env(rabbit, consumer_timeout, {milliseconds}).")
    node.control("eval", f"application:set_env(rabbit, channel_tick_interval, {tick_milliseconds}).")


async def test_work_takes_longer_than_the_broker_waits_for_an_acknowledgement(
    url: str, rabbit: RabbitNode, tmp_path: Path
) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "identification.toml").write_text(
        "[[identification_command]]\nid = 'slow'\ntool = 'ingestd'\ndescription = 'slow'\noutput = 'ext'\n"
        "script_type = 'bashScript'\nscript = 'sleep 6; echo .txt'\n",
        encoding="utf-8",
    )
    async with impatient(rabbit):
        fleet = Fleet(tmp_path / "fleet", url, FPR_FOLDERS=json.dumps([str(policy)]))
        with fleet.at_work():
            await fleet.one.ready()
            async with client(url, fleet) as acme:
                processing = {"identify_transfer": True, "identification_command": "slow"}
                identity = await acme.request(fleet.source("slow", files=1), "slow", processing=processing)
                await acme.until(lambda: acme.of(identity), "work")
                closed = await holds_a_delivery(url, fleet, acme)
                found = (await acme.results([identity]))[identity]
                hold_account(acme, [identity])
    assert "consumer ack timed out" in closed or "PRECONDITION_FAILED" in closed
    assert found.data["outcome"] in DONE
    assert found.data["attempt"] == 1
    assert "broker_lost" not in fleet.one.service.log.read_text(encoding="utf-8")


async def holds_a_delivery(url: str, fleet: Fleet, acme: Client) -> str:
    """Take a message and keep it, which this broker does not stand for: the test of the test. Says how it ended."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            f"{fleet.topology}.held", durable=True, arguments={"x-queue-type": "quorum"}
        )
        await channel.default_exchange.publish(aio_pika.Message(request(Path("/"), "held")), queue.name)

        async def keep(_message: object) -> None:
            return

        await queue.consume(keep)
        underlay = await channel.get_underlay_channel()
        done, _ = await asyncio.wait([underlay.closing], timeout=30)
        return str(next(iter(done)).exception()) if done else ""
