"""Running of commands: both calling conventions, outputs, verification, event detail, versions, what is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from ingestd.config import ToolSettings
from ingestd.errors import Code, ToolError
from ingestd.fpr.commands import CommandRun, Commands
from ingestd.fpr.records import Purpose
from ingestd.fpr.registry import Registry
from ingestd.tools.pool import Pool

HOSTILE = "it's \"; touch gone # $(touch gone) `touch gone`\n%fileName%.txt"
RECORDS = """
[[tool]]
id = "here"
name = "Here"
program = "printf"
version_command = ["printf", "Here %s\\n", "4.2"]
version_pattern = 'Here (\\S+)'

[[tool]]
id = "missing"
name = "Missing"
program = "no-such-program-anywhere"
debian = "missing-package"

[[tool]]
id = "module"
name = "Module"
python_module = "no_such_module_anywhere"
pypi = "no-such-distribution"
"""


def command(name: str, script_type: str, script: str, **more: object) -> str:
    fields = {"id": name, "tool": "here", "usage": "characterization", "description": name, "script_type": script_type}
    text = "[[command]]\n" + "".join(f'{key} = "{value}"\n' for key, value in {**fields, **more}.items())
    return f"{text}script = '''\n{script}'''\n"


PRINT_ARGUMENTS = "import sys\nprint(chr(0).join(sys.argv[1:]), end='')\n"
COMMANDS = (
    command("argv", "command", "printf %s|%s %fileFullName% %prefix%%fileName%")
    + command("bash", "bashScript", "printf '%s' %fileFullName%")
    + command("told", "pythonScript", PRINT_ARGUMENTS)
    + command("as-is", "as_is", "#!/usr/bin/env python3\n" + PRINT_ARGUMENTS)
    + command("extract", "pythonScript", PRINT_ARGUMENTS, usage="extraction")
    + command("validate", "pythonScript", PRINT_ARGUMENTS, usage="validation")
    + command("where", "bashScript", 'pwd; echo "$TMPDIR"; echo "$HOME"; echo %tmpDirectory%; touch left; ls')
    + command("exit-3", "bashScript", "exit 3")
    + command("exit-3-is-fine", "bashScript", "exit 3").replace("script =", "exit_codes = [3]\nscript =")
    + command("slow", "bashScript", "sleep 30").replace("script =", "limit_seconds = 0.2\nscript =")
    + command("alone", "bashScript", "mkdir %outputDirectory%lock && sleep 0.1 && rmdir %outputDirectory%lock").replace(
        "script =", "alone = true\nscript ="
    )
    + command(
        "alone-too", "bashScript", "mkdir %outputDirectory%lock && sleep 0.1 && rmdir %outputDirectory%lock"
    ).replace("script =", "alone = true\nscript =")
    + command("write", "bashScript", "echo new > %outputFileName%.txt", output_location="%outputFileName%.txt")
    + command("write-nothing", "command", "true", output_location="%outputFileName%.txt")
    + command("is-there", "command", "test -s %outputLocation%", usage="verification")
    + command("is-wrong", "bashScript", "echo no good >&2; exit 1", usage="verification")
    + command(
        "words", "command", "printf '%s %s of %s' %toolName% %toolVersion% %outputLocation%", usage="event_detail"
    )
    + command(
        "verified",
        "bashScript",
        "echo x > %outputFileName%.txt",
        output_location="%outputFileName%.txt",
        verification="is-there",
        event_detail="words",
    )
    + command(
        "refuted",
        "bashScript",
        "echo x > %outputFileName%.txt",
        output_location="%outputFileName%.txt",
        verification="is-wrong",
    )
    + command("without-tool", "command", "true", tool="missing")
    + command("without-module", "command", "true", tool="module")
    + command("first-choice", "command", "true", tool="missing", otherwise="second-choice")
    + command("second-choice", "command", "true", tool="module", otherwise="argv")
    + command("in-a-circle", "command", "true", tool="missing", otherwise="round-again")
    + command("round-again", "command", "true", tool="missing", otherwise="in-a-circle")
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("fpr.d")
    (folder / "test.toml").write_text(RECORDS + COMMANDS)
    return Registry.load([folder])


@pytest_asyncio.fixture
async def commands(registry: Registry, tmp_path: Path) -> AsyncIterator[Commands]:
    async with Pool(ToolSettings(), scratch=tmp_path / "pool") as pool:
        yield Commands(registry, pool, tmp_path)


async def run(commands: Commands, name: str, values: Mapping[str, str], purpose: Purpose | None = None) -> CommandRun:
    found = commands.registry.command(name)
    assert found is not None
    return await commands.run(found, values, purpose=purpose)


def hostile(tmp_path: Path) -> dict[str, str]:
    path = f"{tmp_path}/{HOSTILE}"
    return {"fileFullName": path, "inputFile": path, "fileName": HOSTILE, "prefix": "-", "outputDirectory": "/out put/"}


async def test_a_command_is_told_a_hostile_name_as_one_argument(commands: Commands, tmp_path: Path) -> None:
    values = hostile(tmp_path)

    done = await run(commands, "argv", values)

    assert done.stdout.decode() == f"{values['fileFullName']}|-{HOSTILE}"
    assert done.ok


async def test_a_bash_script_is_told_a_hostile_name_as_one_word(commands: Commands, tmp_path: Path) -> None:
    values = hostile(tmp_path)

    done = await run(commands, "bash", values)

    assert done.stdout.decode() == values["fileFullName"]
    assert HOSTILE not in done.script
    assert not list(tmp_path.rglob("gone"))


@pytest.mark.parametrize("name", ["told", "as-is"])
async def test_other_scripts_are_told_options(name: str, commands: Commands, tmp_path: Path) -> None:
    values = hostile(tmp_path) | {"SIPUUID": "u"}

    told = (await run(commands, name, values)).stdout.decode().split("\0")

    assert f"--file-full-name={values['fileFullName']}" in told
    assert f"--input-file={values['fileFullName']}" in told
    assert f"--file-name={HOSTILE}" in told
    assert {"--sipuuid=u", "---sipuuid=u", "--output-directory=/out put/", "--threads=1"} <= set(told)


async def test_extraction_is_told_the_output_directory_first(commands: Commands, tmp_path: Path) -> None:
    values = hostile(tmp_path)

    told = (await run(commands, "extract", values)).stdout.decode().split("\0")

    assert told == ["/out put/", values["inputFile"]]


async def test_validation_is_told_the_file_and_a_policy_check_the_policies_too(
    commands: Commands, tmp_path: Path
) -> None:
    values = hostile(tmp_path) | {"policiesDirectory": "/policies"}

    validated = await run(commands, "validate", values)
    checked = await run(commands, "validate", values, purpose=Purpose.POLICY_CHECK)

    assert validated.stdout.decode().split("\0") == [values["inputFile"]]
    assert checked.stdout.decode().split("\0") == [values["inputFile"], "/policies"]


async def test_a_run_has_a_folder_of_its_own_that_is_gone_after(commands: Commands) -> None:
    done = await run(commands, "where", {})

    here, temporary, home, told, *left = done.stdout.decode().split()
    assert (temporary, home, told) == (here, here, f"{here}/")
    assert left == ["left", "script"]
    assert not Path(here).exists()


async def test_an_exit_code_is_a_failure_unless_the_record_says_otherwise(commands: Commands) -> None:
    failed = await run(commands, "exit-3", {})
    fine = await run(commands, "exit-3-is-fine", {})

    assert (failed.ok, failed.problem, failed.exit_code) == (False, "Here ended with exit code 3", 3)
    assert fine.ok
    assert failed.error().code is Code.TOOL_CRASHED
    assert str(failed.error()) == "Here ended with exit code 3"


async def test_a_command_has_its_own_limit_of_time(commands: Commands) -> None:
    done = await run(commands, "slow", {})

    assert not done.ok
    assert done.error().code is Code.TOOL_TIMEOUT


async def test_a_tool_that_works_alone_never_runs_twice_at_once(commands: Commands, tmp_path: Path) -> None:
    values = {"outputDirectory": f"{tmp_path}/"}

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(commands, name, values)) for name in ("alone", "alone", "alone-too")]

    assert [task.result().problem for task in tasks] == ["", "", ""]


async def test_the_output_is_told_and_its_folder_made(commands: Commands, tmp_path: Path) -> None:
    done = await run(commands, "write", {"outputFileName": f"{tmp_path}/new/folder/a b"})

    assert done.output == tmp_path / "new/folder/a b.txt"
    assert done.output.read_text() == "new\n"


async def test_a_command_that_writes_nothing_has_failed(commands: Commands, tmp_path: Path) -> None:
    done = await run(commands, "write-nothing", {"outputFileName": f"{tmp_path}/a"})

    assert (done.output, done.problem) == (None, "Here wrote nothing to a.txt")


async def test_the_output_is_verified_and_the_event_worded(commands: Commands, tmp_path: Path) -> None:
    done = await run(commands, "verified", {"outputFileName": f"{tmp_path}/a"})

    assert done.ok
    assert done.verification is not None
    assert done.verification.command.id == "is-there"
    assert done.event_detail == f"Here 4.2 of {tmp_path}/a.txt"


async def test_an_output_that_is_not_verified_is_a_failure(commands: Commands, tmp_path: Path) -> None:
    done = await run(commands, "refuted", {"outputFileName": f"{tmp_path}/a"})

    assert not done.ok
    assert done.problem.startswith("did not pass is-wrong")
    assert done.event_detail == 'program="Here"; version="4.2"'


async def test_a_tool_that_is_not_here_is_named_with_what_brings_it(commands: Commands) -> None:
    with pytest.raises(ToolError) as caught:
        await run(commands, "without-tool", {})
    with pytest.raises(ToolError) as module:
        await run(commands, "without-module", {})

    assert caught.value.code is Code.TOOL_NOT_INSTALLED
    assert "missing-package" in caught.value.remediation
    assert "no-such-distribution" in module.value.remediation


@pytest.mark.parametrize(
    ("name", "expected"),
    [("argv", "argv"), ("first-choice", "argv"), ("without-tool", None), ("in-a-circle", None)],
)
def test_a_command_whose_tool_is_missing_gives_way_to_another(
    name: str, expected: str | None, registry: Registry
) -> None:
    async def resolve() -> str | None:
        async with Pool(ToolSettings()) as pool:
            found = registry.command(name)
            assert found is not None
            resolved = Commands(registry, pool).resolve(found)
            return resolved.id if resolved else None

    assert asyncio.run(resolve()) == expected


async def test_a_version_is_asked_once(registry: Registry, tmp_path: Path) -> None:
    async with Pool(ToolSettings(), scratch=tmp_path) as pool:
        commands = Commands(registry, pool)
        tool = registry.tool("here")
        assert tool is not None

        versions = [await commands.version(tool), await commands.version(tool)]

        assert versions == ["4.2", "4.2"]
        assert pool.spawned == 1
