"""Requests that belong to a batch: whether they are still wanted, and what is told when all have ended."""

from __future__ import annotations

import asyncio
import uuid

import structlog

from ingestd.batches import Batches, BatchRecord
from ingestd.errors import Cancelled, Code, IngestError
from ingestd.journal import RequestRecord, ServiceJournal
from ingestd.messages import Event, EventData, EventType, Outcome, RequestState

log = structlog.get_logger(__name__)

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://ingestd.org/batch")
_RETRY_SECONDS = 5.0


class Grouping:
    """Keeps the batches' documents up to what the journal says."""

    def __init__(self, journal: ServiceJournal, batches: Batches | None) -> None:
        self._journal = journal
        self._batches = batches
        self._ended = asyncio.Event()

    def somebody_ended(self) -> None:
        """The journal has the end of a request, which may belong to a batch."""
        self._ended.set()

    async def refusal(self, record: RequestRecord) -> Cancelled | None:
        """Why a request is not to be begun: another of its batch failed. What is begun is finished."""
        batch = record.envelope.data.batch
        if self._batches is None or batch is None or record.state is not RequestState.RECEIVED:
            return None
        try:
            found = await self._batches.look(record.envelope.data.tenant, batch)
        except IngestError as error:
            log.warning("batch_not_read", batch=batch.id, reason=error.detail)
            return None
        if not found.stopped:
            return None
        return Cancelled(f"a request of the batch {batch.id!r} failed", code=Code.CANCELLED_BY_BATCH)

    async def run(self) -> None:
        """Count every request that ends, for ever; what could not be counted is counted later."""
        if self._batches is None:
            return
        while True:
            self._ended.clear()
            done = True
            for record in await self._journal.uncounted():
                done = await self._count(self._batches, record) and done
            try:
                async with asyncio.timeout(None if done else _RETRY_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                continue

    async def _count(self, batches: Batches, record: RequestRecord) -> bool:
        data, outcome = record.envelope.data, record.result.data.outcome if record.result else None
        try:
            if data.batch is not None and outcome is not None:
                after = await batches.ended(data.tenant, data.batch, record.package, outcome)
                if after.to_be_told:
                    await self._tell(after, record)
                    await batches.told(after)
            await self._journal.counted(record.package)
        except IngestError as error:
            log.warning("batch_not_counted", package=str(record.package), reason=error.detail)
            return False
        return True

    async def _tell(self, batch: BatchRecord, last: RequestRecord) -> None:
        """Publish how all ended. Said twice, after a crash, it has the same id."""
        good = {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}
        name = f"{batch.tenant}\n{batch.batch.id}\n{sorted(batch.counts.items())}"
        event = Event(
            id=str(uuid.uuid5(_NAMESPACE, name)),
            type=EventType.BATCH_COMPLETED.full,
            subject=batch.batch.id,
            data=EventData(
                request_id=last.request,
                sequence=0,
                state=RequestState.SUCCEEDED if good.issuperset(batch.counts) else RequestState.FAILED,
                tenant=batch.tenant,
                collection=last.envelope.data.collection,
                batch=batch.data,
            ),
        )
        await self._journal.publish(event, package=None, reply_to=None, correlation=None)
