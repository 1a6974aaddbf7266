"""The service, without any way in but its methods.

The same request makes the same AIP: requests are journalled by the AIP's id, which is made of tenant and idempotency
key. Transports pull: they `take` requests in and fetch events from the `outbox`; `ingest` knows none of them. An
embedding program uses `preserve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import structlog

from ingestd.admission import Admission
from ingestd.batches import Batches
from ingestd.engine import Engine
from ingestd.errors import DependencyError, IngestError, ResourceError
from ingestd.ingest.answers import Answers, Asker, conflict
from ingestd.ingest.audits import keep_auditing
from ingestd.ingest.claims import Claims
from ingestd.ingest.commands import RETRIED, Commands, unknown
from ingestd.ingest.dispositions import Disposition
from ingestd.ingest.earlier import Earlier, earlier
from ingestd.ingest.handles import Observer, Preservation
from ingestd.ingest.running import Running
from ingestd.janitor import Janitor
from ingestd.job import Services
from ingestd.journal import OutboxItem, RequestRecord, ServiceJournal
from ingestd.journal.service import EMBEDDED
from ingestd.leases import Claim, HeldError, Leases
from ingestd.messages import (
    FROM_FAILED,
    Cancel,
    CancelData,
    ControlCommand,
    Event,
    EventData,
    RequestEnvelope,
    RequestState,
    RetryData,
    parse_request,
)
from ingestd.premis import now
from ingestd.waiting import NoRoomError, is_due
from ingestd.workfolder import UnusableError, is_busy

log = structlog.get_logger(__name__)

PRUNE_SECONDS = 3600.0

_AGAIN = {RequestState.FAILED, RequestState.CANCELLED, RequestState.REJECTED}
"""States from which a request is attempted once more when it is asked for again."""


class Ingest:
    """The service, without any way in but its methods. Enter it, and leave it to stop what is in hand."""

    def __init__(
        self,
        engine: Engine,
        services: Services,
        journal: ServiceJournal,
        leases: Leases | None = None,
        batches: Batches | None = None,
    ) -> None:
        self.settings = services.settings
        self._locations = services.locations
        self.observers: list[Observer] = []
        self._journal = journal
        self._claims = Claims(services.settings, journal, leases)
        self._running = Running(engine, services, journal, self.observers, batches, self._claims)
        self.janitor = Janitor(services.settings, journal)
        self._answers = Answers(journal, self._running)
        self._commands = Commands(
            engine.workflow, services.settings, journal, self._running, self._answers, self._claims
        )
        self._taking = asyncio.Lock()
        self._confirmed = asyncio.Event()
        """Set, and replaced, when something was published."""

    async def __aenter__(self) -> Self:
        await self._running.__aenter__()
        self._running.beside(self._claims.tell_published)
        self._running.beside(self._prune)
        self._running.beside(self.admission.watch)
        self._running.beside(self.janitor.run)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._running.__aexit__(*exc)

    async def halt(self) -> None:
        """Stop the packages in hand where they are: each can be taken up later at the link that it was in."""
        await self._running.halt()

    async def _prune(self) -> None:
        while True:
            with contextlib.suppress(
                ResourceError, UnusableError
            ):  # the disk is full, or read-only: there is a next time
                await self._journal.prune(now() - timedelta(seconds=self.settings.keep_published_seconds))
            await asyncio.sleep(PRUNE_SECONDS)

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
        credentials: str | None = None,
        requester: str = "",
        again: bool = False,
        **more: Any,
    ) -> Preservation:
        """Begin to preserve `source` (a path or URL). `more` are other fields of a preservation request; `credentials`
        names what the settings have of an account at an object store.

        Unless `again`, an ingest of the same source with the same options whose process died is taken up where it was,
        or its result is given if nobody was told it; the `remark` of what is returned says so. An `idempotency_key` is
        answered with the same AIP always. Raises `RequestError` when the request is not valid.
        """
        where = {"location": _location(source), "checksum": checksum, "credentials": credentials}
        data = {"source": where, "processing": dict(processing or {}), **more}
        if name is not None:
            data["name"] = name
        raw = {"id": str(uuid.uuid4()), "source": requester or "urn:ingestd:embedded", "data": data}
        envelope = parse_request(raw)
        async with self._taking:
            if envelope.data.idempotency_key is not None:
                return await self._preserve_once(envelope)
            found = Earlier()
            if not again:
                found = await earlier(envelope.data, self.settings, self._journal, self._running)
            record = found.record
            if record is None:
                unique = envelope.data.model_copy(update={"idempotency_key": str(uuid.uuid4())})
                envelope = envelope.model_copy(update={"data": unique})
                record = await self._journal.add(envelope, origin=EMBEDDED)
            return self._running.start(record, found.remark)

    async def _preserve_once(self, envelope: RequestEnvelope) -> Preservation:
        """A request with an idempotency key: what has its result already is told again, not done again."""
        record = await self._journal.get(envelope.data.package_id())
        if record is None:
            record = await self._journal.add(envelope, origin=EMBEDDED)
        if record.content_digest != envelope.data.content_digest():
            raise conflict(envelope, record.request)
        if record.package in self._running:
            return self._running.listen(record.package)
        return self._running.start(record)

    async def resume(self, package: uuid.UUID) -> Preservation:
        """Go on with a package that failed, at the link that failed, or that was interrupted. Of one that is stored
        and that nobody was told of, give the result.
        """
        record = await self._journal.get(package)
        if record is None:
            raise unknown(str(package), self.settings)
        if record.finished_at is None or (record.untold and record.state not in RETRIED):
            return self._running.start(record)
        return await self.retry(str(package))

    async def retry(self, request: str, *, start: str = FROM_FAILED) -> Preservation:
        """Attempt a request once more that failed or was cancelled; `request` is its id or its package's.

        `start` is where: `failed` (at the link that failed), `start`, or a link that was reached. Raises `RequestError`
        when there is no such request or link, or nothing to be attempted.
        """
        async with self._taking:
            ready = await self._commands.reopen(RetryData.model_validate({"request": request, "from": start}))
            self._running.launch(ready.record, ready.lease)
            return self._running.listen(ready.record.package)

    async def cancel(self, request: str, *, reason: str = "") -> bool:
        """Cancel a request that is in hand, or that comes within the time that cancellations are kept.

        Says whether something was stopped here; what is being stored, or has ended, is not.
        """
        return await self._commands.cancel(CancelData(request=request, reason=reason))

    def is_busy(self, package: uuid.UUID) -> bool:
        """Whether some process is at work on the package."""
        return is_busy(self.settings.work_dir / str(package))

    async def requests(self) -> Sequence[RequestRecord]:
        """The requests without a result."""
        return await self._journal.unfinished()

    # --- for transports ----------------------------------------------------------------------------------------------

    async def take(
        self,
        envelope: RequestEnvelope,
        *,
        returning: bool,
        redelivered: bool = False,
        known_since: datetime | None = None,
        message: str = "",
        reply_to: str | None = None,
        correlation_id: str | None = None,
        attempt: int = 1,
        origin: str = "amqp",
    ) -> Disposition:
        """Journal a request that came in, and begin with it. `returning`: it was parked and came back; `redelivered`:
        this delivery of the `message` (a digest that tells it from others) is not its first; `known_since`: when it
        was first set back.

        The same request again is known by its id; who asks for the same by another id is told what becomes of it, and
        has what failed attempted once more.
        """
        asker = Asker(envelope, reply_to, correlation_id, returning, redelivered, known_since, message)
        try:
            async with self._taking:  # two ways in may bring the same request at once
                return await self._take(asker, origin, attempt)
        except (HeldError, NoRoomError, DependencyError, ResourceError) as error:
            log.info("request_elsewhere", request=envelope.id, reason=str(error))
            return Disposition.ELSEWHERE

    async def _take(self, asker: Asker, origin: str, attempt: int) -> Disposition:
        envelope, package = asker.envelope, asker.package
        record = await self._journal.get(package)
        claim = None
        if package in self._running:
            if record is None:
                raise HeldError(str(package))  # it is let go of in this moment
        else:
            claim = await self._claims.look(package)
            if claim is not None and claim.content_digest != envelope.data.content_digest():
                return await self._answers.refuse(asker, conflict(envelope, claim.request))
            await self._must_be_to_take(claim, envelope)
            record = await self._claims.agreed(
                record, claim, envelope, origin, reply_to=asker.reply_to, correlation=asker.correlation_id
            )
        anew = not asker.had_its_attempt(claim)
        if anew and record is not None and await self._was_refused(record):
            await self._journal.forget(package)
            attempt = max(attempt, record.attempt + 1)
            record = None
        if record is None:
            record = await self._journal.add(
                envelope, origin=origin, reply_to=asker.reply_to, correlation=asker.correlation_id, attempt=attempt
            )
        if record.content_digest != envelope.data.content_digest():
            return await self._answers.refuse(asker, conflict(envelope, record.request))
        if envelope.id != record.request:
            return await self._take_another(record, asker, anew=anew)
        if record.result is None:
            return await self._go_on(record, asker)
        if not asker.returning and await self._journal.result_confirmed(package):
            return await self._answers.say_again(record, asker)
        return Disposition.DONE

    async def _must_be_to_take(self, claim: Claim | None, envelope: RequestEnvelope) -> None:
        """Raise `HeldError` when another worker has the request; and `NoRoomError` when it was left to other workers
        for want of room, there is none here yet, and there is nothing to be told of it.
        """
        self._claims.must_be_free(claim)
        waiting = claim.waiting if claim is not None and claim.released else None
        if claim is None or waiting is None or not await self.admission.lacks(str(claim.package)):
            return
        waited = (now() - claim.asked_at).total_seconds() if claim.asked_at else 0
        late = envelope.data.deadline_seconds is not None and waited >= envelope.data.deadline_seconds
        due = late or is_due(waiting.told_at, self.settings.admission)
        if not due and not await self._claims.is_cancelled(claim):
            raise NoRoomError(str(claim.package))

    async def _go_on(self, record: RequestRecord, asker: Asker) -> Disposition:
        """Begin with a request that has no result, unless it is in hand."""
        if record.package in self._running:
            return Disposition.IN_HAND
        try:
            lease = await self._claims.take(record, message=asker.message)
        except HeldError:
            await self._journal.forget(record.package)
            raise
        self._running.launch(record, lease)
        return Disposition.TAKEN

    async def _take_another(self, record: RequestRecord, asker: Asker, *, anew: bool) -> Disposition:
        """Somebody asks by another id for what is known: answered when it ends, at once if it ended well; what failed
        or was cancelled is attempted once more, if that is asked for `anew`.
        """
        if await self._journal.was_answered(record.package, asker.envelope):
            return Disposition.DONE
        if record.result is not None and not (anew and record.state in _AGAIN):
            return await self._answers.say_again(record, asker)
        if record.result is not None:
            await self._running.settled(record.package)
            record = await self._journal.reopen(record.package, record.attempt + 1)
        waits = await self._journal.await_result(
            record.package, asker.envelope, reply_to=asker.reply_to, correlation=asker.correlation_id
        )
        if not waits:  # it has ended in this moment
            return await self._take_another(await self._journal.get(record.package) or record, asker, anew=anew)
        return await self._go_on(record, asker)

    async def _was_refused(self, record: RequestRecord) -> bool:
        """Before any work, and its refusal is published: what was wrong may be mended since."""
        refused = record.state is RequestState.REJECTED and record.package not in self._running
        return refused and await self._journal.result_confirmed(record.package)

    async def published(self, request: str, *, within_seconds: float = 0) -> bool:
        """Whether all that is to be told under the id of a request is confirmed; waits a while for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_seconds or None):
                while True:
                    confirmed = self._confirmed
                    if not await self._journal.is_to_be_told(request):
                        return True
                    if not within_seconds:
                        break
                    await confirmed.wait()
        return False

    async def control(self, command: ControlCommand) -> Sequence[RequestRecord]:
        """Do what a command says; give the requests that are in hand anew, copies of which must be parked."""
        if isinstance(command, Cancel):
            await self._commands.cancel(command.data)
            return ()
        async with self._taking:
            ready = await self._commands.retry(command.data)
            if ready is None:
                return ()
            self._running.launch(ready.record, ready.lease)
            return (ready.record,)

    async def reject(
        self,
        body: bytes,
        error: IngestError,
        *,
        name: str,
        reply_to: str | None,
        correlation_id: str | None,
        tenant: str = "",
    ) -> Disposition:
        """Refuse a message that names itself (`name` is its id, or its message's) but is no valid request.

        `tenant` is told where the message does not say its own.
        """
        return await self._answers.reject(
            body, error, name=name, reply_to=reply_to, correlation_id=correlation_id, tenant=tenant
        )

    async def outbox(self, limit: int = 100) -> Sequence[OutboxItem]:
        """Events that are not confirmed yet, in order; waits until there is one."""
        while True:
            self._journal.outbox_grew.clear()
            items = await self._journal.outbox(limit)
            if items:
                return items
            await self._journal.outbox_grew.wait()

    async def ended_as(self, state: RequestState) -> Sequence[RequestRecord]:
        """The requests that ended so, the oldest first."""
        return await self._journal.ended_as(state)

    async def keep_auditing(self) -> None:
        """Read all of archival storage again on the schedule of the settings, and publish what is found."""

        async def announce(event: Event) -> None:
            await self._journal.publish(event, package=None, reply_to=None, correlation=None)

        if self.settings.audit_every_seconds:
            await keep_auditing(self._locations, self.settings, announce)

    async def confirm(self, items: Sequence[int]) -> None:
        """These outbox rows are published."""
        self._claims.published(await self._journal.confirm(items))
        confirmed, self._confirmed = self._confirmed, asyncio.Event()
        confirmed.set()

    async def unconfirmed(self) -> int:
        return await self._journal.count_unconfirmed()

    def has_slot(self) -> bool:
        return self._running.has_slot()

    async def wait_for_slot(self) -> None:
        """Return when there is a free slot, and room on disk and in memory for some package."""
        await self._running.wait_for_slot()
        await self.admission.wait_for_any()
        await self._running.wait_for_slot()

    @property
    def admission(self) -> Admission:
        return self._running.admission

    def in_hand(self) -> Sequence[RequestEnvelope]:
        """Requests without a result that this service took, be they at work or stopped by `halt`."""
        return [record.envelope for record in self._running.records()]

    async def take_up_interrupted(self, origin: str = "amqp") -> int:
        """After a restart: go on with the requests of this service that have no result. Gives how many."""
        taken = 0
        for record in await self._journal.unfinished(origin=origin):
            if record.package in self._running:
                continue
            try:
                lease = await self._claims.interrupted(record)
            except (HeldError, DependencyError, ResourceError) as error:
                log.info("request_elsewhere", request=record.request, reason=str(error))
                continue
            self._running.launch(await self._journal.get(record.package) or record, lease)
            taken += 1
        return taken


def _location(source: str | os.PathLike[str]) -> str:
    """A path as a request can hold it: one whose bytes are not UTF-8 is written as a URL."""
    path = os.fspath(source)
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(path).absolute().as_uri()
    return path
