"""Examination of contents: what bulk_extractor finds of personal data and other patterns, into the package's logs."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingestd.errors import Code, ToolError
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Facts, File, Warning_, escape_name
from ingestd.premis import Event, EventOutcome, EventType, Program, now
from ingestd.together import side_by_side

NAME = "bulk_extractor"
REPORTS = "logs"
_DEPTH = 250
"""How deep bulk_extractor looks into what is packed within what is packed."""
_VERSION = re.compile(r"bulk_extractor\s+(\d[\w.-]*)")
_TOLD_CHARACTERS = 300
_NOTED_CHARACTERS = 2000


async def examine_contents(task: Task, services: Services) -> Outcome:
    """Run bulk_extractor on each file; its reports, without the empty ones, go to `logs/bulk-UUID` of the file.

    Each has a `forensic feature analysis` event, whose note names the reports. Where bulk_extractor is not installed,
    one warning stands for the package; a run that fails is a warning on the file besides, and leaves no report.
    """
    files = [file for file in task.at_hand if file.size_bytes]
    if not files:
        return Outcome()
    if services.pool.which(NAME) is None:
        detail = f"{NAME} is not installed: the contents of files are not examined"
        return Outcome(facts=Facts(warnings=[Warning_(code=Code.TOOL_NOT_INSTALLED, detail=detail)]))
    program = await _program(services)
    jobs = [_Examination(task=task, services=services, file=file, program=program) for file in files]
    found = await side_by_side(_Examination.run, jobs, at_once=len(jobs))
    facts = Facts(
        events=[event for event, _ in found],
        warnings=[warning for _, warning in found if warning is not None],
    )
    use = ToolUse(name=program.name, version=program.version, used_for="examination of contents")
    return Outcome(facts=facts, tools=[use], now_with=NAME)


async def _program(services: Services) -> Program:
    run = await services.pool.run([NAME, "-V"], name=NAME)
    found = _VERSION.search(f"{run.stdout.decode('utf-8', errors='replace')}\n{run.stderr_tail}")
    return Program(NAME, found[1] if found else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Examination:
    """One file. It is written to a folder beside the transfer, which takes its place when it is complete."""

    task: Task
    services: Services
    file: File
    program: Program

    @property
    def passing(self) -> Path:
        return self.task.folder / "examination" / str(self.file.id)

    async def run(self) -> tuple[Event, Warning_ | None]:
        await asyncio.to_thread(self._clear)
        try:
            # From the transfer's folder on, so that no path of this server gets into a report.
            root = self.task.root.absolute()
            argv = [NAME, "-M", str(_DEPTH), "-j", "1", "-o", self._told_place(), f"./{self.file.path}"]
            done = await self.services.pool.run(argv, cwd=root, writes=[self.passing.parent], name=NAME)
            done.check(NAME)
        except ToolError as error:
            await asyncio.to_thread(shutil.rmtree, self.passing, ignore_errors=True)
            said = error.stderr_tail.strip().splitlines()
            detail = ": ".join([error.detail, *said[-1:]])[:_TOLD_CHARACTERS]
            warning = Warning_(code=error.code, detail=detail, path=escape_name(self.file.path))
            return self._event(EventOutcome.FAIL, detail), warning
        reports = await asyncio.to_thread(self._take)
        found = f"{self._place}: {', '.join(reports)}"[:_NOTED_CHARACTERS]
        return self._event(EventOutcome.SUCCESS, found if reports else "nothing was found"), None

    def _event(self, outcome: EventOutcome, note: str) -> Event:
        return Event(
            object=self.file.id,
            type=EventType.FORENSIC_FEATURE_ANALYSIS,
            at=now(),
            detail=self.program.words(),
            outcome=outcome,
            note=note.replace(f"{self.task.root.absolute()}/", ""),
            programs=[self.program],
        )

    @property
    def _place(self) -> str:
        return f"{REPORTS}/bulk-{self.file.id}"

    def _told_place(self) -> str:
        return os.path.relpath(self.passing.absolute(), self.task.root.absolute())

    def _clear(self) -> None:
        """Remove what an interrupted run has left: bulk_extractor would go on with it, or refuse."""
        shutil.rmtree(self.passing, ignore_errors=True)
        self.passing.parent.mkdir(parents=True, exist_ok=True)

    def _take(self) -> Sequence[str]:
        """Put the reports that say something in their place; give their names."""
        place = self.task.at(self._place)
        for report in sorted(self.passing.rglob("*"), reverse=True):
            if report.is_dir() and not report.is_symlink():
                if not any(report.iterdir()):
                    report.rmdir()
            elif report.is_symlink() or not report.stat().st_size:
                report.unlink()
        shutil.rmtree(place, ignore_errors=True)
        names = sorted(escape_name(path.name) for path in self.passing.iterdir()) if self.passing.is_dir() else []
        if names:
            place.parent.mkdir(parents=True, exist_ok=True)
            self.passing.rename(place)
        else:
            shutil.rmtree(self.passing, ignore_errors=True)
        return names
