"""What a confined program can do and what it cannot: real programs, on the kernel that runs the tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ingestd.config import Sandbox, ToolSettings
from ingestd.errors import Code, SystemFault
from ingestd.tools import confine
from ingestd.tools.inventory import confinement
from ingestd.tools.pool import Pool

pytestmark = pytest.mark.skipif(not confine.landlock_abi(), reason="this kernel has no Landlock")


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    async with Pool(ToolSettings(processes=2, wall_seconds=20, sandbox=Sandbox.REQUIRED), scratch=tmp_path / "s") as it:
        yield it


@pytest.fixture
def outside() -> Iterator[Path]:
    # Not below /tmp: there, files may be removed.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def python(code: str, *arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-S", "-c", code, *arguments]


@pytest.mark.parametrize(
    "change",
    [
        "echo x > file",
        "echo x >> file",
        ": > file",
        "rm file",
        "mv file other",
        "ln file linked",
        "ln -s file linked",
        "mkdir folder",
        "mkfifo fifo",
        "mv $HOME/own file",
        "setsid sh -c 'echo x > file'",
    ],
)
async def test_nothing_is_changed_outside_of_what_a_program_is_given(pool: Pool, outside: Path, change: str) -> None:
    (outside / "file").write_text("original")

    run = await pool.run(["sh", "-c", f"echo y > $HOME/own; {change}"], cwd=outside)

    assert run.exit_code not in (0, None)
    assert [outside / "file"] == list(outside.iterdir())
    assert "original" == (outside / "file").read_text()
    assert "y\n" == (pool.home() / "own").read_text()


async def test_everything_is_done_in_the_folders_that_it_is_given(pool: Pool, tmp_path: Path) -> None:
    given = tmp_path / "gi ven"
    given.mkdir()

    script = "echo a > a && mv a b && ln b c && mkdir d && mv c d/ && rm b && mkfifo f && mv d/c $TMPDIR/e && echo ok"
    run = await pool.run(["sh", "-c", script], cwd=given, writes=[given])

    assert b"ok\n" == run.stdout, run.stderr_tail
    assert [given / "d", given / "f"] == sorted(given.iterdir())
    assert "a\n" == (pool.home() / "e").read_text()


async def test_its_output_goes_to_a_file_also_by_the_name_of_a_device(pool: Pool, tmp_path: Path) -> None:
    run = await pool.run(["sh", "-c", "echo a > /dev/stdout; echo b > /dev/null"], stdout_to=tmp_path / "out")

    assert run.ok, run.stderr_tail
    assert "a\n" == (tmp_path / "out").read_text()


SOCKETS = """
import itertools, socket
families = [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_PACKET, socket.AF_NETLINK]
for family, kind in itertools.product(families, [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW]):
    try:
        socket.socket(family, kind)
    except PermissionError:
        continue
    except OSError:
        pass
    print(family.name)
"""


async def test_it_gets_no_socket_but_a_local_one(pool: Pool) -> None:
    run = await pool.run(python(SOCKETS))

    assert [b"AF_UNIX"] * 3 == run.check().stdout.split()


async def test_it_neither_signals_nor_looks_into_this_service(pool: Pool) -> None:
    if confine.landlock_abi() < 6:
        pytest.skip("this kernel's Landlock does not know signals")
    # (The environment's file would do for any account but root, which newer kernels let read it nevertheless.)
    look = "import os, sys; open(f'/proc/{sys.argv[1]}/mem', 'rb')"

    assert "PermissionError" in (await pool.run(python(look, str(os.getpid())))).stderr_tail
    assert 1 == (await pool.run(["sh", "-c", f"kill -0 {os.getpid()} || exit 1"])).exit_code
    assert (await pool.run(["sh", "-c", "sleep 9 & kill $!"])).ok


async def test_what_it_becomes_is_the_program_with_its_own_signals_and_names(pool: Pool) -> None:
    run = await pool.run(["sh", "-c", 'trap; grep SigIgn /proc/self/status; printf %s "$1"', "-", b"a\xff -- b"])

    ignored, words = run.stdout.removeprefix(b"SigIgn:\t").split(b"\n", 1)
    assert 0 == int(ignored, 16) & ~(3 << 31)  # two are the C library's own, which no program can set
    assert b"a\xff -- b" == words


async def test_without_the_sandbox_a_program_has_its_way(tmp_path: Path) -> None:
    async with Pool(ToolSettings(sandbox=Sandbox.OFF), scratch=tmp_path / "s") as pool:
        assert (await pool.run(["touch", tmp_path / "file"])).ok
        assert b"AF_INET\n" in (await pool.run(python(SOCKETS))).stdout
    assert (tmp_path / "file").exists()


async def test_a_kernel_without_it_is_refused_where_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confine, "landlock_abi", lambda: 0)

    with pytest.raises(SystemFault) as refused:
        Pool(ToolSettings(sandbox=Sandbox.REQUIRED), scratch=tmp_path)
    async with Pool(ToolSettings(), scratch=tmp_path) as pool:
        run = await pool.run(["true"])

    assert Code.SYSTEM_CONFIGURATION is refused.value.code
    assert run.ok
    assert not pool.confined


def test_what_cannot_be_confined_is_not_run_where_it_must_be(tmp_path: Path) -> None:
    # A parent that may not go on: a filter that refuses the very calls.
    program = "import sys; sys.path[:0] = [sys.argv.pop(1)]; import confine\n"
    program += "def no(*a): raise OSError(1, 'no')\nconfine._call = no\nconfine.main(*sys.argv[1:])"
    folder = str(Path(confine.__file__).parent)

    def ends(mode: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-S", "-c", program, folder, mode, "--", "/bin/echo", "ran"]
        return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert (confine.REFUSED_EXIT_CODE, "") == (ends("required").returncode, ends("required").stdout)
    assert (0, "ran\n") == (ends("auto").returncode, ends("auto").stdout)


async def test_a_service_that_listens_on_this_machine_is_out_of_reach(pool: Pool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run = await pool.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"])

    assert run.exit_code


@pytest.mark.parametrize(
    ("sandbox", "said"),
    [
        (Sandbox.AUTO, "programs write only where their result is to be, and have no network (tools.sandbox is `auto`"),
        (Sandbox.OFF, "programs are not confined (tools.sandbox is `off`)"),
    ],
)
async def test_doctor_tells_what_a_program_has_found_out(tmp_path: Path, sandbox: Sandbox, said: str) -> None:
    async with Pool(ToolSettings(sandbox=sandbox), scratch=tmp_path / "s") as pool:
        assert (await confinement(pool)).startswith(said)
