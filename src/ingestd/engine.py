"""Walk one package through the workflow: link by link, files in windows, facts recorded before the next step.

The engine is the only writer of a package's journal. A link that is done is not done again; one that was interrupted
goes on at its cursor. What follows a link is said by its exit code in `workflow.json`, and so is how bad a failure is.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import structlog

from ingestd.errors import Cancelled, Code, DependencyError, IngestError, ResourceError, SystemFault, Violation
from ingestd.job import FilesHandler, Handler, Outcome, Services, Task
from ingestd.journal import JobRecord, PackageJournal
from ingestd.messages import ErrorData
from ingestd.oais import Facts, File, FileUse, Warning_
from ingestd.workflow import ChoiceConfig, DirectoriesConfig, FilesConfig, JobStatus, Link, Workflow
from ingestd.workfolder import UnusableError, fault

log = structlog.get_logger(__name__)

WINDOW_FILES = 64
"""Files that one step works on at a time (limits.md: at most 32 to 64 in a batch)."""
END = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Where the engine is: reported when a link starts, moves on and ends."""

    id: str
    link: Link
    files_done: int = 0
    files_total: int = 0
    tool: str = ""
    exit_code: int | None = None
    seconds: float | None = None
    error: IngestError | None = None
    failed: bool = False
    """The job failed, by its exit code; `error` says why, where the step did."""
    skipped: bool = False
    """A choice that leaves its link out."""
    again: bool = False
    """The link had been begun before."""

    @property
    def ended(self) -> bool:
        return self.exit_code is not None


class Report(Protocol):
    """Whoever wants to know how far a package is."""

    async def __call__(self, step: Step) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How the walk ended. `error` is set when the package failed, with the link where it did."""

    error: IngestError | None = None
    link: Link | None = None
    link_id: str = ""


class Engine:
    """Runs packages through one workflow with one table of steps."""

    def __init__(self, workflow: Workflow, handlers: Mapping[str, Handler], services: Services) -> None:
        self.workflow = workflow
        self._handlers = handlers
        self._services = services

    def using(self, services: Services) -> Engine:
        """Give the same engine with other services: those of one package, which has a policy of its own."""
        return Engine(self.workflow, self._handlers, services)

    async def preserve(self, task: Task, journal: PackageJournal, report: Report) -> Ended:
        """Take the package to an end of the workflow, from where its journal says it is."""
        facts = await journal.facts()
        link_id = facts.get("next_link", self.workflow.start)
        ended = self._ended(facts)
        while link_id != END:
            link = self.workflow.links[link_id]
            told = replace(task, package=task.package.as_told(await journal.facts()))
            with structlog.contextvars.bound_contextvars(link=link.name):
                step, next_link = await self._run_link(Step(id=link_id, link=link), told, journal, report)
            stopped = next_link == link_id  # where it can be taken up again
            if step.error is not None and not link.fails and (stopped or self._leads_to_failure(next_link)):
                ended = Ended(error=step.error, link=link, link_id=link_id)
            if stopped:
                break
            link_id = next_link
        return ended

    async def reopen(self, journal: PackageJournal) -> None:
        """Make a failed package go on at the link that failed, or where it was interrupted."""
        facts = await journal.facts()
        if facts.get("failed_link"):
            await journal.record(Facts(package={"next_link": facts["failed_link"], "failed_link": "", "failure": ""}))

    def _ended(self, facts: Mapping[str, str]) -> Ended:
        """The failure of a package that died on its way along the failing branch."""
        link_id = facts.get("failed_link", "")
        if not link_id:
            return Ended()
        error = ErrorData.model_validate_json(facts["failure"]).error()
        return Ended(error=error, link=self.workflow.links.get(link_id), link_id=link_id)

    def _leads_to_failure(self, link_id: str) -> bool:
        return link_id == END or self.workflow.links[link_id].fails

    async def _run_link(self, step: Step, task: Task, journal: PackageJournal, report: Report) -> tuple[Step, str]:
        """Run one link as a job; give how it ended and the next link (the same one: it must be run again)."""
        if isinstance(step.link.config, ChoiceConfig):
            value = _chosen(step.link.config, task)
            if not value:
                await report(replace(step, skipped=True))
            chosen = next(choice.link_id for choice in step.link.config.choices if choice.value is value)
            if self._leads_to_failure(chosen) and not step.link.fails:
                step = replace(step, error=_unsaid(step))
                await journal.record(Facts(package=_failure_facts(_unsaid(step), step.id)))
            return step, chosen
        job = await journal.start_job(step.id, step.link.name, step.link.execute)
        started = time.monotonic()
        step = replace(step, again=job.again)
        await report(step)
        ended = await self._run_job(step, job, task, journal, report)
        seconds = time.monotonic() - started
        exit_ = step.link.exit(ended.exit_code or 0)
        next_link = exit_.link_id or END
        ended = replace(ended, seconds=job.seconds + seconds, failed=exit_.job_status is JobStatus.FAILED)
        if _stops(ended.error):
            next_link = step.id
        else:
            ended, facts = self._judged(ended, next_link)
            await journal.end_job(job.row, ended.exit_code or 0, seconds, next_link, facts)
        _log(ended)
        await report(ended)
        return ended, next_link

    def _judged(self, ended: Step, next_link: str) -> tuple[Step, Facts]:
        """What follows from how a job ended: the package fails here, or it is warned, or nothing.

        It is recorded with the end of the job: whoever goes on after a crash must know that the package failed.
        """
        leads = next_link != END and self.workflow.links[next_link].fails
        if not ended.link.fails and (leads or (ended.failed and next_link == END)):
            error = ended.error or _unsaid(ended)
            return replace(ended, error=error), Facts(package=_failure_facts(error, ended.id))
        return ended, Facts(warnings=_as_warnings(ended) if ended.failed and not ended.link.fails else ())

    async def _run_job(self, step: Step, job: JobRecord, task: Task, journal: PackageJournal, report: Report) -> Step:
        config = cast("FilesConfig | DirectoriesConfig", step.link.config)
        handler = self._handlers[config.execute]
        task = replace(task, options=config.options(task.package.processing), cursor=job.cursor)
        try:
            if isinstance(config, FilesConfig):
                run = self._run_files(step, job, task, journal, report, cast("FilesHandler", handler))
            else:
                run = self._run_package(step, job, task, journal, report, handler)
            return await run
        except IngestError as error:
            return replace(step, exit_code=1, error=error)
        except OSError as error:
            return replace(step, exit_code=1, error=_from_os(error, step.link, task.folder))
        except Exception as error:
            log.exception("step raised", execute=config.execute)
            fault = SystemFault(f"{config.execute} raised {type(error).__name__}: {error}")
            return replace(step, exit_code=1, error=fault)

    async def _run_package(
        self, step: Step, job: JobRecord, task: Task, journal: PackageJournal, report: Report, handler: Handler
    ) -> Step:
        if inspect.iscoroutinefunction(handler):
            if job.cursor:  # its outcome was recorded before a crash
                return replace(step, exit_code=job.exit_code or 0)
            outcome = await handler(task, self._services)
            await _record(journal, job, outcome, cursor=1)
            return replace(step, exit_code=outcome.exit_code, tool=outcome.now_with)
        exit_code = job.exit_code or 0
        done = job.files_done
        async with aclosing(cast("AsyncGenerator[Outcome, None]", handler(task, self._services))) as outcomes:
            async for outcome in outcomes:
                await _record(journal, job, outcome)
                exit_code = max(exit_code, outcome.exit_code)
                done += len(outcome.facts.files)
                step = replace(step, files_done=done, tool=outcome.now_with)
                await report(step)
        return replace(step, exit_code=exit_code)

    async def _run_files(
        self,
        step: Step,
        job: JobRecord,
        task: Task,
        journal: PackageJournal,
        report: Report,
        handler: FilesHandler,
    ) -> Step:
        """Run a step over the files in windows, a few at once; record them in order, so that the cursor is true."""
        config = cast("FilesConfig", step.link.config)
        under = (config.filter_subdir or "").strip("/")
        uses = _uses(task.options.get("use", ""))
        by_use = (await journal.totals(under=under)).by_use
        total = sum(count for use, count in by_use.items() if not uses or use in uses)
        step = replace(step, files_done=job.files_done, files_total=total)
        await report(step)
        exit_code = job.exit_code or 0

        async def attempt(files: Sequence[File]) -> Outcome | Exception:
            try:
                return await handler(replace(task, files=files), self._services)
            except Exception as error:  # noqa: BLE001  given to whoever waits for this window
                return error

        async def settle(files: Sequence[File], outcome: Outcome | Exception) -> None:
            nonlocal exit_code, step
            if isinstance(outcome, Exception):
                raise outcome
            await _record(journal, job, outcome, cursor=files[-1].row, files_done=len(files))
            exit_code = max(exit_code, outcome.exit_code)
            step = replace(step, files_done=step.files_done + len(files), tool=outcome.now_with)
            await report(step)

        at_once = self._services.settings.tools.processes
        windows = journal.files(under=under, uses=uses, after_row=job.cursor, window=WINDOW_FILES)
        await _in_order(windows, attempt, settle, at_once=at_once)
        return replace(step, exit_code=exit_code)


async def _in_order(
    windows: AsyncIterator[Sequence[File]],
    work: Callable[[Sequence[File]], Awaitable[Outcome | Exception]],
    settle: Callable[[Sequence[File], Outcome | Exception], Awaitable[None]],
    *,
    at_once: int,
) -> None:
    """Work on up to `at_once` windows at a time and settle them in order; an error cancels what is at work."""
    pending: deque[tuple[Sequence[File], asyncio.Task[Outcome | Exception]]] = deque()
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        try:
            async for files in windows:
                pending.append((files, group.create_task(_awaited(work(files)))))
                if len(pending) >= at_once:
                    done, task = pending.popleft()
                    await settle(done, await task)
            while pending:
                done, task = pending.popleft()
                await settle(done, await task)
        except Exception as error:  # noqa: BLE001  raised below as itself, not in a group
            failure = error
            for _, task in pending:
                task.cancel()
    if failure is not None:
        raise failure


async def _awaited(outcome: Awaitable[Outcome | Exception]) -> Outcome | Exception:
    return await outcome


async def _record(
    journal: PackageJournal, job: JobRecord, outcome: Outcome, *, cursor: int = 0, files_done: int | None = None
) -> None:
    done = len(outcome.facts.files) if files_done is None else files_done
    await journal.record(
        replace(outcome.facts, warnings=[_of_job(warning, job) for warning in outcome.facts.warnings]),
        job=job.row,
        cursor=cursor or outcome.cursor,
        files_done=done,
        exit_code=outcome.exit_code,
        tools=[(tool.name, tool.version, tool.used_for) for tool in outcome.tools],
    )


def _of_job(warning: Warning_, job: JobRecord) -> Warning_:
    """Name the job in what it says of a file; what holds for many files, such as a missing program, is said once."""
    return replace(warning, link=warning.link or job.name) if warning.path else warning


def _chosen(config: ChoiceConfig, task: Task) -> bool:
    return bool(task.package.processing.get(config.config_attr, config.default))


def _uses(text: str) -> list[FileUse]:
    return [FileUse(word) for word in text.split(",") if word]


def _as_warnings(ended: Step) -> list[Warning_]:
    """A failure that the workflow walks past, said in data: one warning for each violation, or one in all."""
    error, link = ended.error, ended.link
    if error is None:
        detail = f"{link.name} ended with exit code {ended.exit_code}"
        return [Warning_(code="workflow.job_failed", detail=detail, link=link.name)]
    if not error.violations:
        return [Warning_(code=error.code, detail=error.detail, link=link.name)]
    return [Warning_(code=error.code, detail=_worded(v, error), path=v.path, link=link.name) for v in error.violations]


def _worded(violation: Violation, error: IngestError) -> str:
    found = f"; found {violation.actual}" if violation.actual else ""
    return f"{violation.rule}: {violation.expected or error.detail}{found}"


def _unsaid(step: Step) -> IngestError:
    return SystemFault(f"{step.link.name} ended with exit code {step.exit_code or 0}, which fails the package")


def _stops(error: IngestError | None) -> bool:
    """What no workflow walks past: the package stops here and can be taken up here."""
    return isinstance(error, (ResourceError, Cancelled, DependencyError, UnusableError)) or (
        error is not None and error.code in {Code.SYSTEM_BUG, Code.STORAGE_OUTCOME_UNKNOWN}
    )


def _from_os(error: OSError, link: Link, folder: Path) -> IngestError:
    found = fault(error, folder)
    return type(found)(f"{link.name}: {found.detail}", code=found.code, remediation=found.remediation)


def _failure_facts(error: IngestError, link_id: str) -> dict[str, str]:
    return {"failed_link": link_id, "failure": ErrorData.of(error).model_dump_json()}


def _log(step: Step) -> None:
    log.info(
        "job done",
        execute=step.link.execute,
        exit_code=step.exit_code,
        seconds=round(step.seconds or 0, 3),
        files=step.files_done,
        error=step.error.code.value if step.error else None,
    )
