"""Rows of the service's journal, read as records."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from ingestd.journal.database import Row
from ingestd.messages import Event, RequestEnvelope, RequestState

REQUEST_COLUMNS = (
    "package, request, origin, content_digest, envelope, state, attempt, sequence, reply_to, correlation,"
    " created_at, started_at, finished_at, result, reopened_at, untold"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRecord:
    """A request and where it stands. `package` is the AIP's id."""

    package: uuid.UUID
    request: str
    origin: str
    content_digest: str
    envelope: RequestEnvelope
    state: RequestState
    attempt: int
    sequence: int
    reply_to: str | None
    correlation: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: Event | None
    reopened_at: datetime | None = None
    """When its present attempt was asked for, if that is a retry."""
    untold: bool = False
    """Whether it ended in a process that died, as far as is known, before who asked there was told."""

    @property
    def asked_at(self) -> datetime:
        """From when its deadline counts."""
        return self.reopened_at or self.created_at


@dataclass(frozen=True, kw_only=True, slots=True)
class Tombstone:
    """A cancellation that was asked for. `request` is the id of a request, or of its package."""

    request: str
    tenant: str | None
    reason: str
    at: datetime
    """When it was asked for: a retry that came later takes it back."""

    def covers(self, record: RequestRecord) -> bool:
        named = self.request in {record.request, str(record.package)}
        return named and self.tenant in {None, record.envelope.data.tenant}


@dataclass(frozen=True, kw_only=True, slots=True)
class OutboxItem:
    """An event that is to be published. `id` is the outbox row."""

    id: int
    event: Event
    reply_to: str | None
    correlation_id: str | None


def request_of(row: Row) -> RequestRecord:
    """Read a row of `REQUEST_COLUMNS`."""
    (package, request, origin, digest, envelope, state, attempt, sequence, reply_to, correlation) = row[:10]
    created, started, finished, result, reopened, untold = row[10:]
    return RequestRecord(
        package=uuid.UUID(package),
        request=request,
        origin=origin,
        content_digest=digest,
        envelope=RequestEnvelope.model_validate_json(envelope),
        state=RequestState(state),
        attempt=attempt,
        sequence=sequence,
        reply_to=reply_to,
        correlation=correlation,
        created_at=datetime.fromisoformat(created),
        started_at=datetime.fromisoformat(started) if started else None,
        finished_at=datetime.fromisoformat(finished) if finished else None,
        result=Event.model_validate_json(result) if result else None,
        reopened_at=datetime.fromisoformat(reopened) if reopened else None,
        untold=bool(untold),
    )
