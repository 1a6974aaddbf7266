"""A cluster of three brokers that loses one after another, behind one address, while requests are worked on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.archives import folder_shelf, hold_archive
from tests.chaos.fleet import DONE, LONG, Fleet, chance, client, figure, hold_account, hold_links
from tests.proxy import proxy
from tests.rabbit import RabbitNode

pytestmark = [pytest.mark.broker, pytest.mark.tool, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[RabbitNode]]:
    with contextlib.ExitStack() as stack:
        nodes: list[RabbitNode] = []
        for number in range(3):
            folder = tmp_path / f"rabbit-{number}"
            nodes.append(stack.enter_context(RabbitNode(folder, beside=nodes[0] if nodes else None)))
            if number:
                nodes[-1].join()
        yield nodes


async def test_a_cluster_that_loses_a_node_loses_no_request_and_no_result(
    cluster: list[RabbitNode], tmp_path: Path
) -> None:
    """The worker comes to one of two nodes, as through a balancer; the one it is at dies, and comes back later."""
    dice = chance("cluster")
    shelf = folder_shelf(tmp_path / "aips")
    *pair, third = cluster
    requests: list[str] = []
    deaths = 0
    async with proxy(pair[0].port) as between:
        fleet = Fleet(tmp_path / "fleet", third.url_for(between.port), shelf=shelf, AMQP__HEARTBEAT_SECONDS=5)
        with fleet.at_work():
            await fleet.one.ready()
            async with client(third.url, fleet) as acme:
                for turn in range(6 if LONG else 1):
                    at, other = (pair[turn % 2], pair[(turn + 1) % 2])
                    for number in range(2):
                        identity = f"{turn} {number}"
                        requests.append(await acme.request(fleet.source(identity), identity))
                    await acme.until(lambda: acme.of(*requests[-2:]), "work")
                    await asyncio.sleep(dice.uniform(0, 0.7))
                    between.target_port = other.port
                    await asyncio.to_thread(at.kill)
                    deaths += 1
                    await acme.results(requests, seconds=120)
                    await asyncio.to_thread(at.start)
                found = await acme.results(requests)
                await acme.drained(seconds=300)
                hold_account(acme, requests)
                for identity in requests:
                    hold_links(acme, identity)
    assert {message.data["outcome"] for message in found.values()} <= DONE
    assert {message.data["attempt"] for message in found.values()} == {1}
    await hold_archive(shelf, {message.data["aip"]["id"] for message in found.values()}, tmp_path / "fetched")
    assert fleet.one.complaints() == []
    figure("cluster", requests=len(requests), deaths=deaths, connections=between.accepted)
