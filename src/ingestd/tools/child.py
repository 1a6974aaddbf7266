"""One running program: watched, limited, and killed with everything it started.

Known to `pool` alone. All of it is callbacks of the event loop: there is no task that could be lost, or be cancelled
before it has killed what it should.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ingestd.tools.run import Limits, Run, Stop, limit_met

TAIL_BYTES = 8 * 1024
GRACE_SECONDS = 0.4
"""Between SIGTERM and SIGKILL."""
DRAIN_SECONDS = 0.5
"""How long a pipe may stay open after its program ended, before what holds it is looked for and killed."""
LOST_SECONDS = 5.0
"""How long a killed program may take to go: longer means that the kernel does not let it (a dead network disk)."""
_LOOKS = 5
MARK = "INGESTD_RUN"
"""Name of the variable by which everything that a run started is known again."""


class Pipe(asyncio.Protocol):
    """Our end of one output of a program. Keeps the first `keep` bytes, or the last where `tail` is set."""

    def __init__(self, child: Child, *, keep: int, tail: bool) -> None:
        self.child = child
        self.keep = keep
        self.tail = tail
        self.data = bytearray()
        self.closed = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.child.seen_bytes += len(data)
        if self.tail:
            self.data += data
            del self.data[: -self.keep]
        elif len(self.data) + len(data) <= self.keep:
            self.data += data
        else:
            self.child.stop(Stop.OUTPUT)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the loop's signature
        if not self.closed.done():
            self.closed.set_result(None)


class Stream(asyncio.StreamReaderProtocol):
    """The standard output of a program, to be read as it comes; the program waits while nobody reads."""

    def __init__(self, child: Child, reader: asyncio.StreamReader, total_bytes: int | None) -> None:
        super().__init__(reader)
        self.child = child
        self.total_bytes = total_bytes
        self.read_bytes = 0
        self.closed = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.child.seen_bytes += len(data)
        self.read_bytes += len(data)
        if self.total_bytes is None or self.read_bytes <= self.total_bytes:
            super().data_received(data)
        else:
            self.child.stop(Stop.OUTPUT)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.closed.done():
            self.closed.set_result(None)


class Input(asyncio.BaseProtocol):
    """The standard input of a program; `ready` is unset while the program does not read."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()

    def pause_writing(self) -> None:
        self.ready.clear()

    def resume_writing(self) -> None:
        self.ready.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the loop's signature
        self.ready.set()


class Child(asyncio.SubprocessProtocol):
    """One running program. Everything here is a callback of the loop: no task can be lost, or forget to kill it."""

    def __init__(self, argv: tuple[str, ...], limits: Limits, forget: Callable[[Child], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.argv = argv
        self.limits = limits
        self.forget = forget
        self.mark = uuid.uuid4().hex
        self.pid = 0
        self.started = self.loop.time()
        self.stopped = Stop.NO
        self.exited: asyncio.Future[int | None] = self.loop.create_future()
        self.seen_bytes = 0
        self.reading = True
        self.limit_from_outside = False
        self.errors = Pipe(self, keep=TAIL_BYTES, tail=True)
        self.output: Pipe | Stream | None = None
        self.input: tuple[asyncio.WriteTransport, Input] | None = None
        self.pipes: list[asyncio.ReadTransport] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._transport: asyncio.SubprocessTransport | None = None
        self._progress: tuple[int, int] = (-1, -1)
        self._alive_at = self.started

    # The loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101  for the type checker
        self._transport = transport
        self.pid = transport.get_pid()
        if self.limit_from_outside:
            _limit(self.pid, self.limits)

    def process_exited(self) -> None:
        code = self._transport.get_returncode() if self._transport else None
        self._kill_group()
        self._ended(code)
        if any(not pipe.is_closing() for pipe in self.pipes):
            self._timers.append(self.loop.call_later(DRAIN_SECONDS, kill_marked, self.mark))

    # Watching

    def watch(self) -> None:
        """Hold the run to its limits of time; the wall limit also ends the wait for a pipe that stays open."""
        self._timers.append(self.loop.call_later(self.limits.wall_seconds, self._wall))
        self._tick()

    def _wall(self) -> None:
        if self.exited.done():
            self.close_pipes()
        else:
            self.stop(Stop.WALL)

    def _tick(self) -> None:
        if self.exited.done():
            return
        now = self.loop.time()
        progress = (self.seen_bytes, self._cpu_ticks())
        if progress != self._progress or not self.reading:
            self._progress, self._alive_at = progress, now
        elif now - self._alive_at >= self.limits.idle_seconds:
            self.stop(Stop.IDLE)
            return
        every = max(0.05, min(15.0, self.limits.idle_seconds / 4))
        self._timers = [timer for timer in self._timers if timer.when() > now and not timer.cancelled()]
        self._timers.append(self.loop.call_later(every, self._tick))

    def _cpu_ticks(self) -> int:
        """Processor time of the program; of everything in its session where the program itself only waits."""
        own = _stat(self.pid)
        if own is None or own.cpu_ticks != self._progress[1]:
            return own.cpu_ticks if own else 0
        rest = sum(stat.cpu_ticks for pid, stat in _processes() if stat.session == self.pid and pid != self.pid)
        return own.cpu_ticks + rest if rest else own.cpu_ticks

    # Stopping

    def stop(self, reason: Stop) -> None:
        """Ask the program to end, and kill it and all it started if it does not."""
        if self.exited.done():
            return
        if not self.stopped:
            self.stopped = reason
            self._signal_group(signal.SIGTERM)
            self._timers.append(self.loop.call_later(GRACE_SECONDS, self.kill))

    def kill(self) -> None:
        """Kill the program and everything it started, also what left its session."""
        if not self.exited.done():
            self._kill_group()
            self._timers.append(self.loop.call_later(LOST_SECONDS, self._ended, None))
        kill_marked(self.mark)

    def never_started(self) -> None:
        self._ended(None)

    def _ended(self, code: int | None) -> None:
        if not self.exited.done():
            self.exited.set_result(code)
            self.forget(self)

    def _kill_group(self) -> None:
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        # Right after the leader is gone its number is still the group's, or nobody's: numbers are given out in a ring.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.pid:
                os.killpg(self.pid, number)

    def close_pipes(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        if self.input:
            self.input[0].close()

    async def finish(self) -> Run:
        """Wait for the end of the program and of its output; say how it went."""
        await asyncio.shield(self.exited)
        closed = [self.errors.closed, *([self.output.closed] if self.output else [])]
        if any(not one.done() for one in closed):
            await asyncio.wait(closed, timeout=2 * DRAIN_SECONDS)
        return self.result()

    async def close(self) -> None:
        """Leave nothing behind: whatever still runs is killed. Whoever is cancelled meanwhile kills at once."""
        try:
            if not self.exited.done():
                self.stop(Stop.CLOSED)
                await asyncio.shield(self.exited)
        except asyncio.CancelledError:
            self.kill()
            raise
        finally:
            if self.exited.done():
                for timer in self._timers:
                    timer.cancel()
            self.close_pipes()
            if self._transport:
                self._transport.close()
            if self.pid:
                # Also after a good end: a daemon holds no pipe open, and has left the session.
                await asyncio.to_thread(kill_marked, self.mark)

    def result(self) -> Run:
        code = self.exited.result() if self.exited.done() else None
        stderr = bytes(self.errors.data).decode("utf-8", errors="replace")
        return Run(
            argv=self.argv,
            exit_code=code if code is None or code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            stopped=self.stopped or limit_met(code, stderr),
            stdout=bytes(self.output.data) if isinstance(self.output, Pipe) else b"",
            stderr_tail=stderr,
            seconds=self.loop.time() - self.started,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    cwd: Path | None
    env: Mapping[str, str] | None
    writes: Sequence[Path] = ()
    name: str = ""
    feed: bool = False
    sink: IO[bytes] | None = None


async def spawn(child: Child, command: Sequence[bytes], start: Start) -> None:
    """Start the program with pipes of our own: asyncio's would make the wait for the exit a wait for the pipes."""
    with contextlib.ExitStack() as theirs:
        errors = await _reading_end(child, child.errors, theirs)
        output: int | IO[bytes] = start.sink or asyncio.subprocess.DEVNULL
        if child.output:
            output = await _reading_end(child, child.output, theirs)
        feed = await _writing_end(child, theirs) if start.feed else asyncio.subprocess.DEVNULL
        await child.loop.subprocess_exec(  # the one place
            lambda: child,
            *command,
            stdin=feed,
            stdout=output,
            stderr=errors,
            cwd=start.cwd,
            env=start.env,
            start_new_session=True,
        )


async def _reading_end(child: Child, protocol: asyncio.Protocol, theirs: contextlib.ExitStack) -> int:
    ours, other = os.pipe()
    theirs.callback(os.close, other)
    transport, _ = await child.loop.connect_read_pipe(lambda: protocol, os.fdopen(ours, "rb", buffering=0))
    child.pipes.append(transport)
    return other


async def _writing_end(child: Child, theirs: contextlib.ExitStack) -> int:
    other, ours = os.pipe()
    theirs.callback(os.close, other)
    child.input = await child.loop.connect_write_pipe(Input, os.fdopen(ours, "wb", buffering=0))
    return other


def limits_of(limits: Limits) -> dict[int, int]:
    """Give the kernel's limits (`resource.RLIMIT_…`) for a run, never above those that this service has itself."""
    wanted = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: limits.file_bytes}
    if limits.memory_bytes:
        wanted[resource.RLIMIT_AS] = limits.memory_bytes
    hard = {which: resource.getrlimit(which)[1] for which in wanted}
    return {
        which: most if hard[which] == resource.RLIM_INFINITY else min(most, hard[which])
        for which, most in wanted.items()
    }


def wrapped(limits: Limits, prlimit: str | None, setpriv: str | None) -> list[str]:
    """Give the programs that limit themselves, tie their life to ours, and become the program that is to run.

    Limits set from outside, once the program runs, would come too late for what it has started by then.
    """
    options = {resource.RLIMIT_CORE: "core", resource.RLIMIT_FSIZE: "fsize", resource.RLIMIT_AS: "as"}
    values = [f"--{options[which]}={most}:{most}" for which, most in limits_of(limits).items()]
    return [
        *([prlimit, *values, "--"] if prlimit else []),
        *([setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []),
    ]


def _limit(pid: int, limits: Limits) -> None:
    """Set the kernel's limits from outside, where there is no prlimit(1)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        for which, most in limits_of(limits).items():
            resource.prlimit(pid, which, (most, most))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stat:
    session: int
    cpu_ticks: int


def _stat(pid: int) -> _Stat | None:
    """Read /proc/PID/stat (proc(5)): the session, and the processor time with that of children waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    return _Stat(session=int(fields[3]), cpu_ticks=sum(map(int, fields[11:15]))) if len(fields) > 14 else None


def _processes() -> list[tuple[int, _Stat]]:
    return [(pid, stat) for pid in _numbers() if (stat := _stat(pid)) is not None]


def kill_marked(mark: str) -> None:
    """Kill every process whose environment has this mark, or one that begins like it, whichever session it went to.

    One may start another while this looks: so it looks again as long as it finds any.
    """
    text = f"{MARK}={mark}".encode()
    for _ in range(_LOOKS):
        found = False
        for pid in _numbers():
            with contextlib.suppress(OSError):
                if text in _environment(pid):
                    os.kill(pid, signal.SIGKILL)
                    found = True
        if not found:
            return


def _environment(pid: int) -> bytes:
    # Every process of the machine is asked after every run: a `Path` takes longer than the reading.
    with open(f"/proc/{pid}/environ", "rb", buffering=0) as environment:  # noqa: PTH123
        return environment.read()


def _numbers() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal()]
