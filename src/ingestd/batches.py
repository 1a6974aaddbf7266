"""Batches: requests of one tenant that are told of together. What is known of one lies where all workers see it."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter

from pydantic import BaseModel, ConfigDict

from ingestd.messages import Batch, BatchData, Outcome
from ingestd.storage.conditional import Conditional, DocumentChangedError, DocumentExistsError, document_as

_UNHAPPY = {Outcome.FAILED, Outcome.REJECTED, Outcome.OUTCOME_UNKNOWN}


class BatchRecord(BaseModel):
    """One batch: how each of its requests ended, by package, and what was last told of it."""

    model_config = ConfigDict(frozen=True)
    batch: Batch
    tenant: str
    outcomes: dict[uuid.UUID, Outcome] = {}
    told: dict[Outcome, int] | None = None

    @property
    def counts(self) -> dict[Outcome, int]:
        return dict(sorted(Counter(self.outcomes.values()).items()))

    @property
    def to_be_told(self) -> bool:
        """Whether all have ended, and in another way than was told before: one may have been retried since."""
        return len(self.outcomes) >= self.batch.size and self.counts != self.told

    @property
    def stopped(self) -> bool:
        """Whether what is not begun is not to be begun."""
        return self.batch.stop_on_failure and not _UNHAPPY.isdisjoint(self.outcomes.values())

    @property
    def data(self) -> BatchData:
        return BatchData(id=self.batch.id, size=self.batch.size, outcomes=self.counts)


class Batches:
    """The documents of all batches. Every method raises `DependencyError` while archival storage is away."""

    def __init__(self, documents: Conditional) -> None:
        self._documents = documents

    async def look(self, tenant: str, batch: Batch) -> BatchRecord:
        """What is known of a batch; its size and whether it stops are what the first request said."""
        found = await self._documents.read(_key(tenant, batch))
        return document_as(BatchRecord, found[0]) if found else BatchRecord(batch=batch, tenant=tenant)

    async def ended(self, tenant: str, batch: Batch, package: uuid.UUID, outcome: Outcome) -> BatchRecord:
        """One of its requests has ended."""
        return await self._change(tenant, batch, outcomes={package: outcome})

    async def told(self, record: BatchRecord) -> None:
        """Its end was told."""
        await self._change(record.tenant, record.batch, told=record.counts)

    async def _change(
        self,
        tenant: str,
        batch: Batch,
        *,
        outcomes: dict[uuid.UUID, Outcome] | None = None,
        told: dict[Outcome, int] | None = None,
    ) -> BatchRecord:
        key = _key(tenant, batch)
        while True:
            found = await self._documents.read(key)
            before = document_as(BatchRecord, found[0]) if found else BatchRecord(batch=batch, tenant=tenant)
            update = {"outcomes": {**before.outcomes, **(outcomes or {})}, "told": told or before.told}
            after = before.model_copy(update=update)
            if after == before and found:
                return after
            try:
                if found is None:
                    await self._documents.create(key, after.model_dump_json().encode())
                else:
                    await self._documents.replace(key, after.model_dump_json().encode(), found[1])
            except (DocumentChangedError, DocumentExistsError):
                continue
            return after


def _key(tenant: str, batch: Batch) -> str:
    name = hashlib.sha256(f"{tenant}\n{batch.id}".encode()).hexdigest()
    return f"batches/{name[:2]}/{name}.json"
