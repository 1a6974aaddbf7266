"""Running of the registry's commands: script, output, verification, event detail; and which tools can be had."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import ingestd
from ingestd.errors import Code, ToolError, ToolFailure
from ingestd.fpr.contracts import Finding, finding, read_off
from ingestd.fpr.records import Command, IdentificationCommand, Purpose, ScriptType, Tool, Usage
from ingestd.fpr.registry import Registry
from ingestd.fpr.substitution import arguments, bash, environment, fill, interpreter
from ingestd.fpr.variables import PLACEHOLDER, VARIABLES, options
from ingestd.premis import Program
from ingestd.tools.run import Limits, Run

_EACH = "\0"
"""Stands for one file after another; no argument can be this."""


class Runs(Protocol):
    """What is needed of `ingestd.tools.pool.Pool`."""

    limits: Limits

    def which(self, name: str) -> str | None: ...

    async def run(
        self,
        argv: Sequence[str | bytes | Path],
        *,
        limits: Limits | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        writes: Sequence[Path] = (),
        name: str = "",
    ) -> Run: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandRun:
    """One run of a command. `line` is what was run, quoted for reading; `script` what an interpreter was given.

    `output` is where the command wrote, if it did. `event_detail` is worded by the command's event detail command, or
    names program and version. `problem` says in a sentence why the run did not do its work, and is empty if it did.
    """

    command: Command
    tool: Tool
    tool_version: str
    line: str
    run: Run
    script: str = ""
    output: Path | None = None
    verification: CommandRun | None = None
    event_detail: str = ""
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem

    @property
    def program(self) -> Program:
        return Program(self.tool.name, self.tool_version)

    @property
    def stdout(self) -> bytes:
        return self.run.stdout

    @property
    def exit_code(self) -> int | None:
        return self.run.exit_code

    def finding(self) -> Finding:
        """Give the outcome of a validation or policy check. Raises `ContractError` where it printed none."""
        return read_off(self.command.outcome, self.run) if self.command.outcome else finding(self.run.stdout)

    def error(self) -> ToolError:
        """Word this run as an error."""
        said = self.problem.removeprefix(f"{self.tool.name} ")
        return self.run.error(self.tool.name, self.tool_version, detail=said)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Invocation:
    argv: Sequence[str]
    env: Mapping[str, str]
    script: str = ""


class Commands:
    """Runs a registry's commands in a pool of programs.

    `scratch` is where each run gets a folder of its own, to work in and for its passing files; it is removed after.
    """

    def __init__(self, registry: Registry, pool: Runs, scratch: Path | None = None) -> None:
        self.registry = registry
        self._pool = pool
        self._scratch = scratch
        self._versions: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    @property
    def limits(self) -> Limits:
        """What a program is allowed where nothing else is said."""
        return self._pool.limits

    def over(self, registry: Registry) -> Commands:
        """Give the same for another registry with the same tools: what must run alone does so beside these, too."""
        other = Commands(registry, self._pool, self._scratch)
        other._versions, other._locks = self._versions, self._locks
        return other

    def available(self, tool: Tool) -> bool:
        """Say whether a tool can be had here."""
        if tool.program and self._pool.which(tool.program) is None:
            return False
        return not tool.python_module or importlib.util.find_spec(tool.python_module) is not None

    def resolve(self, command: Command) -> Command | None:
        """Give the command itself or the one to run in its place, for want of its tool; None if none can be run."""
        seen: set[str] = set()
        at: Command | None = command
        while at and at.id not in seen:
            tool = self.registry.tool(at.tool)
            if tool and self.available(tool):
                return at
            seen.add(at.id)
            at = self.registry.command(at.otherwise) if at.otherwise else None
        return None

    async def version(self, tool: Tool) -> str:
        """Ask a tool for its version, once; empty if it does not say."""
        if tool.id not in self._versions:
            self._versions[tool.id] = await self._ask_version(tool)
        return self._versions[tool.id]

    async def _ask_version(self, tool: Tool) -> str:
        if tool.version_command:
            try:
                run = await self._pool.run(tool.version_command, name=tool.name)
            except ToolError:
                return ""
            said = run.stdout.decode("utf-8", errors="replace") + "\n" + run.stderr_tail
            found = re.search(tool.version_pattern, said, re.MULTILINE)
            return found[1] if found else ""
        return await asyncio.to_thread(_distribution, tool.pypi) if tool.pypi else ingestd.__version__

    async def run(
        self,
        command: Command,
        variables: Mapping[str, str],
        *,
        purpose: Purpose | None = None,
        limits: Limits | None = None,
    ) -> CommandRun:
        """Run a command on one file, then what verifies its output and words its event.

        `variables` are values by name, as in `ingestd.fpr.variables`; what is missing is empty. Let `outputDirectory`
        be a folder of the run's own and move what is wanted out of it: a program that fails, or splits its output, may
        leave anything there. A run that fails is no exception: see `CommandRun.problem`. Raises `ToolError` when the
        tool is not there or cannot be started.
        """
        (done,) = await self.run_together(command, [variables], purpose=purpose, limits=limits)
        return done

    async def run_together(
        self,
        command: Command,
        each: Sequence[Mapping[str, str]],
        *,
        purpose: Purpose | None = None,
        limits: Limits | None = None,
    ) -> Sequence[CommandRun]:
        """Run a command once for several files (`Command.together`), then for each what `run` does after it.

        `each` are the variables of one file after another; the answers are in their order. Where the run as a whole
        failed, every file has that problem, whatever was written: it may be cut short. Raises as `run`.
        """
        tool = self._tool(command)
        version = await self.version(tool)
        each = [self._values(variables, tool, version) for variables in each]
        writes = [Path(values["outputDirectory"]) for values in each if values.get("outputDirectory")]
        async with self._alone(command):
            runs = await self._run(command, each, purpose=purpose, limits=limits, writes=writes)
        worded: dict[tuple[str, ...], str] = {}
        return [await self._followed(done, values, worded) for done, values in zip(runs, each, strict=True)]

    async def run_on_all(self, command: Command, paths: Sequence[Path], *, limits: Limits | None = None) -> Run:
        """Run a `command` script once for many files: where it names its file, it is told them all.

        Only for programs that take many files; what it prints is for the caller to take apart. Raises as `run`.
        """
        tool = self._tool(command)
        values = self._values({"inputFile": _EACH, "fileFullName": _EACH}, tool, await self.version(tool))
        async with self._alone(command), self._folder() as folder:
            told = arguments(command.script, {**dict.fromkeys(VARIABLES, ""), **values, "tmpDirectory": f"{folder}/"})
            argv = [word for part in told for word in (map(str, paths) if part == _EACH else (part,))]
            return await self._pool.run(
                argv,
                limits=self._limits(command, limits),
                cwd=folder,
                env=_at_home(folder),
                writes=[folder],
                name=tool.name,
            )

    async def identify(self, command: IdentificationCommand, path: Path) -> Run:
        """Run an identification command on one file, which is its one argument."""
        with_path = dict.fromkeys(VARIABLES, "") | {"inputFile": str(path), "fileFullName": str(path)}
        async with self._folder() as folder:
            call = await _invocation(command, with_path, folder, [str(path)])
            return await self._pool.run(
                call.argv, cwd=folder, env={**call.env, **_at_home(folder)}, writes=[folder], name=command.id
            )

    async def _run(
        self,
        command: Command,
        each: Sequence[Mapping[str, str]],
        *,
        purpose: Purpose | None = None,
        limits: Limits | None = None,
        writes: Sequence[Path] = (),
    ) -> Sequence[CommandRun]:
        """Run a command once, for one file or several, and say how that was for each."""
        tool = self._tool(command)
        async with self._folder() as folder:
            each = [{**values, "tmpDirectory": f"{folder}/"} for values in each]
            outputs = [
                Path(fill(command.output_location, values)) if command.output_location else None for values in each
            ]
            told = _pairs(each, outputs) if len(each) > 1 else _told(command, purpose, each[0])
            call = await _invocation(command, _common(each), folder, told)
            places = dict.fromkeys(output.parent for output in outputs if output)
            await asyncio.to_thread(_make, places)
            run = await self._pool.run(
                call.argv,
                limits=self._limits(command, limits),
                cwd=folder,
                env={**call.env, **_at_home(folder)},
                writes=list(dict.fromkeys([folder, *writes, *places])),
                name=tool.name,
            )
            there = await asyncio.to_thread(_there, outputs)
        done = CommandRun(
            command=command,
            tool=tool,
            tool_version=await self.version(tool),
            line=shlex.join(call.argv),
            script=call.script,
            run=run,
        )
        return [
            replace(done, output=found, problem=_problem(command, tool, run, output if not found else None))
            for output, found in zip(outputs, there, strict=True)
        ]

    async def _followed(
        self, done: CommandRun, values: Mapping[str, str], worded: dict[tuple[str, ...], str]
    ) -> CommandRun:
        """Verify what was written and word the event; `worded` are the words so far, by what they were made of."""
        if done.ok and done.command.verification:
            command, values_then = self._next(done.command.verification, done, values)
            (verification,) = await self._run(command, [values_then])
            problem = "" if verification.ok else f"did not pass {verification.command.id}: {verification.problem}"
            done = replace(done, verification=verification, problem=problem)
        if not (done.ok and done.command.event_detail):
            return replace(done, event_detail=done.program.words())
        command, values_then = self._next(done.command.event_detail, done, values)
        heard = _heard(command, values_then)
        if heard not in worded:
            (words,) = await self._run(command, [values_then])
            text = words.stdout.decode("utf-8", errors="replace").strip() if words.ok else ""
            worded[heard] = text or done.program.words()
        return replace(done, event_detail=worded[heard])

    def _next(self, name: str, done: CommandRun, values: Mapping[str, str]) -> tuple[Command, Mapping[str, str]]:
        """Give the command that a command names, and the variables with what that one wrote."""
        command = self.registry.command(name)
        if command is None:
            raise ToolError(f"the registry has no command {name}", code=Code.SYSTEM_CONFIGURATION)
        return command, {**values, "outputLocation": str(done.output) if done.output else ""}

    def _tool(self, command: Command) -> Tool:
        tool = self.registry.tool(command.tool)
        if tool is None or not self.available(tool):
            name = tool.name if tool else command.tool
            where = f"the package {tool.debian or tool.pypi} brings it" if tool and (tool.debian or tool.pypi) else ""
            raise ToolError(
                f"{name} is not installed",
                code=Code.TOOL_NOT_INSTALLED,
                tool=ToolFailure(name=name),
                remediation=where,
            )
        return tool

    def _values(self, variables: Mapping[str, str], tool: Tool, version: str) -> dict[str, str]:
        memory = self._pool.limits.memory_bytes or 2**31
        ours = {"threads": "1", "language": "eng", "memory": str(memory // 2**21)}
        return {**ours, **variables, "toolName": tool.name, "toolVersion": version}

    def _limits(self, command: Command, limits: Limits | None) -> Limits:
        given = limits or self._pool.limits
        if command.limit_seconds is None:
            return given
        return replace(given, wall_seconds=min(given.wall_seconds, command.limit_seconds))

    @asynccontextmanager
    async def _alone(self, command: Command) -> AsyncIterator[None]:
        if not command.alone:
            yield
            return
        async with self._locks.setdefault(command.tool, asyncio.Lock()):
            yield

    @asynccontextmanager
    async def _folder(self) -> AsyncIterator[Path]:
        name = await asyncio.to_thread(tempfile.mkdtemp, prefix="ingestd-fpr-", dir=self._scratch)
        try:
            yield Path(name)
        finally:
            await asyncio.to_thread(shutil.rmtree, name, ignore_errors=True)


def _distribution(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


async def _invocation(
    command: Command | IdentificationCommand, values: Mapping[str, str], folder: Path, told: Sequence[str]
) -> _Invocation:
    """Give the arguments, environment and script of a run. Scripts are written to `folder`."""
    if command.script_type is ScriptType.COMMAND:
        given = list(told) if isinstance(command, IdentificationCommand) and "%" not in command.script else []
        return _Invocation(argv=[*arguments(command.script, values), *given], env={})
    path = folder / "script"
    script, env, first = _prepared(command, values)
    await asyncio.to_thread(path.write_text, script, encoding="utf-8", errors="surrogateescape")
    return _Invocation(argv=[*first, str(path), *told], env=env, script=script)


def _prepared(
    command: Command | IdentificationCommand, values: Mapping[str, str]
) -> tuple[str, Mapping[str, str], Sequence[str]]:
    """Give the script as it is written, its environment, and the arguments that its file follows."""
    match command.script_type:
        case ScriptType.BASH_SCRIPT:
            return bash(command.script), environment(command.script, values), ["bash", "--noprofile", "--norc"]
        case ScriptType.PYTHON_SCRIPT:
            return command.script, {}, [sys.executable, "-I"]
        case _:
            return command.script, {}, interpreter(command.script)


def _told(command: Command, purpose: Purpose | None, values: Mapping[str, str]) -> list[str]:
    """Give what follows the script's name: positional arguments or options, by usage.

    Bash scripts get the positional ones too, so that a script may name them `$1` and `$2`.
    """
    path = values.get("inputFile", "")
    if command.usage is Usage.EXTRACTION:
        return [values.get("outputDirectory", ""), path]
    if purpose is Purpose.POLICY_CHECK:
        return [path, values.get("policiesDirectory", "")]
    if command.usage is Usage.VALIDATION:
        return [path]
    if command.script_type is ScriptType.BASH_SCRIPT:
        return []
    return [f"{option}={values[name]}" for name in VARIABLES if name in values for option in options(name)]


def _at_home(folder: Path) -> dict[str, str]:
    """Let a run keep what it keeps in its own folder: runs of MediaConch in one home spoil each other's database."""
    return {"HOME": str(folder), "TMPDIR": str(folder)}


def _pairs(each: Sequence[Mapping[str, str]], outputs: Sequence[Path | None]) -> list[str]:
    """Give what a script is told of several files: of each, what to read and what to write."""
    return [word for values, output in zip(each, outputs, strict=True) for word in (values["inputFile"], str(output))]


def _common(each: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """Give the variables that are the same for all files: in a script for several, the others are empty."""
    return {name: value for name, value in each[0].items() if all(values.get(name) == value for values in each)}


def _heard(command: Command, values: Mapping[str, str]) -> tuple[str, ...]:
    """Give what a script learns of its variables: those that it names; all, where they are options."""
    filled = command.script_type in {ScriptType.COMMAND, ScriptType.BASH_SCRIPT}
    return tuple(values.get(name, "") for name in (PLACEHOLDER.findall(command.script) if filled else VARIABLES))


def _make(folders: Iterable[Path]) -> None:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)


def _there(outputs: Iterable[Path | None]) -> Sequence[Path | None]:
    """Give what is there of what should have been written."""
    return [output if output and os.path.lexists(output) else None for output in outputs]


def _problem(command: Command, tool: Tool, run: Run, missing: Path | None) -> str:
    if command.outcome and not run.stopped and run.exit_code is not None:
        return ""
    if run.stopped or run.exit_code not in command.exit_codes:
        return run.error(tool.name).detail
    return f"{tool.name} wrote nothing to {missing.name}" if missing else ""
