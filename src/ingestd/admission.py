"""Admission: no package is begun that this worker cannot finish.

What a package may need on the working disk is reckoned from its size and from what the workflow will do to it. That
much is promised to it while it is in hand, in a file that other processes on the same data folder see; a promise whose
process is gone counts no more. What does not fit is told with the numbers; how that is waited for, whoever asks says.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import math
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from ingestd.config import Settings
from ingestd.errors import Code, IngestError, ResourceError, Violation
from ingestd.sections import AdmissionSettings
from ingestd.together import Worker
from ingestd.walking import used
from ingestd.workfolder import fault

T = TypeVar("T")

log = structlog.get_logger(__name__)

_CGROUPS = Path("/sys/fs/cgroup")
_FOLDER = "admitted"
_UNCOMPRESSED = "uncompressed"
_MOST_LEFT = 10_000
_FILES_OF_ANY = 200
"""Files that every package has besides its content: reports, METS, the bag's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What a package may need on the working disk, all at once and at most."""

    size_bytes: int
    files: int


class NeverError(ResourceError):
    """A package could not fit even if it were alone on the disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What there is: bytes and files that the disk can still take, and what of them is promised to whom."""

    free_bytes: int
    free_files: int | None
    """None where the file system has no limit of its own."""
    memory_bytes: int
    promised_bytes: int = 0
    promised_files: int = 0
    packages: int = 0


def need_of(
    settings: AdmissionSettings,
    *,
    files: int | None,
    size_bytes: int | None,
    source_bytes: int | None,
    remote: bool,
    options: Mapping[str, Any],
    steps: Collection[str],
) -> Need:
    """Reckon what a package may need. `size_bytes` of content is None where only unpacking tells; `remote`: its source
    is fetched first. `steps` are those of the workflow.
    """
    fetched = (source_bytes or 0) if remote else 0
    content = size_bytes if size_bytes is not None else (source_bytes or 0) * settings.expansion
    count = files if files is not None else _FILES_OF_ANY
    derived = sum(
        bool(options.get(option)) and step in steps
        for option, step in (("normalize", "normalize"), ("normalize_for_access", "normalize_for_access"))
    )
    unpacked = bool(options.get("extract_packages")) and "extract_contents" in steps
    within = content * (1 + settings.derivatives * derived + settings.extracted * unpacked)
    packed = 0 if options.get("aip_compression_algorithm") == _UNCOMPRESSED else within
    return Need(
        size_bytes=math.ceil((fetched + within + packed) * settings.factor),
        files=math.ceil(count * (1 + derived + unpacked) * settings.factor) + _FILES_OF_ANY,
    )


class Admission:
    """Says what there is room for, and holds the promises of the packages in hand."""

    def __init__(self, settings: Settings, *, memory: Callable[[], int] | None = None) -> None:
        self._data = settings.data_dir
        self._work = settings.work_dir
        self._settings = settings.admission
        self._memory = memory or available_memory
        self._released = asyncio.Event()
        self._measured: dict[str, tuple[float, tuple[int, int]]] = {}
        self._failure: IngestError | None = None
        self._left: dict[str, Need] = {}
        self.waiting = 0
        """Packages in hand that wait for room."""
        self.room: Room | None = None
        """What there was when it was last looked."""

    # --- for whoever takes requests ----------------------------------------------------------------------------------

    @property
    def failure(self) -> IngestError | None:
        """Why no request is taken now."""
        return self._failure

    def ready(self) -> bool:
        return self._failure is None

    async def watch(self) -> None:
        """Look at intervals; does not end by itself."""
        while True:
            with contextlib.suppress(OSError):  # what the disk has, whoever uses it will tell
                await self.look()
            await asyncio.sleep(self._settings.look_seconds)

    async def wait_for_any(self) -> None:
        """Return when there is room for some package: the reserve is free, on disk and in memory."""
        while await self.look() is not None:  # noqa: ASYNC110  nothing tells when a disk gets free
            await asyncio.sleep(self._settings.look_seconds)

    async def look(self) -> IngestError | None:
        """Look at what there is; give what is short, or that the working disk cannot be written."""
        before, self._failure = self._failure, await Worker().run(self._short_of_any)
        if self._failure is not None and before is None:
            log.warning("no_room", code=self._failure.code.value, detail=self._failure.detail, path=str(self._data))
        elif self._failure is None and before is not None:
            log.info("room_again")
        return self._failure

    def _short_of_any(self) -> IngestError | None:
        """Blocks."""
        try:
            _must_be_writable(self._work)
            self.room = _alone(self._data, self._look)
        except OSError as error:
            return fault(error, self._work / _FOLDER)
        return self._short(self.room, Need(size_bytes=0, files=0))

    # --- for one package ---------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def room_for(
        self, package: uuid.UUID, need: Need, waits: Callable[[ResourceError], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Hold the room that a package may need. While there is none, `waits` is told so at each look, and what it
        raises ends the wait: a `NeverError` will not change. Smaller ones that fit go on meanwhile.
        """
        promise = _Promise(self._data / _FOLDER / str(package))
        try:
            await self._promised(promise, need, waits)
            yield
        finally:
            promise.release()
            self._released.set()

    def never(self, need: Need) -> NeverError | None:
        """Say what is too small for a package even if it were alone on the disk."""
        disk, reserve = os.statvfs(self._data), self._settings
        total = disk.f_blocks * disk.f_frsize
        if need.size_bytes + reserve.reserve_bytes > total:
            return _never(Code.RESOURCE_DISK, "bytes", need.size_bytes, reserve.reserve_bytes, total)
        if disk.f_files and need.files + reserve.reserve_files > disk.f_files:
            return _never(Code.RESOURCE_INODES, "files", need.files, reserve.reserve_files, disk.f_files)
        return None

    # --- for a package that is left to other workers -----------------------------------------------------------------

    def leave(self, package: str, need: Need) -> None:
        """Remember what a package needs that there was no room for."""
        self._left[package] = need
        while len(self._left) > _MOST_LEFT:
            del self._left[next(iter(self._left))]

    def need_of(self, package: str) -> Need | None:
        """What a package needs that was left to other workers."""
        return self._left.get(package)

    async def lacks(self, package: str) -> bool:
        """Whether there is still no room for a package that was left to other workers; False of any other."""
        need = self._left.get(package)
        if need is None:
            return False
        room = await Worker().run(lambda: _alone(self._data, self._look))
        if self.never(need) or self._short(room, need):
            return True
        self._left.pop(package, None)
        return False

    async def _promised(self, promise: _Promise, need: Need, waits: Callable[[ResourceError], Awaitable[None]]) -> None:
        self.waiting += 1
        try:
            while (short := await self._try(promise, need)) is not None:
                await waits(short)
                self._released.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._released.wait(), self._settings.look_seconds)
        finally:
            self.waiting -= 1

    async def _try(self, promise: _Promise, need: Need) -> ResourceError | None:
        return await Worker().run(lambda: _alone(self._data, lambda: self._take(promise, need)))

    def _take(self, promise: _Promise, need: Need) -> ResourceError | None:
        """Blocks, and is alone in it."""
        room = self._look(but=promise.path.name)
        has_bytes, has_files = self._used(promise.path.name)
        left = Need(size_bytes=max(0, need.size_bytes - has_bytes), files=max(0, need.files - has_files))
        short = self.never(left) or self._short(room, left)
        if short is None:
            promise.make(need)
        return short

    def _look(self, but: str = "") -> Room:
        found = os.statvfs(self._data)
        promised_bytes = promised_files = packages = 0
        for name, need in _made(self._data / _FOLDER):
            if name == but:
                continue
            has_bytes, has_files = self._used(name)
            promised_bytes += max(0, need.size_bytes - has_bytes)
            promised_files += max(0, need.files - has_files)
            packages += 1
        return Room(
            free_bytes=found.f_bavail * found.f_frsize,
            free_files=found.f_favail if found.f_files else None,
            memory_bytes=self._memory(),
            promised_bytes=promised_bytes,
            promised_files=promised_files,
            packages=packages,
        )

    def _used(self, name: str) -> tuple[int, int]:
        """What a package has taken already; a large one is not measured all the time."""
        until, found = self._measured.get(name, (0.0, (0, 0)))
        began = time.monotonic()
        if began >= until:
            found = used(self._work / name)
            took = time.monotonic() - began
            self._measured = {each: said for each, said in self._measured.items() if said[0] > began}
            self._measured[name] = (began + 50 * took, found)
        return found

    # --- what is short -----------------------------------------------------------------------------------------------

    def _short(self, room: Room, need: Need) -> ResourceError | None:
        reserve = self._settings
        found = _Balance(
            unit="bytes",
            need=need.size_bytes,
            free=room.free_bytes,
            promised=room.promised_bytes,
            kept=reserve.reserve_bytes,
        )
        if found.short:
            return found.error(Code.RESOURCE_DISK, room.packages)
        files = 2**63 if room.free_files is None else room.free_files
        found = _Balance(
            unit="files", need=need.files, free=files, promised=room.promised_files, kept=reserve.reserve_files
        )
        if found.short:
            return found.error(Code.RESOURCE_INODES, room.packages)
        if room.memory_bytes < reserve.reserve_memory_bytes:
            detail = f"{room.memory_bytes} bytes of memory are free, {reserve.reserve_memory_bytes} are kept free"
            return ResourceError(detail, code=Code.RESOURCE_MEMORY)
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Balance:
    """What of bytes, or of files, is needed, free, promised to others, and kept free."""

    unit: str
    need: int
    free: int
    promised: int
    kept: int

    @property
    def short(self) -> bool:
        return self.need + self.promised + self.kept > self.free

    def error(self, code: Code, packages: int) -> ResourceError:
        wanted = f"the package may need {self.need} {self.unit} on the working disk; " if self.need else ""
        promised = f", {self.promised} of them promised to {packages} package(s) in hand" if packages else ""
        violation = Violation(
            path="data_dir",
            rule=code.value.partition(".")[2],
            expected=f"{self.need + self.promised + self.kept} {self.unit} free: {self.need} needed,"
            f" {self.promised} promised, {self.kept} kept free",
            actual=f"{self.free} {self.unit} free",
        )
        detail = f"{wanted}{self.free} {self.unit} are free{promised}, and {self.kept} are kept free"
        return ResourceError(detail, code=code, violations=(violation,))


def _never(code: Code, unit: str, need: int, kept: int, total: int) -> NeverError:
    violation = Violation(
        path="data_dir",
        rule=code.value.partition(".")[2],
        expected=f"{need} {unit} for this package and {kept} that are kept free",
        actual=f"a disk of {total} {unit}",
    )
    return NeverError(
        f"the package may need {need} {unit} on the working disk, which has {total} in all, {kept} of them kept free",
        code=code,
        violations=(violation,),
        remediation="Send it in smaller parts, or ask the operator for a larger working disk (setting data_dir); "
        "the settings `admission` say how the need is reckoned.",
    )


def _must_be_writable(folder: Path) -> None:
    """Raise `OSError` for a folder that is there and may not be written."""
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise OSError(number, os.strerror(number), str(folder))


# --- promises --------------------------------------------------------------------------------------------------------


def _alone(data: Path, work: Callable[[], T]) -> T:
    """Do something while no other process looks or promises. Blocks."""
    (data / _FOLDER).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data / f"{_FOLDER}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return work()
    finally:
        os.close(descriptor)


class _Promise:
    """A file that says what a package may need, and whose lock says that somebody lives who needs it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def make(self, need: Need) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._descriptor = descriptor
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps([need.size_bytes, need.files]).encode())

    def release(self) -> None:
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def _made(folder: Path) -> Iterator[tuple[str, Need]]:
    """The promises that hold; those of processes that died are removed. To be called under the lock."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # released in this moment
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
                continue
            with contextlib.suppress(ValueError):
                size, files = json.loads(os.read(descriptor, 4096))
                yield path.name, Need(size_bytes=size, files=files)
        finally:
            os.close(descriptor)


# --- memory ----------------------------------------------------------------------------------------------------------


def available_memory(proc: Path = Path("/proc"), cgroups: Path = _CGROUPS) -> int:
    """Bytes of memory that could still be taken: of the machine, or of the tightest control group around (cgroup v2).

    What a group holds of files that are not in use can be given up, and counts as free.
    """
    free = [_of_machine(proc / "meminfo")]
    with contextlib.suppress(OSError, StopIteration):
        lines = (proc / "self/cgroup").read_text(encoding="ascii").splitlines()
        own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
        group = cgroups / own
        while group != cgroups.parent:
            free += _of_group(group)
            group = group.parent
    return min(free)


def _of_machine(meminfo: Path) -> int:
    for line in meminfo.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 2**63 - 1


def _of_group(group: Path) -> list[int]:
    try:
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        current = int((group / "memory.current").read_text(encoding="ascii"))
        said = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return []
    return [] if most == "max" else [int(most) - current + int(said.get("inactive_file", 0))]
