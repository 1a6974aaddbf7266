"""The packages in hand: each an attempt in a task of its own, in one of the service's slots."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import structlog

from ingestd.attempt import Attempt, FolderBusy
from ingestd.engine import Engine
from ingestd.errors import Cancelled, SystemFault
from ingestd.ingest.handles import Observer, Preservation
from ingestd.job import Services
from ingestd.journal import RequestRecord, ServiceJournal, Tombstone
from ingestd.journal.service import EMBEDDED
from ingestd.logs import bound
from ingestd.messages import Event, RequestState

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""How often the journal is asked whether another process has cancelled something that is at work here."""


class Running:
    """What is worked on. Enter it; leave it to stop everything where it is."""

    def __init__(
        self, engine: Engine, services: Services, journal: ServiceJournal, observers: Sequence[Observer]
    ) -> None:
        self._engine = engine
        self._services = services
        self._journal = journal
        self._observers = observers
        self._most = services.settings.concurrent_packages
        self._slots = asyncio.Semaphore(self._most)
        self._group = asyncio.TaskGroup()
        self._looking: asyncio.Task[None] | None = None
        self._tasks: dict[uuid.UUID, asyncio.Task[None]] = {}
        self._attempts: dict[uuid.UUID, Attempt] = {}
        self._records: dict[uuid.UUID, RequestRecord] = {}
        self._listeners: dict[uuid.UUID, list[Preservation]] = {}
        self._slot_freed = asyncio.Condition()
        self.outbox_grew = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._looking = self._group.create_task(self._look_for_cancellations())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await self.halt()
        await self._group.__aexit__(None, None, None)
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.stop()

    async def halt(self) -> None:
        """Stop the packages in hand where they are: each can be taken up later at the link that it was in."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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

    def start(self, record: RequestRecord) -> Preservation:
        """Launch, and give who asked a handle on it."""
        self.launch(record)
        return self.listen(record.package)

    def listen(self, package: uuid.UUID) -> Preservation:
        handle = Preservation(package)
        self._listeners.setdefault(package, []).append(handle)
        return handle

    def launch(self, record: RequestRecord) -> None:
        """Begin with a request, or go on with it, as soon as there is a slot."""
        if record.package in self._tasks:
            raise SystemFault(f"package {record.package} is in hand already")
        self._records[record.package] = record
        self._tasks[record.package] = self._group.create_task(self._run(record), name=str(record.package))

    def stop(self, tombstone: Tombstone) -> bool:
        """Cancel what a tombstone names, if it is in hand; say whether it was, and was not being stored."""
        stopped = False
        for package, attempt in list(self._attempts.items()):
            record = self._records.get(package)
            if record is not None and tombstone.covers(record):
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

    async def _run(self, record: RequestRecord) -> None:
        """See one request to its result, whatever happens within."""
        publish = record.origin != EMBEDDED
        ended: list[Event] = []

        async def advance(state: RequestState, event: Event, **more: Any) -> Event:
            event = await self._journal.advance(record.package, state, event, publish=publish, **more)
            if publish:
                self.outbox_grew.set()
            if event.kind.terminal:
                ended.append(event)  # whoever waits is told when the package is out of our hands
                self.tell(None, event)
            else:
                self.tell(record.package, event)
            return event

        def glance(event: Event) -> None:
            self.tell(record.package, event)

        attempt = Attempt(record, self._engine, self._services, advance, glance)
        self._attempts[record.package] = attempt
        try:
            for tombstone in await self._journal.tombstones():
                if tombstone.covers(record):
                    attempt.stop(cancelled_by(tombstone))
            async with self._slot(attempt):
                with bound(package=str(record.package)):
                    await attempt.run()
            self._records.pop(record.package, None)
        except FolderBusy:
            self._records.pop(record.package, None)
            log.warning("package is in hand elsewhere", package=str(record.package))
        finally:
            await self._let_go(record.package, ended)

    @contextlib.asynccontextmanager
    async def _slot(self, attempt: Attempt) -> AsyncIterator[None]:
        """Wait for a slot; what is cancelled meanwhile needs none to say so."""
        waiting = self._group.create_task(self._slots.acquire())
        stopping = self._group.create_task(attempt.stopped.wait())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            yield
        finally:
            stopping.cancel()
            if waiting.done() and not waiting.cancelled():
                self._slots.release()
            waiting.cancel()

    async def _let_go(self, package: uuid.UUID, ended: Sequence[Event]) -> None:
        self._tasks.pop(package, None)
        self._attempts.pop(package, None)
        for handle in self._listeners.pop(package, []):
            for event in ended:
                handle.tell(event)
            handle.stop()
        with contextlib.suppress(RuntimeError):
            async with self._slot_freed:
                self._slot_freed.notify_all()


def cancelled_by(tombstone: Tombstone) -> Cancelled:
    return Cancelled(f"cancelled: {tombstone.reason}" if tombstone.reason else "cancelled by a command")
