"""Commands that are killed at a system call of a test's own choosing: strace counts the calls and kills at the number
that it is told, so that no boundary is left to luck.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.acceptance.program import Program

TO_DISK = "pwrite64,fsync,fdatasync,rename,renameat,renameat2,link,linkat"
NEVER = 65535
"""The highest number that strace takes: no thread comes to it here."""


@contextlib.contextmanager
def killed_at(
    program: Program, number: int, calls: str = TO_DISK, *, on: Path | None = None, log: Path | None = None
) -> Iterator[None]:
    """Commands of the program that are started within die as the first of their threads, or of the programs that they
    start, comes to its call of this number. Only calls `on` a file count, if one is named; all are written to a `log`.
    """
    tracing = ["strace", "-f", "-qq", "-o", str(log or "/dev/null"), *(["-P", str(on)] if on else [])]
    plain = program.command
    program.command = (*tracing, "-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={number}", *plain)
    try:
        yield
    finally:
        program.command = plain


def calls_in(log: Path) -> Counter[str]:
    """How many calls each thread made, by its id."""
    return Counter(line.split()[0] for line in log.read_text(errors="replace").splitlines())
