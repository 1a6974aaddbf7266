"""Work that ends together: tasks, of which the first error ends the others and is raised as it is; and threads with who
waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from ingestd.errors import Cancelled

T = TypeVar("T")
R = TypeVar("R")


@contextlib.asynccontextmanager
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose first error is raised alone, so that it can be caught for what it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def side_by_side(work: Callable[[T], Coroutine[Any, Any, R]], items: Sequence[T], *, at_once: int) -> Sequence[R]:
    """Do `work` on all items, on `at_once` of them at a time, and give the answers in order.

    The first error ends the others and is raised. More at once would only wait in the pool, before other packages.
    """
    turn = asyncio.Semaphore(at_once)

    async def in_turn(item: T) -> R:
        async with turn:
            return await work(item)

    async with tasks() as group:
        running = [group.create_task(in_turn(item)) for item in items]
    return [one.result() for one in running]


class Stopped(Cancelled):
    """Whoever waited for this work is gone."""


class Worker:
    """Runs blocking work in a thread, one piece after the other, and ends it when its caller is cancelled.

    A thread cannot be cancelled: long work calls `breathe` now and then. `run` never leaves its thread behind.
    `threads` has a thread for it, if it is to be a particular one.
    """

    def __init__(self, threads: Executor | None = None) -> None:
        self._stop = threading.Event()
        self._threads = threads

    def breathe(self) -> None:
        if self._stop.is_set():
            raise Stopped("the work was stopped")

    async def run(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, contextvars.copy_context().run, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._stop.set()
            while (
                not running.done()
            ):  # whoever cancels again waits, too: the thread may write into the package's folder
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait((running,))
            if not running.cancelled():
                running.exception()  # it was heard
            raise
