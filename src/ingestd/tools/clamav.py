"""The scan for malware with ClamAV: clamd over its socket, or the program clamscan where there is no clamd.

clamd gets open files over its Unix socket (FILDES), so that neither its rights nor its view of the file system matter,
and the bytes themselves over TCP (INSTREAM). Many files go through one connection, ahead of the answers (IDSESSION).
The protocol is that of the manual page clamd(8).

Of every file it is said that it is clean, that it is infected, or that it was *not scanned*, and why. What ClamAV's
limits kept it from reading to the end was not scanned: `Heuristics.Limits.Exceeded.…` says so where clamd runs with
`AlertExceedsMax yes`; without that setting clamd says OK, which is not believed of files over `clamav.max_file_bytes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import re
import shutil
import socket
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

from ingestd.config import ClamAVSettings, ScannerChoice
from ingestd.errors import Code, DependencyError, ToolError
from ingestd.premis import now
from ingestd.tools.pool import Pool

SOCKETS = ("/run/clamav/clamd.ctl", "/var/run/clamav/clamd.ctl", "/run/clamd.scan/clamd.sock")
"""Where Debian, its relatives and Fedora have clamd's socket: nowhere that everybody may write."""
AHEAD = 16
"""How many files clamd is told of before it has answered for the first; its own queue is shared by all."""
CONNECT_SECONDS = 5.0
CHUNK_BYTES = 256 * 1024
CLAMSCAN_FILES = 1000
"""Files for one run of clamscan, which loads all signatures anew each time."""

_LIMITS = "Heuristics.Limits.Exceeded"
_ENCRYPTED = "Heuristics.Encrypted"
_ANSWER = re.compile(rb"(\d{1,9}): (.*)", re.DOTALL)
_ANSWER_BYTES = 1 << 20
"""Longest answer: names of signatures are short."""
_NESTING = 110
"""One more than clamd's MaxRecursion can be set to, and some."""

T = TypeVar("T")


class Verdict(StrEnum):
    """What a scan says of a file."""

    CLEAN = "clean"
    INFECTED = "infected"
    NOT_SCANNED = "not scanned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanned:
    """The verdict on one file. `note` is the signature's name of an infected one, the reason for one not scanned."""

    verdict: Verdict
    note: str = ""
    at: datetime = field(default_factory=now, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """What scanned: e.g. `ClamAV (clamd)`, `ClamAV 1.4.6`, and the signatures' version and date where it says them."""

    name: str
    version: str
    definitions: str = ""


class Scanner(Protocol):
    """Clamd or clamscan."""

    async def scan(self, paths: Sequence[Path]) -> tuple[Engine, Sequence[Scanned]]:
        """Scan files; verdicts in their order. Raises `DependencyError` or `ToolError` where nothing can be scanned."""
        ...

    async def tells_limits(self) -> bool:
        """Say whether what the scanner's limits cut short is told apart from what is clean."""
        ...


async def find_scanner(settings: ClamAVSettings, pool: Pool, *, sockets: Sequence[str] = SOCKETS) -> Scanner | None:
    """Choose the scanner that `settings` ask for; None where it is `auto` and there is none, or `off`.

    One that is asked for, by its name or by an address, is given whether it is there or not.
    """
    if settings.scanner is ScannerChoice.OFF:
        return None
    if settings.scanner is ScannerChoice.CLAMSCAN:
        return Clamscan(pool, settings)
    if settings.address:
        return Clamd(settings.address, settings)
    address = await asyncio.to_thread(_socket_among, sockets)
    clamd = Clamd(address or sockets[0], settings)
    if settings.scanner is ScannerChoice.CLAMD or (address and await clamd.answers()):
        return clamd
    return Clamscan(pool, settings) if pool.which("clamscan") else None


def _socket_among(paths: Sequence[str]) -> str:
    return next((path for path in paths if Path(path).is_socket()), "")


class Clamd:
    """A running clamd. `address` is the absolute path of its socket, or `HOST:PORT`."""

    def __init__(self, address: str, settings: ClamAVSettings) -> None:
        self._address = address
        self._settings = settings

    async def scan(self, paths: Sequence[Path]) -> tuple[Engine, Sequence[Scanned]]:
        """Scan files through one connection; what a broken connection left unanswered is asked again, file by file.

        Raises `DependencyError` `dependency.clamd_unavailable`.
        """
        found: dict[int, Scanned] = {}
        engine = await self._session(paths, range(len(paths)), found)
        for index in [index for index in range(len(paths)) if index not in found]:
            try:
                await self._session(paths, [index], found)
            except DependencyError:
                if not await self.answers():
                    raise
            found.setdefault(index, _not_scanned("clamd broke off while it scanned the file"))
        return engine, [found[index] for index in range(len(paths))]

    async def answers(self) -> bool:
        """Say whether clamd is there and lets us in."""
        try:
            await self._session([], [], {})
        except DependencyError:
            return False
        return True

    async def tells_limits(self) -> bool:
        """Try it with archives within one another, more than clamd ever opens."""
        with tempfile.TemporaryFile() as file:
            file.write(_nested())
            file.flush()
            said = await self._talk(lambda session: session.ask(file.fileno()))
        return b"FOUND" in said

    async def _session(self, paths: Sequence[Path], wanted: Sequence[int], found: dict[int, Scanned]) -> Engine:
        return await self._talk(lambda session: session.scan(paths, wanted, found))

    async def _talk(self, work: Callable[[_Session], T]) -> T:
        """Work on one connection, in a thread, which also closes it; whoever cancels this hangs up."""
        connection = await asyncio.to_thread(self._connect)

        def talk() -> T:
            with connection:
                return work(_Session(connection, self._settings))

        try:
            return await asyncio.to_thread(talk)
        except OSError as error:
            raise self._away(error) from error
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            raise

    def _connect(self) -> socket.socket:
        host, colon, port = self._address.rpartition(":")
        try:
            if colon and not self._address.startswith("/"):
                return socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS)
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(CONNECT_SECONDS)
                connection.connect(self._address)
            except BaseException:
                connection.close()
                raise
        except (OSError, ValueError) as error:
            raise self._away(error) from error
        return connection

    def _away(self, error: Exception) -> DependencyError:
        detail = f"clamd does not answer: {error}"
        return DependencyError(detail, code=Code.DEPENDENCY_CLAMD_UNAVAILABLE)


class _Session:
    """One connection to clamd (IDSESSION): commands ahead of answers, which come in any order. Blocking."""

    def __init__(self, connection: socket.socket, settings: ClamAVSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._local = connection.family == socket.AF_UNIX
        self._buffer = bytearray()
        self._sent = 0
        connection.settimeout(settings.answer_seconds)
        connection.sendall(b"zIDSESSION\0")

    def scan(self, paths: Sequence[Path], wanted: Sequence[int], found: dict[int, Scanned]) -> Engine:
        """Scan the `wanted` of `paths` and put into `found` what clamd says, as long as it says anything.

        Raises `OSError` where clamd does not even tell its version.
        """
        self._command(b"VERSION")
        engine = _engine("ClamAV (clamd)", self._receive()[1])
        waiting: dict[int, tuple[int, int]] = {}
        try:
            for index in wanted:
                self._send(paths[index], index, waiting, found)
                while len(waiting) >= AHEAD:
                    self._take(waiting, found)
            while waiting:
                self._take(waiting, found)
            self._command(b"END")
        except OSError:
            # A stream over clamd's limit ends the session, with an answer that may still be had.
            self._drain(waiting, found)
        return engine

    def ask(self, file: int) -> bytes:
        """Give clamd's words about one open file."""
        os.lseek(file, 0, os.SEEK_SET)
        self._content(file)
        return self._receive()[1]

    def _send(self, path: Path, index: int, waiting: dict[int, tuple[int, int]], found: dict[int, Scanned]) -> None:
        try:
            file = _open(path)
        except OSError as error:
            found[index] = _not_scanned(f"the file cannot be read: {error.strerror}")
            return
        try:
            size = os.fstat(file).st_size
            if not self._local and size > self._settings.max_stream_bytes:
                found[index] = _not_scanned(f"{size} bytes are more than clamav.max_stream_bytes")
                return
            # Before it is sent: the answer may come while it is.
            waiting[self._sent + 1] = (index, size)
            self._content(file)
        finally:
            os.close(file)

    def _content(self, file: int) -> None:
        if self._local:
            self._command(b"FILDES")
            socket.send_fds(self._connection, [b"\0"], [file])
            return
        self._command(b"INSTREAM")
        while chunk := os.read(file, CHUNK_BYTES):
            self._connection.sendall(struct.pack("!I", len(chunk)) + chunk)
        self._connection.sendall(struct.pack("!I", 0))

    def _command(self, name: bytes) -> None:
        self._sent += 1
        self._connection.sendall(b"z" + name + b"\0")

    def _take(self, waiting: dict[int, tuple[int, int]], found: dict[int, Scanned]) -> None:
        number, said = self._receive()
        if number not in waiting:
            raise ConnectionAbortedError(errno.ECONNABORTED, f"an answer to what was not asked: {number}")
        index, size = waiting.pop(number)
        found[index] = _verdict(said, size, self._settings.max_file_bytes)

    def _drain(self, waiting: dict[int, tuple[int, int]], found: dict[int, Scanned]) -> None:
        try:
            while waiting:
                self._take(waiting, found)
        except OSError:
            return

    def _receive(self) -> tuple[int, bytes]:
        while b"\0" not in self._buffer:
            data = self._connection.recv(65536)
            if not data or len(self._buffer) > _ANSWER_BYTES:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            self._buffer += data
        answer, _, rest = bytes(self._buffer).partition(b"\0")
        self._buffer = bytearray(rest)
        match = _ANSWER.fullmatch(answer)
        if match is None or int(match[1]) > self._sent:
            raise ConnectionAbortedError(errno.ECONNABORTED, f"unexpected answer: {answer[:200]!r}")
        return int(match[1]), match[2]


class Clamscan:
    """The program clamscan, many files a run."""

    def __init__(self, pool: Pool, settings: ClamAVSettings, *, program: str = "clamscan") -> None:
        self._pool = pool
        self._settings = settings
        self._program = program

    async def scan(self, paths: Sequence[Path]) -> tuple[Engine, Sequence[Scanned]]:
        """Scan files. Raises `ToolError` where clamscan is not there or cannot work at all."""
        version = await self._pool.run([self._program, "--version"], name="clamscan")
        engine = _engine("ClamAV (clamscan)", version.check("clamscan").stdout)
        found: list[Scanned] = []
        for start in range(0, len(paths), CLAMSCAN_FILES):
            found += await self._scan(paths[start : start + CLAMSCAN_FILES])
        return engine, found

    async def tells_limits(self) -> bool:
        """It is told to, whatever its configuration says."""
        return True

    async def _scan(self, paths: Sequence[Path]) -> Sequence[Scanned]:
        # Names are data: clamscan is told plain names of hard links to the files, and answers line by line. (Of a
        # symbolic link ClamAV 1.4 says where it leads.)
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._pool.home()))
        try:
            unreadable = await asyncio.to_thread(_link, paths, folder)
            run = await self._pool.run([*self._argv(), str(folder)], cwd=folder, name="clamscan")
            if run.stopped or run.exit_code is None or not run.stdout:
                raise run.error("clamscan")
            said = _lines(run.stdout, folder)
            why = run.stderr_tail.strip()[-300:] or f"clamscan did not name it (exit code {run.exit_code})"
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return [unreadable.get(index) or said.get(index) or _not_scanned(why) for index in range(len(paths))]

    def _argv(self) -> Sequence[str]:
        settings = self._settings
        argv = [self._program, "--stdout", "--no-summary", "--recursive"]
        argv += ["--alert-exceeds-max=yes", f"--max-filesize={settings.max_file_bytes}"]
        argv += [f"--max-scansize={settings.max_scan_bytes}"]
        return [*argv, *([f"--database={settings.definitions}"] if settings.definitions else [])]


def _open(path: Path) -> int:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def _link(paths: Sequence[Path], folder: Path) -> Mapping[int, Scanned]:
    """Make a link to each file that can be read, or a copy where there are no links; give those that cannot."""
    unreadable = {}
    for index, path in enumerate(paths):
        try:
            os.close(_open(path))
        except OSError as error:
            unreadable[index] = _not_scanned(f"the file cannot be read: {error.strerror}")
        else:
            _same(path, folder / str(index))
    return unreadable


def _same(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def _lines(stdout: bytes, folder: Path) -> Mapping[int, Scanned]:
    said = {}
    start = os.fsencode(folder) + b"/"
    for line in stdout.splitlines():
        name, colon, words = line.removeprefix(start).partition(b": ")
        if colon and name.isdigit():
            said[int(name)] = _verdict(words, 0, 1)
    return said


def _verdict(said: bytes, size: int, believed_bytes: int) -> Scanned:
    """Read an answer: `fd[10]: OK`, `stream: SIGNATURE FOUND`, `WHAT: REASON ERROR`, `Empty file`."""
    text = said.decode("utf-8", errors="replace").strip()
    words = text.rpartition(": ")[2]
    if words in {"OK", "Empty file"}:
        if size > believed_bytes:
            return _not_scanned(f"{size} bytes are more than clamav.max_file_bytes: OK is not believed")
        return Scanned(verdict=Verdict.CLEAN)
    if not words.endswith(" FOUND"):
        return _not_scanned(f"ClamAV says: {text[:300]}")
    signature = words.removesuffix(" FOUND")
    if signature.startswith(_LIMITS):
        return _not_scanned(f"a limit of the scanner was reached: {signature}")
    if signature.startswith(_ENCRYPTED):
        return _not_scanned(f"the content is encrypted: {signature}")
    return Scanned(verdict=Verdict.INFECTED, note=signature)


def _not_scanned(why: str) -> Scanned:
    return Scanned(verdict=Verdict.NOT_SCANNED, note=why)


def _engine(name: str, said: bytes) -> Engine:
    """Read `ClamAV 1.4.6/27456/Thu Nov 20 09:25:12 2026`; signatures of one's own have no version."""
    version, _, definitions = said.decode("utf-8", errors="replace").strip().partition("/")
    if not version.startswith("ClamAV"):
        raise ToolError(f"{name} does not tell its version: {version[:100]}", code=Code.TOOL_BAD_OUTPUT)
    return Engine(name=name, version=version, definitions=definitions)


def _nested() -> bytes:
    """A small archive within archives."""
    content = b"content"
    for _ in range(_NESTING):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(zipfile.ZipInfo("a"), content)
        content = packed.getvalue()
    return content
