"""Examination of contents: what bulk_extractor finds of personal data and other patterns, into the package's logs."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ingestd.errors import Code, ToolError
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Facts, File, Warning_, escape_name
from ingestd.together import side_by_side

NAME = "bulk_extractor"
REPORTS = "logs"
_DEPTH = 250
"""How deep bulk_extractor looks into what is packed within what is packed."""
_VERSION = re.compile(r"bulk_extractor\s+(\d[\w.-]*)")
_TOLD_CHARACTERS = 300


async def examine_contents(task: Task, services: Services) -> Outcome:
    """Run bulk_extractor on each file; its reports, without the empty ones, go to `logs/bulk-UUID` of the file.

    No event: nothing is done to the file, nor said of it. Where bulk_extractor is not installed, one warning stands for
    the package; a run that fails is a warning on the file, and leaves no report.
    """
    files = [file for file in task.files if file.size_bytes]
    if not files:
        return Outcome()
    if services.pool.which(NAME) is None:
        detail = f"{NAME} is not installed: the contents of files are not examined"
        return Outcome(facts=Facts(warnings=[Warning_(code=Code.TOOL_NOT_INSTALLED, detail=detail)]))
    version = await _version(services)
    jobs = [_Examination(task=task, services=services, file=file) for file in files]
    found = await side_by_side(_Examination.run, jobs, at_once=len(jobs))
    warnings = [warning for warning in found if warning is not None]
    use = ToolUse(name=NAME, version=version, used_for="examination of contents")
    return Outcome(facts=Facts(warnings=warnings), tools=[use], now_with=NAME)


async def _version(services: Services) -> str:
    run = await services.pool.run([NAME, "-V"], name=NAME)
    found = _VERSION.search(f"{run.stdout.decode('utf-8', errors='replace')}\n{run.stderr_tail}")
    return found[1] if found else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Examination:
    """One file. It is written to a folder beside the transfer, which takes its place when it is complete."""

    task: Task
    services: Services
    file: File

    @property
    def passing(self) -> Path:
        return self.task.folder / "examination" / str(self.file.id)

    async def run(self) -> Warning_ | None:
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
            return Warning_(code=error.code, detail=detail, path=escape_name(self.file.path))
        await asyncio.to_thread(self._take)
        return None

    def _told_place(self) -> str:
        return os.path.relpath(self.passing.absolute(), self.task.root.absolute())

    def _clear(self) -> None:
        """Remove what an interrupted run has left: bulk_extractor would go on with it, or refuse."""
        shutil.rmtree(self.passing, ignore_errors=True)
        self.passing.parent.mkdir(parents=True, exist_ok=True)

    def _take(self) -> None:
        place = self.task.at(REPORTS) / f"bulk-{self.file.id}"
        for report in sorted(self.passing.rglob("*"), reverse=True):
            if report.is_dir() and not report.is_symlink():
                if not any(report.iterdir()):
                    report.rmdir()
            elif report.is_symlink() or not report.stat().st_size:
                report.unlink()
        shutil.rmtree(place, ignore_errors=True)
        if self.passing.is_dir() and any(self.passing.iterdir()):
            place.parent.mkdir(parents=True, exist_ok=True)
            self.passing.rename(place)
        else:
            shutil.rmtree(self.passing, ignore_errors=True)
