"""What the files are: format identification, modification dates, characterization."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ingestd.errors import Code, IngestError
from ingestd.fpr.identified import identify
from ingestd.fpr.records import Adapter, Purpose
from ingestd.fpr.registry import Registry
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Extension, Facts, File, Warning_
from ingestd.sources.records import modified_at


async def identify_file_format(task: Task, services: Services) -> Outcome:
    """Identify formats by signature with Siegfried; `format identification` events.

    Option `only` with the value `new` leaves out what was identified before.
    """
    files = [file for file in task.files if file.format is None] if _only_new(task) else task.files
    if not files:
        return Outcome()
    found = await identify(
        files,
        [task.at(file.path) for file in files],
        siegfried=services.tools.siegfried,
        registry=services.registry,
    )
    use = ToolUse(name="Siegfried", version=found.version, used_for="format identification")
    facts = Facts(files=found.files, events=found.events, warnings=found.warnings)
    return Outcome(facts=facts, tools=[use], now_with="Siegfried")


def _only_new(task: Task) -> bool:
    return task.options.get("only") == "new"


async def store_file_modification_dates(task: Task, services: Services) -> Outcome:
    """Take the modification date of each file that has none yet: it becomes PREMIS dateCreatedByApplication."""

    def look(file: File) -> File:
        return replace(file, modified_at=modified_at(task.at(file.path).stat().st_mtime_ns))

    files = [file for file in task.files if file.modified_at is None]
    return Outcome(facts=Facts(files=await asyncio.to_thread(lambda: [look(file) for file in files])))


class _Described(Protocol):
    @property
    def xml(self) -> str: ...

    @property
    def error(self) -> str: ...


class _Describer(Protocol):
    async def describe(self, paths: Sequence[Path]) -> Sequence[_Described]: ...

    async def version(self) -> str: ...


@dataclass(kw_only=True, slots=True)
class _Found:
    """What the tools of one window told."""

    extensions: dict[tuple[int, int], Extension] = field(default_factory=dict)
    warnings: list[Warning_] = field(default_factory=list)
    tools: list[ToolUse] = field(default_factory=list)


async def characterize_file(task: Task, services: Services) -> Outcome:
    """Run the registry's characterization tools; their XML goes into objectCharacteristicsExtension, in rule order.

    Option `only` with the value `new` leaves out what was characterized before.
    """
    if _only_new(task):
        known = await task.history.extensions([file.id for file in task.files])
        task = replace(task, files=[file for file in task.files if file.id not in known])
    wanted = _tools_of(task.files, services.registry)
    found = _Found()
    for (adapter, name), numbers in wanted.items():
        await _describe(task, getattr(services.tools, adapter.value), name, numbers, found)
    extensions = [found.extensions[key] for key in sorted(found.extensions)]
    facts = Facts(files=(), extensions=extensions, warnings=found.warnings)
    return Outcome(facts=facts, tools=found.tools, now_with=", ".join(tool.name for tool in found.tools))


def _tools_of(files: Sequence[File], registry: Registry) -> Mapping[tuple[Adapter, str], Mapping[int, int]]:
    """For each tool and its name, which files of the window it describes (by index) and as which rule of theirs."""
    wanted: dict[tuple[Adapter, str], dict[int, int]] = {}
    for index, file in enumerate(files):
        puid = file.format.puid if file.format else ""
        for order, rule in enumerate(registry.rules(Purpose.CHARACTERIZATION, puid) if puid else ()):
            command = registry.command(rule.command)
            if command is not None and command.adapter is not None:
                tool = registry.tool(command.tool)
                wanted.setdefault((command.adapter, tool.name if tool else command.tool), {})[index] = order
    return wanted


async def _describe(task: Task, describer: _Describer, name: str, numbers: Mapping[int, int], found: _Found) -> None:
    files = [task.files[index] for index in numbers]
    try:
        version = await describer.version()
        answers = await describer.describe([task.at(file.path) for file in files])
    except IngestError as error:
        if error.code is not Code.TOOL_NOT_INSTALLED:
            raise
        found.warnings.append(_missing(name))
        return
    found.tools.append(ToolUse(name=name, version=version, used_for="characterization"))
    for (index, order), file, answer in zip(numbers.items(), files, answers, strict=True):
        if answer.xml:
            found.extensions[index, order] = Extension(file=file.id, tool=name, xml=answer.xml)
        else:
            warning = Warning_(code="tool.characterization_failed", detail=f"{name}: {answer.error}", path=file.path)
            found.warnings.append(warning)


def _missing(name: str) -> Warning_:
    return Warning_(
        code=Code.TOOL_NOT_INSTALLED,
        detail=f"{name} is not installed: files that it should describe have no technical metadata from it",
    )
