"""`doctor`, `workflow`, `config` and `schemas`: commands that look at ingestd itself."""

from __future__ import annotations

import argparse
import asyncio
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import aiofiles
from pydantic import BaseModel, SecretStr

from ingestd.app import load_workflow, workflow_path
from ingestd.cli.main import FAILED, OK
from ingestd.config import PREFIX, Settings
from ingestd.errors import Code, ToolError
from ingestd.fpr.commands import Commands
from ingestd.fpr.records import Rule, Tool
from ingestd.fpr.registry import Registry
from ingestd.schemas import documents
from ingestd.tools import Toolbox, ToolInfo
from ingestd.tools.inventory import OWN_RELEASES, confinement
from ingestd.tools.pool import Pool


async def doctor(options: argparse.Namespace, settings: Settings) -> int:
    async with Toolbox(settings) as tools:
        known = await tools.inventory()
        names = {tool.name.lower() for tool in known}
        called = await _called_by_rules(settings, tools.pool)
        found = [*known, *(tool for tool in called if tool.name.lower() not in names)]
        confined = await confinement(tools.pool)
    if options.json:
        print(json.dumps([asdict(tool) for tool in found], indent=2))
    else:
        _print_tools(found)
        print(f"Sandbox: {confined}")
    return FAILED if any(not tool.found and tool.needed_for == "core" for tool in found) else OK


async def _called_by_rules(settings: Settings, pool: Pool) -> Sequence[ToolInfo]:
    """The tools that rules of the registry call, with what for."""
    registry = await asyncio.to_thread(Registry.load, settings.fpr_folders)
    commands = Commands(registry, pool, pool.home())
    uses: dict[str, list[str]] = {}
    for rule in registry.active(Rule):
        command = registry.command(rule.command)
        if command is not None:
            uses.setdefault(command.tool, []).append(rule.purpose.value)
    for identifying in registry.identification_commands:
        uses.setdefault(identifying.tool, []).append("identification")
    tools = [(tool, Counter(uses[tool.id])) for tool in registry.active(Tool) if tool.id in uses]
    return await asyncio.gather(*(_told(commands, tool, counts) for tool, counts in tools))


async def _told(commands: Commands, tool: Tool, counts: Counter[str]) -> ToolInfo:
    there = commands.available(tool)
    purpose = ", ".join(f"{purpose.replace('_', ' ')} ({count})" for purpose, count in sorted(counts.items()))
    return ToolInfo(
        name=tool.name,
        purpose=f"Called by rules: {purpose}.",
        package=tool.debian or tool.pypi or OWN_RELEASES,
        needed_for="those rules",
        version=await commands.version(tool) if there else "",
        found=there,
    )


def _print_tools(tools: Sequence[ToolInfo]) -> None:
    width = max(len(tool.name) for tool in tools)
    for title, libraries in (("Programs", False), ("Libraries", True)):
        print(title)
        for tool in (tool for tool in tools if tool.is_library is libraries):
            state = tool.version or "found" if tool.found else "MISSING"
            print(f"  {tool.name:<{width}}  {state:<14}  {tool.purpose}")
            if not tool.found:
                print(f"  {'':<{width}}  {'':<14}  needed for {tool.needed_for}; install: {tool.package}")
    missing = [tool.name for tool in tools if not tool.found]
    print(f"\nMissing: {', '.join(missing)}" if missing else "\nNothing is missing.")


async def workflow(options: argparse.Namespace, settings: Settings) -> int:
    if options.file is not None:
        settings = settings.model_copy(update={"workflow": options.file})
    found = load_workflow(settings)
    if options.action == "check":
        print(f"{workflow_path(settings)}: {len(found.links)} links, sound\nsha256 {found.digest}")
        return OK
    drawing = found.graphviz()
    if options.output is None or options.output.suffix != ".dot":
        drawing = await _draw(drawing, settings)
    if options.output is None:
        print(drawing, end="")
        return OK
    async with aiofiles.open(options.output, "w", encoding="utf-8") as out:
        await out.write(drawing)
    print(options.output)
    return OK


async def _draw(dot: str, settings: Settings) -> str:
    """Have Graphviz make an SVG of a graph in the DOT language."""
    async with Toolbox(settings) as tools:
        if tools.pool.which("dot") is None:
            raise ToolError(
                "Graphviz is not installed",
                code=Code.TOOL_NOT_INSTALLED,
                remediation="Install graphviz, or write the graph to a file that ends in .dot",
            )
        run = await tools.pool.run(["dot", "-Tsvg"], stdin=dot.encode())
        return run.check("Graphviz").stdout.decode()


async def config(options: argparse.Namespace, settings: Settings) -> int:
    for name, value, description in _settings(settings, ""):
        if options.describe:
            print(textwrap.fill(description, 100, initial_indent="# ", subsequent_indent="# "))
        print(f"{name} = {value}")
        if options.describe:
            print(f"# {PREFIX}{name.upper().replace('.', '__')}\n")
    return OK


def _settings(model: BaseModel, prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _shown(value), field.description or ""


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return '"**********"'
    if isinstance(value, Path):
        return json.dumps(str(value))
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: object) -> object:
    """Make what stands in a list or table JSON: of a table only what was set, its secrets hidden."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    return str(value)


async def schemas(options: argparse.Namespace, settings: Settings) -> int:
    await asyncio.to_thread(options.folder.mkdir, parents=True, exist_ok=True)
    for name, text in documents(settings).items():
        path = options.folder / name
        async with aiofiles.open(path, "w", encoding="utf-8") as out:
            await out.write(text)
        print(path)
    return OK
