"""Time ingests stage by stage against the machine's floor, measured in the same run.

    python -m bench.run text-1000 mixed-1000        # or mixed-5000, wav-1g; see corpora.py
    python -m bench.run --memory                    # peak memory for 2,000 and for 20,000 small files
    python -m bench.run --folder SOME/FOLDER

Each ingest is `ingestd ingest --json` as a child process, with a data folder of its own that is removed afterwards.
Corpora are kept in .state/bench. `--json FILE` writes every figure.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import corpora, floor

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.05
MEMORY_CORPORA = ("text-2000", "text-20000")
MEMORY_RATIO = 1.3
MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One link of the workflow, as it was run."""

    name: str
    execute: str
    seconds: float
    files: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingest:
    """One ingest, seen from outside, and what its result says."""

    corpus: str
    outcome: str
    files: int
    size_bytes: int
    wall_seconds: float
    cpu_seconds: float
    peak_main_bytes: int
    """Largest resident set of the service's own process, by the kernel's count."""
    peak_tree_bytes: int
    """Largest proportional set of it and its children together, as sampled."""
    program_runs: int
    links: tuple[Link, ...]


@dataclass(kw_only=True, slots=True)
class Peak:
    """Watches a process and its children."""

    pid: int
    main_bytes: int = 0
    tree_bytes: int = 0
    _done: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self.main_bytes = max(self.main_bytes, _from_proc(self.pid, "status", "VmHWM:"))
            self.tree_bytes = max(
                self.tree_bytes, sum(_from_proc(pid, "smaps_rollup", "Pss:") for pid in tree(self.pid))
            )

    def stop(self) -> None:
        self._done.set()


def main() -> None:
    arguments = _arguments()
    root = arguments.root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    names = MEMORY_CORPORA if arguments.memory else arguments.corpora
    folders = [corpora.make(name, root) for name in names]
    folders += [folder.absolute() for folder in arguments.folder]
    if not folders:
        sys.exit("name a corpus (text-1000, mixed-1000, mixed-5000, wav-1g), a --folder, or --memory")
    figures: list[dict[str, Any]] = []
    ingests = []
    for folder in folders:
        costs = [] if arguments.memory else floor.measure(folder)
        one = ingest(folder, root, arguments.option)
        show(one, costs)
        ingests.append(one)
        figures.append({"ingest": asdict(one), "floor": [asdict(cost) for cost in costs]})
    flat = show_memory(ingests) if arguments.memory else True
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if not flat or any(not one.outcome.startswith("succeeded") for one in ingests):
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time ingests against the machine's floor.")
    parser.add_argument("corpora", nargs="*", help="text-N, mixed-N, wav-1g")
    parser.add_argument("--folder", type=Path, action="append", default=[], help="a folder of your own")
    parser.add_argument("--memory", action="store_true", help="compare peak memory for 2,000 and 20,000 files")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="a processing option")
    parser.add_argument("--root", type=Path, default=REPOSITORY / ".state" / "bench", help="where corpora are kept")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    return parser.parse_args()


# --- one ingest


def ingest(folder: Path, root: Path, options: list[str]) -> Ingest:
    """Run one ingest of `folder` and give its figures. Raises `SystemExit` if it printed no result."""
    with tempfile.TemporaryDirectory(prefix="ingest-", dir=root) as scratch:
        argv = [sys.executable, "-m", "ingestd", "ingest", str(folder), "--json", "--output", f"{scratch}/aips"]
        for option in options:
            argv += ["--set", option]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("INGESTD_")}
        environment |= {"INGESTD_DATA_DIR": f"{scratch}/data", "INGESTD_LOG_LEVEL": "warning"}
        environment["PYTHONPATH"] = os.pathsep.join(
            part for part in (str(REPOSITORY / "src"), environment.get("PYTHONPATH")) if part
        )
        started, cpu_before = time.perf_counter(), _children_cpu_seconds()
        with Path(scratch, "result.json").open("w+b") as result, Path(scratch, "stderr").open("w+b") as errors:
            process = subprocess.Popen(argv, stdout=result, stderr=errors, env=environment, cwd=scratch)
            peak = Peak(pid=process.pid)
            watcher = threading.Thread(target=peak.watch, daemon=True)
            watcher.start()
            exit_code = process.wait()
            wall = time.perf_counter() - started
            peak.stop()
            watcher.join()
            result.seek(0)
            errors.seek(0)
            printed, said = result.read(), errors.read().decode(errors="replace")
        cpu = _children_cpu_seconds() - cpu_before
        shutil.rmtree(Path(scratch, "aips"), ignore_errors=True)
    try:
        values = json.loads(printed)
    except json.JSONDecodeError:
        sys.exit(f"the ingest of {folder.name} printed no result (exit code {exit_code}):\n{said[-3000:]}")
    return read_result(values, folder, wall, cpu, peak)


def read_result(values: dict[str, Any], folder: Path, wall: float, cpu: float, peak: Peak) -> Ingest:
    """Take from the printed result what is shown here. All that is known of its shape stands in this function."""
    timing = values.get("timing") or {}
    links = tuple(
        Link(
            name=str(link.get("name", "")),
            execute=str(link.get("execute", "")),
            seconds=float(link.get("seconds", 0)),
            files=int(link.get("files_done") or link.get("files") or 0),
        )
        for link in timing.get("links") or values.get("links") or []
    )
    counts = values.get("counts") or {}
    originals = [path for path in folder.rglob("*") if path.is_file()]
    error = values.get("error") or {}
    outcome = str(values.get("outcome", "unknown"))
    return Ingest(
        corpus=folder.name,
        outcome=f"{outcome}: {error.get('detail')}" if error else outcome,
        files=int(counts.get("originals") or len(originals)),
        size_bytes=sum(path.stat().st_size for path in originals),
        wall_seconds=wall,
        cpu_seconds=cpu,
        peak_main_bytes=peak.main_bytes,
        peak_tree_bytes=peak.tree_bytes,
        program_runs=int(values.get("program_runs") or 0),
        links=links,
    )


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tree(pid: int) -> Iterator[int]:
    """Give a process and all its children, as far as they live."""
    yield pid
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from tree(int(child))


def _from_proc(pid: int, file: str, label: str) -> int:
    """Read a size in bytes from /proc; 0 for a process that is gone."""
    with suppress(OSError, IndexError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(label):
                return int(line.split()[1]) * 1024
    return 0


# --- what is printed


def show(one: Ingest, costs: list[floor.Cost]) -> None:
    print(f"\n{one.corpus}: {one.files} files, {one.size_bytes / 1e6:.1f} MB, {one.outcome}\n")
    if costs:
        floor.show(costs)
        print()
    print(f"  {'link':<48}{'files':>8}{'s':>9}{'ms/file':>10}")
    for link in sorted(one.links, key=lambda link: -link.seconds):
        if link.seconds >= 0.005:
            each = f"{1000 * link.seconds / link.files:.2f}" if link.files else ""
            print(f"  {link.name[:47]:<48}{link.files or '':>8}{link.seconds:>9.2f}{each:>10}")
    in_links = sum(link.seconds for link in one.links)
    print(f"  {'between links, start and end':<48}{'':>8}{max(0.0, one.wall_seconds - in_links):>9.2f}")
    print(f"\n  wall {one.wall_seconds:.2f} s, {one.wall_seconds / max(one.files, 1):.5f} s a file", end="")
    print(f"; cpu {one.cpu_seconds:.2f} s, {one.cpu_seconds / max(one.files, 1):.5f} s a file")
    print(
        f"  {one.program_runs} programs started; peak memory {_mib(one.peak_main_bytes)} of the service itself,", end=""
    )
    print(f" {_mib(one.peak_tree_bytes)} with its children")
    if costs:
        wall = one.wall_seconds / floor.wall_floor(costs)
        print(f"  {wall:.1f} times the floor by the clock, {one.cpu_seconds / floor.cpu_floor(costs):.1f} by processor")
    sys.stdout.flush()


def show_memory(ingests: list[Ingest]) -> bool:
    """Compare the largest with the smallest; give whether memory is flat in the number of files."""
    few, many = ingests[0], ingests[-1]
    ratio = many.peak_main_bytes / max(few.peak_main_bytes, 1)
    verdict = "flat" if ratio <= MEMORY_RATIO else f"NOT flat: more than {MEMORY_RATIO}"
    print(f"\n  {many.files} files take {ratio:.2f} times the memory of {few.files}: {verdict}")
    return ratio <= MEMORY_RATIO


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MEBIBYTE:.0f} MiB"


if __name__ == "__main__":
    main()
