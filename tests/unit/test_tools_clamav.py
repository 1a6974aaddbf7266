"""The scan for malware: a real clamd with a signature of our own, and a clamscan played by a script."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from ingestd.config import ClamAVSettings, ScannerChoice, ToolSettings
from ingestd.errors import Code, DependencyError, ToolError
from ingestd.tools.clamav import Clamd, Clamscan, Scanned, Verdict, find_scanner
from ingestd.tools.pool import Pool
from tests.clamd import EICAR, MAX_FILE_BYTES, SIGNATURE, PrivateClamd, definitions

pytestmark = pytest.mark.tool

CLEAN = Scanned(verdict=Verdict.CLEAN)
INFECTED = Scanned(verdict=Verdict.INFECTED, note=SIGNATURE)

if shutil.which("clamd", path=os.defpath + ":/usr/sbin:/usr/local/sbin") is None:
    pytest.skip("clamd is not installed (Debian: clamav-daemon)", allow_module_level=True)


@pytest.fixture(scope="module")
def clamd() -> Iterator[PrivateClamd]:
    with PrivateClamd() as running:
        yield running


@pytest.fixture(scope="module")
def silent() -> Iterator[PrivateClamd]:
    """Give a clamd that says OK of what it did not read."""
    with PrivateClamd(alert=False) as running:
        yield running


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    async with Pool(ToolSettings(processes=2), scratch=tmp_path / "scratch") as pool:
        yield pool


def scanner(clamd: PrivateClamd, *, tcp: bool = False, **settings: object) -> Clamd:
    address = f"127.0.0.1:{clamd.port}" if tcp else str(clamd.socket)
    values: dict[str, object] = {"max_file_bytes": MAX_FILE_BYTES, "max_stream_bytes": MAX_FILE_BYTES, **settings}
    return Clamd(address, ClamAVSettings.model_validate(values))


def written(folder: Path, **contents: bytes) -> list[Path]:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.com", content)
    return out.getvalue()


@pytest.mark.parametrize("tcp", [False, True], ids=["socket", "TCP"])
async def test_clean_infected_empty_and_packed_files_get_their_verdicts_in_order(
    clamd: PrivateClamd, tmp_path: Path, tcp: bool
) -> None:
    paths = written(tmp_path, a=b"hello", b=EICAR, c=b"", d=zipped(EICAR), e=b"world")

    engine, found = await scanner(clamd, tcp=tcp).scan(paths)

    assert [CLEAN, INFECTED, CLEAN, INFECTED, CLEAN] == list(found)
    assert engine.name == "ClamAV (clamd)"
    assert engine.version.startswith("ClamAV 1.")


@pytest.mark.parametrize("tcp", [False, True], ids=["socket", "TCP"])
async def test_more_files_than_are_asked_ahead_are_all_answered(clamd: PrivateClamd, tmp_path: Path, tcp: bool) -> None:
    paths = written(tmp_path, **{f"f{number}": EICAR if number % 7 == 0 else b"%d" % number for number in range(80)})

    _, found = await scanner(clamd, tcp=tcp).scan(paths)

    assert [INFECTED if number % 7 == 0 else CLEAN for number in range(80)] == list(found)


async def test_names_are_only_names(clamd: PrivateClamd, tmp_path: Path) -> None:
    names = [b"new\nline", b"zEND", b"colon: OK", b"latin-\xe9", b"-dash", b"x: Win.Evil FOUND"]
    paths = [tmp_path / os.fsdecode(name) for name in names]
    for number, path in enumerate(paths):
        path.write_bytes(EICAR if number == 2 else b"harmless")

    _, found = await scanner(clamd).scan(paths)

    assert [CLEAN, CLEAN, INFECTED, CLEAN, CLEAN, CLEAN] == list(found)


@pytest.mark.parametrize("alert", [True, False])
async def test_a_file_over_the_limit_is_not_scanned_and_never_clean(
    clamd: PrivateClamd, silent: PrivateClamd, tmp_path: Path, alert: bool
) -> None:
    [path] = written(tmp_path, big=b"\0" * 2 * MAX_FILE_BYTES + EICAR)

    _, [found] = await scanner(clamd if alert else silent).scan([path])

    assert found.verdict is Verdict.NOT_SCANNED
    assert ("Heuristics.Limits.Exceeded.MaxFileSize" if alert else "max_file_bytes") in found.note


async def test_a_file_too_large_for_tcp_is_not_sent(clamd: PrivateClamd, tmp_path: Path) -> None:
    paths = written(tmp_path, big=b"x" * (MAX_FILE_BYTES + 1), small=EICAR)

    _, found = await scanner(clamd, tcp=True).scan(paths)

    assert [Verdict.NOT_SCANNED, Verdict.INFECTED] == [one.verdict for one in found]
    assert "max_stream_bytes" in found[0].note


async def test_a_stream_that_clamd_cuts_short_does_not_cost_the_others(clamd: PrivateClamd, tmp_path: Path) -> None:
    paths = written(tmp_path, a=b"hello", big=b"x" * 6 * MAX_FILE_BYTES, z=EICAR)

    _, found = await scanner(clamd, tcp=True, max_stream_bytes=10 * MAX_FILE_BYTES).scan(paths)

    assert [CLEAN, INFECTED] == [found[0], found[2]]
    assert found[1].verdict is Verdict.NOT_SCANNED


async def test_whether_limits_are_told_is_found_out(clamd: PrivateClamd, silent: PrivateClamd) -> None:
    told = [await scanner(one, tcp=tcp).tells_limits() for one in (clamd, silent) for tcp in (False, True)]

    assert told == [True, True, False, False]


async def test_what_cannot_be_read_is_not_scanned(clamd: PrivateClamd, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(written(tmp_path, target=EICAR)[0])
    os.mkfifo(tmp_path / "fifo")
    paths = [tmp_path / "link", tmp_path / "fifo", tmp_path / "nothing", tmp_path / "target"]

    _, found = await scanner(clamd).scan(paths)

    assert [Verdict.NOT_SCANNED] * 3 + [Verdict.INFECTED] == [one.verdict for one in found]
    assert "No such file" in found[2].note


async def test_a_clamd_that_is_away_is_a_dependency_that_is_away(tmp_path: Path) -> None:
    away = Clamd(str(tmp_path / "none"), ClamAVSettings())

    with pytest.raises(DependencyError) as raised:
        await away.scan(written(tmp_path, a=b"hello"))

    assert raised.value.code is Code.DEPENDENCY_CLAMD_UNAVAILABLE
    assert not await away.answers()


async def test_a_file_on_which_clamd_dies_is_not_scanned_and_the_others_are(tmp_path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        """Play a clamd that ends when it is given a file that says so."""
        data = connection.recv(len(b"zIDSESSION\0"), socket.MSG_WAITALL)
        number = 0
        while data:
            command = b""
            while (byte := connection.recv(1)) not in (b"\0", b""):
                command += byte
            number += 1
            if command == b"zVERSION":
                connection.sendall(b"%d: ClamAV 9.9.9/7/today\0" % number)
            elif command == b"zFILDES":
                _, [file], _, _ = socket.recv_fds(connection, 1, 1)
                content = os.pread(file, 100, 0)
                os.close(file)
                if content == b"deadly":
                    return
                connection.sendall(b"%d: fd[10]: OK\0" % number)
            else:
                return

    paths = written(tmp_path, a=b"1", b=b"deadly", c=b"2")
    with playing(tmp_path / "s", serve):
        engine, found = await Clamd(str(tmp_path / "s"), ClamAVSettings()).scan(paths)

    assert (engine.version, engine.definitions) == ("ClamAV 9.9.9", "7/today")
    assert [Verdict.CLEAN, Verdict.NOT_SCANNED, Verdict.CLEAN] == [one.verdict for one in found]


async def test_whoever_cancels_hangs_up(tmp_path: Path) -> None:
    hung_up = threading.Event()

    def serve(connection: socket.socket) -> None:
        while connection.recv(100):
            pass
        hung_up.set()

    with playing(tmp_path / "s", serve):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await Clamd(str(tmp_path / "s"), ClamAVSettings()).scan(written(tmp_path, a=b"hello"))

        assert await asyncio.to_thread(hung_up.wait, 5)


class playing:  # noqa: N801  reads as a sentence
    """Serve a Unix socket, each connection in a thread of its own."""

    def __init__(self, path: Path, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(os.fspath(path))
        self._listening.listen()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> None:
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def __exit__(self, *exc: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._accepting.join(5)
        for thread in self._threads:
            thread.join(5)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            self._serve(connection)


CLAMSCAN = """#!/bin/sh
# Plays clamscan: says of each file in the folder, which is the last argument, what its content says.
[ "$1" = --version ] && { echo "ClamAV 1.4.6/27456/Thu Nov 20 09:25:12 2026"; exit 0; }
echo run >> "COUNT"
for folder; do :; done
for file in "$folder"/*; do
    case $(cat "$file") in
        silent) ;;
        *) echo "$file: $(cat "$file")" ;;
    esac
done
echo "WARNING: something" >&2
exit 1
"""


@pytest.fixture
def clamscan(pool: Pool, tmp_path: Path) -> Path:
    program = tmp_path / "clamscan"
    program.write_text(CLAMSCAN.replace("COUNT", str(pool.home() / "count")))
    program.chmod(0o755)
    return program


async def test_clamscan_scans_many_files_in_one_run(pool: Pool, clamscan: Path, tmp_path: Path) -> None:
    paths = written(
        tmp_path,
        **{"a\nb": b"OK", "b": b"Win.Evil-1 FOUND", "c": b"Empty file", "d": b"silent"},
        e=b"Heuristics.Limits.Exceeded.MaxScanSize FOUND",
        f=b"Excluded",
        g=b"OK",
    )

    engine, found = await Clamscan(pool, ClamAVSettings(), program=str(clamscan)).scan([*paths, tmp_path / "none"])

    assert ("ClamAV 1.4.6", "27456/Thu Nov 20 09:25:12 2026") == (engine.version, engine.definitions)
    assert [CLEAN, Scanned(verdict=Verdict.INFECTED, note="Win.Evil-1"), CLEAN] == list(found[:3])
    assert [Verdict.NOT_SCANNED] * 3 + [Verdict.CLEAN, Verdict.NOT_SCANNED] == [one.verdict for one in found[3:]]
    assert "WARNING: something" in found[3].note
    assert (pool.home() / "count").read_text() == "run\n"


async def test_the_real_clamscan_finds_and_names_what_it_may_not_read(pool: Pool, tmp_path: Path) -> None:
    if pool.which("clamscan") is None:
        pytest.skip("clamscan is not installed (Debian: clamav)")
    settings = ClamAVSettings(definitions=definitions(tmp_path / "db"), max_file_bytes=MAX_FILE_BYTES)
    paths = written(tmp_path, a=b"hello", b=EICAR, c=b"", big=b"\0" * 2 * MAX_FILE_BYTES)

    _, found = await Clamscan(pool, settings).scan(paths)

    assert [CLEAN, INFECTED, CLEAN] == list(found[:3])
    assert "Heuristics.Limits.Exceeded" in found[3].note


async def test_a_clamscan_that_says_nothing_is_an_error(pool: Pool, tmp_path: Path) -> None:
    program = tmp_path / "clamscan"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo ClamAV 1.4.6; exit 0; }\necho no database >&2; exit 2\n'
    )
    program.chmod(0o755)

    with pytest.raises(ToolError) as raised:
        await Clamscan(pool, ClamAVSettings(), program=str(program)).scan(written(tmp_path, a=b"hello"))

    assert raised.value.stderr_tail == "no database\n"


async def test_the_scanner_is_the_one_that_is_asked_for(clamd: PrivateClamd, pool: Pool, tmp_path: Path) -> None:
    chosen = {
        choice: await find_scanner(ClamAVSettings(scanner=choice, address=str(clamd.socket)), pool)
        for choice in ScannerChoice
    }

    assert isinstance(chosen[ScannerChoice.AUTO], Clamd)
    assert isinstance(chosen[ScannerChoice.CLAMD], Clamd)
    assert isinstance(chosen[ScannerChoice.CLAMSCAN], Clamscan)
    assert chosen[ScannerChoice.OFF] is None


async def test_without_clamd_the_choice_falls_on_clamscan_if_it_is_there(pool: Pool, tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(stale))

    found = [await find_scanner(ClamAVSettings(), pool, sockets=[str(path)]) for path in (stale, tmp_path / "none")]

    assert [isinstance(one, Clamscan) for one in found] == [pool.which("clamscan") is not None] * 2


async def test_a_clamd_that_answers_in_a_usual_place_is_taken(clamd: PrivateClamd, pool: Pool) -> None:
    found = await find_scanner(ClamAVSettings(), pool, sockets=["/nowhere/clamd.ctl", str(clamd.socket)])

    assert isinstance(found, Clamd)


async def test_a_clamd_whose_address_is_set_is_taken_even_while_it_is_away(pool: Pool, tmp_path: Path) -> None:
    found = await find_scanner(ClamAVSettings(address=str(tmp_path / "none")), pool)

    assert isinstance(found, Clamd)


async def test_one_connection_serves_a_window(clamd: PrivateClamd, tmp_path: Path) -> None:
    paths = written(tmp_path, **{f"f{number}": b"%d" % number for number in range(64)})
    await scanner(clamd).scan(paths[:1])
    started = time.monotonic()

    await scanner(clamd).scan(paths)

    assert time.monotonic() - started < 5
