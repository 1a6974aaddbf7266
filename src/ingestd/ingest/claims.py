"""What this service's journal says of a request, and what all workers know of it, made one."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Sequence
from datetime import datetime

import structlog

from ingestd.config import Settings
from ingestd.errors import DependencyError, IngestError, ResourceError
from ingestd.journal import RequestRecord, ServiceJournal, Tombstone
from ingestd.journal.service import EMBEDDED
from ingestd.leases import Claim, HeldError, Lease, Leases
from ingestd.messages import RequestEnvelope, RequestState
from ingestd.workfolder import is_busy

log = structlog.get_logger(__name__)


class Claims:
    """Leases, for those requests that other workers may have too. Without any, all is this service's own."""

    def __init__(self, settings: Settings, journal: ServiceJournal, leases: Leases | None) -> None:
        self._settings = settings
        self._journal = journal
        self._leases = leases
        self._published: asyncio.Queue[uuid.UUID] = asyncio.Queue()

    async def look(self, package: uuid.UUID) -> Claim | None:
        """Raises `DependencyError` when nobody can say."""
        return await self._leases.look(package) if self._leases else None

    def must_be_free(self, claim: Claim | None) -> None:
        """Raises `HeldError` when another worker has the request."""
        if self._leases is not None and claim is not None and self._leases.elsewhere(claim):
            raise HeldError(str(claim.package))

    async def take(self, record: RequestRecord, *, attempt: int | None = None, message: str = "") -> Lease | None:
        """Take the lease of a request that is to be worked on. Raises `HeldError` and `DependencyError`."""
        if self._leases is None or record.origin == EMBEDDED:
            return None
        return await self._leases.take(
            record.package,
            request=record.request,
            content_digest=record.content_digest,
            attempt=attempt or record.attempt,
            message=message,
            asked_at=record.asked_at,
        )

    async def agreed(
        self,
        record: RequestRecord | None,
        claim: Claim | None,
        envelope: RequestEnvelope,
        origin: str,
        *,
        reply_to: str | None,
        correlation: str | None,
    ) -> RequestRecord | None:
        """Bring the journal up to what others did with a request that is not in hand here. What is journalled anew is
        answered to `reply_to`, under `correlation`.
        """
        if claim is None or (record is not None and record.attempt > claim.attempt):
            return record
        if claim.result is not None:
            if record is not None and record.result is not None and record.attempt == claim.attempt:
                return record
            if record is None:
                own = envelope.id == claim.request  # another is told under its own id, and at its own address
                record = await self._journal.add(
                    envelope.model_copy(update={"id": claim.request}),
                    origin=origin,
                    attempt=claim.attempt,
                    reply_to=reply_to if own else None,
                    correlation=correlation if own else None,
                )
            return await self._adopted(claim)
        if record is None or record.result is not None:
            await self._forget(record)
            return await self._journal.add(
                envelope,
                origin=origin,
                attempt=claim.attempt,
                state=RequestState.ACCEPTED if claim.accepted else RequestState.RECEIVED,
                reply_to=reply_to,
                correlation=correlation,
                asked_at=claim.asked_at,
            )
        return record

    async def _adopted(self, claim: Claim) -> RequestRecord:
        """Another worker came to the result."""
        assert claim.result is not None  # noqa: S101  the caller saw it
        stored = claim.result.data.state in {RequestState.SUCCEEDED, RequestState.SUCCEEDED_WITH_WARNINGS}
        if stored and not self._settings.keep_work:
            folder = self._settings.work_dir / str(claim.package)
            if not is_busy(folder):
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return await self._journal.adopt(claim.package, claim.result, publish=not claim.confirmed)

    async def _forget(self, record: RequestRecord | None) -> None:
        if record is not None:
            await self._journal.forget(record.package)

    async def interrupted(self, record: RequestRecord) -> Lease | None:
        """Take up again what this service was at work on. Raises `HeldError` when it is not its own any more."""
        claim = await self.look(record.package)
        try:
            self.must_be_free(claim)
        except HeldError:
            if not is_busy(self._settings.work_dir / str(record.package)):
                await self._journal.forget(record.package)
            raise
        found = await self.agreed(
            record, claim, record.envelope, record.origin, reply_to=record.reply_to, correlation=record.correlation
        )
        if found is None or found.result is not None:
            raise HeldError(str(record.package))
        return await self.take(found)

    async def is_cancelled(self, claim: Claim) -> bool:
        """Whether somebody asked for the end of a request, by what all workers know. Raises `DependencyError`."""
        found = await self._leases.cancellations(claim.request, str(claim.package)) if self._leases else ()
        return any(claim.retried_at is None or tombstone.at > claim.retried_at for tombstone in found)

    # --- cancellations -----------------------------------------------------------------------------------------------

    async def cancel(self, tombstone: Tombstone, until: datetime) -> None:
        """Tell workers that cannot hear it now, as far as archival storage is there."""
        if self._leases is not None:
            try:
                await self._leases.cancel(tombstone, until)
            except IngestError as error:
                log.warning("cancellation_not_shared", request=tombstone.request, reason=error.detail)

    async def cancellations(self, record: RequestRecord, lease: Lease | None) -> Sequence[Tombstone]:
        """The cancellations that cover a request, but those that a retry took back."""
        found = list(await self._journal.tombstones())
        if self._leases is not None and lease is not None:
            try:
                found += await self._leases.cancellations(record.request, str(record.package))
            except IngestError as error:
                log.warning("cancellations_not_read", request=record.request, reason=error.detail)
        retried_at = lease.claim.retried_at if lease else None
        covering = [tombstone for tombstone in found if tombstone.covers(record)]
        return [tombstone for tombstone in covering if retried_at is None or tombstone.at > retried_at]

    # --- results -----------------------------------------------------------------------------------------------------

    def published(self, packages: set[uuid.UUID]) -> None:
        """The results of these requests are published: tell the other workers, when there is time."""
        for package in packages:
            self._published.put_nowait(package)

    async def tell_published(self) -> None:
        """Mark what is published, for ever. What is not marked when the service dies is published once more."""
        while True:
            package = await self._published.get()
            if self._leases is not None:
                try:
                    await self._leases.confirm(package)
                except (DependencyError, ResourceError) as error:
                    log.warning("publication_not_marked", package=str(package), reason=error.detail)
