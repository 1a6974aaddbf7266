"""A few worker processes around a library that must not run inside the service.

A library may hold the interpreter's lock, crash on a file, or never come back: then its worker is killed, and the
files it had in hand are tried again one by one, so that only the one that did it goes without an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingestd.errors import Code, ToolError, ToolFailure
from ingestd.tools.alias import Alias, alias
from ingestd.tools.pool import Argument, Pool, Process

BATCH = 64
START_SECONDS = 60.0
BATCH_SECONDS = 120.0
BYTES_PER_SECOND = 20_000_000
"""The slowest that reading a whole file may be before its worker counts as hung."""

Answer = Mapping[str, Any]


class Crew:
    """At most `count` workers for one `task` of the worker program, started when they are first needed.

    `unbounded_memory` is for a library that maps whole files into its address space.
    """

    def __init__(
        self,
        pool: Pool,
        task: str,
        *,
        count: int,
        unbounded_memory: bool = False,
        batch_seconds: float = BATCH_SECONDS,
        program: Path | None = None,
    ) -> None:
        self._pool = pool
        self._task = task
        self._places = asyncio.Semaphore(count)
        self._idle: list[Process] = []
        self._hello: Answer | None = None
        self._program = program or Path(__file__).with_name("worker.py")
        self._batch_seconds = batch_seconds
        self._limits = replace(pool.limits, memory_bytes=0) if unbounded_memory else pool.limits

    async def hello(self) -> Answer:
        """Give what a worker says of itself when it starts. Raises `ToolError` if it cannot start."""
        if self._hello is None:
            async with self._places:
                self._idle.append(await self._worker())
        return self._hello or {}

    async def ask(self, paths: Sequence[Path]) -> Sequence[tuple[Alias, Answer]]:
        """Get an answer for every path, in their order. What killed or hung a worker gets `{"error": …}`.

        Raises `ToolError` only when no worker can be started.
        """
        told = await asyncio.to_thread(self._tell, paths)
        try:
            answers: list[Answer] = []
            for start in range(0, len(told), BATCH):
                answers += await self._answers([one.told for one in told[start : start + BATCH]])
        finally:
            for one in told:
                one.remove()
        return list(zip(told, answers, strict=True))

    async def aclose(self) -> None:
        while self._idle:
            await self._idle.pop().aclose()

    def _tell(self, paths: Sequence[Path]) -> list[Alias]:
        folder = self._pool.home()
        return [alias(path.absolute(), folder) for path in paths]

    async def _answers(self, paths: Sequence[Path]) -> Sequence[Answer]:
        try:
            return await self._batch(paths)
        except ToolError as error:
            if error.code is Code.TOOL_NOT_INSTALLED:
                raise
            if len(paths) == 1:
                return [{"error": error.detail}]
        return [answer for path in paths for answer in await self._answers([path])]

    async def _batch(self, paths: Sequence[Path]) -> Sequence[Answer]:
        seconds = self._batch_seconds + await asyncio.to_thread(_total_bytes, paths) / BYTES_PER_SECOND
        async with self._places, self._pool.slot():
            worker = self._idle.pop() if self._idle else await self._worker()
            try:
                answers = await self._exchange(worker, paths, seconds)
            except BaseException:
                # It may still be computing: an answer that comes late must not be taken for another's.
                worker.kill()
                await worker.aclose()
                raise
            self._idle.append(worker)
            return answers

    async def _exchange(self, worker: Process, paths: Sequence[Path], seconds: float) -> Sequence[Answer]:
        try:
            async with asyncio.timeout(seconds):
                await worker.write(json.dumps([str(path) for path in paths]).encode() + b"\n")
                answers = json.loads(await worker.read_until(b"\n"))
        except TimeoutError as error:
            raise self._error(f"gave no answer within {seconds:.0f} seconds", Code.TOOL_TIMEOUT) from error
        except ValueError as error:
            raise self._error("gave an answer that cannot be read", Code.TOOL_BAD_OUTPUT) from error
        if not isinstance(answers, list) or len(answers) != len(paths):
            raise self._error("did not answer for every file", Code.TOOL_BAD_OUTPUT)
        return answers

    async def _worker(self) -> Process:
        argv: list[Argument] = [sys.executable, "-P", self._program, self._task]
        env = {"PYTHONPATH": ":".join(part for part in sys.path if part)}
        worker = await self._pool.open(argv, env=env, limits=self._limits, name=self._task)
        try:
            async with asyncio.timeout(START_SECONDS):
                self._hello = json.loads(await worker.read_until(b"\n"))
        except (ToolError, TimeoutError, ValueError) as error:
            tail = worker.stderr_tail
            with contextlib.suppress(ToolError):
                await worker.aclose()
            raise ToolError(
                f"{self._task} cannot be started",
                code=Code.TOOL_NOT_INSTALLED,
                tool=ToolFailure(name=self._task),
                stderr_tail=tail,
            ) from error
        except BaseException:
            await worker.aclose()
            raise
        return worker

    def _error(self, what: str, code: Code) -> ToolError:
        failure = ToolFailure(name=self._task, timed_out=code is Code.TOOL_TIMEOUT)
        return ToolError(f"{self._task} {what}", code=code, tool=failure)


def _total_bytes(paths: Sequence[Path]) -> int:
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total
