"""Tasks that end together: the first error ends the others, and is raised as it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

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
