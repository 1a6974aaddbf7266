"""How an attempt waits for room, and when it leaves its request to other workers instead.

What has begun has its work in this machine's working folder, so it waits here, and keeps its lease. What has not begun
loses nothing by going elsewhere: once all that was told of it is published its lease is given back, and the copy of
its message that is parked in the broker brings it to whichever worker has room then, or back to this one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from ingestd.admission import Admission, Need, NeverError
from ingestd.errors import ResourceError
from ingestd.leases import Lease, Waiting
from ingestd.premis import now
from ingestd.sections import AdmissionSettings
from ingestd.workfolder import UnusableError, fault, hold_folder

log = structlog.get_logger(__name__)

_EARLY = 0.9
"""What comes back from being parked comes a moment before as much time has passed since it was told."""


class NoRoomError(Exception):
    """There is no room for a package, nothing was done for it yet, and another worker may have room."""


def is_due(told_at: datetime | None, settings: AdmissionSettings) -> bool:
    """Whether it is time to say (again) that a package waits."""
    return told_at is None or now() - told_at >= timedelta(seconds=_EARLY * settings.tell_seconds)


class Waits:
    """The waiting of one attempt, which goes on with what the `lease` says of earlier waiting in it.

    `tell` says what is short, in an event; `is_told` says whether all events of the request are published.
    """

    def __init__(
        self,
        folder: Path,
        settings: AdmissionSettings,
        admission: Admission,
        lease: Lease | None,
        *,
        tell: Callable[[ResourceError], Awaitable[None]],
        is_told: Callable[[], Awaitable[bool]],
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._admission = admission
        self._lease = lease
        self._tell = tell
        self._is_told = is_told
        before = lease.claim.waiting if lease else None
        self._told_at = before.told_at if before else None
        self.sequence = before.sequence if before else 0
        """The number of the last event of this attempt."""

    @property
    def unbegun(self) -> bool:
        """Whether another worker could begin with it as well as this one."""
        with contextlib.suppress(OSError):  # of a folder that may not be looked into, nobody knows
            return self._lease is not None and not (self._folder / "journal.db").exists()
        return False

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the package's folder. Raises `FolderBusy`; and `NoRoomError` where none can be made here, if another
        worker may have the package.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold_folder(self._folder))
            except OSError as error:
                found = fault(error, self._folder)
                if self._lease is None or not isinstance(found, (ResourceError, UnusableError)):
                    raise
                log.warning("no_working_folder", code=found.code.value, detail=found.detail)
                raise NoRoomError from error
            yield

    async def left(self) -> Waiting | None:
        """What the next worker is to know of an attempt that only waited so far. Nothing of it may be told later."""
        if self._told_at is None or not self.unbegun or not await self._is_told():
            return None
        return Waiting(told_at=self._told_at, sequence=self.sequence)

    async def until_possible(self, need: Need) -> None:
        """Return at once, unless the package could not fit even if it were alone. Raises as `short_of`."""
        while (short := self._admission.never(need)) is not None:
            await self.short_of(need, short)
            await asyncio.sleep(self._settings.look_seconds)

    async def short_of(self, need: Need, short: ResourceError) -> None:
        """There is no room: say so now and then, and return for another look.

        Raises `NoRoomError` when all is told and another worker may have the package; and what is `short` itself where
        waiting is of no use.
        """
        if isinstance(short, NeverError) and not self._may_fit_elsewhere():
            raise short
        if is_due(self._told_at, self._settings):
            await self._tell(short)
            self._told_at = now()
        elif self.unbegun and await self._is_told():
            self._admission.leave(self._folder.name, need)
            raise NoRoomError

    def _may_fit_elsewhere(self) -> bool:
        """Some worker has accepted it, or may yet: not every one need have a disk as small as this one's."""
        if self._lease is None or not self.unbegun:
            return False
        claim = self._lease.claim
        waited = now() - (claim.asked_at or now())
        return claim.accepted or waited < timedelta(seconds=self._settings.elsewhere_seconds)
