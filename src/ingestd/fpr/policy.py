"""The policy as tables for people: which command each group of formats gets for each purpose, and with which tool.

`python -m ingestd.fpr.policy docs/preservation-policy.md` writes them between the marks of that document anew.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from ingestd.config import ToolSettings
from ingestd.fpr.commands import Commands
from ingestd.fpr.records import UNKNOWN, FormatVersion, Purpose, Rule
from ingestd.fpr.registry import Registry
from ingestd.tools.pool import Pool

BEGIN = "<!-- generated: python -m ingestd.fpr.policy docs/preservation-policy.md -->"
END = "<!-- end of what is generated -->"
_TOOL_ROW = re.compile(r"^\| `([^`]+)` \| [^|]* \| [^|]* \| ([^|]*?) \|$", re.MULTILINE)


def tables(registry: Registry, versions: Mapping[str, str]) -> str:
    """Write the tables in Markdown. `versions` are those that tools said they have, by the tool's id."""
    return f"{policy_table(registry, versions)}\n\n{tool_table(registry, versions)}"


def policy_table(registry: Registry, versions: Mapping[str, str]) -> str:
    """Write the table group x purpose: each command, for how many of the group's format versions, with which tool."""
    counted: dict[tuple[str, Purpose], dict[str, int]] = {}
    for rule in registry.active(Rule):
        version = registry.find(FormatVersion, rule.format)
        group = registry.group_of(version) if version else None
        if version and group:
            name = "every other format" if version.id == UNKNOWN else group.name
            cell = counted.setdefault((name, rule.purpose), {})
            cell[rule.command] = cell.get(rule.command, 0) + 1
    lines = ["| group | purpose | command (format versions) | tool, version seen |", "|---|---|---|---|"]
    for name in sorted({name for name, _ in counted}, key=lambda name: (name == "every other format", name)):
        lines += [
            f"| {name} | {purpose} | {_cells(registry, counted[name, purpose], versions)} |"
            for purpose in Purpose
            if (name, purpose) in counted
        ]
    return "\n".join(lines)


def _cells(registry: Registry, commands: Mapping[str, int], versions: Mapping[str, str]) -> str:
    names = ", ".join(f"`{command}` ({count})" for command, count in commands.items())
    found = [registry.command(command) for command in commands]
    tools = dict.fromkeys(registry.tool(command.tool) for command in found if command)
    said = [f"{tool.name} {versions.get(tool.id) or '(not seen)'}" for tool in tools if tool]
    return f"{names} | {', '.join(said)}"


def tool_table(registry: Registry, versions: Mapping[str, str]) -> str:
    """Write the table of tools: what it is called, what brings it, and the version seen, if any was."""
    lines = ["| tool | name | comes with | version seen |", "|---|---|---|---|"]
    for tool in registry.tools:
        sources = [f"Debian `{tool.debian}`" if tool.debian else "", f"PyPI `{tool.pypi}`" if tool.pypi else ""]
        source = ", ".join(filter(None, sources)) or ("ingestd" if not tool.program else "found on PATH")
        lines.append(f"| `{tool.id}` | {tool.name} | {source} | {versions.get(tool.id) or 'not seen'} |")
    return "\n".join(lines)


def versions_in(document: str) -> dict[str, str]:
    """Read the versions seen back from a document."""
    return {name: "" if said == "not seen" else said for name, said in _TOOL_ROW.findall(document)}


def generated(document: str) -> str:
    """Give what stands between the marks of a document."""
    return document.partition(BEGIN)[2].partition(END)[0].strip()


async def write(path: Path) -> None:
    """Write the tables of the shipped registry, with the versions of the tools that are here, into a document.

    A tool that is not here keeps the version that it was seen with before.
    """
    registry = Registry.load()
    document = await asyncio.to_thread(path.read_text, encoding="utf-8")
    versions = versions_in(document)
    async with Pool(ToolSettings()) as pool:
        commands = Commands(registry, pool)
        versions |= {tool.id: await commands.version(tool) for tool in registry.tools if commands.available(tool)}
        versions["ingestd"] = "its own"
    before, rest = document.split(BEGIN, 1)
    text = f"{before}{BEGIN}\n\n{tables(registry, versions)}\n\n{END}{rest.partition(END)[2]}"
    await asyncio.to_thread(path.write_text, text, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
