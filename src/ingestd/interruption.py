"""How an attempt ends before its time: by a command or by its deadline, until storing begins."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

from ingestd.errors import Cancelled, Code
from ingestd.premis import now


class Interruption:
    """What can interrupt one attempt. Once it is `over`, nothing can.

    The deadline counts from `since`, when the request was taken or retried, however often it is taken up again.
    """

    def __init__(self, deadline_seconds: float | None, *, since: datetime, over: bool) -> None:
        self.over = over
        self.came = asyncio.Event()
        """Set when it is to end because somebody said so."""
        self._deadline_seconds = deadline_seconds
        self._since = since
        self._why: Cancelled | None = None
        self._scope: asyncio.Timeout | None = None

    def stop(self, why: Cancelled) -> bool:
        """Interrupt it now, or before it begins; say False when it is too late."""
        if self.over:
            return False
        self._why = self._why or why
        self.came.set()
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(0)
        return True

    def finish(self) -> None:
        """From here on nothing interrupts; what came before is still heard."""
        if self._scope is not None and self._scope.expired():
            return
        self.over = self._why is None
        if self.over and self._scope is not None:
            self._scope.reschedule(None)

    @contextlib.asynccontextmanager
    async def possible(self) -> AsyncIterator[None]:
        """What is done within ends with `Cancelled` when it is interrupted."""
        if self._why is not None:
            raise self._why
        scope = asyncio.timeout(None if self.over else self._seconds_left())
        try:
            async with scope as self._scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise self._reason() from error
        finally:
            self._scope = None

    def _seconds_left(self) -> float | None:
        if self._deadline_seconds is None:
            return None
        return self._deadline_seconds - (now() - self._since).total_seconds()

    def _reason(self) -> Cancelled:
        passed = f"the deadline of {self._deadline_seconds} seconds passed"
        return self._why or Cancelled(passed, code=Code.CANCELLED_BY_DEADLINE)
