"""OAIS Ingest: take preservation requests, see each to its one result, and say so.

The same request makes the same AIP: requests are journalled by the AIP's id, which is made of tenant and idempotency
key. Transports pull: they `take` requests in and fetch events from the `outbox`; `ingest` knows none of them. An
embedding program uses `preserve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import structlog

from ingestd.attempt import Attempt, FolderBusy
from ingestd.engine import Engine
from ingestd.errors import Code, IngestError, RequestError, SystemFault
from ingestd.job import Services
from ingestd.journal import OutboxItem, RequestRecord, ServiceJournal
from ingestd.journal.service import EMBEDDED
from ingestd.logs import bound
from ingestd.messages import (
    ErrorData,
    Event,
    EventData,
    EventType,
    Outcome,
    PreservationRequest,
    RequestEnvelope,
    RequestSource,
    RequestState,
    parse_request,
    read_context,
)

log = structlog.get_logger(__name__)


class Disposition(StrEnum):
    """What became of a request that a transport brought."""

    TAKEN = "taken"
    """Journalled now, new or to be gone on with."""
    IN_HAND = "in_hand"
    """This service is at work on it."""
    DONE = "done"
    """It has its result, and the result is confirmed."""
    DONE_UNCONFIRMED = "done_unconfirmed"
    """It has its result, which is still to be published."""
    REJECTED = "rejected"
    """Refused; the result that says so is to be published."""


Observer = Callable[[Event], None]
_MOST_GLANCES = 100
"""Progress that is only shown (it has no sequence number) is not kept for somebody who does not look."""


class Preservation:
    """One request in this process: await it for its result, or iterate over its events; both may be done."""

    def __init__(self, package: uuid.UUID) -> None:
        self.package = package
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._result: asyncio.Future[EventData] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, EventData]:
        return asyncio.shield(self._result).__await__()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            yield event

    def tell(self, event: Event) -> None:
        if event.data.sequence or self._events.qsize() < _MOST_GLANCES:
            self._events.put_nowait(event)
        if event.kind.terminal:
            self._events.put_nowait(None)
            if not self._result.done():
                self._result.set_result(event.data)

    def stop(self) -> None:
        """The service stops before there is a result."""
        self._events.put_nowait(None)
        if not self._result.done():
            self._result.cancel()


class Ingest:
    """The service, without any way in but its methods. Enter it, and leave it to stop what is in hand."""

    def __init__(self, engine: Engine, services: Services, journal: ServiceJournal) -> None:
        self.settings = services.settings
        self.observers: list[Observer] = []
        self._engine = engine
        self._services = services
        self._journal = journal
        self._slots = asyncio.Semaphore(self.settings.concurrent_packages)
        self._group = asyncio.TaskGroup()
        self._tasks: dict[uuid.UUID, asyncio.Task[None]] = {}
        self._records: dict[uuid.UUID, RequestRecord] = {}
        self._listeners: dict[uuid.UUID, list[Preservation]] = {}
        self._outbox_grew = asyncio.Event()
        self._slot_freed = asyncio.Condition()
        self._taking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
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

    # --- for programs that embed this --------------------------------------------------------------------------------

    async def preserve(self, source: str | os.PathLike[str], **request: Any) -> EventData:
        """Preserve `source` and give the result, whatever it is. `request` is as for `begin`."""
        return await (await self.begin(source, **request))

    async def begin(
        self,
        source: str | os.PathLike[str],
        *,
        name: str | None = None,
        processing: Mapping[str, Any] | None = None,
        checksum: Mapping[str, str] | None = None,
        requester: str = "",
        again: bool = False,
        **more: Any,
    ) -> Preservation:
        """Begin to preserve `source` (a path or URL). `more` are other fields of a preservation request.

        An unfinished ingest of the same source with the same options, whose process died, is taken up where it was,
        unless `again`. Raises `RequestError` when the request is not valid.
        """
        where = {"location": _location(source), "checksum": checksum}
        data = {"source": where, "processing": dict(processing or {}), **more}
        if name is not None:
            data["name"] = name
        raw = {"id": str(uuid.uuid4()), "source": requester or "urn:ingestd:embedded", "data": data}
        envelope = parse_request(raw)
        async with self._taking:
            if envelope.data.idempotency_key is not None:
                return await self._preserve_once(envelope)
            record = None if again else await self._interrupted(envelope)
            if record is None:
                unique = envelope.data.model_copy(update={"idempotency_key": str(uuid.uuid4())})
                envelope = envelope.model_copy(update={"data": unique})
                record = await self._journal.add(envelope, origin=EMBEDDED)
            return self._start(record)

    async def _preserve_once(self, envelope: RequestEnvelope) -> Preservation:
        """A request with an idempotency key: what has its result already is told again, not done again."""
        record = await self._journal.get(envelope.data.package_id())
        if record is None:
            return self._start(await self._journal.add(envelope, origin=EMBEDDED))
        if record.content_digest != envelope.data.content_digest():
            raise _conflict(envelope, record)
        if record.package in self._tasks:
            return self._listen(record.package)
        if record.result is None:
            return self._start(record)
        done = Preservation(record.package)
        done.tell(record.result)
        return done

    async def resume(self, package: uuid.UUID) -> Preservation:
        """Go on with a package that failed, at the link that failed, or that was interrupted."""
        record = await self._journal.get(package)
        if record is None:
            raise RequestError(
                f"there is no package {package} here",
                code=Code.REQUEST_IDENTIFIER_INVALID,
                remediation=f"The working folders of this service are below {self.settings.work_dir}.",
            )
        if record.finished_at is not None and record.state is not RequestState.FAILED:
            raise RequestError(
                f"package {package} is {record.state}: there is nothing to go on with",
                code=Code.REQUEST_IDENTIFIER_INVALID,
                remediation="Only failed and interrupted packages can be resumed.",
            )
        return self._start(record)

    async def requests(self) -> Sequence[RequestRecord]:
        """The requests without a result."""
        return await self._journal.unfinished()

    async def _interrupted(self, envelope: RequestEnvelope) -> RequestRecord | None:
        """An embedded ingest of the same content that has no result, and that no other process is at work on."""
        found = await self._journal.unfinished(origin=EMBEDDED, content_digest=envelope.data.content_digest())
        for record in found:
            if record.package not in self._tasks and not Attempt.busy(self.settings, record.package):
                return record
        return None

    # --- for transports ----------------------------------------------------------------------------------------------

    async def take(
        self,
        envelope: RequestEnvelope,
        *,
        returning: bool,
        reply_to: str | None = None,
        correlation_id: str | None = None,
        attempt: int = 1,
        origin: str = "amqp",
    ) -> Disposition:
        """Journal a request that came in, and begin with it. `returning`: it was parked and came back."""
        package = envelope.data.package_id()
        async with self._taking:  # two ways in may bring the same request at once
            record = await self._journal.get(package)
            if record is not None and await self._may_try_again(record, returning=returning):
                await self._journal.forget(package)
                attempt = max(attempt, record.attempt + 1)
                record = None
            if record is None:
                record = await self._journal.add(
                    envelope, origin=origin, reply_to=reply_to, correlation=correlation_id, attempt=attempt
                )
            if record.content_digest != envelope.data.content_digest():
                conflict = _conflict(envelope, record)
                return await self._refuse(envelope.id, envelope.data, conflict, reply_to, correlation_id)
            if record.result is not None and envelope.id != record.request:
                await self._say_again(record, envelope, reply_to, correlation_id)
                return Disposition.DONE
            if package in self._tasks:
                return Disposition.IN_HAND
            if record.result is None:
                self._launch(record)
                return Disposition.TAKEN
        if not await self._journal.result_confirmed(package):
            return Disposition.DONE_UNCONFIRMED
        if not returning:
            await self._say_again(record, envelope, reply_to, correlation_id)
        return Disposition.DONE

    async def _may_try_again(self, record: RequestRecord, *, returning: bool) -> bool:
        """A request that was refused before any work, and is sent once more: what was wrong may be mended since."""
        refused = record.state is RequestState.REJECTED and record.package not in self._tasks
        return refused and not returning and await self._journal.result_confirmed(record.package)

    async def reject(
        self,
        body: bytes,
        error: IngestError,
        *,
        reply_to: str | None,
        correlation_id: str | None,
        message_id: str | None,
    ) -> Disposition:
        """Refuse a message that names itself (by `id`, or the transport's `message_id`) but is no valid request."""
        raw = json.loads(body)
        data = raw.get("data", raw)
        context = read_context(data.get("client_context")) if isinstance(data, dict) else {}
        refused = PreservationRequest.model_construct(
            source=RequestSource.model_construct(location=""),
            client_context=context,
            tenant=_text(data, "tenant"),
            collection=_text(data, "collection"),
        )
        identity = _text({"id": str(raw.get("id") or message_id or "")[:200]}, "id")
        return await self._refuse(identity, refused, error, reply_to, correlation_id)

    async def outbox(self, limit: int = 100) -> Sequence[OutboxItem]:
        """Events that are not confirmed yet, in order; waits until there is one."""
        while True:
            self._outbox_grew.clear()
            items = await self._journal.outbox(limit)
            if items:
                return items
            await self._outbox_grew.wait()

    async def confirm(self, items: Sequence[int]) -> None:
        """These outbox rows are published."""
        await self._journal.confirm(items)

    async def unconfirmed(self) -> int:
        return await self._journal.count_unconfirmed()

    def has_slot(self) -> bool:
        return len(self._tasks) < self.settings.concurrent_packages

    async def wait_for_slot(self) -> None:
        async with self._slot_freed:
            await self._slot_freed.wait_for(self.has_slot)

    def in_hand(self) -> Sequence[RequestEnvelope]:
        """Requests without a result that this service took, be they at work or stopped by `halt`."""
        return [record.envelope for record in self._records.values()]

    async def take_up_interrupted(self, origin: str = "amqp") -> int:
        """After a restart: go on with the requests of this service that have no result. Gives how many."""
        records = await self._journal.unfinished(origin=origin)
        for record in records:
            if record.package not in self._tasks:
                self._launch(record)
        return len(records)

    async def _refuse(
        self,
        request_id: str,
        data: PreservationRequest,
        error: IngestError,
        reply_to: str | None,
        correlation_id: str | None,
    ) -> Disposition:
        event = Event(
            type=EventType.REQUEST_REJECTED.full,
            subject=request_id,
            data=EventData(
                request_id=request_id,
                sequence=1,
                state=RequestState.REJECTED,
                outcome=Outcome.REJECTED,
                error=ErrorData.of(error),
                tenant=data.tenant,
                collection=data.collection,
                client_context=data.client_context,
                correlation_id=correlation_id,
            ),
        )
        await self._journal.publish(event, package=None, reply_to=reply_to, correlation=correlation_id)
        self._outbox_grew.set()
        self._tell(None, event)
        return Disposition.REJECTED

    async def _say_again(
        self, record: RequestRecord, envelope: RequestEnvelope, reply_to: str | None, correlation_id: str | None
    ) -> None:
        """Publish the result of a finished request once more, to whoever asks again.

        It keeps its CloudEvents id for who sent the same request; one that asks for the same by another id is told
        under that id, or would wait for ever.
        """
        result = record.result
        assert result is not None  # noqa: S101  a finished request has one
        if envelope.id != record.request:
            told = {
                "request_id": envelope.id,
                "correlation_id": correlation_id,
                "client_context": envelope.data.client_context,
            }
            data = result.data.model_copy(update=told)
            result = result.model_copy(update={"id": str(uuid.uuid4()), "subject": envelope.id, "data": data})
        await self._journal.publish(result, package=record.package, reply_to=reply_to, correlation=correlation_id)
        self._outbox_grew.set()

    # --- running -----------------------------------------------------------------------------------------------------

    def _start(self, record: RequestRecord) -> Preservation:
        """Launch, and give who asked a handle on it."""
        self._launch(record)
        return self._listen(record.package)

    def _listen(self, package: uuid.UUID) -> Preservation:
        handle = Preservation(package)
        self._listeners.setdefault(package, []).append(handle)
        return handle

    def _launch(self, record: RequestRecord) -> None:
        if record.package in self._tasks:
            raise SystemFault(f"package {record.package} is in hand already")
        self._records[record.package] = record
        self._tasks[record.package] = self._group.create_task(self._run(record), name=str(record.package))

    async def _run(self, record: RequestRecord) -> None:
        """See one request to its result, whatever happens within."""
        publish = record.origin != EMBEDDED
        ended: list[Event] = []

        async def advance(state: RequestState, event: Event, **more: Any) -> Event:
            event = await self._journal.advance(record.package, state, event, publish=publish, **more)
            if publish:
                self._outbox_grew.set()
            if event.kind.terminal:
                ended.append(event)  # whoever waits is told when the package is out of our hands
                self._tell(None, event)
            else:
                self._tell(record.package, event)
            return event

        def glance(event: Event) -> None:
            self._tell(record.package, event)

        attempt = Attempt(record, self._engine, self._services, advance, glance)
        try:
            async with self._slots:
                with bound(package=str(record.package)):
                    await attempt.run()
            self._records.pop(record.package, None)
        except FolderBusy:
            self._records.pop(record.package, None)
            log.warning("package is in hand elsewhere", package=str(record.package))
        finally:
            self._tasks.pop(record.package, None)
            for handle in self._listeners.pop(record.package, []):
                for event in ended:
                    handle.tell(event)
                handle.stop()
            with contextlib.suppress(RuntimeError):
                async with self._slot_freed:
                    self._slot_freed.notify_all()

    def _tell(self, package: uuid.UUID | None, event: Event) -> None:
        for observer in self.observers:
            observer(event)
        for handle in self._listeners.get(package, []) if package else []:
            handle.tell(event)


def _text(raw: object, key: str) -> str:
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 200 else "default"


def _location(source: str | os.PathLike[str]) -> str:
    """A path as a request can hold it: one whose bytes are not UTF-8 is written as a URL."""
    path = os.fspath(source)
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(path).absolute().as_uri()
    return path


def _conflict(envelope: RequestEnvelope, record: RequestRecord) -> RequestError:
    return RequestError(
        f"the idempotency key {envelope.data.key!r} belongs to another request, {record.request}",
        code=Code.REQUEST_IDEMPOTENCY_CONFLICT,
    )
