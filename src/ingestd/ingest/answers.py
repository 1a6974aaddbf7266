"""What is told without any work: refusals, and results once more."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime

from ingestd.errors import Code, IngestError, RequestError
from ingestd.ingest.dispositions import Disposition
from ingestd.ingest.running import Running
from ingestd.journal import RequestRecord, ServiceJournal
from ingestd.leases import Claim
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
    read_context,
)

_REFUSALS = uuid.uuid5(uuid.NAMESPACE_URL, "https://ingestd.org/refusal")


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and where the answer goes. `returning`: it was parked and came back; `redelivered`: it was given to
    some worker before, which did not acknowledge it; `known_since`: some worker set it back then.
    """

    envelope: RequestEnvelope
    reply_to: str | None
    correlation_id: str | None
    returning: bool
    redelivered: bool
    known_since: datetime | None
    message: str
    """What tells this message from others that ask for the same."""

    @property
    def package(self) -> uuid.UUID:
        return self.envelope.data.package_id()

    def had_its_attempt(self, claim: Claim | None) -> bool:
        """Whether this very message was taken before: it is answered by what came of that, and begins nothing."""
        if self.returning or claim is None:
            return self.returning
        again = self.redelivered and claim.message == self.message
        result = claim.result
        return again or (result is not None and self.known_since is not None and self.known_since < result.time)


class Answers:
    """Puts answers into the outbox."""

    def __init__(self, journal: ServiceJournal, running: Running) -> None:
        self._journal = journal
        self._running = running

    async def refuse(self, asker: Asker, error: IngestError) -> Disposition:
        """Answer a request that cannot be taken."""
        envelope = asker.envelope
        return await self._refuse(
            envelope.source, envelope.id, envelope.data, error, asker.reply_to, asker.correlation_id
        )

    async def _refuse(
        self,
        source: str,
        request_id: str,
        data: PreservationRequest,
        error: IngestError,
        reply_to: str | None,
        correlation_id: str | None,
    ) -> Disposition:
        """Answer a message that is not even journalled as a request.

        The event's id is made of what it says, so whoever answers the message once more says the same under the same
        id: its disk may be lost before the answer is published, and then its message is delivered again.
        """
        told = EventData(
            request_id=request_id,
            sequence=1,
            state=RequestState.REJECTED,
            outcome=Outcome.REJECTED,
            error=ErrorData.of(error),
            tenant=data.tenant,
            collection=data.collection,
            client_context=data.client_context,
            correlation_id=correlation_id,
        )
        event = Event(
            id=str(uuid.uuid5(_REFUSALS, f"{source}\n{told.model_dump_json()}")),
            type=EventType.REQUEST_REJECTED.full,
            subject=request_id,
            data=told,
        )
        await self._journal.publish(event, package=None, reply_to=reply_to, correlation=correlation_id)
        self._running.tell(None, event)
        return Disposition.ANSWERED

    async def reject(
        self,
        body: bytes,
        error: IngestError,
        *,
        name: str,
        reply_to: str | None,
        correlation_id: str | None,
        tenant: str,
    ) -> Disposition:
        """Answer a message that names itself but is no valid request, with what of it can be read."""
        raw = json.loads(body)
        data = raw.get("data", raw)
        context = read_context(data.get("client_context")) if isinstance(data, dict) else {}
        refused = PreservationRequest.model_construct(
            source=RequestSource.model_construct(location=""),
            client_context=context,
            tenant=_text(data, "tenant", tenant or "default"),
            collection=_text(data, "collection"),
        )
        return await self._refuse(_text(raw, "source"), name, refused, error, reply_to, correlation_id)

    async def say_again(self, record: RequestRecord, asker: Asker) -> Disposition:
        """Publish the result of a finished request once more, to whoever asks again.

        It keeps its CloudEvents id for who sent the same request; one that asks for the same by another id is told
        under that id, or would wait for ever.
        """
        result = record.result
        assert result is not None  # noqa: S101  a finished request has one
        reply_to = asker.reply_to
        if asker.envelope.id != record.request:
            result = result.to(asker.envelope, asker.correlation_id)
            reply_to = reply_to or ""
        await self._journal.publish(result, package=record.package, reply_to=reply_to, correlation=asker.correlation_id)
        return Disposition.ANSWERED

    async def refuse_command(self, record: RequestRecord, error: IngestError) -> None:
        """Say that a command about a request that is known here cannot be followed."""
        data = record.envelope.data
        event = Event(
            type=EventType.CONTROL_REFUSED.full,
            subject=record.request,
            data=EventData(
                request_id=record.request,
                package_id=record.package,
                attempt=record.attempt,
                sequence=await self._journal.next_sequence(record.package),
                state=record.state,
                error=ErrorData.of(error),
                tenant=data.tenant,
                collection=data.collection,
                client_context=data.client_context,
                correlation_id=record.correlation,
                external_identifier=data.external_identifier,
            ),
        )
        await self._journal.publish(event, package=None, reply_to=None, correlation=record.correlation)
        self._running.tell(None, event)


def conflict(envelope: RequestEnvelope, request: str) -> RequestError:
    return RequestError(
        f"the idempotency key {envelope.data.key!r} belongs to another request, {request}",
        code=Code.REQUEST_IDEMPOTENCY_CONFLICT,
    )


def _text(raw: object, key: str, otherwise: str = "default") -> str:
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 200 else otherwise
