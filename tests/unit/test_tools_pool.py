"""The pool on programs that behave badly. All of them are small Python or shell programs; none is a fake."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingestd.config import ToolSettings
from ingestd.errors import Code, ToolError
from ingestd.tools.pool import Limits, Pool, Stop

MIB = 2**20


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def left_behind(folder: Path) -> list[str]:
    """Command lines of the processes that live in the environment of this test's pool."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and f"HOME={folder}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


async def until_nothing_is_left(folder: Path) -> list[str]:
    for _ in range(40):
        if not left_behind(folder):
            break
        await asyncio.sleep(0.05)
    return left_behind(folder)


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    settings = ToolSettings(processes=2, wall_seconds=20, idle_seconds=20, output_bytes=MIB)
    async with Pool(settings, scratch=tmp_path) as pool:
        yield pool

        assert pool.running == 0
    assert await until_nothing_is_left(tmp_path) == []


def limits(pool: Pool, **more: float) -> Limits:
    return replace(pool.limits, **more)  # type: ignore[arg-type]


async def test_a_program_that_succeeds_gives_its_output_and_its_exit_code(pool: Pool) -> None:
    run = await pool.run(["sh", "-c", "echo out; echo err >&2"])

    assert run.ok
    assert (
        run.stdout,
        run.stderr_tail,
        run.exit_code,
        run.signal,
        run.stopped,
    ) == (b"out\n", "err\n", 0, None, Stop.NO)
    assert run.argv == ("sh", "-c", "echo out; echo err >&2")
    assert run is run.check()
    assert pool.spawned == 1


async def test_a_program_that_fails_is_no_exception_until_it_is_checked(pool: Pool) -> None:
    run = await pool.run(["sh", "-c", "echo broken >&2; exit 3"])

    assert not run.ok
    with pytest.raises(ToolError, match="shell ended with exit code 3") as caught:
        run.check("shell", "1.0")
    assert Code.TOOL_CRASHED is caught.value.code
    assert caught.value.stderr_tail == "broken\n"
    assert caught.value.tool == run.failure("shell", "1.0")


async def test_a_program_that_exits_0_with_nothing_is_a_run_with_nothing(pool: Pool) -> None:
    run = await pool.run(["true"])

    assert run.ok
    assert run.stdout == b""


async def test_a_missing_program_is_said_to_be_not_installed(pool: Pool) -> None:
    with pytest.raises(ToolError, match="no-such-program is not installed") as caught:
        await pool.run(["no-such-program", "--version"])

    assert Code.TOOL_NOT_INSTALLED is caught.value.code
    assert pool.spawned == 0


async def test_a_folder_that_is_not_there_is_not_taken_for_a_missing_program(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot be started") as caught:
        await pool.run(["true"], cwd=tmp_path / "nowhere")

    assert Code.TOOL_CRASHED is caught.value.code


async def test_bytes_that_are_not_utf8_reach_the_program_as_they_are(pool: Pool) -> None:
    run = await pool.run(["printf", "%s", b"a\xff\nb"])

    assert run.stdout == b"a\xff\nb"
    assert os.fsdecode(b"a\xff\nb") == run.argv[2]


async def test_input_is_given_and_closed(pool: Pool) -> None:
    data = b"x" * (3 * MIB)

    run = await pool.run(["wc", "-c"], stdin=data)

    assert str(len(data)) == run.stdout.decode().strip()


async def test_input_that_nobody_reads_does_no_harm(pool: Pool) -> None:
    run = await pool.run(["true"], stdin=b"x" * (3 * MIB))

    assert run.ok


async def test_output_can_go_to_a_file(pool: Pool, tmp_path: Path) -> None:
    target = tmp_path / "out"

    run = await pool.run(python("print('a' * 3_000_000)"), stdout_to=target)

    assert run.ok
    assert run.stdout == b""
    assert target.stat().st_size == 3_000_001


async def test_the_environment_is_small_and_fixed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTD_AMQP__URL", "amqp://user:secret@host")

    run = await pool.run(["env"], env={"EXTRA": "1"})

    names = {line.partition("=")[0] for line in run.stdout.decode().splitlines()}
    assert {
        "PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "OMP_THREAD_LIMIT", "JDK_JAVA_OPTIONS", "EXTRA", "INGESTD_RUN",
    } == names - {"_", "PWD", "SHLVL", "OLDPWD"}  # fmt: skip


async def test_programs_are_found_in_further_folders_after_the_systems(tmp_path: Path) -> None:
    for name in ("fits.sh", "true"):
        (tmp_path / name).write_text("#!/bin/sh\necho ours\n")
        (tmp_path / name).chmod(0o755)
    settings = ToolSettings(path=f".:{tmp_path}::/usr/bin")

    async with Pool(settings, scratch=tmp_path / "scratch") as pool:
        said = (await pool.run(["fits.sh"])).stdout, (await pool.run(["true"])).stdout
        seen = (await pool.run(["sh", "-c", "echo $PATH"])).stdout.decode().strip().split(":")

    assert (b"ours\n", b"") == said
    assert len(seen) == len(set(seen))
    assert all(Path(folder).is_absolute() for folder in seen)


@pytest.mark.tool
async def test_java_makes_its_temporary_files_where_other_programs_make_theirs(pool: Pool, tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    folder.mkdir()

    java = ["java", "-Xmx64m", "-XX:CompressedClassSpaceSize=64m", "-XshowSettings:properties", "-version"]
    run = await pool.run(java, env={"TMPDIR": str(folder)}, limits=limits(pool, memory_bytes=4096 * MIB))

    assert run.ok, run.stderr_tail
    assert f"java.io.tmpdir = {folder}\n" in run.stderr_tail


async def test_a_program_that_hangs_is_stopped_at_the_wall_limit(pool: Pool) -> None:
    run = await pool.run(["sleep", "60"], limits=limits(pool, wall_seconds=0.3))

    assert Stop.WALL is run.stopped
    assert run.signal == signal.SIGTERM
    assert run.seconds < 2
    assert run.failure("sleep").timed_out
    assert Code.TOOL_TIMEOUT is run.error().code


async def test_a_program_that_ignores_sigterm_is_killed(pool: Pool) -> None:
    run = await pool.run(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], limits=limits(pool, wall_seconds=0.3))

    assert Stop.WALL is run.stopped
    assert run.signal == signal.SIGKILL
    assert run.seconds < 2.5


async def test_a_program_that_neither_writes_nor_computes_is_stopped(pool: Pool) -> None:
    run = await pool.run(["sleep", "60"], limits=limits(pool, idle_seconds=0.4))

    assert Stop.IDLE is run.stopped
    assert run.seconds < 3


@pytest.mark.parametrize(
    "code",
    [
        "import time\nfor _ in range(12): print('.', flush=True); time.sleep(0.1)",
        "import time\nend = time.time() + 1.2\nwhile time.time() < end: pass",
        "import os, time\nend = time.time() + 1.2\nif os.fork(): os.wait()\nelse:\n  while time.time() < end: pass",
    ],
    ids=["writes", "computes", "has a child that computes"],
)
async def test_a_slow_program_that_makes_progress_is_left_alone(pool: Pool, code: str) -> None:
    run = await pool.run(python(code), limits=limits(pool, idle_seconds=0.6))

    assert run.ok


async def test_a_grandchild_that_holds_the_pipe_does_not_keep_us_waiting(pool: Pool) -> None:
    run = await pool.run(["sh", "-c", "sleep 60 & echo done"])

    assert run.ok
    assert run.stdout == b"done\n"
    assert run.seconds < 2


async def test_a_grandchild_that_left_the_session_is_found_and_killed(pool: Pool) -> None:
    run = await pool.run(["sh", "-c", "setsid sleep 60 & echo done"])

    assert run.ok
    assert run.stdout == b"done\n"
    assert run.seconds < 3


async def test_a_gigabyte_of_output_is_cut_off(pool: Pool) -> None:
    run = await pool.run(["head", "-c", "1G", "/dev/zero"])

    assert Stop.OUTPUT is run.stopped
    assert len(run.stdout) <= MIB
    assert Code.TOOL_BAD_OUTPUT is run.error().code


async def test_only_the_end_of_a_long_error_output_is_kept(pool: Pool) -> None:
    run = await pool.run(python("import sys\nfor n in range(100000): print(n, file=sys.stderr)\nsys.exit(1)"))

    assert run.stderr_tail.endswith("99999\n")
    assert len(run.stderr_tail) <= 8192


async def test_a_program_that_eats_memory_fails_for_its_limit(pool: Pool) -> None:
    run = await pool.run(python("b'x' * (800 * 2**20)"), limits=limits(pool, memory_bytes=400 * MIB))

    assert Stop.MEMORY is run.stopped
    assert Code.TOOL_KILLED_MEMORY is run.error().code


async def test_a_program_killed_by_the_kernel_is_taken_to_lack_memory(pool: Pool) -> None:
    run = await pool.run(python("import os; os.kill(os.getpid(), 9)"))

    assert Stop.MEMORY is run.stopped
    assert run.signal == signal.SIGKILL


async def test_a_file_that_grows_too_large_ends_the_program(pool: Pool, tmp_path: Path) -> None:
    run = await pool.run(
        ["head", "-c", "10M", "/dev/zero"], stdout_to=tmp_path / "big", limits=limits(pool, file_bytes=2 * MIB)
    )

    assert Stop.OUTPUT is run.stopped
    assert (tmp_path / "big").stat().st_size == 2 * MIB


async def test_no_core_is_dumped(pool: Pool) -> None:
    run = await pool.run(["sh", "-c", "ulimit -c; ulimit -Hc"])

    assert run.stdout == b"0\n0\n"


async def test_a_cancelled_run_is_dead_within_a_second(pool: Pool, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await pool.run(["sh", "-c", "trap '' TERM; sleep 60 & setsid sleep 60 & while :; do sleep 1; done"])

    assert left_behind(tmp_path) == []
    assert time.monotonic() - began < 1.3


async def test_no_more_programs_run_at_once_than_there_are_slots(pool: Pool) -> None:
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, pool.running)
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        runs = [tasks.create_task(pool.run(["sleep", "0.2"])) for _ in range(5)]
        await asyncio.wait(runs)
        watching.cancel()

    assert most == 2
    assert pool.spawned == 5


async def test_lines_come_while_the_program_runs(pool: Pool) -> None:
    code = "import time\nfor n in range(3): print(n, flush=True); time.sleep(0.2)\nprint('end', end='')"

    async with pool.lines(python(code)) as lines:
        seen = [(line, pool.running) async for line in lines]

    assert seen[:3] == [(b"0", 1), (b"1", 1), (b"2", 1)]
    assert seen[3][0] == b"end"
    assert lines.result().ok


async def test_leaving_lines_early_stops_the_program(pool: Pool) -> None:
    async with pool.lines(["yes"]) as lines:
        async for line in lines:
            assert line == b"y"
            break

    assert not lines.result().ok


async def test_an_error_while_reading_lines_stops_the_program_and_stays_itself(pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError):
        async with pool.lines(["yes"]):
            _ = 1 / 0

    assert pool.running == 0


async def test_a_slow_reader_of_lines_does_not_make_the_program_idle(pool: Pool) -> None:
    count = 0
    async with pool.lines(["seq", "20000"], limits=limits(pool, idle_seconds=0.3)) as lines:
        async for _ in lines:
            if count == 0:
                await asyncio.sleep(0.8)
            count += 1

    assert count == 20000
    assert lines.result().ok


@pytest.mark.parametrize("code", ["print('x' * 900_000, end='')\nprint('x' * 900_000)", "while True: print('y')"])
async def test_a_line_and_an_output_have_their_longest_length(pool: Pool, code: str) -> None:
    async with pool.lines(python(code)) as lines:
        async for _ in lines:
            pass

    assert Stop.OUTPUT is lines.result().stopped


async def test_a_process_that_stays_answers_without_holding_a_slot(pool: Pool) -> None:
    process = await pool.open(["cat"])
    await process.write(b"one\n")

    assert await process.read_until(b"\n") == b"one\n"
    assert process.alive
    assert all(run.ok for run in await asyncio.gather(*(pool.run(["true"]) for _ in range(3))))
    await process.aclose()
    assert not process.alive


async def test_a_process_that_dies_while_it_is_asked_is_an_error(pool: Pool) -> None:
    process = await pool.open(["sh", "-c", "read line; echo sorry >&2; exit 4"])
    await process.write(b"question\n")

    with pytest.raises(ToolError, match="ended in the middle") as caught:
        await process.read_until(b"\n")

    assert caught.value.stderr_tail == "sorry\n"
    assert caught.value.tool
    assert caught.value.tool.exit_code == 4
    await process.aclose()


async def test_closing_the_pool_kills_what_is_left(tmp_path: Path) -> None:
    pool = Pool(ToolSettings(processes=2), scratch=tmp_path)
    process = await pool.open(["sh", "-c", "trap '' TERM; sleep 60 & while :; do sleep 1; done"])
    await pool.aclose()

    assert not process.alive
    assert await until_nothing_is_left(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


async def test_the_scratch_folders_of_dead_services_are_swept_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    async with Pool(ToolSettings(), scratch=tmp_path) as living:
        home = living.home()
        (tmp_path / "ingestd-tools-dead" / "leftover").mkdir(parents=True)
        for never_named in ("ingestd-new-old", "ingestd-new-young"):
            (tmp_path / never_named).mkdir()
        for folder in (home, tmp_path / "ingestd-new-old"):
            os.utime(folder, (0, 0))
        async with Pool(ToolSettings(), scratch=tmp_path):
            assert {home, tmp_path / "ingestd-new-young"} == set(tmp_path.iterdir())
        (tmp_path / "ingestd-new-young").rmdir()

    assert list(tmp_path.iterdir()) == []


class BarePool(Pool):
    """A pool on a system without util-linux."""

    def which(self, name: str) -> str | None:
        return None if name in {"prlimit", "setpriv"} else super().which(name)


async def test_without_the_wrapping_programs_the_limits_still_hold(tmp_path: Path) -> None:
    async with BarePool(ToolSettings(memory_bytes=400 * MIB), scratch=tmp_path) as pool:
        run = await pool.run(python("import time; time.sleep(0.5); b'x' * (800 * 2**20)"))

    assert Stop.MEMORY is run.stopped


SERVICE = """
import asyncio, sys
from pathlib import Path
from ingestd.config import ToolSettings
from ingestd.tools.pool import Pool

async def main():
    pool = Pool(ToolSettings(), scratch=Path(sys.argv[1]))
    process = await pool.open(["cat"])
    print(process.pid, flush=True)
    await pool.run(["sh", "-c", sys.argv[2]])

asyncio.run(main())
"""


@pytest.mark.parametrize(("script", "running"), [("exec sleep 60", 2), ("sleep 60 & setsid sleep 61 & wait", 3)])
async def test_programs_die_with_the_service_and_what_they_started_before_the_next_one_begins(
    tmp_path: Path, script: str, running: int
) -> None:
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVICE,
        str(tmp_path),
        script,
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert service.stdout
    await service.stdout.readline()
    async with asyncio.timeout(30):
        while len([line for line in left_behind(tmp_path) if line.split()[0].endswith(("cat", "sleep"))]) < running:
            await asyncio.sleep(0.05)
    service.kill()
    await service.wait()

    if running == 2:
        assert await until_nothing_is_left(tmp_path) == []
    async with Pool(ToolSettings(), scratch=tmp_path):
        assert await until_nothing_is_left(tmp_path) == []
        assert list(tmp_path.iterdir()) == []
