"""What an embedding program holds of a request that it began."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

from ingestd.errors import IngestError
from ingestd.messages import Event, EventData

Observer = Callable[[Event], None]
_MOST_GLANCES = 100
"""Progress that is only shown (it has no sequence number) is not kept for somebody who does not look."""


class Preservation:
    """One request in this process: await it for its result, or iterate over its events; both may be done.

    Its result has been told when it was awaited, or when whoever iterates comes back for more after the terminal event.
    Until then it is given once more, even after a crash, to who begins the same again; so what must not be missed is
    done with the terminal event within the loop.
    """

    def __init__(
        self, package: uuid.UUID, told: Callable[[uuid.UUID], Awaitable[None]] | None = None, remark: str = ""
    ) -> None:
        self.package = package
        self.remark = remark
        """What is to be known of an earlier run of the same, if there was one: it is gone on with, or told again."""
        self._told = told
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._result: asyncio.Future[EventData] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, EventData]:
        return self._give().__await__()

    async def _give(self) -> EventData:
        result = await asyncio.shield(self._result)
        await self._given()
        return result

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            yield event
            if event.kind.terminal:
                await self._given()

    async def _given(self) -> None:
        if self._told is not None:
            await self._told(self.package)

    def tell(self, event: Event) -> None:
        if event.data.sequence or self._events.qsize() < _MOST_GLANCES:
            self._events.put_nowait(event)
        if event.kind.terminal:
            self._events.put_nowait(None)
            if not self._result.done():
                self._result.set_result(event.data)

    def stop(self, error: IngestError | None = None) -> None:
        """There is no result: the service stops before, or `error` kept it from being recorded."""
        self._events.put_nowait(None)
        if self._result.done():
            return
        if error is None:
            self._result.cancel()
        else:
            self._result.set_exception(error)
            self._result.exception()  # nobody need be there to hear it
