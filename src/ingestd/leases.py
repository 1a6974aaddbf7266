"""Who may work on a request: leases and terminal markers, beside the AIPs, where all workers see them.

Each request has one document, changed by conditional writes alone, so that only one worker at a time can hold it. A
lease ends when it is not renewed in time, whatever its holder believes; who takes it over raises the token, and the
holder before can change nothing any more. When the request has ended, the document says how: it is the marker that
keeps a request from being done twice.

Workers compare the time that a lease is valid until with their own clocks: these must agree to within `SKEW_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

import structlog
from pydantic import BaseModel, ConfigDict

from ingestd.errors import IngestError
from ingestd.journal import Tombstone
from ingestd.messages import Event
from ingestd.premis import now
from ingestd.storage.conditional import Conditional, DocumentChangedError, DocumentExistsError, document_as

log = structlog.get_logger(__name__)

SKEW_SECONDS = 5.0
"""How much the clocks of two workers may differ: a lease is taken over only so long after its end."""
_TRIES = 5


class LeaseLostError(Exception):
    """Another worker has the request, or may have it by now: nothing more may be done for it here."""


class HeldError(Exception):
    """Another worker holds the lease."""


class Storing(BaseModel):
    """What its holder was about to store, and what it would say of it: enough to say it if it dies in between."""

    model_config = ConfigDict(frozen=True)
    name: str
    size_bytes: int
    algorithm: str
    digest: str
    data: dict[str, Any]
    has_dip: bool = False
    """Whether a DIP was made, which is stored after the AIP."""


class Waiting(BaseModel):
    """That an attempt only waited for room until its worker gave it back: whoever takes it next goes on with it."""

    model_config = ConfigDict(frozen=True)
    told_at: datetime
    """When `request.waiting` was last told."""
    sequence: int
    """The number of the last event that was told in this attempt."""


class Claim(BaseModel):
    """One request's document."""

    model_config = ConfigDict(frozen=True)
    package: uuid.UUID
    request: str
    content_digest: str
    message: str = ""
    """What tells the message that its attempt was begun for from others that ask for the same."""
    attempt: int
    token: int
    holder: str
    """The worker that holds the lease, or held it to the end; empty once it was released."""
    until: datetime
    asked_at: datetime | None = None
    """When the request was first taken, or last retried: its deadline counts from then."""
    waiting: Waiting | None = None
    """Of a released lease: nothing but waiting for room was done in this attempt."""
    deaths: int = 0
    """How many leases lapsed since the request came, or was last retried."""
    accepted: bool = False
    retried_at: datetime | None = None
    """When it was last attempted again after it had ended: cancellations before that are done with."""
    storing: Storing | None = None
    result: Event | None = None
    """How the attempt ended, which its holder is to publish."""
    confirmed: bool = False
    """The result is known to be published."""

    @property
    def ended(self) -> bool:
        return self.result is not None

    @property
    def released(self) -> bool:
        return not self.holder and not self.ended

    def live(self, at: datetime) -> bool:
        """Whether its holder may be at work on it, or about to publish its result, after all that comes before it."""
        return bool(self.holder) and not self.confirmed and at < self.until + timedelta(seconds=SKEW_SECONDS)


class _Cancellation(BaseModel):
    request: str
    tenant: str | None
    reason: str
    at: datetime
    until: datetime

    @classmethod
    def of(cls, tombstone: Tombstone, until: datetime) -> Self:
        return cls(
            request=tombstone.request, tenant=tombstone.tenant, reason=tombstone.reason, at=tombstone.at, until=until
        )

    @property
    def tombstone(self) -> Tombstone:
        return Tombstone(request=self.request, tenant=self.tenant, reason=self.reason, at=self.at)


class Leases:
    """The documents of all requests. `worker` is who asks: the same name is the same data folder, in another life."""

    def __init__(self, documents: Conditional, *, worker: str, seconds: float) -> None:
        self._documents = documents
        self.worker = worker
        self.seconds = seconds

    async def look(self, package: uuid.UUID) -> Claim | None:
        """Read a request's document. Raises `DependencyError` when archival storage is away."""
        found = await self.look_with_tag(package)
        return found[0] if found else None

    async def look_with_tag(self, package: uuid.UUID) -> tuple[Claim, str] | None:
        found = await self._documents.read(_key(package))
        return (document_as(Claim, found[0]), found[1]) if found else None

    def elsewhere(self, claim: Claim | None) -> bool:
        """Whether another worker is at work on it, or is to publish how it ended."""
        return claim is not None and claim.holder != self.worker and claim.live(now())

    async def take(
        self,
        package: uuid.UUID,
        *,
        request: str,
        content_digest: str,
        attempt: int,
        message: str = "",
        asked_at: datetime | None = None,
    ) -> Lease:
        """Take the lease of a request that nobody holds; one that had been begun goes on as the next attempt.

        A lease of this worker's own earlier life counts as one that nobody holds: the caller holds the package's
        folder, or has never seen it. Raises `HeldError`.
        """
        for _ in range(_TRIES):  # what changed meanwhile may be no more than a note that the result is published
            found = await self.look_with_tag(package)
            if found is not None and self.elsewhere(found[0]):
                break
            claim = Claim(
                package=package,
                request=request,
                content_digest=content_digest,
                message=message,
                attempt=attempt,
                token=1,
                holder=self.worker,
                until=self._until(),
                asked_at=asked_at or now(),
            )
            with contextlib.suppress(DocumentExistsError, DocumentChangedError):
                return await self._taken(claim, found)
        raise HeldError(str(package))

    async def _taken(self, claim: Claim, found: tuple[Claim, str] | None) -> Lease:
        if found is None:
            return Lease(self, claim, await self._documents.create(_key(claim.package), _bytes(claim)))
        claim = claim.model_copy(update=_after(found[0], claim))
        return Lease(self, claim, await self.replace(claim, found[1]))

    async def confirm(self, package: uuid.UUID) -> None:
        """The result that the document holds is published."""
        for _ in range(_TRIES):
            found = await self.look_with_tag(package)
            if found is None or not found[0].ended or found[0].confirmed:
                return
            with contextlib.suppress(DocumentChangedError):
                sure = _bytes(found[0].model_copy(update={"confirmed": True}))
                await self._documents.replace(_key(package), sure, found[1])
                return

    async def cancel(self, tombstone: Tombstone, until: datetime) -> None:
        """Keep a cancellation for workers that did not hear it: they may be started only later."""
        key, note = _cancellation(tombstone.request), _Cancellation.of(tombstone, until)
        for _ in range(_TRIES):
            found = await self._documents.read(key)
            with contextlib.suppress(DocumentExistsError, DocumentChangedError):
                if found is None:
                    await self._documents.create(key, note.model_dump_json().encode())
                else:
                    await self._documents.replace(key, note.model_dump_json().encode(), found[1])
                return

    async def cancellations(self, *names: str) -> Sequence[Tombstone]:
        """The cancellations of requests or packages of these names."""
        found = [await self._documents.read(_cancellation(name)) for name in names]
        notes = [document_as(_Cancellation, one[0]) for one in found if one]
        return [note.tombstone for note in notes if note.until > now()]

    def _until(self) -> datetime:
        return now() + timedelta(seconds=self.seconds)

    async def replace(self, claim: Claim, tag: str) -> str:
        return await self._documents.replace(_key(claim.package), _bytes(claim), tag)

    def prolonged(self, claim: Claim) -> Claim:
        return claim.model_copy(update={"until": self._until()})


class Lease:
    """A lease that this worker holds. Its changes take turns."""

    def __init__(self, leases: Leases, claim: Claim, tag: str) -> None:
        self.claim = claim
        self._leases = leases
        self._tag = tag
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def kept(self, lost: Callable[[], object]) -> AsyncIterator[None]:
        """Renew the lease while what is within goes on; call `lost` when another worker has taken it.

        While archival storage is away nobody can take it, and nothing can be stored: the work goes on meanwhile.
        """
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(self._renew(lost))
            try:
                yield
            except Exception as error:  # noqa: BLE001  raised below as itself, not in a group
                failure = error
            finally:
                renewing.cancel()
        if failure is not None:
            raise failure

    async def prove(self, storing: Storing | None = None) -> None:
        """Make sure, in the store itself, that the lease is ours, and have all its time before us again.

        To be called right before what must not be done by two: an AIP is committed. Raises `LeaseLostError`.
        """
        await self._change(storing=storing or self.claim.storing)

    async def accept(self) -> None:
        await self._change(accepted=True)

    async def end(self, result: Event) -> None:
        """Say how the request ended, for every worker. Raises `LeaseLostError`: then it is not ours to say."""
        await self._change(result=result, storing=None, deaths=0)

    async def release(self, waiting: Waiting | None = None) -> None:
        """Give the lease back, in good order: whoever takes the request may begin at once. `waiting`: nothing was begun
        in this attempt, which whoever takes the request goes on with.
        """
        with contextlib.suppress(LeaseLostError, IngestError):
            await self._change(holder="", waiting=waiting)

    async def _change(self, **update: Any) -> None:
        async with self._turn:
            changed = self._leases.prolonged(self.claim).model_copy(update=update)
            try:
                self._tag = await self._leases.replace(changed, self._tag)
            except DocumentChangedError as error:
                self._tag = await self._leases.replace(changed, await self._still_ours(error))
            self.claim = changed

    async def _still_ours(self, error: DocumentChangedError) -> str:
        """An answer to an earlier change may have been lost, and the document be as we left it after all."""
        found = await self._leases.look_with_tag(self.claim.package)
        if found is None or (found[0].token, found[0].holder) != (self.claim.token, self.claim.holder):
            raise LeaseLostError(str(self.claim.package)) from error
        return found[1]

    async def _renew(self, lost: Callable[[], object]) -> None:
        pause = self._leases.seconds / 3
        while True:
            await asyncio.sleep(pause)
            try:
                await self._change()
                pause = self._leases.seconds / 3
            except LeaseLostError:
                log.warning("lease_lost", package=str(self.claim.package))
                lost()
                return
            except IngestError as error:  # archival storage is away: as long as the lease lasts, it may come back
                log.warning("lease_not_renewed", package=str(self.claim.package), reason=error.detail)
                pause = self._leases.seconds / 12


def _after(before: Claim, claim: Claim) -> dict[str, Any]:
    """What of the document before is still true of the next attempt."""
    attempt = claim.attempt
    after: dict[str, Any] = {"token": before.token + 1}
    if before.ended:
        return after | {
            "attempt": max(attempt, before.attempt + 1),
            "message": claim.message or before.message,
            "accepted": before.accepted,
            "asked_at": now(),
            "retried_at": now(),
        }
    waited = before.waiting if before.released else None
    begun = before.accepted and waited is None
    return after | {
        "attempt": max(attempt, before.attempt + int(begun)),
        "message": before.message or claim.message,
        "asked_at": before.asked_at or claim.asked_at,
        "retried_at": before.retried_at,
        "accepted": before.accepted,
        "waiting": waited,
        "storing": before.storing,
        "deaths": before.deaths + int(bool(before.holder)),
    }


def _key(package: uuid.UUID) -> str:
    return f"requests/{package.hex[:2]}/{package}.json"


def _cancellation(name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"cancelled/{digest[:2]}/{digest}.json"


def _bytes(claim: Claim) -> bytes:
    return claim.model_dump_json().encode()
