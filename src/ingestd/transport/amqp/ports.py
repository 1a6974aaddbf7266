"""What this transport needs of OAIS Ingest, and nothing more of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from ingestd.errors import IngestError
from ingestd.ingest import Disposition
from ingestd.journal import OutboxItem, RequestRecord
from ingestd.messages import ControlCommand, RequestEnvelope

__all__ = ["Disposition", "Intake", "OutboxItem", "RequestRecord"]


class Intake(Protocol):
    """OAIS Ingest, as a transport sees it. Every coroutine may be cancelled at any await without harm."""

    async def wait_for_slot(self) -> None:
        """Return when a package could be started now."""

    def has_slot(self) -> bool:
        """Whether a package could be started now."""

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
        """Journal a request; durable when this returns. `returning`: it was parked, or put back, by a worker;
        `redelivered`: not the first delivery of this `message`, a digest that tells it from others; `known_since`: when
        it was first set back.
        """

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
        """Journal the `rejected` result of a message that calls itself `name` but is not valid.

        `tenant` is told where the message does not say its own.
        """

    async def published(self, request: str, *, within_seconds: float) -> bool:
        """Say whether all that is to be told under the id of a request is confirmed; wait so long for it."""

    async def control(self, command: ControlCommand) -> Sequence[RequestRecord]:
        """Do what a command says; give the requests that are in hand anew, copies of which must be parked."""

    async def outbox(self, limit: int = 100) -> Sequence[OutboxItem]:
        """Give the first events that are not confirmed, in order; wait until there is one."""

    async def confirm(self, items: Sequence[int]) -> None:
        """Mark events as published."""

    def in_hand(self) -> Sequence[RequestEnvelope]:
        """Give the requests that are accepted and not ended."""
