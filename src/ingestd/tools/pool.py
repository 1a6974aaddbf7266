"""The one place where external programs are started, bounded and stopped.

Every program runs in its own session with a small fixed environment, under limits of time, silence, memory and
output; where the kernel can, without network and unable to write anywhere but where it is told (`confine`). When it is
stopped, and also when it ends by itself, whatever it started is killed with it; what it started cannot keep us waiting
by holding a pipe open. When this service dies, its programs die too (`setpriv --pdeathsig`), and what they started is
killed before the next one begins, so that nothing writes into the folder of a package that is being resumed.

No `preexec_fn`, no uvloop: both make every spawn copy the page tables of the whole service.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeAlias

from ingestd.config import Sandbox, ToolSettings
from ingestd.errors import Code, SystemFault, ToolError, ToolFailure
from ingestd.tools import confine
from ingestd.tools.child import MARK, Child, Pipe, Start, Stream, kill_marked, spawn, wrapped
from ingestd.tools.run import Limits, Run, Stop

__all__ = ["Argument", "Limits", "Lines", "Pool", "Process", "Run", "Stop"]

Argument: TypeAlias = str | bytes | Path

_SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

LINE_BYTES = 1024 * 1024
_PREFIX = "ingestd-tools-"
_UNLOCKED = "ingestd-new-"
_FRESH_SECONDS = 60.0


class Lines:
    """The standard output of a running program, line by line without the newline; then `result()`."""

    def __init__(self, child: Child, reader: asyncio.StreamReader) -> None:
        self._child = child
        self._reader = reader
        self._run: Run | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self._child.reading = True
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    yield error.partial
                return
            except asyncio.LimitOverrunError:
                self._child.stop(Stop.OUTPUT)
                return
            self._child.reading = False
            yield line[:-1]

    def result(self) -> Run:
        """Say how the program ended; only after the `async with` is left."""
        if self._run is None:
            raise RuntimeError("the program still runs")
        return self._run

    async def _finish(self) -> None:
        if not self._reader.at_eof():
            self._child.stop(Stop.CLOSED)
            self._child.close_pipes()
        self._run = await self._child.finish()


class Process:
    """A long-lived program that is spoken to.

    It holds none of the pool's slots and has no limit of time: whoever asks sets the deadline, and calls `kill` when
    it passes.
    """

    def __init__(self, child: Child, reader: asyncio.StreamReader) -> None:
        self._child = child
        self._reader = reader

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return not self._child.exited.done() and not self._child.stopped

    @property
    def stderr_tail(self) -> str:
        return self._child.result().stderr_tail

    async def write(self, data: bytes) -> None:
        """Send `data`; waits while the program does not read."""
        if self._child.input and self.alive:
            transport, protocol = self._child.input
            transport.write(data)
            await protocol.ready.wait()

    async def read_until(self, mark: bytes) -> bytes:
        """Read up to and with `mark`. Raises `ToolError` when the program ends before, or writes too much."""
        try:
            return await self._reader.readuntil(mark)
        except asyncio.IncompleteReadError as error:
            raise (await self._child.finish()).error(detail="ended in the middle of an answer") from error
        except asyncio.LimitOverrunError as error:
            self._child.stop(Stop.OUTPUT)
            raise self._child.result().error() from error

    def kill(self) -> None:
        self._child.stopped = self._child.stopped or Stop.CLOSED
        self._child.kill()

    async def aclose(self) -> None:
        await self._child.close()


def _path(further: str) -> str:
    """Give the system's folders, further ones, and that of this Python, for the programs of its packages: each once.

    A folder that is not named in full would be another one in each run's working folder, and is left out.
    """
    folders = [*_SYSTEM.split(":"), *further.split(":"), str(Path(sys.executable).parent)]
    return ":".join(dict.fromkeys(folder for folder in folders if Path(folder).is_absolute()))


class Pool:
    """Runs programs, never more at once than `settings.processes`, over all packages in hand.

    `path` is where programs are looked for. `spawned` counts every program ever started, `running` those that run now.
    `scratch` is where the programs' home and temporary folder is made (the system's temporary folder if it is not
    given); it is removed by `aclose`.
    """

    def __init__(self, settings: ToolSettings, *, scratch: Path | None = None) -> None:
        self.settings = settings
        self.path = _path(settings.path)
        self.limits = Limits.from_settings(settings)
        self.confined = settings.sandbox is not Sandbox.OFF and confine.landlock_abi() > 0
        if settings.sandbox is Sandbox.REQUIRED and not self.confined:
            raise SystemFault(
                "tools.sandbox is `required`, and this kernel has no Landlock, or does not let this process use it",
                code=Code.SYSTEM_CONFIGURATION,
            )
        self.spawned = 0
        self._slots = asyncio.Semaphore(settings.processes)
        self._children: set[Child] = set()
        self._scratch = scratch
        self._home: Path | None = None
        self._lock: int | None = None
        self._found: dict[str, str] = {}

    @property
    def running(self) -> int:
        return len(self._children)

    def which(self, name: str) -> str | None:
        """Give the absolute path of a program, or None if it is not installed."""
        if name not in self._found:
            found = shutil.which(name, path=self.path)
            if found is None:
                return None
            self._found[name] = str(Path(found).absolute())
        return self._found[name]

    async def run(
        self,
        argv: Sequence[Argument],
        *,
        limits: Limits | None = None,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        stdout_to: Path | None = None,
        env: Mapping[str, str] | None = None,
        writes: Sequence[Path] = (),
        name: str = "",
    ) -> Run:
        """Run a program to its end and say how it went; a failing program is no exception (`Run.check` makes it one).

        `stdout_to` sends its standard output to a new or emptied file instead of to memory. `env` is added to the fixed
        environment. `writes` are the folders that it may write to where it is confined, besides the pool's own `home`;
        they must be there. `name` is what the program is called in errors.

        Raises `ToolError` `tool.not_installed`, or `tool.crashed` when it cannot even be started.
        """
        async with self._slots:
            child = self._child(argv, limits)
            try:
                with contextlib.ExitStack() as files:
                    sink = files.enter_context(stdout_to.open("wb")) if stdout_to else None
                    if sink is None:
                        child.output = Pipe(child, keep=child.limits.output_bytes, tail=False)
                    await self._start(
                        child,
                        argv,
                        Start(cwd=cwd, env=env, writes=writes, feed=stdin is not None, sink=sink, name=name),
                    )
                if child.input and stdin is not None:
                    child.input[0].write(stdin)
                    child.input[0].write_eof()
                child.watch()
                return await child.finish()
            finally:
                await child.close()

    @contextlib.asynccontextmanager
    async def lines(
        self,
        argv: Sequence[Argument],
        *,
        limits: Limits | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        writes: Sequence[Path] = (),
        name: str = "",
    ) -> AsyncIterator[Lines]:
        """Run a program whose standard output is read line by line while it runs.

        ::

            async with pool.lines(argv) as lines:
                async for line in lines: ...
            run = lines.result()

        Leaving the `async with` early stops the program. A line may be 1 MiB long. Raises as `run` does.
        """
        async with self._slots:
            child = self._child(argv, limits)
            reader = asyncio.StreamReader(limit=LINE_BYTES)
            child.output = Stream(child, reader, child.limits.output_bytes)
            lines = Lines(child, reader)
            try:
                await self._start(child, argv, Start(cwd=cwd, env=env, writes=writes, name=name))
                child.reading = False
                child.watch()
                yield lines
                await lines._finish()  # noqa: SLF001  one module, one thing
            finally:
                await child.close()

    async def open(
        self,
        argv: Sequence[Argument],
        *,
        limits: Limits | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        writes: Sequence[Path] = (),
        name: str = "",
    ) -> Process:
        """Start a program that stays and is spoken to. One answer of it may be `output_bytes` long. Raises as `run`."""
        child = self._child(argv, limits)
        reader = asyncio.StreamReader(limit=child.limits.output_bytes)
        child.output = Stream(child, reader, None)
        try:
            await self._start(child, argv, Start(cwd=cwd, env=env, writes=writes, feed=True, name=name))
        except BaseException:
            await child.close()
            raise
        return Process(child, reader)

    def slot(self) -> asyncio.Semaphore:
        """Give what a worker that computes for a package holds while it does: `async with pool.slot(): …`."""
        return self._slots

    async def aclose(self) -> None:
        """Kill what still runs and remove the scratch folder."""
        for child in tuple(self._children):
            child.stop(Stop.CLOSED)
        for child in tuple(self._children):
            await child.close()
        if self._home:
            await asyncio.to_thread(shutil.rmtree, self._home, ignore_errors=True)
            self._home = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def __aenter__(self) -> Self:
        """Remove what a service that was killed has left in the scratch folder."""
        if self._scratch:
            await asyncio.to_thread(sweep_scratch, self._scratch)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def home(self) -> Path:
        """Give the folder in which programs may leave what they like; it is removed with the pool."""
        if self._home is None:
            if self._scratch:
                self._scratch.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix=_UNLOCKED, dir=self._scratch))
            self._lock = _locked(made)
            # Whoever sees it under its name sees its lock.
            self._home = made.rename(made.with_name(_PREFIX + made.name.removeprefix(_UNLOCKED)))
        return self._home

    def environment(self) -> dict[str, str]:
        """What every program finds in its environment: nothing of ours, so no secret can leak."""
        home = str(self.home())
        return {
            "PATH": self.path,
            "HOME": home,
            "TMPDIR": home,
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            # Parallelism comes from running several programs: threads of one only contend.
            "OMP_THREAD_LIMIT": "1",
        }

    def _child(self, argv: Sequence[Argument], limits: Limits | None) -> Child:
        child = Child(tuple(os.fsdecode(part) for part in argv), limits or self.limits, self._children.discard)
        child.mark = f"{self.home().name}/{child.mark}"
        return child

    async def _start(self, child: Child, argv: Sequence[Argument], start: Start) -> None:
        try:
            await self._launch(child, argv, start)
        finally:
            if not child.pid:
                child.never_started()

    async def _launch(self, child: Child, argv: Sequence[Argument], start: Start) -> None:
        program = self.which(child.argv[0])
        name = start.name or Path(child.argv[0]).name
        if program is None:
            raise ToolError(f"{name} is not installed", code=Code.TOOL_NOT_INSTALLED, tool=ToolFailure(name=name))
        env = {**self.environment(), **(start.env or {}), MARK: child.mark}
        # Java looks at no TMPDIR, and may not write to /tmp where it is confined.
        env["JDK_JAVA_OPTIONS"] = f'"-Djava.io.tmpdir={env["TMPDIR"]}"'
        prlimit = self.which("prlimit")
        child.limit_from_outside = prlimit is None
        wrapper = wrapped(child.limits, prlimit, self.which("setpriv"))
        command = [os.fsencode(part) for part in (*self._confinement(start), *wrapper, program, *argv[1:])]
        self._children.add(child)
        try:
            await spawn(child, command, replace(start, env=env))
        except (OSError, ValueError) as error:
            raise ToolError(f"{name} cannot be started: {error}", tool=ToolFailure(name=name)) from error
        self.spawned += 1

    def _confinement(self, start: Start) -> Sequence[Argument]:
        if not self.confined:
            return ()
        places = [self.home(), *start.writes, *([Path(os.fsdecode(start.sink.name))] if start.sink else [])]
        program = Path(confine.__file__)
        absolute = (place.absolute() for place in places)
        return [sys.executable, "-I", "-S", program, self.settings.sandbox.value, *absolute, "--"]


def _locked(folder: Path) -> int | None:
    """Give an open descriptor that holds the folder's lock, or None if a living service holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def sweep_scratch(scratch: Path) -> None:
    """Kill what runs of pools whose processes were killed, and remove their homes. Blocks."""
    for folder in [*scratch.glob(f"{_PREFIX}*"), *filter(_old, scratch.glob(f"{_UNLOCKED}*"))]:
        with contextlib.suppress(OSError):
            if (lock := _locked(folder)) is not None:
                kill_marked(f"{folder.name}/")
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _old(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - folder.stat().st_mtime > _FRESH_SECONDS
    return False
