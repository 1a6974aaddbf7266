"""One attempt at one request: check the source, run the workflow, tell the result. Exactly one terminal event."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from ingestd.admission import Admission, Need
from ingestd.committing import about_to_store, found_stored
from ingestd.engine import Ended, Engine, Step
from ingestd.errors import Cancelled, Code, IngestError, ResourceError, SystemFault
from ingestd.interruption import Interruption
from ingestd.job import Services, Task
from ingestd.journal import PackageJournal, RequestRecord, RuleCount
from ingestd.journal.service import EMBEDDED
from ingestd.leases import Lease, LeaseLostError, Waiting
from ingestd.messages import (
    ErrorData,
    Event,
    EventData,
    EventType,
    LinkData,
    Outcome,
    RequestState,
    end_of,
)
from ingestd.oais import Facts, Package, Warning_
from ingestd.planning import check_source, package_of, planned, processing_of
from ingestd.preflight import Preflight, name_of
from ingestd.premis import now
from ingestd.results import agents, aip_data, result_data
from ingestd.sources import Checked
from ingestd.waiting import NoRoomError, Waits
from ingestd.workfolder import FolderBusy, fault

log = structlog.get_logger(__name__)

T = TypeVar("T")

HEARTBEAT_SECONDS = 30
GLANCE_SECONDS = 0.1
PACKED = "write_pointer_file"
"""The step after which the AIP is made: packed, verified, encrypted if that was asked for."""
STORE = "store_aip"
"""The step from which on nothing is cancelled: the AIP may be stored already."""


class Advance(Protocol):
    """Change the request's state and journal the event that says so, at once."""

    async def __call__(self, state: RequestState, event: Event, *, rules: Sequence[RuleCount] = ()) -> Event: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """A request that can be done: the package that it will be, where it goes, and what room it may need."""

    package: Package
    target: str
    need: Need


class Attempt:
    """What is done for one request, from the source to the result."""

    def __init__(
        self,
        record: RequestRecord,
        engine: Engine,
        services: Services,
        advance: Advance,
        glance: Callable[[Event], None],
        *,
        admission: Admission,
        is_told: Callable[[], Awaitable[bool]],
        lease: Lease | None = None,
    ) -> None:
        self._record = record
        self._request = record.envelope.data
        self._engine = engine
        self._services = services
        self._settings = services.settings
        self._advance = advance
        self._glance = glance
        self._lease = lease
        self._admission = admission
        self._name = self._request.name or ""
        self._trusted = record.origin == EMBEDDED
        self._spawned = services.pool.spawned
        self._beat = time.monotonic()
        self._glanced = 0.0
        self._at = ""
        self._accepted = False
        self.told = False
        """Whether its terminal event is on its way."""
        self._waits = Waits(
            self.folder, self._settings.admission, admission, lease, tell=self._tell_of_waiting, is_told=is_told
        )
        self.interruption = Interruption(
            self._request.deadline_seconds, since=record.asked_at, over=record.state is RequestState.STORING
        )

    @property
    def folder(self) -> Path:
        return self._settings.work_dir / str(self._record.package)

    @property
    def retried_at(self) -> datetime | None:
        """Since when earlier cancellations do not count any more."""
        return self._lease.claim.retried_at if self._lease else None

    def stop(self, why: Cancelled) -> bool:
        """End it with `request.cancelled`, at once; say False when it is too late: storing has begun."""
        return not self.told and self.interruption.stop(why)

    async def left(self) -> Waiting | None:
        """What the next worker is to know, where nothing was done but waiting for room."""
        return await self._waits.left()

    async def accept(self) -> Accepted | None:
        """Look whether the request can be done, before it takes up any room; None where it ended with that.

        Its task cancelled, it leaves everything to be taken up later. Raises `FolderBusy` and `NoRoomError`.
        """

        async def look() -> Accepted:
            async with self.interruption.possible():
                return await self._accept()

        return await self._telling(look)

    async def run(self, accepted: Accepted) -> None:
        """See an accepted request to its terminal event. Its task cancelled, it leaves all to be taken up later.

        Raises `NoRoomError` when another worker had better begin with it.
        """
        await self._telling(lambda: self._run(accepted))

    async def _run(self, accepted: Accepted) -> None:
        started_at = now()
        async with contextlib.AsyncExitStack() as stack:
            async with self.interruption.possible():
                if await self._ended_before(accepted.package, accepted.target):
                    return

                async def waits(short: ResourceError) -> None:
                    await self._waits.short_of(accepted.need, short)

                await stack.enter_async_context(self._admission.room_for(self._record.package, accepted.need, waits))
            await self._preserve(accepted.package, accepted.target, started_at)

    async def _telling(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do something, holding the package's folder; tell of whatever ends the request in it."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._waits.holding())
                try:
                    return await work()
                except NoRoomError:
                    await self._clear_unbegun()
                    raise
            except Exception as error:
                if self.told or isinstance(error, (FolderBusy, NoRoomError)):
                    raise
                await self._tell_of(error)
        return None

    async def _tell_of(self, error: Exception) -> None:
        if isinstance(error, Cancelled):
            log.info("request cancelled", code=error.code.value, detail=error.detail)
            await self._end_unbegun(EventType.REQUEST_CANCELLED, Outcome.CANCELLED, error)
        elif isinstance(error, IngestError) and self._fresh:
            log.info("request rejected", code=error.code.value, detail=error.detail)
            await self._end_unbegun(EventType.REQUEST_REJECTED, Outcome.REJECTED, error)
        else:
            found = fault(error, self.folder)
            if isinstance(found, SystemFault) and found is not error:
                log.error("attempt raised", exc_info=error)
            await self._fail(found)

    @property
    def _fresh(self) -> bool:
        """Nothing was done yet: what is wrong with the request now rejects it. Later it fails, and its work is kept."""
        return not self._accepted and self._record.state in {RequestState.RECEIVED, RequestState.VALIDATING}

    # --- before ------------------------------------------------------------------------------------------------------

    async def _accept(self) -> Accepted:
        """Find out everything that can be known before anything is done; accept the request, once."""
        preflight = Preflight(self._services, self._engine.workflow)
        report = await preflight.must_pass(self._request, trusted=self._trusted) if self._fresh else None
        processing = processing_of(self._settings, self._request)
        self._services = await planned(self._services, self._request, processing)
        self._engine = self._engine.using(self._services)
        target = self._request.target.location or self._services.locations.default
        self._services.locations.get(target, trusted=self._trusted)
        self._name = report.name if report is not None else self._request.name or await self._recorded_name()
        need = self._admission.need_of(self.folder.name) if report is None else None
        if need is None:
            need = await preflight.need(self.folder, self._request, processing, report, trusted=self._trusted)
        if report is not None:
            await self._waits.until_possible(need)
            await self._say(EventType.REQUEST_ACCEPTED, RequestState.ACCEPTED)
            if self._lease is not None:
                await self._lease.accept()
            self._accepted = True
        package = package_of(self._record, self._name, processing, self._engine.workflow.digest)
        return Accepted(package=package, target=target, need=need)

    async def _tell_of_waiting(self, short: ResourceError) -> None:
        log.info("package_waits", code=short.code.value, detail=short.detail, path=str(self._settings.data_dir))
        state = self._record.state if self._fresh else RequestState.ACCEPTED
        await self._say(EventType.REQUEST_WAITING, state, error=ErrorData.of(short))

    async def _ended_before(self, package: Package, target: str) -> bool:
        """Say what is known without any work: that its workers died too often, or that its AIP is stored already."""
        if self._lease is None:
            return False
        claim = self._lease.claim
        if claim.storing is not None and not (self.folder / "journal.db").exists():
            found = await found_stored(claim.storing, package, target, self._services.locations, self.folder / "copies")
            if found is not None:
                warned = bool(found["warnings"])
                outcome = Outcome.SUCCEEDED_WITH_WARNINGS if warned else Outcome.SUCCEEDED
                await self._say(EventType.AIP_STORED, RequestState(outcome), outcome=outcome, **found)
                await self._clean()
                return True
        if claim.deaths >= self._settings.crash_limit:
            detail = f"{claim.deaths} workers died while they had this request in hand"
            raise SystemFault(detail, code=Code.SYSTEM_CRASH_LOOP)
        return False

    async def _check(self) -> Checked:
        return await check_source(self._services, self._request, trusted=self._trusted)

    async def _recorded_name(self) -> str:
        if not (self.folder / "journal.db").exists():
            return name_of(await self._check())
        journal = await PackageJournal.open(self.folder / "journal.db")
        try:
            return (await journal.facts()).get("name", "") or name_of(await self._check())
        finally:
            await journal.close()

    async def _end_unbegun(self, kind: EventType, outcome: Outcome, error: IngestError) -> None:
        """Tell of a refusal, or of a cancellation before this attempt began with any work."""
        await self._say(kind, RequestState(outcome), outcome=outcome, error=ErrorData.of(error))
        await self._clear_unbegun()

    async def _clear_unbegun(self) -> None:
        if not (self.folder / "journal.db").exists():
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def _fail(self, error: IngestError) -> None:
        """Tell of a failure outside the workflow: of the journal, the disk, the settings, or of ingestd itself."""
        log.error("request failed", code=error.code.value, detail=error.detail)
        told: dict[str, Any] = {"error": ErrorData.of(error), "work_folder": self._work_folder}
        await self._say(EventType.REQUEST_FAILED, RequestState.FAILED, outcome=Outcome.FAILED, **told)

    @property
    def _work_folder(self) -> str | None:
        """Where an embedded run can be looked at; a path of this server is nobody else's business."""
        return str(self.folder) if self._record.origin == EMBEDDED else None

    # --- the work ----------------------------------------------------------------------------------------------------

    async def _preserve(self, package: Package, target: str, started_at: datetime) -> None:
        await self._say(EventType.REQUEST_STARTED, RequestState.RUNNING)
        journal = await PackageJournal.open(self.folder / "journal.db")
        try:
            await self._prepare(journal, package)
            ended = await self._walk(journal, package, target, started_at)
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

    async def _walk(self, journal: PackageJournal, package: Package, target: str, started_at: datetime) -> Ended:
        async def fence() -> None:
            await self._hold(journal, package, started_at)

        task = Task(
            package=package,
            folder=self.folder,
            root=self.folder / "transfer",
            history=journal,
            source=self._request.source,
            target=target,
            added=self._request.reingest.metadata if self._request.reingest else None,
            trusted=self._trusted,
            fence=fence,
        )

        async def report(step: Step) -> None:
            await self._report(step, journal, package)

        try:
            async with self.interruption.possible():
                return await self._engine.preserve(task, journal, report)
        except IngestError as error:
            return Ended(error=error)
        except Exception as error:
            log.exception("attempt raised")
            return Ended(error=fault(error, self.folder))

    async def _hold(self, journal: PackageJournal, package: Package, started_at: datetime) -> None:
        """Make sure that the request is still ours, and write down what is about to be stored."""
        if self._lease is None:
            return
        workflow, algorithm = self._engine.workflow, self._settings.digest_algorithm
        storing = await about_to_store(journal, package, workflow, algorithm, started_at=started_at)
        try:
            await self._lease.prove(storing)
        except LeaseLostError as error:
            raise Cancelled("another worker has the request") from error

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
        kind, outcome = end_of(ended.error.code)
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
            self.interruption.finish()
        state = RequestState.STORING if self.interruption.over else RequestState.RUNNING
        error = ErrorData.of(step.error, step.link.name) if step.error else None
        if step.skipped:
            await self._say(EventType.LINK_SKIPPED, state, link=link)
        elif step.error is not None or step.failed:
            await self._say(EventType.LINK_FAILED, state, link=link, error=error)
        elif step.ended:
            await self._say(EventType.LINK_COMPLETED, state, link=link)
            if step.link.execute == PACKED:
                aip = await aip_data(journal, package, self._settings.digest_algorithm)
                await self._say(EventType.AIP_CREATED, state, aip=aip)
        elif self._at != step.id:
            self._at = step.id
            await self._say(EventType.LINK_RETRYING if step.again else EventType.LINK_STARTED, state, link=link)
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
        rules: Sequence[RuleCount] = (),
        **data: Any,
    ) -> None:
        self._beat = time.monotonic()
        self.told = self.told or kind.terminal
        told = await self._advance(state, self._event(kind, state, **data), rules=rules)
        self._waits.sequence = told.data.sequence

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
                attempt=record.attempt,
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
