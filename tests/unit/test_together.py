from __future__ import annotations

import asyncio
import threading
import time

import pytest

from ingestd.together import Worker


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_however_often_it_is_cancelled_no_thread_is_left_behind(times: int) -> None:
    begun, may_end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    ended: list[float] = []
    worker = Worker()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        may_end.wait(5)
        ended.append(time.monotonic())
        worker.breathe()

    task = asyncio.create_task(worker.run(work))
    await begun.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.01)

    assert not task.done()

    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert len(ended) == 1
