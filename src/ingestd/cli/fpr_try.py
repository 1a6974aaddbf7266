"""`fpr test`: one rule run on one file, and everything about that run."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ingestd.cli.fpr import find, load
from ingestd.cli.main import FAILED, OK
from ingestd.config import Settings
from ingestd.errors import Code, RequestError, SourceError, ToolError
from ingestd.fpr.commands import CommandRun, Commands
from ingestd.fpr.contracts import ContractError, identified_as
from ingestd.fpr.identified import check_installed, identify
from ingestd.fpr.records import Command, IdentificationCommand, Purpose, Rule, Usage
from ingestd.fpr.registry import Registry
from ingestd.fpr.variables import values_for
from ingestd.oais import File, Package, escape_name
from ingestd.premis import EventOutcome, now
from ingestd.tools import Toolbox

_LINES = 20
_LISTED = 100
_WHERE = "Neither Debian nor PyPI has it: put `{program}` into a folder of PATH, or of the setting tools.path."


async def test(options: argparse.Namespace, settings: Settings) -> int:
    """Exit code 0 where the command did its work, whatever it found wrong with the file; 1 where it did not."""
    registry = await load(settings)
    record = find(registry, options.rule, Rule, Command, IdentificationCommand)[0]
    if isinstance(record, IdentificationCommand):
        return await _identify(options, settings, registry, record)
    name = record.command if isinstance(record, Rule) else record.id
    purpose = record.purpose if isinstance(record, Rule) else _purpose(registry, name)
    path = await asyncio.to_thread(options.file.absolute)
    if not await asyncio.to_thread(path.exists):
        raise SourceError(f"{options.file} is not there")
    async with Toolbox(settings) as tools, _folder(options.output) as out:
        commands = Commands(registry, tools.pool, tools.pool.home())
        command = _able(registry, commands, name)
        values = {**_values(path, out, purpose), "policiesDirectory": str(settings.policies or "")}
        done = await commands.run(command, values, purpose=purpose)
        written = await _written(out, tools)
    told = _told(record.id, name, purpose, done, written)
    if options.json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        _print(told)
    return OK if not told["problem"] else FAILED


async def _identify(
    options: argparse.Namespace, settings: Settings, registry: Registry, command: IdentificationCommand
) -> int:
    """Run an identification command; exit code 0 where it could tell."""
    path = await asyncio.to_thread(options.file.absolute)
    if not await asyncio.to_thread(path.is_file):
        raise SourceError(f"{options.file} is not there")
    file = File(id=uuid.uuid4(), path=path.name, original=path.name)
    async with Toolbox(settings) as tools:
        commands = Commands(registry, tools.pool, tools.pool.home())
        check_installed(command, commands)
        found = await identify([file], [path], command=command, commands=commands, siegfried=tools.siegfried)
        run = None if command.adapter else await commands.identify(command, path)
    (known,), (event,) = found.files, found.events
    is_known = event.outcome is EventOutcome.POSITIVE
    printed = run is not None and run.ok and identified_as(run.stdout)
    why_not = "no identification rule says what it printed" if printed else "it could not tell"
    told = {
        "command": command.id,
        "tool": found.program.name,
        "version": found.program.version,
        "exit_code": run.exit_code if run else None,
        "stdout": run.stdout.decode("utf-8", errors="replace") if run else "",
        "stderr": run.stderr_tail if run else "",
        "puid": known.format.puid if is_known and known.format else "",
        "format": known.format.name if is_known and known.format else "",
        "event_detail": event.detail,
        "problem": "; ".join(warning.detail for warning in found.warnings) or ("" if is_known else why_not),
    }
    if options.json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        _print_identification(told)
    return OK if is_known else FAILED


def _print_identification(told: Mapping[str, Any]) -> None:
    print(f"Command       {told['command']}")
    print(f"Tool          {told['tool']} {told['version']}".rstrip())
    if told["exit_code"] is not None:
        print(f"Exit code     {told['exit_code']}")
    _print_text("Stdout", told["stdout"])
    _print_text("Stderr", told["stderr"])
    print(f"Event detail  {told['event_detail']}")
    print(f"Format        {told['problem'] or ' '.join(filter(None, (told['puid'], told['format'])))}")


def _purpose(registry: Registry, command: str) -> Purpose | None:
    """Give what a command is run for, by a rule that names it, in force or not."""
    return next((rule.purpose for rule in registry.every(Rule) if rule.command == command), None)


def _able(registry: Registry, commands: Commands, name: str) -> Command:
    command = registry.command(name)
    if command is None:
        raise RequestError(f"the registry has no command {name!r}")
    able = commands.resolve(command)
    if able is None:
        tool = registry.tool(command.tool)
        package = (tool.debian or tool.pypi) if tool else ""
        raise ToolError(
            f"{tool.name if tool else command.tool} is not installed",
            code=Code.TOOL_NOT_INSTALLED,
            remediation=f"Install {package}." if package else _WHERE.format(program=tool.program if tool else name),
        )
    return able


@asynccontextmanager
async def _folder(wanted: Path | None) -> AsyncIterator[Path]:
    """Give the folder to write to: the one that is wanted, or a passing one."""
    if wanted is not None:
        await asyncio.to_thread(wanted.mkdir, parents=True, exist_ok=True)
        yield await asyncio.to_thread(wanted.absolute)
        return
    name = await asyncio.to_thread(tempfile.mkdtemp, prefix="ingestd-fpr-test-")
    try:
        yield Path(name)
    finally:
        await asyncio.to_thread(shutil.rmtree, name, ignore_errors=True)


def _values(path: Path, out: Path, purpose: Purpose | None) -> dict[str, str]:
    """Give the variables of a file that is in no package."""
    package = Package(id=uuid.uuid4(), name="test", created_at=now(), processing={})
    file = File(id=uuid.uuid4(), path=path.name, original=path.name)
    stem = str(out / path.stem)
    # A thumbnail is called after its file alone.
    pictured = purpose in {Purpose.THUMBNAIL, Purpose.DEFAULT_THUMBNAIL}
    return {
        **values_for(package, path.parent, file),
        # Transcriptions are written below the objects folder.
        "SIPObjectsDirectory": f"{out}/",
        "outputDirectory": f"{out}/",
        "outputFileUUID": str(uuid.uuid4()),
        "outputFileName": stem,
        "outputFilePath": stem,
        "postfix": str(file.id) if pictured else "",
    }


async def _written(out: Path, tools: Toolbox) -> list[dict[str, Any]]:
    """List what was written, with its format, sorted by path."""
    paths = await asyncio.to_thread(lambda: sorted(p for p in out.rglob("*") if p.is_file() and not p.is_symlink()))
    answers = await tools.siegfried.identify(paths[:_LISTED]) if paths else []
    return [
        {
            "path": escape_name(os.fspath(path.relative_to(out))),
            "size_bytes": path.stat().st_size,
            "puid": answer.format.puid if answer.format else "",
            "format": answer.format.name if answer.format else "",
        }
        for path, answer in zip(paths[:_LISTED], answers, strict=True)
    ]


def _told(
    asked: str, name: str, purpose: Purpose | None, done: CommandRun, written: list[dict[str, Any]]
) -> dict[str, Any]:
    problem, found = done.problem, {}
    if done.ok and done.command.usage is Usage.VALIDATION:
        try:
            finding = done.finding()
            found = {"outcome": str(finding.outcome), "note": finding.note, "policy": finding.policy}
        except ContractError as error:
            problem = str(error)
    return {
        "rule": asked,
        "purpose": str(purpose or ""),
        "command": done.command.id,
        "instead_of": "" if done.command.id == name else name,
        "tool": done.tool.name,
        "version": done.tool_version,
        "line": escape_name(done.line),
        "script": done.script,
        "exit_code": done.exit_code,
        "seconds": round(done.run.seconds, 3),
        "problem": problem,
        "stdout": done.stdout.decode("utf-8", errors="replace"),
        "stderr": done.run.stderr_tail,
        "written": written,
        "output": escape_name(done.output.name) if done.output else "",
        "verification": _verification(done),
        "finding": found,
        "event_detail": done.event_detail,
    }


def _verification(done: CommandRun) -> Mapping[str, Any]:
    if done.verification is None:
        return {}
    checked = done.verification
    return {"command": checked.command.id, "line": escape_name(checked.line), "problem": checked.problem}


def _print(told: Mapping[str, Any]) -> None:
    instead = f", instead of {told['instead_of']}" if told["instead_of"] else ""
    purpose = f" ({told['purpose']})" if told["purpose"] else ""
    print(f"Rule          {told['rule']}{purpose}")
    print(f"Command       {told['command']}{instead}")
    print(f"Tool          {told['tool']} {told['version']}".rstrip())
    print(f"Command line  {told['line']}")
    _print_text("Script", told["script"])
    print(f"Exit code     {told['exit_code']}, after {told['seconds']} s")
    _print_text("Stdout", told["stdout"])
    _print_text("Stderr", told["stderr"])
    for item in told["written"]:
        what = f"{item['puid']} {item['format']}".strip() or "format unknown"
        print(f"Output        {item['path']}, {item['size_bytes']} bytes, {what}")
    if told["verification"]:
        print(f"Verification  {told['verification']['command']}: {told['verification']['problem'] or 'passed'}")
    if told["finding"]:
        note = told["finding"]["note"]
        print(f"Outcome       {told['finding']['outcome']}{f': {note}' if note else ''}")
    print(f"Event detail  {told['event_detail']}")
    print(f"Result        {told['problem'] or 'it did its work'}")


def _print_text(name: str, text: str) -> None:
    lines = text.strip().splitlines()
    if not lines:
        return
    print(f"{name}:")
    for line in lines[:_LINES]:
        print(f"    {line}")
    if len(lines) > _LINES:
        print(f"    … and {len(lines) - _LINES} more lines (--json prints all)")
