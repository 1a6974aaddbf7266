"""What a run of a program may take, and how it ended."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from ingestd.config import ToolSettings
from ingestd.errors import Code, ToolError, ToolFailure

_NO_MEMORY = re.compile(
    r"out of memory|cannot allocate memory|can't allocate|memoryerror|bad_alloc|memory allocation"
    r"|virtual memory exhausted|outofmemoryerror|not enough memory",
    re.IGNORECASE,
)


class Stop(StrEnum):
    """Why a program was stopped, or failed for the limit of its memory."""

    NO = ""
    WALL = "wall"
    IDLE = "idle"
    OUTPUT = "output"
    MEMORY = "memory"
    CLOSED = "closed"


_CODES = {
    Stop.WALL: Code.TOOL_TIMEOUT,
    Stop.IDLE: Code.TOOL_TIMEOUT,
    Stop.OUTPUT: Code.TOOL_BAD_OUTPUT,
    Stop.MEMORY: Code.TOOL_KILLED_MEMORY,
}
_REASONS = {
    Stop.WALL: "took longer than it may and was stopped",
    Stop.IDLE: "made no progress any more and was stopped",
    Stop.OUTPUT: "wrote more than it may and was stopped",
    Stop.MEMORY: "needed more memory than it may have",
    Stop.CLOSED: "was stopped",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one run may take. `memory_bytes` is address space; 0 there means as much as there is."""

    wall_seconds: float
    idle_seconds: float
    memory_bytes: int
    output_bytes: int
    file_bytes: int

    @classmethod
    def from_settings(cls, settings: ToolSettings) -> Self:
        return cls(
            wall_seconds=settings.wall_seconds,
            idle_seconds=settings.idle_seconds,
            memory_bytes=settings.memory_bytes,
            output_bytes=settings.output_bytes,
            file_bytes=settings.file_bytes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """How one run ended. Exactly one of `exit_code` and `signal` is set, neither if the program could not be killed.

    `stdout` is empty where it went to a file or was read as lines; `stderr_tail` is the end of the error output,
    at most 8 KiB.
    """

    argv: tuple[str, ...]
    exit_code: int | None
    signal: int | None
    stopped: Stop
    stdout: bytes
    stderr_tail: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.exit_code == 0 and not self.stopped

    def failure(self, name: str, version: str = "") -> ToolFailure:
        return ToolFailure(
            name=name,
            version=version,
            exit_code=self.exit_code,
            signal=self.signal,
            timed_out=self.stopped in {Stop.WALL, Stop.IDLE},
        )

    def error(self, name: str = "", version: str = "", *, code: Code | None = None, detail: str = "") -> ToolError:
        """Word this run as an error; `code` and `detail` where the caller knows better what was wrong."""
        name = name or Path(self.argv[0]).name
        return ToolError(
            f"{name} {detail or self._reason()}",
            code=code or _CODES.get(self.stopped, Code.TOOL_CRASHED),
            tool=self.failure(name, version),
            stderr_tail=self.stderr_tail,
        )

    def check(self, name: str = "", version: str = "") -> Self:
        """Give the run back if it succeeded; raise its `ToolError` otherwise."""
        if not self.ok:
            raise self.error(name, version)
        return self

    def _reason(self) -> str:
        if self.stopped:
            return _REASONS[self.stopped]
        if self.signal is not None:
            return f"was killed by signal {self.signal}"
        return f"ended with exit code {self.exit_code}"


def limit_met(code: int | None, stderr: str) -> Stop:
    """See in the way a program ended which limit of the kernel it met.

    A SIGKILL that is not ours is taken for that of the kernel, which had no memory left.
    """
    if code == 0:
        return Stop.NO
    if code == -signal.SIGXFSZ:
        return Stop.OUTPUT
    if code == -signal.SIGKILL or _NO_MEMORY.search(stderr):
        return Stop.MEMORY
    return Stop.NO
