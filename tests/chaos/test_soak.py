"""Good requests, duplicates, nonsense, hostile archives and cancellations, on workers that die every few seconds.

`CHAOS_REQUESTS` says how many requests; `make chaos` asks for 200.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import tarfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.upstream import hold_against_contract
from tests.chaos.archives import folder_shelf, hold_archive
from tests.chaos.fleet import DONE, LONG, Client, Fleet, chance, client, figure, hold_account, request
from tests.rabbit import RabbitNode

pytestmark = [pytest.mark.broker, pytest.mark.tool, pytest.mark.slow, pytest.mark.timeout(3600)]

REQUESTS = int(os.environ.get("CHAOS_REQUESTS") or (200 if LONG else 60))
WORKERS = 3 if LONG else 2
MOST_DEATHS = 10**6 if LONG else 8
SECONDS = 3000 if LONG else 300


@pytest.fixture(scope="module")
def url(rabbit: RabbitNode) -> str:
    rabbit.start()
    rabbit.control("add_vhost", "soak")
    rabbit.control("set_permissions", "-p", "soak", "guest", ".*", ".*", ".*")
    return rabbit.url_for(rabbit.port, "soak")


@dataclass
class Mail:
    """What is sent: bodies in their order, and what must become of each request by its id."""

    bodies: list[bytes] = field(default_factory=list)
    good: set[str] = field(default_factory=set)
    duplicates: dict[str, str] = field(default_factory=dict)
    """Ids under which the same is asked for once more, and the id of the first."""
    repeated: int = 0
    """Messages that are sent twice as they are."""
    refused: dict[str, str] = field(default_factory=dict)
    """Requests that are wrong, with the error's code."""
    unreadable: int = 0
    """Messages that nobody can be told about."""
    hostile: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)


def mail_of(fleet: Fleet, dice: random.Random, count: int) -> Mail:
    """Of `count` messages 30 % ask for what another asks for, 10 % are wrong, 5 % hostile, 5 % are to be cancelled."""
    mail = Mail()
    for number in range(round(count * 0.3)):
        mail.good.add(f"good {number}")
        mail.bodies.append(request(fleet.source(f"good {number}", files=dice.randint(1, 6)), f"good {number}"))
    first = sorted(mail.good)
    for number in range(round(count * 0.2)):
        mail.good.add(f"single {number}")
        mail.bodies.append(request(fleet.source(f"single {number}"), f"single {number}"))
    for number in range(round(count * 0.3)):
        of = dice.choice(first)
        if dice.random() < 0.5:
            mail.repeated += 1
            mail.bodies.append(request(fleet.sources / of, of))
        else:
            mail.duplicates[f"again {number}"] = of
            mail.bodies.append(request(fleet.sources / of, f"again {number}"))
    for number in range(max(2, round(count * 0.1))):
        mail.bodies.append(malformed(fleet, mail, dice, number))
    for number in range(max(1, round(count * 0.05))):
        mail.hostile.add(f"hostile {number}")
        mail.bodies.append(request(hostile(fleet.sources / f"hostile {number}", dice), f"hostile {number}"))
    for number in range(max(1, round(count * 0.05))):
        mail.cancelled.add(f"cancelled {number}")
        mail.bodies.append(request(fleet.source(f"cancelled {number}", heavy_bytes=2**20), f"cancelled {number}"))
    dice.shuffle(mail.bodies)
    return mail


def malformed(fleet: Fleet, mail: Mail, dice: random.Random, number: int) -> bytes:
    identity = f"malformed {number}"
    match dice.randrange(5):
        case 0:
            mail.unreadable += 1
            return dice.choice([b"\xff\xfe", b"", b"[" * 5000, b'{"data": 1', b'"text"', dice.randbytes(200)])
        case 1:
            mail.refused[identity] = "request.schema_invalid"
            return json.dumps(json.loads(request(Path("/x"), identity)) | {"data": {"source": 7}}).encode()
        case 2:
            mail.refused[identity] = "request.unknown_option"
            return request(fleet.sources, identity, processing={"normalise": True})
        case 3:
            mail.refused[identity] = "source.not_found"
            return request(fleet.sources / identity, identity)
        case _:
            mail.refused[identity] = "request.unsupported_source"
            return request(Path("/etc"), identity)


def hostile(path: Path, dice: random.Random) -> Path:
    """An archive that would write outside of where it is unpacked."""
    name = dice.choice(["../../outside.txt", "/tmp/outside.txt", "a/../../../outside.txt"])
    if dice.random() < 0.5:
        path = path.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("good.txt", "good")
            archive.writestr(name, "outside")
        return path
    path = path.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 7
        tar.addfile(member, io.BytesIO(b"outside"))
    return path


async def deaths(fleet: Fleet, dice: random.Random, counts: Counter[str]) -> None:
    """Kill a worker every few seconds, sometimes with its disk; it comes back after a while."""
    while counts["deaths"] < MOST_DEATHS:
        await asyncio.sleep(dice.uniform(1, 4))
        victim = dice.choice(fleet.workers)
        await victim.ready()
        await asyncio.sleep(dice.uniform(0, 2))
        if dice.random() < 0.3:
            await asyncio.to_thread(victim.lose)
            counts["disks lost"] += 1
        else:
            await asyncio.to_thread(victim.kill)
        counts["deaths"] += 1
        await asyncio.sleep(dice.uniform(0, 1))
        victim.start()


async def cancellations(acme: Client, mail: Mail, dice: random.Random) -> None:
    """Every other one is told before its request is sent, the others at some time after."""
    for number, identity in enumerate(sorted(mail.cancelled)):
        if number % 2:
            await asyncio.sleep(dice.uniform(0, 3))
        await acme.cancel(identity)


async def send(acme: Client, mail: Mail, dice: random.Random) -> None:
    left = list(mail.bodies)
    while left:
        some = [left.pop() for _ in range(min(len(left), dice.randint(1, 10)))]
        await acme.send_all(some)
        await asyncio.sleep(dice.uniform(0, 0.5))


async def test_every_message_is_accounted_for_whatever_dies(url: str, tmp_path: Path) -> None:
    dice = chance("soak")
    shelf = folder_shelf(tmp_path / "aips")
    fleet = Fleet(tmp_path / "fleet", url, count=WORKERS, shelf=shelf)
    mail = mail_of(fleet, dice, REQUESTS)
    expected = mail.good | mail.duplicates.keys() | mail.refused.keys() | mail.hostile | mail.cancelled
    counts = Counter[str]()
    with fleet.at_work():
        for worker in fleet.workers:
            await worker.ready()
        async with client(url, fleet) as acme, asyncio.TaskGroup() as group:
            began = time.monotonic()
            sending = [group.create_task(send(acme, mail, dice)), group.create_task(cancellations(acme, mail, dice))]
            dying = group.create_task(deaths(fleet, random.Random(dice.random()), counts))
            await asyncio.wait(sending)
            with contextlib.suppress(AssertionError):  # whoever is missing is told below, once nobody dies any more
                await acme.results(expected, seconds=SECONDS)
            took = time.monotonic() - began
            dying.cancel()
            await asyncio.wait([dying])
            for worker in fleet.workers:
                if not worker.alive:
                    worker.start()
                await worker.ready()
            found = await acme.results(expected, seconds=60)
            await acme.drained(seconds=60)
            await asyncio.sleep(1)
            dead = await acme.count("dead")
            unrouted = await acme.count("unrouted")

    outcomes = {identity: message.data["outcome"] for identity, message in found.items()}
    hold_account(acme, expected)
    assert {outcomes[one] for one in mail.good | mail.duplicates.keys()} <= DONE
    assert {one: found[one].data["error"]["code"] for one in mail.refused} == mail.refused
    assert {found[one].data["error"]["code"] for one in mail.hostile} == {"content.path_traversal"}
    assert {outcomes[one] for one in mail.cancelled} <= DONE | {"cancelled"}
    assert acme.ended() == expected
    assert dead == mail.unreadable
    assert unrouted == 0
    stored = mail.good | {one for one in mail.cancelled if outcomes[one] in DONE}
    packages = {found[one].data["aip"]["id"] for one in stored}
    assert len(packages) == len(stored)
    for again, first in mail.duplicates.items():
        assert found[again].data["aip"]["id"] == found[first].data["aip"]["id"]
    size = await hold_archive(shelf, packages, tmp_path / "fetched")
    assert not list(tmp_path.rglob("outside.txt"))
    hold_against_contract(acme.messages[:: max(1, len(acme.messages) // 500)], never=[], work=str(fleet.one.data_dir))
    for worker in fleet.workers:
        assert worker.complaints() == []
    figure(
        "soak",
        messages=len(mail.bodies),
        good=len(mail.good),
        asked_again=len(mail.duplicates),
        sent_twice=mail.repeated,
        malformed=len(mail.refused) + mail.unreadable,
        hostile=len(mail.hostile),
        cancelled=f"{sum(outcomes[one] == 'cancelled' for one in mail.cancelled)} of {len(mail.cancelled)}",
        workers=WORKERS,
        deaths=counts["deaths"],
        disks_lost=counts["disks lost"],
        events=len(acme.messages),
        most_attempts=max(message.data["attempt"] for message in found.values()),
        AIPs=f"{len(packages)} ({size} bytes), all verified",
        seconds=round(took),
    )
