"""What the files are: format identification, modification dates, characterization."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Protocol
from xml.sax.saxutils import escape

from ingestd.errors import Code, IngestError, ToolError
from ingestd.fpr.identified import command_of, identify
from ingestd.fpr.records import Adapter, Command, Purpose, Rule, ScriptType, Tool
from ingestd.fpr.variables import values_for
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Extension, Facts, File, RuleUse, Warning_, escape_name
from ingestd.premis import Event, EventOutcome, EventType, Program, now
from ingestd.sources.records import modified_at
from ingestd.together import side_by_side
from ingestd.tools import jhove
from ingestd.tools.xml import Described, element

XML = "fmt/101"
"""What a command writes whose print goes into the METS."""
_KEPT_RUNNING = (Adapter.EXIFTOOL, Adapter.MEDIAINFO, Adapter.FFPROBE)
"""Adapters of `tools.Toolbox` that describe files; the others of the registry's are no describers."""
_TOLD_CHARACTERS = 300


async def identify_file_format(task: Task, services: Services) -> Outcome:
    """Identify formats with the command that the processing options choose: by signature with Siegfried, or as the
    registry says; `format identification` events.

    Option `only` with the value `new` leaves out what was identified before.
    """
    files = [file for file in task.at_hand if file.format is None] if _only_new(task) else task.at_hand
    if not files:
        return Outcome()
    found = await identify(
        files,
        [task.at(file.path) for file in files],
        command=command_of(task.package.processing, services.registry),
        commands=services.commands,
        siegfried=services.tools.siegfried,
    )
    use = ToolUse(name=found.program.name, version=found.program.version, used_for="format identification")
    facts = Facts(files=found.files, events=found.events, warnings=found.warnings)
    return Outcome(facts=facts, tools=[use], now_with=found.program.name)


def _only_new(task: Task) -> bool:
    return task.options.get("only") == "new"


async def store_file_modification_dates(task: Task, services: Services) -> Outcome:
    """Take the modification date of each file that has none yet: it becomes PREMIS dateCreatedByApplication."""

    def look(file: File) -> File:
        return replace(file, modified_at=modified_at(task.at(file.path).stat().st_mtime_ns))

    files = [file for file in task.files if file.modified_at is None]
    return Outcome(facts=Facts(files=await asyncio.to_thread(lambda: [look(file) for file in files])))


class _Describer(Protocol):
    async def describe(self, paths: Sequence[Path]) -> Sequence[Described]: ...

    async def version(self) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """One file of the window (by its number there) that a command describes, as its rule of this order has it."""

    number: int
    order: int
    file: File
    rule: Rule


@dataclass(kw_only=True, slots=True)
class _Work:
    """What one command has to do in this window."""

    command: Command
    tool: Tool
    wanted: list[_Wanted] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    """What came of one command on one file: its XML, or what was wrong."""

    wanted: _Wanted
    program: Program
    at: datetime
    xml: str
    error: str

    @property
    def extension(self) -> Extension:
        return Extension(file=self.wanted.file.id, tool=self.program.name, xml=self.xml)

    @property
    def rule(self) -> RuleUse:
        return RuleUse(rule=self.wanted.rule.id, command=self.wanted.rule.command, ok=bool(self.xml))

    @property
    def warning(self) -> Warning_:
        detail = f"{self.program.name}: {self.error}"[:_TOLD_CHARACTERS]
        path = escape_name(self.wanted.file.path)
        return Warning_(code="tool.characterization_failed", detail=detail, path=path)


@dataclass(kw_only=True, slots=True)
class _Found:
    """What the tools of one window told."""

    said: list[_Said] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)

    @property
    def facts(self) -> Facts:
        """All of it, in the order of the files and of their rules."""
        said = sorted(self.said, key=lambda one: (one.wanted.number, one.wanted.order))
        absent = "is not installed: files that it should describe have no technical metadata from it"
        missing = [Warning_(code=Code.TOOL_NOT_INSTALLED, detail=f"{name} {absent}") for name in sorted(self.missing)]
        return Facts(
            extensions=[one.extension for one in said if one.xml],
            events=[_event(list(several)) for _, several in groupby(said, key=lambda one: one.wanted.number)],
            warnings=[*missing, *(one.warning for one in said if not one.xml)],
            rules=[one.rule for one in said],
        )


def _event(said: Sequence[_Said]) -> Event:
    """One event for a file and all programs that looked at it; its note has those that failed, and why."""
    failed = [f"{one.program.name}: {one.error}"[:_TOLD_CHARACTERS] for one in said if not one.xml]
    outcome = EventOutcome.WARNING if len(failed) < len(said) else EventOutcome.FAIL
    programs = list(dict.fromkeys(one.program for one in said))
    return Event(
        object=said[0].wanted.file.id,
        type=EventType.METADATA_EXTRACTION,
        at=max(one.at for one in said),
        detail="; ".join(program.words() for program in programs),
        outcome=outcome if failed else EventOutcome.SUCCESS,
        note="; ".join(failed),
        programs=programs,
    )


async def characterize_file(task: Task, services: Services) -> Outcome:
    """Run the registry's characterization rules, or the default ones for a format that has none; their XML goes into
    objectCharacteristicsExtension, in the order of the rules. A `metadata extraction` event for each file that a
    program was run on says which ones, and which of them failed.

    A program that is not installed is one warning for all files that it should describe; one that printed no XML is a
    warning on the file. Option `only` with the value `new` leaves out what was characterized before.
    """
    task = replace(task, files=task.at_hand)
    if _only_new(task):
        known = await task.history.extensions([file.id for file in task.files])
        task = replace(task, files=[file for file in task.files if file.id not in known])
    found = _Found()
    for work in _plan(task.files, services, found):
        await _describe(task, services, work, found)
    programs = {one.program.name: one.program for one in found.said}.values()
    tools = [ToolUse(name=one.name, version=one.version, used_for="characterization") for one in programs]
    return Outcome(facts=found.facts, tools=tools, now_with=", ".join(tool.name for tool in tools))


def _plan(files: Sequence[File], services: Services, found: _Found) -> Sequence[_Work]:
    """Say which commands are run on which files; one that stands in for two rules of a file is run once."""
    plan: dict[str, _Work] = {}
    for number, file in enumerate(files):
        chosen: set[str] = set()
        version = services.registry.version_of(file.format)
        for order, rule in enumerate(services.registry.choose(Purpose.CHARACTERIZATION, version)):
            command = services.registry.command(rule.command)
            if command is None:
                continue
            able = command if command.adapter in _KEPT_RUNNING else services.commands.resolve(command)
            tool = services.registry.tool(able.tool if able else command.tool)
            if able is None or tool is None:
                found.missing.add(tool.name if tool else command.tool)
            elif able.id not in chosen:
                chosen.add(able.id)
                work = plan.setdefault(able.id, _Work(command=able, tool=tool))
                work.wanted.append(_Wanted(number=number, order=order, file=file, rule=rule))
    return list(plan.values())


async def _describe(task: Task, services: Services, work: _Work, found: _Found) -> None:
    """Let one command describe its files."""
    paths = [task.at(wanted.file.path).absolute() for wanted in work.wanted]
    try:
        if work.command.adapter in _KEPT_RUNNING:
            describer: _Describer = getattr(services.tools, work.command.adapter.value)
            version, answers = await describer.version(), await describer.describe(paths)
        else:
            version, answers = await services.commands.version(work.tool), await _run(task, services, work, paths)
    except IngestError as error:
        if error.code is not Code.TOOL_NOT_INSTALLED:
            raise
        found.missing.add(work.tool.name)
        return
    program, at = Program(work.tool.name, version), now()
    found.said += [
        _Said(wanted=wanted, program=program, at=at, xml=answer.xml, error=_plain(task, answer.error))
        for wanted, answer in zip(work.wanted, answers, strict=True)
    ]


async def _run(task: Task, services: Services, work: _Work, paths: Sequence[Path]) -> Sequence[Described]:
    """Run the command as it is written: once for all files, where it can be, else once for each."""
    if work.command.adapter is Adapter.JHOVE and work.command.script_type is ScriptType.COMMAND:
        return await _run_jhove(services, work, paths)
    at_once = services.settings.tools.processes
    return await side_by_side(lambda wanted: _run_on(task, services, work, wanted.file), work.wanted, at_once=at_once)


async def _run_on(task: Task, services: Services, work: _Work, file: File) -> Described:
    values = values_for(task.package, task.root, file)
    try:
        done = await services.commands.run(work.command, values, purpose=Purpose.CHARACTERIZATION)
    except ToolError as error:
        if error.code is Code.TOOL_NOT_INSTALLED:
            raise
        return Described(error=error.detail)
    if not done.ok:
        said = done.run.stderr_tail.strip().splitlines()
        return Described(error=": ".join([done.problem, *said[-1:]]))
    if work.command.output_format != XML:
        return Described(error=f"{work.command.id} is not said to print XML: what it printed is not kept")
    try:
        return Described(xml=_plain(task, element(done.stdout.decode("utf-8", errors="replace"))))
    except ValueError as error:
        return Described(error=f"it printed {error}")


def _plain(task: Task, text: str) -> str:
    """Leave the folders of this server out of what a program said."""
    root = f"{task.root.absolute()}/"
    return text.replace(escape(root, {'"': "&quot;"}), "").replace(root, "")


async def _run_jhove(services: Services, work: _Work, paths: Sequence[Path]) -> Sequence[Described]:
    with jhove.told(paths, services.pool.home()) as links:
        run = await services.commands.run_on_all(work.command, links)
        found = {number: _restored(xml, links[number], paths[number]) for number, xml in jhove.documents(run.stdout)}
    said = jhove.trouble(run.stdout) or ("said nothing of the file" if run.ok else run.error(work.tool.name).detail)
    return [found.get(number) or Described(error=said) for number in range(len(paths))]


def _restored(xml: bytes, link: Path, path: Path) -> Described:
    name = escape(escape_name(path.name), {'"': "&quot;"})
    try:
        return Described(xml=element(xml.decode("utf-8", errors="replace").replace(str(link), name)))
    except ValueError as error:
        return Described(error=str(error))
