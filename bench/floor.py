"""The machine's floor: what the unavoidable steps cost here and now, each by the fastest sound way.

    python -m bench.floor FOLDER

Other work on the machine slows floor and ingest alike, so both are measured in one run, and processor seconds tell
more than the clock does.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

BATCH = 128
BLOCK_BYTES = 262_144
DESCRIBED = frozenset({".png", ".jpg", ".pdf", ".wav"})
"""What ExifTool is run on: Archivematica's rules give it no text and no XML."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one step cost: the clock, and the processors' time of this process and its children."""

    step: str
    files: int
    wall_seconds: float
    cpu_seconds: float


def measure(folder: Path) -> list[Cost]:
    """Measure every step on the files of `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    described = [path for path in files if path.suffix in DESCRIBED]
    costs = [_cost("walk and sha256", len(files), lambda: hash_all(folder))]
    costs.append(siegfried(files))
    if described and shutil.which("exiftool"):
        costs.append(_cost("ExifTool, one batch", len(described), lambda: exiftool(described)))
    with tempfile.TemporaryDirectory(prefix="ingestd-floor-", dir=folder.parent) as scratch:
        packed = Path(scratch) / "packed.7z"
        costs.append(_cost("7z copy, to disk", len(files), lambda: pack(folder, packed)))
        costs.append(_cost("read back, sha256", len(files), lambda: digest(packed)))
    return costs


def wall_floor(costs: list[Cost]) -> float:
    """Give the least seconds by the clock: all steps' processor time, divided over the processors."""
    return cpu_floor(costs) / len(os.sched_getaffinity(0))


def cpu_floor(costs: list[Cost]) -> float:
    return sum(cost.cpu_seconds for cost in costs)


def hash_all(folder: Path) -> None:
    for path in _walk(str(folder)):
        digest(path)


def digest(path: Path | str) -> str:
    value = hashlib.sha256()
    buffer = bytearray(BLOCK_BYTES)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  this is the floor: no objects that are not needed
        while size := file.readinto(buffer):
            value.update(view[:size])
    return value.hexdigest()


def _walk(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            else:
                yield entry.path


def siegfried(files: list[Path]) -> Cost:
    """Identify in one worker process, whose start and signatures are not counted."""
    names = [str(path) for path in files]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(identify, names[:1]).result()
        started = time.perf_counter()
        cpu = sum(pool.submit(identify, names[at : at + BATCH]).result() for at in range(0, len(names), BATCH))
        wall = time.perf_counter() - started
    return Cost(step="Siegfried, in a worker", files=len(files), wall_seconds=wall, cpu_seconds=cpu)


def identify(names: list[str]) -> float:
    """Run in the worker: identify a batch and give the processor seconds that it took."""
    import pygfried

    before = time.process_time()
    pygfried.identify_many(names)
    return time.process_time() - before


def exiftool(files: list[Path]) -> None:
    subprocess.run(
        ["exiftool", "-X", "-a", "-@", "-"],
        input="".join(f"{path}\n" for path in files).encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,  # a file without metadata is an error to it
    )


def pack(folder: Path, into: Path) -> None:
    argv = ["7z", "a", "-bd", "-y", "-t7z", "-m0=copy", "-mf=off", "--", str(into), folder.name]
    subprocess.run(argv, cwd=folder.parent, stdout=subprocess.DEVNULL, check=True)
    with into.open("rb") as file:
        os.fsync(file.fileno())


def _cost(step: str, files: int, action: Callable[[], None] | Callable[[], str]) -> Cost:
    started, before = time.perf_counter(), cpu_seconds()
    action()
    return Cost(
        step=step,
        files=files,
        wall_seconds=time.perf_counter() - started,
        cpu_seconds=cpu_seconds() - before,
    )


def cpu_seconds() -> float:
    """Give the processor seconds of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def show(costs: list[Cost]) -> None:
    print(f"  {'floor':<28}{'files':>8}{'cpu s':>9}{'wall s':>9}{'cpu ms/file':>13}")
    for cost in costs:
        each = 1000 * cost.cpu_seconds / max(cost.files, 1)
        print(f"  {cost.step:<28}{cost.files:>8}{cost.cpu_seconds:>9.2f}{cost.wall_seconds:>9.2f}{each:>13.2f}")
    print(f"  {'all':<28}{'':>8}{cpu_floor(costs):>9.2f}{wall_floor(costs):>9.2f}   (wall: over all processors)")


if __name__ == "__main__":
    show(measure(Path(sys.argv[1])))
