"""An ingest, and a worker, killed at a write to disk of a test's own choosing, by its number: no boundary, between links
or within them, is left to luck.

`make chaos` takes one write in every so many, and all of the last; each run of the tests three.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ingestd.messages import parse_request
from tests.acceptance.aips import open_aip, stored_below, stored_path
from tests.acceptance.corpora import small_transfer
from tests.acceptance.program import Program, Run
from tests.acceptance.tracing import NEVER, calls_in, killed_at
from tests.bench import need
from tests.chaos.archives import folder_shelf, hold_archive
from tests.chaos.fleet import (
    DONE,
    LONG,
    Client,
    Fleet,
    Worker,
    chance,
    client,
    figure,
    hold_account,
    hold_links,
    request,
)
from tests.rabbit import RabbitNode

pytestmark = [pytest.mark.tool, pytest.mark.slow, pytest.mark.timeout(3600)]

SAMPLE = 3
LATEST = 30
"""The last writes, from shortly before the result on. No two runs write exactly as much, so some are not come to."""


def numbers(dice: random.Random, last: int, every: int) -> Sequence[int]:
    """At which writes to kill; of a sample, one is among the latest."""
    early, late = range(1 + dice.randrange(every), last - LATEST, every), range(last - LATEST, last + 1)
    return [*early, *late] if LONG else [*sorted(dice.sample(early, SAMPLE - 1)), dice.choice(late)]


def killed_in(before: Sequence[Mapping[str, Any]]) -> str:
    """Which link had begun."""
    return next((str(job["name"]) for job in before if not job["ended_at"]), "between links")


def done(jobs: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    return {job["row"]: job for job in jobs if job["ended_at"]}


def hold_jobs(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], at: str) -> None:
    """Each link is one job, and those that had ended are as they were."""
    assert {row: job for row, job in done(after).items() if row in done(before)} == done(before), at
    assert {1} == set(Counter(job["link"] for job in after).values()), at


# --- an ingest without a broker


@dataclasses.dataclass(frozen=True)
class Place:
    """One ingest's data folder and storage, and how it is asked for."""

    program: Program
    source: Path
    output: Path

    def ingest(self) -> Run:
        return self.program("ingest", self.source, "--output", self.output, "--json")

    def ended(self) -> Mapping[str, Any] | None:
        """The request, once it has its result."""
        return next((one for one in self.program.requests() if one["finished_at"]), None)


def place(folder: Path) -> Place:
    folder.mkdir()
    program = Program(folder, KEEP_WORK="true", LOG_LEVEL="error")
    return Place(program=program, source=small_transfer(folder / "Papers"), output=folder / "output")


def test_an_ingest_that_is_killed_at_any_write_makes_one_aip_and_says_so(tmp_path: Path) -> None:
    """Run again, it goes on, or says what was done. Only once it has said so, the same is a new wish."""
    need("strace")
    dice = chance("writes")
    whole = place(tmp_path / "whole")
    with killed_at(whole.program, NEVER, log=tmp_path / "calls"):
        assert whole.ingest().code == 0
    last = max(calls_in(tmp_path / "calls").values())
    died_in: Counter[str] = Counter()

    for number in numbers(dice, last, 7):
        one, at = place(tmp_path / f"killed at {number}"), f"write {number}"
        with killed_at(one.program, number):
            killed = one.ingest()
        if killed.code == 0:
            assert number > last - LATEST, at
            died_in["not at all"] += 1
            continue
        assert killed.code == -signal.SIGKILL, f"{at}: {killed.err}"
        ended, before = one.ended(), one.program.jobs()
        if ended is not None and not ended["untold"]:
            died_in["after it was told"] += 1
            assert stored_below(one.output) == [stored_path(killed.result)], at
            continue
        died_in["before it was told" if ended else killed_in(before)] += 1

        run = one.ingest()

        assert run.code == 0, f"{at}: {run.err}"
        assert ("could not say so" in run.err) == bool(ended), at
        hold_jobs(before, one.program.jobs(), at)
        assert stored_below(one.output) == [stored_path(run.result)], at
        open_aip(stored_path(run.result), tmp_path / f"opened {number}")

    told = {name.replace(" ", "_"): died_in.pop(name) for name in list(died_in) if "told" in name or "all" in name}
    between = died_in.pop("between links", 0)
    figure("writes", writes=last, **told, within_links=died_in.total(), links=len(died_in), between_links=between)


# --- a worker


@pytest.fixture(scope="module")
def url(rabbit: RabbitNode) -> str:
    rabbit.start()
    rabbit.control("add_vhost", "writes")
    rabbit.control("set_permissions", "-p", "writes", "guest", ".*", ".*", ".*")
    return rabbit.url_for(rabbit.port, "writes")


@contextlib.contextmanager
def traced(worker: Worker, number: int, log: Path | None = None) -> Iterator[None]:
    """A worker that dies at its write of this number; in the end it is dead at any rate."""
    with killed_at(worker.service.program, number, log=log):
        worker.start()
    assert worker.process is not None
    try:
        yield
    finally:
        tasks = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children")  # strace would not take it along
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in tasks.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        worker.process.communicate(timeout=20)


async def dead_or(acme: Client, worker: Worker, identity: str) -> bool:
    """Wait until the worker has died, or has told the result and all that is to be written of it; say if it died."""
    await acme.until(lambda: not worker.alive or acme.terminal(identity), f"the end of {identity}")
    if worker.alive:
        await acme.drained()
    return not worker.alive


async def test_a_worker_that_is_killed_at_any_write_makes_one_aip_and_says_so_once(url: str, tmp_path: Path) -> None:
    need("strace")
    dice = chance("writes of a worker")
    shelf = folder_shelf(tmp_path / "aips")
    fleet = Fleet(tmp_path / "fleet", url, shelf=shelf, KEEP_WORK="true")
    worker, log = fleet.one, tmp_path / "calls"
    requests: list[str] = []
    died_in: Counter[str] = Counter()

    async def ask(identity: str) -> str:
        body = request(fleet.source(identity), identity)
        requests.append(identity)
        await acme.send(body)
        return str(parse_request(json.loads(body)).data.package_id())

    with fleet.at_work():
        await worker.ready()
        async with client(url, fleet) as acme:
            worker.kill()
            with traced(worker, NEVER, log):
                await ask("measured")
                await dead_or(acme, worker, "measured")
            last = max(calls_in(log).values())
            for number in numbers(dice, last, 17):
                identity = f"write {number}"
                package = await ask(identity)
                with traced(worker, number):
                    died = await dead_or(acme, worker, identity)
                before = worker.jobs(package)
                told = bool(acme.terminal(identity))
                died_in["not at all" if not died else "after it was told" if told else killed_in(before)] += 1
                worker.start()
                await acme.results([identity])
                await acme.drained()
                worker.kill()
                hold_jobs(before, worker.jobs(package), identity)
                hold_account(acme, [identity])
                hold_links(acme, identity)
                await asyncio.sleep(0)
            found = await acme.results(requests)
            hold_account(acme, requests)
    assert {message.data["outcome"] for message in found.values()} <= DONE
    await hold_archive(shelf, {message.data["aip"]["id"] for message in found.values()}, tmp_path / "fetched")
    told_ = {name.replace(" ", "_"): died_in.pop(name) for name in list(died_in) if "told" in name or "all" in name}
    between = died_in.pop("between links", 0)
    figure(
        "writes of a worker",
        writes=last,
        **told_,
        within_links=died_in.total(),
        links=len(died_in),
        between_links=between,
        attempts=max(message.data["attempt"] for message in found.values()),
    )
