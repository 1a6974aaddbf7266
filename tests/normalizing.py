"""What tests of derivatives share: services with real programs, and a registry with a site's own rules over ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingestd.config import Settings
from ingestd.fpr.commands import Commands
from ingestd.fpr.registry import Registry
from ingestd.job import Services
from ingestd.oais import Facts
from ingestd.premis import Format
from ingestd.storage import Locations
from ingestd.tools import Toolbox
from tests.steps import Bench

TEXT = "x-fmt/111"
_OUT = "%outputDirectory%%prefix%%fileName%%postfix%"
TOOLS = """
[[tool]]
id = "shell"
name = "Shell"
program = "bash"

[[tool]]
id = "nowhere"
name = "Nowhere"
program = "ingestd-no-such-program"
"""


def command(name: str, script: str, *, usage: str = "normalization", tool: str = "shell", **more: str | int) -> str:
    """A command as a table of a site's registry; it writes what `%OUT%` stands for, with `.txt`, or so it says."""
    fields: dict[str, str | int] = {
        "id": name,
        "tool": tool,
        "usage": usage,
        "description": name,
        "script_type": "bashScript",
        "output_location": f"{_OUT}.txt",
        "output_format": TEXT,
        "verification": "output-exists",
        "event_detail": "program-and-version",
        "script": script.replace("%OUT%", _OUT),
        **more,
    }
    lines = [
        f"{key} = {value}" if isinstance(value, int) else f"{key} = '''{value}'''" for key, value in fields.items()
    ]
    return "\n".join(["", "[[command]]", *lines, ""])


def rule(name: str, purpose: str = "preservation", puid: str = TEXT) -> str:
    return f'\n[[rule]]\npurpose = "{purpose}"\nformat = "{puid}"\ncommand = "{name}"\n'


@asynccontextmanager
async def workshop(tmp_path: Path, site: str = "", **settings: Any) -> AsyncIterator[Services]:
    """Services with all real programs; `site` is the text of a site's registry."""
    folder = tmp_path / "site"
    folder.mkdir(exist_ok=True)
    (folder / "site.toml").write_text(TOOLS + site, encoding="utf-8")
    made = Settings(data_dir=tmp_path / "data", **settings)
    registry = Registry.load([folder])
    async with Toolbox(made) as tools:
        commands = Commands(registry, tools.pool, tools.pool.home())
        locations = Locations.open(made.all_locations, made.default_location)
        yield Services(settings=made, tools=tools, registry=registry, commands=commands, locations=locations)


@asynccontextmanager
async def bench(tmp_path: Path, site: str = "", **settings: Any) -> AsyncIterator[Bench]:
    """One package in a workshop."""
    async with workshop(tmp_path, site, **settings) as services:
        made = await Bench.open(tmp_path, services=services)
        try:
            yield made
        finally:
            await made.journal.close()


async def receive(bench: Bench, contents: Mapping[str, bytes], puid: str = TEXT) -> None:
    """Put files among the objects, all of one format."""
    await bench.receive(contents)
    known = await bench.journal.files_at(list(contents))
    formatted = [replace(file, format=Format(name="a format", puid=puid)) for file in known.values()]
    await bench.journal.record(Facts(files=formatted))


def need(services: Services, *programs: str) -> None:
    """Skip where a program is missing, with its name."""
    for name in programs:
        if services.pool.which(name) is None:
            pytest.skip(f"{name} is not installed here")


def puid_of(path: Path) -> str:
    import pygfried

    return str(pygfried.identify(str(path), detailed=True)["files"][0]["matches"][0]["id"])
