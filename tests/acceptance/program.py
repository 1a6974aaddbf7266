"""ingestd as a user runs it: a process of its own, with a data folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jsonschema

from tests.conftest import REPOSITORY

RUN_SECONDS = 50
NO_DERIVATIVES = {"normalize": False, "transcribe_files": False}
"""Most of these tests are not about derivatives, which take longer than all the rest."""


METSRW = "ignore:datetime.datetime.utcnow() is deprecated:DeprecationWarning"
"""What metsrw 0.7 does, and Python says of it from 3.12 on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """What `--json` printed."""
        return cast("dict[str, Any]", json.loads(self.out))


# What takes long and is not what these tests ask: `test_demo.py` runs it all.
QUICK = {
    "PROCESSING": json.dumps({"normalize": False, "transcribe_files": False, "validate_formats": False}),
    "CLAMAV__SCANNER": "off",
}


class Program:
    """Commands on one data folder. `settings` are variables of the environment, without their prefix."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.settings = settings
        self.command: tuple[str, ...] = (sys.executable, "-W", "error", "-W", METSRW, "-m", "ingestd")
        self.search_path: Path | None = REPOSITORY / "src"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        set_ = {"DATA_DIR": self.data_dir, **QUICK, **self.settings}
        found = {"PYTHONPATH": str(self.search_path)} if self.search_path else {}
        return kept | found | {f"INGESTD_{name}": str(value) for name, value in set_.items()}

    def __call__(self, *arguments: object, seconds: float = RUN_SECONDS, out: Path | None = None) -> Run:
        """Run one command to its end. What it prints is in the file `out`, if that is given."""
        process = self.start(*arguments, out=out)
        try:
            said, err = process.communicate(timeout=seconds)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return Run(
            code=process.returncode,
            out=(said or b"").decode(errors="surrogateescape"),
            err=err.decode(errors="surrogateescape"),
        )

    def start(self, *arguments: object, log: Path | None = None, out: Path | None = None) -> subprocess.Popen[bytes]:
        """Start one command. What runs for long needs a `log` for its standard error: nobody reads its pipe."""
        with (
            log.open("ab") if log else contextlib.nullcontext(subprocess.PIPE) as errors,
            out.open("ab") if out else contextlib.nullcontext(subprocess.PIPE) as printed,
        ):
            return subprocess.Popen(
                [*self.command, *(os.fsencode(str(argument)) for argument in arguments)],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=errors,
            )

    # --- what it left

    @property
    def work_folders(self) -> list[Path]:
        work = self.data_dir / "work"
        return sorted(work.iterdir()) if work.is_dir() else []

    def jobs(self) -> list[Mapping[str, Any]]:
        """The jobs of the one package that is in work, in order; none before its journal is made."""
        found = [folder / "journal.db" for folder in self.work_folders if (folder / "journal.db").exists()]
        if len(found) != 1:
            return []
        try:
            return rows(found[0], "SELECT * FROM job ORDER BY row")
        except sqlite3.OperationalError:
            return []  # it is just being made

    def requests(self) -> list[Mapping[str, Any]]:
        """The requests of the data folder; none before its journal is made."""
        try:
            return rows(self.data_dir / "service.db", "SELECT * FROM request ORDER BY created_at")
        except sqlite3.OperationalError:
            return []


def rows(database: Path, query: str) -> list[Mapping[str, Any]]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
    try:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]
    finally:
        connection.close()


@contextlib.contextmanager
def running(program: Program, *arguments: object, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A command in the background, killed at the end if it is still there."""
    process = program.start(*arguments, log=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=RUN_SECONDS)


def wait_until(true: Callable[[], object], what: str, *, seconds: float = 30, every: float = 0.02) -> None:
    """Wait for something to be true; after `seconds` the test fails, and says for what it waited."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(every)


def event_schema(definition: str | None = None) -> jsonschema.Draft202012Validator:
    """The published schema of events, or one definition within it."""
    schema = json.loads((REPOSITORY / "schemas" / "event.schema.json").read_text(encoding="utf-8"))
    if definition is not None:
        schema = {
            "$schema": schema["$schema"],
            "$defs": schema["$defs"],
            "$ref": f"#/$defs/{definition}",
        }
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


def kill_in(ingestd: Program, command: list[object], link: str, how: signal.Signals = signal.SIGKILL) -> int:
    """Run a command and send it a signal once it has begun with a link; give its exit code."""
    with running(ingestd, *command) as process:

        def begun() -> bool:
            assert process.poll() is None, f"it ended before it came to {link!r}"
            return any(job["name"] == link for job in ingestd.jobs())

        wait_until(begun, f"the beginning of {link!r}", seconds=40, every=0.005)
        process.send_signal(how)
        return process.wait(20)
