"""OAIS Ingest in memory, whole: requests, slots, outbox. What transports are tested with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ingestd.errors import IngestError
from ingestd.ingest import Disposition
from ingestd.journal import OutboxItem, RequestRecord
from ingestd.messages import (
    ControlCommand,
    ErrorData,
    Event,
    EventData,
    EventType,
    Outcome,
    PreservationRequest,
    RequestEnvelope,
    RequestSource,
    RequestState,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """One call of `take`."""

    envelope: RequestEnvelope
    returning: bool
    redelivered: bool
    known_since: datetime | None
    message: str
    reply_to: str | None
    correlation_id: str | None
    attempt: int
    disposition: Disposition


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """One call of `reject`."""

    body: bytes
    error: IngestError
    name: str


@dataclass(kw_only=True, slots=True)
class _Journalled:
    envelope: RequestEnvelope
    reply_to: str | None
    correlation_id: str | None
    sequence: int = 0
    ended: bool = False
    unconfirmed: set[int] = field(default_factory=set)


class FakeIntake:
    """Requests stay in hand until a test ends them with `finish`.

    `failures` are raised by `take`, one for each call, before anything is journalled; `hold` makes `take` wait.
    """

    def __init__(self, *, slots: int = 1) -> None:
        self.slots = slots
        self.failures: list[Exception] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.entered = asyncio.Event()
        self.taken: list[Taken] = []
        self.refused: list[Refused] = []
        self.confirmed: list[int] = []
        self.commands: list[ControlCommand] = []
        self.anew: list[RequestRecord] = []
        self._requests: dict[str, _Journalled] = {}
        self._outbox: dict[int, OutboxItem] = {}
        self._changed = asyncio.Condition()
        self._last_id = 0

    # --- what a transport calls ---

    async def wait_for_slot(self) -> None:
        await self.until(self.has_slot)

    def has_slot(self) -> bool:
        return len(self.in_hand()) < self.slots

    async def take(
        self,
        envelope: RequestEnvelope,
        *,
        returning: bool,
        redelivered: bool,
        known_since: datetime | None,
        message: str,
        reply_to: str | None,
        correlation_id: str | None,
        attempt: int,
    ) -> Disposition:
        self.entered.set()
        await self.hold.wait()
        if self.failures:
            raise self.failures.pop(0)
        disposition = self._disposition(envelope)
        self.taken.append(
            Taken(
                envelope=envelope,
                returning=returning,
                redelivered=redelivered,
                known_since=known_since,
                message=message,
                reply_to=reply_to,
                correlation_id=correlation_id,
                attempt=attempt,
                disposition=disposition,
            )
        )
        if disposition is Disposition.TAKEN:
            self._requests[envelope.id] = _Journalled(
                envelope=envelope, reply_to=reply_to, correlation_id=correlation_id
            )
            await self.say(envelope.id, EventType.REQUEST_ACCEPTED, RequestState.ACCEPTED)
        await self._wake()
        return disposition

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
        del tenant
        self.refused.append(Refused(body=body, error=error, name=name))
        envelope = RequestEnvelope(
            id=name, source="urn:unknown", data=PreservationRequest(source=RequestSource(location="unknown"))
        )
        self._requests[name] = _Journalled(envelope=envelope, reply_to=reply_to, correlation_id=correlation_id)
        await self.finish(name, Outcome.REJECTED, error=error)
        return Disposition.ANSWERED

    async def published(self, request: str, *, within_seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_seconds or None):
                await self.until(lambda: not within_seconds or not self._requests[request].unconfirmed)
        return not self._requests[request].unconfirmed

    async def control(self, command: ControlCommand) -> Sequence[RequestRecord]:
        self.commands.append(command)
        await self._wake()
        return self.anew

    async def outbox(self, limit: int = 100) -> Sequence[OutboxItem]:
        await self.until(lambda: bool(self._outbox))
        return list(self._outbox.values())[:limit]

    async def confirm(self, items: Sequence[int]) -> None:
        for item in items:
            self._outbox.pop(item, None)
            for request in self._requests.values():
                request.unconfirmed.discard(item)
        self.confirmed.extend(items)
        await self._wake()

    def in_hand(self) -> Sequence[RequestEnvelope]:
        return [request.envelope for request in self._requests.values() if not request.ended]

    # --- what a test calls ---

    async def until(self, condition: object) -> None:
        """Wait until `condition()` is true."""
        assert callable(condition)
        async with self._changed:
            await self._changed.wait_for(condition)

    async def say(
        self,
        request_id: str,
        kind: EventType,
        state: RequestState,
        *,
        outcome: Outcome | None = None,
        error: IngestError | None = None,
    ) -> int:
        """Put an event into the outbox."""
        request = self._requests[request_id]
        request.sequence += 1
        self._last_id += 1
        event = Event(
            id=f"event-{self._last_id}",
            type=kind.full,
            subject=request_id,
            data=EventData(
                request_id=request_id,
                sequence=request.sequence,
                tenant=request.envelope.data.tenant,
                collection=request.envelope.data.collection,
                state=state,
                outcome=outcome,
                error=ErrorData.of(error) if error else None,
            ),
        )
        self._outbox[self._last_id] = OutboxItem(
            id=self._last_id, event=event, reply_to=request.reply_to, correlation_id=request.correlation_id
        )
        request.unconfirmed.add(self._last_id)
        await self._wake()
        return self._last_id

    async def finish(
        self, request_id: str, outcome: Outcome = Outcome.SUCCEEDED, *, error: IngestError | None = None
    ) -> None:
        """End a request, with its terminal event."""
        kinds = {
            Outcome.SUCCEEDED: EventType.AIP_STORED,
            Outcome.FAILED: EventType.REQUEST_FAILED,
            Outcome.REJECTED: EventType.REQUEST_REJECTED,
        }
        self._requests[request_id].ended = True
        await self.say(request_id, kinds[outcome], RequestState(outcome.value), outcome=outcome, error=error)

    def dispositions(self) -> list[Disposition]:
        return [taken.disposition for taken in self.taken]

    def _disposition(self, envelope: RequestEnvelope) -> Disposition:
        known = self._requests.get(envelope.id)
        if known is None:
            return Disposition.TAKEN
        if not known.ended:
            return Disposition.IN_HAND
        return Disposition.DONE

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()
