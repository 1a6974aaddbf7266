"""One attempt at one request: check the source, run the workflow, tell the result. Exactly one terminal event."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import structlog

from ingestd.config import Settings
from ingestd.engine import Ended, Engine, Step
from ingestd.errors import Cancelled, Code, IngestError, ResourceError, SystemFault
from ingestd.job import Services, Task
from ingestd.journal import PackageJournal, RequestRecord, RuleCount
from ingestd.journal.service import EMBEDDED
from ingestd.messages import (
    ErrorData,
    Event,
    EventData,
    EventType,
    LinkData,
    Outcome,
    ProcessingConfig,
    RequestState,
)
from ingestd.oais import Facts, Package, Warning_, escape_name
from ingestd.planning import planned
from ingestd.premis import now
from ingestd.results import agents, aip_data, result_data
from ingestd.sources import Checked, check, source_of

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 30
GLANCE_SECONDS = 0.1
STORE = "store_aip"
"""The step from which on nothing is cancelled: the AIP may be stored already."""
_ARCHIVE_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tgz", ".zip", ".tar", ".7z", ".rar")


class FolderBusy(Exception):
    """Another process is at work on the package."""


class Advance(Protocol):
    """Change the request's state and journal the event that says so, at once."""

    async def __call__(
        self, state: RequestState, event: Event, *, attempt: int | None = None, rules: Sequence[RuleCount] = ()
    ) -> Event: ...


class Attempt:
    """What is done for one request, from the source to the result."""

    def __init__(
        self,
        record: RequestRecord,
        engine: Engine,
        services: Services,
        advance: Advance,
        glance: Callable[[Event], None],
    ) -> None:
        self._record = record
        self._request = record.envelope.data
        self._engine = engine
        self._services = services
        self._settings = services.settings
        self._advance = advance
        self._glance = glance
        self._number = record.attempt
        self._name = self._request.name or ""
        self._trusted = record.origin == EMBEDDED
        self._spawned = services.pool.spawned
        self._beat = time.monotonic()
        self._glanced = 0.0
        self._at = ""
        self.told = False
        """Whether its terminal event is on its way."""
        self._scope: asyncio.Timeout | None = None
        self._stopped: Cancelled | None = None
        self.stopped = asyncio.Event()
        """Set when it is to end before its time."""
        self._storing = record.state is RequestState.STORING

    @property
    def folder(self) -> Path:
        return self._settings.work_dir / str(self._record.package)

    @staticmethod
    def busy(settings: Settings, package: uuid.UUID) -> bool:
        """Say whether a process is at work on the package."""
        try:
            with hold_folder(settings.work_dir / str(package)):
                return False
        except FolderBusy:
            return True

    def stop(self, why: Cancelled) -> bool:
        """End it with `request.cancelled`, at once; say False when it is too late: storing has begun."""
        if self._storing or self.told:
            return False
        self._stopped = self._stopped or why
        self.stopped.set()
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(0)
        return True

    async def run(self) -> None:
        """See the request to its terminal event. Its task cancelled, it leaves everything to be taken up later."""
        with hold_folder(self.folder):
            started_at = now()
            try:
                try:
                    async with self._interruptible():
                        package, target = await self._accept()
                except Cancelled as error:
                    await self._cancel(error)
                    return
                except IngestError as error:
                    await (self._reject(error) if self._fresh else self._fail(error))
                    return
                await self._preserve(package, target, started_at)
            except Exception as error:
                if self.told:
                    raise
                log.exception("attempt raised")
                await self._fail(_fault(error))

    @contextlib.asynccontextmanager
    async def _interruptible(self) -> AsyncIterator[None]:
        """What is done within ends with `Cancelled` when it is stopped, or when its deadline passes."""
        if self._stopped is not None:
            raise self._stopped
        scope = asyncio.timeout(None if self._storing else self._seconds_left())
        try:
            async with scope as self._scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise self._why() from error
        finally:
            self._scope = None

    def _why(self) -> Cancelled:
        passed = f"the deadline of {self._request.deadline_seconds} seconds passed"
        return self._stopped or Cancelled(passed, code=Code.CANCELLED_BY_DEADLINE)

    def _begin_to_store(self) -> None:
        """From here on only the store says how it ends: a cancellation that came before is still heard."""
        if self._scope is None or not self._scope.expired():
            self._storing = self._stopped is None
        if self._storing and self._scope is not None:
            self._scope.reschedule(None)

    @property
    def _fresh(self) -> bool:
        """Nothing was done yet: what is wrong with the request now rejects it. Later it fails, and its work is kept."""
        return self._record.state in {RequestState.RECEIVED, RequestState.VALIDATING}

    # --- before ------------------------------------------------------------------------------------------------------

    async def _accept(self) -> tuple[Package, str]:
        """Find out everything that can be known before anything is done; accept the request, once."""
        processing = ProcessingConfig.resolve(self._settings.processing, self._request.processing)
        self._services = await planned(self._services, self._request, processing)
        self._engine = self._engine.using(self._services)
        target = self._request.target.location or self._services.locations.default
        self._services.locations.get(target, trusted=self._trusted)
        if self._fresh:
            checked = await self._check()
            self._name = self._request.name or _name_of(checked)
            await self._say(EventType.REQUEST_ACCEPTED, RequestState.ACCEPTED)
        else:
            self._name = self._request.name or await self._recorded_name()
        return self._package(processing), target

    async def _check(self) -> Checked:
        where = source_of(self._request.source, self._settings.credentials)
        return await check(where, self._settings.sources, trusted=self._trusted)

    async def _recorded_name(self) -> str:
        if not (self.folder / "journal.db").exists():
            return _name_of(await self._check())
        journal = await PackageJournal.open(self.folder / "journal.db")
        try:
            return (await journal.facts()).get("name", "") or _name_of(await self._check())
        finally:
            await journal.close()

    def _package(self, processing: ProcessingConfig) -> Package:
        request = self._request
        return Package(
            id=self._record.package,
            name=self._name,
            created_at=self._record.created_at,
            processing=processing.as_options(),
            source=request.source.location,
            requester=self._record.envelope.source,
            tenant=request.tenant,
            collection=request.collection,
            accession=request.accession or "",
            external_identifier=request.external_identifier or "",
            workflow_digest=self._engine.workflow.digest,
            **request.metadata.as_records(),
        )

    async def _reject(self, error: IngestError) -> None:
        log.info("request rejected", code=error.code.value, detail=error.detail)
        await self._say(
            EventType.REQUEST_REJECTED, RequestState.REJECTED, outcome=Outcome.REJECTED, error=ErrorData.of(error)
        )
        if not (self.folder / "journal.db").exists():
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def _cancel(self, error: Cancelled) -> None:
        """Tell of a cancellation before any work, or before this attempt began with it."""
        log.info("request cancelled", code=error.code.value, detail=error.detail)
        await self._say(
            EventType.REQUEST_CANCELLED, RequestState.CANCELLED, outcome=Outcome.CANCELLED, error=ErrorData.of(error)
        )
        if not (self.folder / "journal.db").exists():
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def _fail(self, error: IngestError) -> None:
        """Tell of a failure outside the workflow: of the journal, the disk, the settings, or of ingestd itself."""
        log.error("request failed", code=error.code.value, detail=error.detail)
        told = ErrorData.of(error)
        await self._say(
            EventType.REQUEST_FAILED,
            RequestState.FAILED,
            outcome=Outcome.FAILED,
            error=told,
            work_folder=self._work_folder,
        )

    @property
    def _work_folder(self) -> str | None:
        """Where an embedded run can be looked at; a path of this server is nobody else's business."""
        return str(self.folder) if self._record.origin == EMBEDDED else None

    # --- the work ----------------------------------------------------------------------------------------------------

    async def _preserve(self, package: Package, target: str, started_at: datetime) -> None:
        resumed = self._record.state not in {RequestState.RECEIVED, RequestState.VALIDATING, RequestState.ACCEPTED}
        self._number = self._record.attempt + int(resumed)
        attempt = self._number if resumed else None
        await self._say(EventType.REQUEST_STARTED, RequestState.RUNNING, attempt=attempt)
        journal = await PackageJournal.open(self.folder / "journal.db")
        try:
            await self._prepare(journal, package)
            ended = await self._walk(journal, package, target)
            await self._finish(journal, package, ended, started_at)
        finally:
            await journal.close()

    async def _prepare(self, journal: PackageJournal, package: Package) -> None:
        await journal.add_agents(agents(self._settings.organization, package))
        missing = [
            name
            for name, value in package.processing.items()
            if value is True and name not in self._engine.workflow.options_read()
        ]
        warnings = []
        if missing:
            detail = f"the workflow has no link for what these options ask: {', '.join(missing)}"
            warnings.append(Warning_(code="workflow.option_without_link", detail=detail))
        await journal.record(Facts(package={"name": package.name}, warnings=warnings))
        await self._engine.reopen(journal)
        (self.folder / "transfer").mkdir(exist_ok=True)

    async def _walk(self, journal: PackageJournal, package: Package, target: str) -> Ended:
        task = Task(
            package=package,
            folder=self.folder,
            root=self.folder / "transfer",
            history=journal,
            source=self._request.source,
            target=target,
            trusted=self._trusted,
        )

        async def report(step: Step) -> None:
            await self._report(step, journal, package)

        try:
            async with self._interruptible():
                return await self._engine.preserve(task, journal, report)
        except IngestError as error:
            return Ended(error=error)
        except Exception as error:
            log.exception("attempt raised")
            return Ended(error=_fault(error))

    def _seconds_left(self) -> float | None:
        """The deadline counts from when the request was taken, or retried, however often it is taken up again."""
        if self._request.deadline_seconds is None:
            return None
        return self._request.deadline_seconds - (now() - self._record.asked_at).total_seconds()

    async def _finish(self, journal: PackageJournal, package: Package, ended: Ended, started_at: datetime) -> None:
        data = await result_data(journal, package, self._engine.workflow, self._settings.digest_algorithm, started_at)
        data["program_runs"] = self._services.pool.spawned - self._spawned
        rules = await journal.rule_counts()
        if ended.error is None:
            outcome = Outcome.SUCCEEDED_WITH_WARNINGS if data["warnings"] else Outcome.SUCCEEDED
            await self._say(EventType.AIP_STORED, RequestState(outcome), rules=rules, outcome=outcome, **data)
            await self._clean()
            return
        link = f"{ended.link.name} ({ended.link_id})" if ended.link else None
        error = ErrorData.of(ended.error, link)
        cancelled = ended.error.code.category == "cancelled"
        kind = EventType.REQUEST_CANCELLED if cancelled else EventType.REQUEST_FAILED
        outcome = Outcome.CANCELLED if cancelled else Outcome.FAILED
        log.warning("request ended", outcome=outcome.value, code=error.code.value, detail=error.detail)
        told = {"outcome": outcome, "error": error, "work_folder": self._work_folder, **data}
        await self._say(kind, RequestState(outcome), rules=rules, **told)

    async def _clean(self) -> None:
        if not self._settings.keep_work:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    # --- telling -----------------------------------------------------------------------------------------------------

    async def _report(self, step: Step, journal: PackageJournal, package: Package) -> None:
        link = LinkData(
            id=step.id,
            name=step.link.name,
            group=step.link.group_name,
            execute=step.link.execute,
            exit_code=step.exit_code,
            seconds=round(step.seconds, 3) if step.seconds is not None else None,
            files_done=step.files_done,
            files_total=step.files_total,
            tool=step.tool,
        )
        if step.link.execute == STORE and not step.ended:
            self._begin_to_store()
        state = RequestState.STORING if self._storing else RequestState.RUNNING
        error = ErrorData.of(step.error, step.link.name) if step.error else None
        if step.skipped:
            await self._say(EventType.LINK_SKIPPED, state, link=link)
        elif step.error is not None or step.failed:
            await self._say(EventType.LINK_FAILED, state, link=link, error=error)
        elif step.ended:
            await self._say(EventType.LINK_COMPLETED, state, link=link)
            if step.link.execute == "verify_aip":
                aip = await aip_data(journal, package, self._settings.digest_algorithm)
                await self._say(EventType.AIP_CREATED, state, aip=aip)
        elif self._at != step.id:
            self._at = step.id
            await self._say(EventType.LINK_STARTED, state, link=link)
        else:
            await self._progress(state, link)

    async def _progress(self, state: RequestState, link: LinkData) -> None:
        """A heartbeat for everybody now and then, a glance for who watches in this process more often."""
        at = time.monotonic()
        if at - self._beat >= HEARTBEAT_SECONDS:
            await self._say(EventType.REQUEST_PROGRESS, state, link=link)
        elif at - self._glanced >= GLANCE_SECONDS:
            self._glanced = at
            self._glance(self._event(EventType.REQUEST_PROGRESS, state, link=link))

    async def _say(
        self,
        kind: EventType,
        state: RequestState,
        *,
        attempt: int | None = None,
        rules: Sequence[RuleCount] = (),
        **data: Any,
    ) -> None:
        self._beat = time.monotonic()
        self.told = self.told or kind.terminal
        await self._advance(state, self._event(kind, state, **data), attempt=attempt, rules=rules)

    def _event(self, kind: EventType, state: RequestState, **data: Any) -> Event:
        record, request = self._record, self._request
        return Event(
            type=kind.full,
            subject=record.request,
            traceparent=record.envelope.traceparent,
            data=EventData(
                request_id=record.request,
                package_id=record.package,
                package_name=self._name or None,
                attempt=self._number,
                sequence=0,
                state=state,
                correlation_id=record.correlation,
                idempotency_key=request.key,
                tenant=request.tenant,
                collection=request.collection,
                accession=request.accession,
                external_identifier=request.external_identifier,
                client_context=request.client_context,
                **data,
            ),
        )


def _name_of(checked: Checked) -> str:
    """A package's name from its source: without an archive's suffix, and as the contract wants names."""
    name = escape_name(checked.name)
    for suffix in _ARCHIVE_SUFFIXES:
        if checked.kind != "folder" and name.lower().endswith(suffix) and len(name) > len(suffix):
            name = name[: -len(suffix)]
            break
    return name.strip()[:200] or "transfer"


def _fault(error: Exception) -> IngestError:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ResourceError(f"no space is left on the working disk: {error.strerror}")
    if isinstance(error, IngestError):
        return error
    words = error.strerror if isinstance(error, OSError) else str(error)  # an OSError's own words name paths
    return SystemFault(f"{type(error).__name__}: {words}")


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Hold the package's folder for this process; the lock goes when the process goes, however it goes."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderBusy(folder.name) from error
        yield
    finally:
        os.close(descriptor)
