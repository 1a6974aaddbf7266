"""An ingest that is killed at a write of its own choosing: strace counts what goes to disk and kills at the number that
it is told, so that no boundary, between links or within them, is left to luck.

`make chaos` takes every seventh write, each run of the tests three.
"""

from __future__ import annotations

import dataclasses
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.aips import open_aip, stored_below, stored_path
from tests.acceptance.corpora import small_transfer
from tests.acceptance.program import Program, Run
from tests.bench import need
from tests.chaos.fleet import LONG, chance, figure

pytestmark = [pytest.mark.tool, pytest.mark.slow, pytest.mark.timeout(3600)]

TO_DISK = "pwrite64,fsync,fdatasync,rename,renameat,renameat2,link,linkat"
NEVER = 65535
EVERY = 7
SAMPLE = 3
LATEST = 25
"""No two ingests write exactly as much: the last writes of one may not come in another."""
PROGRAMS = 20
"""Programs, whose writes are counted apart, write less than this: nothing but ingestd itself is killed."""


@dataclasses.dataclass(frozen=True)
class Place:
    """One ingest's data folder and storage, and how it is asked for."""

    program: Program
    source: Path
    output: Path

    def ingest(self, *, killed_at: int = 0, log: Path | None = None) -> Run:
        tracing = [] if not killed_at else ["strace", "-f", "-qq", "-o", str(log or "/dev/null")]
        inject = ["-e", f"trace={TO_DISK}", "-e", f"inject={TO_DISK}:signal=KILL:when={killed_at}"]
        plain = self.program.command
        self.program.command = (*tracing, *(inject if tracing else ()), *plain)
        try:
            return self.program("ingest", self.source, "--output", self.output, "--json")
        finally:
            self.program.command = plain

    def jobs(self) -> dict[int, Mapping[str, Any]]:
        return {job["row"]: job for job in self.program.jobs()}


def place(folder: Path) -> Place:
    folder.mkdir()
    program = Program(folder, KEEP_WORK="true", LOG_LEVEL="error")
    return Place(program=program, source=small_transfer(folder / "Papers"), output=folder / "output")


def writes(folder: Path) -> int:
    """How much one thread of an ingest that nobody kills sends to disk: the last number at which one can be killed."""
    one, log = place(folder), folder / "calls"
    run = one.ingest(killed_at=NEVER, log=log)

    assert run.code == 0, run.err
    return max(Counter(line.split()[0] for line in log.read_text(errors="replace").splitlines()).values())


def test_an_ingest_that_is_killed_at_any_write_is_finished_once(tmp_path: Path) -> None:
    need("strace")
    dice = chance("writes")
    last = writes(tmp_path / "whole")
    numbers = range(PROGRAMS + dice.randrange(EVERY), last - LATEST, EVERY)
    died_in: Counter[str] = Counter()

    for number in numbers if LONG else sorted(dice.sample(numbers, SAMPLE)):
        one = place(tmp_path / f"killed at {number}")
        killed = one.ingest(killed_at=number)
        assert killed.code == -signal.SIGKILL, f"write {number}: {killed.err}"
        told = any(request["state"].startswith("succeeded") for request in one.program.requests())
        before = one.jobs()
        done = {row: job for row, job in before.items() if job["ended_at"]}
        died_in.update([job["name"] for row, job in before.items() if row not in done] or ["between links"])

        if told:  # the same command again would be a new wish
            [aip] = stored_below(one.output)
            open_aip(aip, tmp_path / f"opened {number}")
            continue

        run = one.ingest()

        assert run.code == 0, f"write {number}: {run.err}"
        after = one.jobs()
        assert {row: after[row] for row in done} == done, f"write {number}"
        assert {1} == set(Counter(job["link"] for job in after.values()).values()), f"write {number}"
        assert stored_below(one.output) == [stored_path(run.result)], f"write {number}"
        open_aip(stored_path(run.result), tmp_path / f"opened {number}")

    figure("writes", writes=last, deaths=died_in.total(), links=len(died_in), between=died_in["between links"])
