"""Several workers that share the broker and archival storage alone, and machines that are lost with their disks."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.archives import Shelf, bucket_shelf, folder_shelf, hold_archive
from tests.chaos.fleet import (
    DONE,
    LONG,
    TAKEOVER_SECONDS,
    Client,
    Fleet,
    Worker,
    chance,
    client,
    figure,
    hold_account,
)
from tests.objectstores import moto
from tests.rabbit import RabbitNode

pytestmark = [pytest.mark.broker, pytest.mark.tool, pytest.mark.slow, pytest.mark.timeout(1800)]

REQUESTS = 4


@pytest.fixture(scope="module")
def url(rabbit: RabbitNode) -> str:
    rabbit.start()
    rabbit.control("add_vhost", "machines")
    rabbit.control("set_permissions", "-p", "machines", "guest", ".*", ".*", ".*")
    return rabbit.url_for(rabbit.port, "machines")


@pytest.mark.parametrize("kind", ["folder", "object store"] if LONG else ["object store"])
async def test_what_a_lost_machine_had_in_hand_is_taken_over_in_time(kind: str, url: str, tmp_path: Path) -> None:
    """Of three, one is lost in the midst of work, again and again; a new one comes in its place."""
    if kind == "folder":
        await lost_machines(url, tmp_path, folder_shelf(tmp_path / "aips"))
    else:
        with moto() as server:
            await lost_machines(url, tmp_path, bucket_shelf(server, "machines"))


async def lost_machines(url: str, tmp_path: Path, shelf: Shelf) -> None:
    dice = chance("machines")
    fleet = Fleet(tmp_path / "fleet", url, count=3, shelf=shelf)
    requests: list[str] = []
    waits: list[float] = []
    with fleet.at_work():
        for worker in fleet.workers:
            await worker.ready()
        async with client(url, fleet) as acme:
            for turn in range(12 if LONG else 1):
                asked = [await acme.request(fleet.source(f"{turn} {n}"), f"{turn} {n}") for n in range(REQUESTS)]
                requests += asked
                lost = await lose_one_at_work(fleet, acme, asked, dice.uniform(0, 0.6))
                if lost is None:  # all had ended before
                    continue
                worker, in_hand = lost
                lost_at = time.monotonic()
                await acme.until(lambda: gone_on(acme, in_hand), "the takeover", seconds=60)  # noqa: B023
                waits.append(time.monotonic() - lost_at)
                worker.start()
            found = await acme.results(requests, seconds=120)
            await acme.drained()
            hold_account(acme, requests)
    assert {message.data["outcome"] for message in found.values()} <= DONE
    assert max(waits, default=0) < TAKEOVER_SECONDS
    await hold_archive(shelf, {message.data["aip"]["id"] for message in found.values()}, tmp_path / "fetched")
    figure(
        "machines",
        requests=len(requests),
        machines_lost=len(waits),
        longest_takeover=f"{max(waits, default=0):.1f} s of {TAKEOVER_SECONDS} s promised",
        second_attempts=sum(message.data["attempt"] > 1 for message in found.values()),
    )


async def lose_one_at_work(
    fleet: Fleet, acme: Client, asked: list[str], after_seconds: float
) -> tuple[Worker, dict[str, int]] | None:
    """Lose a worker that has some of these in hand; give it, and the attempts that die with it."""
    await acme.until(lambda: any(link_of(acme, one) for one in asked), "work")
    await asyncio.sleep(after_seconds)
    for worker in fleet.workers:
        work = worker.data_dir / "work"
        packages = {path.name for path in work.iterdir()} if work.is_dir() else set()
        in_hand = {
            one: acme.of(one)[-1].data["attempt"]
            for one in asked
            if acme.of(one) and not acme.terminal(one) and acme.of(one)[0].data["package_id"] in packages
        }
        if in_hand:
            worker.lose()
            return worker, in_hand
    return None


def link_of(acme: Client, identity: str) -> bool:
    return any(message.kind == "link.started" for message in acme.of(identity))


def gone_on(acme: Client, in_hand: dict[str, int]) -> bool:
    """Whether each of these has begun its next attempt, or has ended after all: its AIP may have been there."""
    return all(
        acme.terminal(one) or any(message.data["attempt"] > attempt for message in acme.of(one))
        for one, attempt in in_hand.items()
    )


async def test_a_worker_that_wakes_up_after_its_lease_is_gone_stores_nothing_and_says_nothing(
    url: str, tmp_path: Path
) -> None:
    """A machine that hangs (here: is stopped) for longer than its lease, right before it stores."""
    shelf = folder_shelf(tmp_path / "aips")
    fleet = Fleet(tmp_path / "fleet", url, count=2, shelf=shelf, AMQP__HEARTBEAT_SECONDS=2)
    dice = chance("sleeper")
    with fleet.at_work():
        for worker in fleet.workers:
            await worker.ready()
        async with client(url, fleet) as acme:
            requests = []
            for number in range(6 if LONG else 1):
                identity = await acme.request(fleet.source(f"slept {number}", heavy_bytes=2**22), f"slept {number}")
                requests.append(identity)
                await acme.until(lambda: link_of(acme, identity), "work")  # noqa: B023
                package = str(acme.of(identity)[0].data["package_id"])
                while (sleeper := fleet.holder(package)) is None and not acme.terminal(identity):
                    await asyncio.sleep(0.005)
                if sleeper is None or sleeper.process is None:
                    continue
                await asyncio.sleep(dice.uniform(0, 0.5))
                os.kill(sleeper.process.pid, signal.SIGSTOP)
                await acme.until(lambda: acme.terminal(identity), "the result of another", seconds=60)  # noqa: B023
                os.kill(sleeper.process.pid, signal.SIGCONT)
            found = await acme.results(requests)
            await acme.drained()
            await asyncio.sleep(1)
            hold_account(acme, requests)
    assert {message.data["outcome"] for message in found.values()} <= DONE
    await hold_archive(shelf, {message.data["aip"]["id"] for message in found.values()}, tmp_path / "fetched")
    figure("sleeper", requests=len(requests), attempts=[message.data["attempt"] for message in found.values()])
