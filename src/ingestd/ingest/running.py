"""The packages in hand: each an attempt in a task of its own, in one of the service's slots."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Self

import structlog

from ingestd.admission import Admission
from ingestd.attempt import Attempt
from ingestd.batches import Batches
from ingestd.engine import Engine
from ingestd.errors import Cancelled, IngestError, ResourceError, SystemFault
from ingestd.ingest.claims import Claims
from ingestd.ingest.grouping import Grouping
from ingestd.ingest.handles import Observer, Preservation
from ingestd.job import Services
from ingestd.journal import RequestRecord, ServiceJournal, Tombstone
from ingestd.journal.service import EMBEDDED
from ingestd.leases import Lease, LeaseLostError, Waiting
from ingestd.logs import bound
from ingestd.messages import Event, RequestState
from ingestd.waiting import NoRoomError
from ingestd.workfolder import FolderBusy, fault

log = structlog.get_logger(__name__)

MARK_SECONDS = 2.0
AGAIN_SECONDS = 10.0
"""How long after it failed something beside the packages is begun again."""
LOOK_SECONDS = 1.0
"""How often the journal is asked whether another process has cancelled something that is at work here."""


_LET_GO: Mapping[type[Exception], str] = {
    FolderBusy: "another process is at work on it",
    LeaseLostError: "another worker has taken it over",
    NoRoomError: "there is no room for it here",
}


class Running:
    """What is worked on. Enter it; leave it to stop everything where it is."""

    def __init__(
        self,
        engine: Engine,
        services: Services,
        journal: ServiceJournal,
        observers: Sequence[Observer],
        batches: Batches | None,
        claims: Claims,
    ) -> None:
        self._engine = engine
        self._services = services
        self._journal = journal
        self._observers = observers
        self._claims = claims
        self._most = services.settings.concurrent_packages
        self._slots = asyncio.Semaphore(self._most)
        self._looks = asyncio.Semaphore(self._most)
        self.admission = Admission(services.settings)
        self._group = asyncio.TaskGroup()
        self._others: list[asyncio.Task[None]] = []
        self._tasks: dict[uuid.UUID, asyncio.Task[None]] = {}
        self._attempts: dict[uuid.UUID, Attempt] = {}
        self._records: dict[uuid.UUID, RequestRecord] = {}
        self._listeners: dict[uuid.UUID, list[Preservation]] = {}
        self._to_tell: set[uuid.UUID] = set()
        """Packages whose results were given to handles of this process, and that nobody has taken from those yet."""
        self._slot_freed = asyncio.Condition()
        self.grouping = Grouping(journal, batches)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self.beside(self._look_for_cancellations)
        self.beside(self.grouping.run)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for other in self._others:
            other.cancel()
        await self.halt()
        await self._group.__aexit__(None, None, None)
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.stop()
        self._to_tell.clear()  # the journal is closed after this

    async def halt(self) -> None:
        """Stop the packages in hand where they are: each can be taken up later at the link that it was in."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def beside(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something else for as long as the service runs; what fails is begun again after a while."""
        self._others.append(self._group.create_task(_ever(work)))

    def __contains__(self, package: uuid.UUID) -> bool:
        return package in self._tasks

    def records(self) -> Sequence[RequestRecord]:
        """Requests without a result, be they at work or stopped by `halt`."""
        return list(self._records.values())

    def has_slot(self) -> bool:
        return len(self._tasks) < self._most

    async def wait_for_slot(self) -> None:
        async with self._slot_freed:
            await self._slot_freed.wait_for(self.has_slot)

    def has(self, package: uuid.UUID) -> bool:
        """Whether a package is at work here, or its result is still to be taken from its handle."""
        return package in self._tasks or package in self._to_tell

    def start(self, record: RequestRecord, remark: str = "") -> Preservation:
        """Launch what has no result, and give who asked a handle on it."""
        if record.result is None:
            self.launch(record)
            return self.listen(record.package, remark)
        handle = Preservation(record.package, self._told, remark)
        self._to_tell.add(record.package)
        handle.tell(record.result)
        return handle

    def listen(self, package: uuid.UUID, remark: str = "") -> Preservation:
        handle = Preservation(package, self._told, remark)
        self._listeners.setdefault(package, []).append(handle)
        return handle

    async def _told(self, package: uuid.UUID) -> None:
        """Somebody has taken the result from a handle. Where that cannot be recorded, it is told once more."""
        if package in self._to_tell:
            try:
                await self._journal.told(package)
            except IngestError as error:
                log.warning("telling_not_recorded", package=str(package), reason=error.detail)
            self._to_tell.discard(package)

    def launch(self, record: RequestRecord, lease: Lease | None = None) -> None:
        """Begin with a request, or go on with it, as soon as there is a slot."""
        if record.package in self._tasks:
            raise SystemFault(f"package {record.package} is in hand already")
        self._records[record.package] = record
        self._tasks[record.package] = self._group.create_task(self._run(record, lease), name=str(record.package))

    def stop(self, tombstone: Tombstone) -> bool:
        """Cancel what a tombstone names, if it is in hand; say whether it was, and was not being stored."""
        stopped = False
        for package, attempt in list(self._attempts.items()):
            record = self._records.get(package)
            meant = attempt.retried_at is None or tombstone.at > attempt.retried_at
            if record is not None and tombstone.covers(record) and meant:
                stopped = attempt.stop(cancelled_by(tombstone)) or stopped
        return stopped

    async def settled(self, package: uuid.UUID) -> None:
        """Wait until a package whose result is told is out of our hands, if it is in them."""
        attempt = self._attempts.get(package)
        if attempt is not None and attempt.told:
            await asyncio.wait((self._tasks[package],))

    def tell(self, package: uuid.UUID | None, event: Event) -> None:
        """Show an event to whoever looks on; to those who wait for the package too, if it is named."""
        for observer in self._observers:
            observer(event)
        for handle in self._listeners.get(package, []) if package else []:
            handle.tell(event)

    async def _look_for_cancellations(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._attempts:
                for tombstone in await self._journal.tombstones():
                    self.stop(tombstone)

    async def _run(self, record: RequestRecord, lease: Lease | None) -> None:
        """See one request to its result, whatever happens within."""
        package = record.package
        ended: list[Event] = []
        failure: IngestError | None = None
        died = False

        async def advance(state: RequestState, event: Event, **more: Any) -> Event:
            if state.terminal and lease is not None:
                event = await self._mark(lease, state, event)
            event = await self._recorded(record, state, event, more)
            if event.kind.terminal:
                self.grouping.somebody_ended()
                ended.append(event)  # whoever waits is told when the package is out of our hands
            self.tell(None if event.kind.terminal else package, event)
            return event

        def glance(event: Event) -> None:
            self.tell(package, event)

        try:
            record = await self._numbered(record, lease)
            attempt = Attempt(
                record,
                self._engine,
                self._services,
                advance,
                glance,
                admission=self.admission,
                is_told=functools.partial(self._is_told, record.request),
                lease=lease,
            )
            self._attempts[package] = attempt
            if (refusal := await self._refusal(record, lease)) is not None:
                attempt.stop(refusal)
            async with self._kept(lease):
                with bound(package=str(package)):
                    await self._attempt(attempt)
            self._records.pop(package, None)
        except (FolderBusy, LeaseLostError, NoRoomError) as error:
            self._records.pop(package, None)
            if not isinstance(error, FolderBusy):
                await self._journal.forget(package)
            log.info("request_let_go", package=str(package), why=_LET_GO[type(error)])
        except Exception as error:
            # One package stops no other. It is not recorded how far it came: it can be taken up as after a crash. Where
            # nothing ran out, its lease is not given back, so that it counts as one whose worker died.
            failure = fault(error, self._services.settings.work_dir / str(package))
            died = not isinstance(failure, ResourceError)
            log.exception("package_stopped", package=str(package), reason=failure.detail, exc_info=died)
        finally:
            if lease is not None and not ended and not died:
                await lease.release(await self._left(package))
            await self._let_go(package, ended, failure)

    async def _recorded(
        self, record: RequestRecord, state: RequestState, event: Event, more: Mapping[str, Any]
    ) -> Event:
        """Record a step of a request. While the journal's disk is full, one that came by a message waits for room,
        since others wait for its result; what was begun in this process raises `ResourceError`.
        """
        publish = record.origin != EMBEDDED
        while True:
            try:
                return await self._journal.advance(record.package, state, event, publish=publish, **more)
            except ResourceError as error:
                if not publish:
                    raise
                log.warning("state_not_recorded", package=str(record.package), state=state.value, reason=error.detail)
                await asyncio.sleep(MARK_SECONDS)

    async def _attempt(self, attempt: Attempt) -> None:
        """Look at a request as soon as one can; begin with it when there is a slot."""
        async with self._slot(self._looks, attempt):
            accepted = await attempt.accept()
        if accepted is not None:
            async with self._slot(self._slots, attempt):
                await attempt.run(accepted)

    async def _refusal(self, record: RequestRecord, lease: Lease | None) -> Cancelled | None:
        """Why a request that was taken is not to be worked on."""
        for tombstone in await self._claims.cancellations(record, lease):
            return cancelled_by(tombstone)
        return await self.grouping.refusal(record)

    async def _is_told(self, request: str) -> bool:
        """Whether all events of a request are published."""
        return not await self._journal.is_to_be_told(request)

    async def _left(self, package: uuid.UUID) -> Waiting | None:
        """What the next worker is to know of an attempt that only waited for room."""
        attempt = self._attempts.get(package)
        return await attempt.left() if attempt is not None else None

    async def _numbered(self, record: RequestRecord, lease: Lease | None) -> RequestRecord:
        """Give the request the number of its attempt: the lease says it, or else that work had begun; and that of the
        last event that was told in it.
        """
        told = 0
        if lease is not None:
            number = lease.claim.attempt
            told = lease.claim.waiting.sequence if lease.claim.waiting else 0
        else:
            number = record.attempt + int(record.state in {RequestState.RUNNING, RequestState.STORING})
        if number == record.attempt and told <= record.sequence:
            return record
        return await self._journal.begin_attempt(record.package, number, told)

    async def _mark(self, lease: Lease, state: RequestState, event: Event) -> Event:
        """Tell all workers how a request ended, before anybody else is told; gives the event with its number.

        Nothing else can be done with it while archival storage is away, so that is waited for.
        """
        sequence = await self._journal.next_sequence(lease.claim.package)
        data = event.data.model_copy(update={"sequence": sequence, "state": state})
        event = event.model_copy(update={"data": data})
        while True:
            try:
                await lease.end(event)
            except IngestError as error:
                log.warning("result_not_marked", package=str(lease.claim.package), reason=error.detail)
                await asyncio.sleep(MARK_SECONDS)
            else:
                return event

    @contextlib.asynccontextmanager
    async def _kept(self, lease: Lease | None) -> AsyncIterator[None]:
        """Hold the lease while what is within goes on. Raises `LeaseLostError`."""
        if lease is None:
            yield
            return
        current = asyncio.current_task()
        lost = asyncio.Event()

        def lose() -> None:
            lost.set()
            if current is not None:
                current.cancel()

        try:
            async with lease.kept(lose):
                yield
        except asyncio.CancelledError:
            if not lost.is_set() or (current is not None and current.uncancel() > 0):
                raise
            raise LeaseLostError(str(lease.claim.package)) from None

    @contextlib.asynccontextmanager
    async def _slot(self, slots: asyncio.Semaphore, attempt: Attempt) -> AsyncIterator[None]:
        """Wait for a slot; what is cancelled meanwhile needs none to say so."""
        waiting = self._group.create_task(slots.acquire())
        stopping = self._group.create_task(attempt.interruption.came.wait())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            yield
        finally:
            stopping.cancel()
            if waiting.done() and not waiting.cancelled():
                slots.release()
            waiting.cancel()

    async def _let_go(self, package: uuid.UUID, ended: Sequence[Event], failure: IngestError | None) -> None:
        self._tasks.pop(package, None)
        self._attempts.pop(package, None)
        handles = self._listeners.pop(package, [])
        if handles and ended:
            self._to_tell.add(package)
        for handle in handles:
            for event in ended:
                handle.tell(event)
            handle.stop(failure)
        with contextlib.suppress(RuntimeError):
            async with self._slot_freed:
                self._slot_freed.notify_all()


async def _ever(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("beside_failed", work=getattr(work, "__qualname__", ""))
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            return


def cancelled_by(tombstone: Tombstone) -> Cancelled:
    return Cancelled(f"cancelled: {tombstone.reason}" if tombstone.reason else "cancelled by a command")
