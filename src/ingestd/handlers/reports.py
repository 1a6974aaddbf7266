"""The normalization report: what became of every original, for preservation and for a DIP, and why."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import aiofiles

from ingestd.derivatives import MANUAL, rule_for, with_its_maildir
from ingestd.fpr.commands import Commands
from ingestd.fpr.identified import command_of
from ingestd.fpr.records import UNKNOWN, Command, FormatVersion, Purpose
from ingestd.job import Outcome, Services, Task
from ingestd.messages import NormalizedData
from ingestd.oais import DIP, Facts, File, FileUse, Warning_, escape_name
from ingestd.premis import Event, EventType, Format

REPORT = "logs/normalization.csv"
_COMMAND = re.compile(r'ArchivematicaFPRCommandID="([^"]+)"')
_TOLD = 50
_SUMMED = 20
"""A result has to fit into a message with all else that it says; the report has everything."""
COLUMNS = ("file", "format", "PUID", "purpose", "rule", "command", "outcome", "derivative", "detail")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Aim:
    """One purpose of normalization: the option that asks for it, and the link whose warnings say what failed."""

    purpose: Purpose
    use: FileUse
    option: str
    link: str

    @property
    def always(self) -> bool:
        """It is reported on where it was not asked for, too."""
        return self.purpose is Purpose.PRESERVATION

    def reached_by(self, copy: File) -> bool:
        return copy.use is self.use and copy.path.startswith(f"{DIP}/") is not self.always


_AIMS = (
    _Aim(
        purpose=Purpose.PRESERVATION,
        use=FileUse.PRESERVATION,
        option="normalize",
        link="Normalize for preservation",
    ),
    _Aim(purpose=Purpose.ACCESS, use=FileUse.ACCESS, option="normalize_for_access", link="Make access copies"),
    _Aim(purpose=Purpose.THUMBNAIL, use=FileUse.THUMBNAIL, option="generate_thumbnails", link="Make thumbnails"),
)


async def write_normalization_report(task: Task, services: Services) -> Outcome:
    """Write `logs/normalization.csv`: a line for each original and each purpose that was asked for, or preservation.

    Outcomes are `normalized`, `default` (by the default rule: there is no other, or it failed), `manual` (supplied),
    `failed`, `tool not installed`, `not asked for`, `with its maildir` (a message, which the maildir's mbox has), and
    where there is no rule `kept as it is` (fit for preservation, by the registry), `no rule` or `format not known`. The
    package's facts get the counts: `normalization_<purpose>_<outcome>`, and in `normalized` what was made of which
    format, for each purpose `messages.NormalizedData` as JSON.

    A copy that is of another group of formats than its command says is a warning (`tool.normalization_unlike`): the
    program ended well, and wrote something else.
    """
    aims = [aim for aim in _AIMS if aim.always or task.package.processing.get(aim.option)]
    report = _Report(task, services.commands, aims)
    passing = task.folder / "scratch" / "normalization.csv"
    for folder in (task.at("logs"), passing.parent):
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    async with aiofiles.open(passing, "w", encoding="utf-8", newline="") as out, aclosing(report.lines()) as lines:
        await out.write(_text([COLUMNS]))
        async for window in lines:
            await out.write(_text(window))
    await asyncio.to_thread(os.replace, passing, task.at(REPORT))
    counts = {f"normalization_{name}": str(count) for name, count in report.outcomes.items()}
    return Outcome(facts=Facts(package={**counts, "normalized": report.made()}, warnings=report.warnings()))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Window:
    """A window of originals and what is known of them. `problems`: what failed, by the link and the file's path."""

    files: Sequence[File]
    copies: Mapping[uuid.UUID, Sequence[File]]
    events: Mapping[uuid.UUID, Sequence[Event]]
    problems: Mapping[tuple[str, str], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """An original and what came of one purpose."""

    file: File
    aim: _Aim
    source: File
    copy: File | None
    made: Event | None
    problem: str


class _Report:
    """The report as it grows, with counts of outcomes."""

    def __init__(self, task: Task, commands: Commands, aims: Sequence[_Aim]) -> None:
        self.outcomes: Counter[str] = Counter()
        self._made: dict[Purpose, Counter[tuple[str, str, str, str, str]]] = {aim.purpose: Counter() for aim in aims}
        self._task = task
        self._commands = commands
        self._registry = commands.registry
        self._aims = aims
        self._able: dict[str, Command | None] = {}
        self._by_siegfried = command_of(task.package.processing, self._registry).adapter is not None
        self._unlike: list[Warning_] = []
        self._unlike_count = 0

    async def lines(self) -> AsyncGenerator[Sequence[Sequence[str]], None]:
        problems = [_Problems(self._task, aim.link) for aim in self._aims]
        try:
            async for files in self._task.history.files(under="objects", uses=(FileUse.ORIGINAL,)):
                window = await self._window(files, problems)
                yield [self._line(_seen(file, aim, window)) for file in files for aim in self._aims]
        finally:
            for several in problems:
                await several.close()

    async def _window(self, files: Sequence[File], problems: Sequence[_Problems]) -> _Window:
        copies = await self._task.history.derivatives([file.id for file in files])
        made = [copy.id for several in copies.values() for copy in several]
        here = {escape_name(file.path) for file in files}
        said = [(several.link, await several.of(here)) for several in problems]
        return _Window(
            files=files,
            copies=copies,
            events=await self._task.history.events([*(file.id for file in files), *made]),
            problems={(link, path): words for link, found in said for path, words in found.items()},
        )

    def _line(self, seen: _Seen) -> Sequence[str]:
        name, puid = _words(seen.file)
        rule = rule_for(self._registry, seen.aim.purpose, seen.source)
        command = self._registry.command(rule.command) if rule else None
        outcome = self._outcome(seen, command)
        followed = rule if outcome not in {"no rule", "manual", "with its maildir"} else None
        self.outcomes[f"{seen.aim.purpose}_{outcome.replace(' ', '_')}"] += 1
        if seen.copy and seen.made:
            by = self._command_of(seen.made)
            self._made[seen.aim.purpose][name, puid, *_words(seen.copy), by] += 1
            self._hold_against(seen.copy, self._registry.command(by))
        details = [seen.made.detail if seen.made else "", seen.problem]
        return (
            escape_name(seen.file.path),
            name,
            puid,
            seen.aim.purpose,
            followed.id if followed else "",
            followed.command if followed else "",
            outcome,
            escape_name(seen.copy.path) if seen.copy else "",
            "; ".join(filter(None, details)),
        )

    def _hold_against(self, copy: File, command: Command | None) -> None:
        """Note a copy that is of another group of formats than its command says. What only a site's own identification
        does not know is no such copy.
        """
        said = self._registry.find(FormatVersion, command.output_format) if command else None
        found = self._registry.version_of(copy.format)
        if command is None or said is None or said.id == UNKNOWN or not (found or self._is_unknown(copy)):
            return
        if found and self._registry.group_of(found) == self._registry.group_of(said):
            return
        self._unlike_count += 1
        if self._unlike_count <= _TOLD:
            is_, should = _words(copy)[0], Format(name=said.description, version=said.version).words
            detail = f"{command.id} says that it writes {should}, and this is: {is_}"
            path = escape_name(copy.path)
            self._unlike.append(Warning_(code="tool.normalization_unlike", detail=detail, path=path))

    def _is_unknown(self, copy: File) -> bool:
        return self._by_siegfried and copy.format is not None and not copy.format.puid

    def warnings(self) -> Sequence[Warning_]:
        more = self._unlike_count - len(self._unlike)
        detail = f"{more} more copies are of other formats than their commands say: logs/normalization.csv"
        return [*self._unlike, *([Warning_(code="tool.normalization_unlike", detail=detail)] if more else [])]

    def _command_of(self, made: Event) -> str:
        """Give the command that an event names: that of the rule, or what stood in for it."""
        named = _COMMAND.search(made.detail)
        commands = (one.id for one in self._registry.commands if named and str(one.identifier) == named[1])
        return next(commands, "manual" if made.detail == MANUAL else "")

    def made(self) -> str:
        """Sum up what was made, for each purpose."""
        told = {
            purpose: [self._told(*item) for item in made.most_common(_SUMMED)] for purpose, made in self._made.items()
        }
        return json.dumps(
            {purpose: [one.model_dump(mode="json") for one in several] for purpose, several in told.items()}
        )

    def _told(self, key: tuple[str, str, str, str, str], files: int) -> NormalizedData:
        name, puid, into, into_puid, id_ = key
        command = self._registry.command(id_)
        tool = self._registry.tool(command.tool) if command else None
        said = tool.name if tool else ""
        return NormalizedData(
            format=name, puid=puid, into=into, into_puid=into_puid, command=id_, tool=said, files=files
        )

    def _outcome(self, seen: _Seen, command: Command | None) -> str:
        if seen.made:
            return "manual" if seen.made.detail == MANUAL else self._by(seen, seen.made)
        if command:
            return self._not_made(seen, command)
        known = self._registry.version_of(seen.file.format)
        if known is None:
            return "format not known"
        return "kept as it is" if known.preservation and seen.aim.always else "no rule"

    def _by(self, seen: _Seen, made: Event) -> str:
        """Say whether a default rule made it: one that the format's own rule would not have run."""
        defaults = [rule.command for rule in self._registry.default_rules(seen.aim.purpose)]
        version = self._registry.version_of(seen.source.format)
        own = [rule.command for rule in self._registry.rules(seen.aim.purpose, version)[:1]]
        commands = [self._registry.command(name) for name in defaults if name not in own]
        return "default" if any(one and f'"{one.identifier}"' in made.detail for one in commands) else "normalized"

    def _not_made(self, seen: _Seen, command: Command) -> str:
        if not self._task.package.processing.get(seen.aim.option):
            return "not asked for"
        if with_its_maildir(self._registry, self._task.package, self._task.root, seen.file, seen.aim.purpose):
            return "with its maildir"
        if command.id not in self._able:
            self._able[command.id] = self._commands.resolve(command)
        if self._able[command.id] is None:
            return "tool not installed"
        return "failed" if seen.problem or seen.aim.always else "no rule"


def _words(file: File) -> tuple[str, str]:
    """Give a file's format in words, and its PUID."""
    format_ = file.format or Format(name="")
    return format_.words, format_.puid


def _seen(file: File, aim: _Aim, window: _Window) -> _Seen:
    copies = window.copies.get(file.id, ())
    copy = next((copy for copy in copies if aim.reached_by(copy)), None)
    service = None if aim.always else next((one for one in copies if one.use is FileUse.SERVICE), None)
    events = [*window.events.get(file.id, ()), *(window.events.get(copy.id, ()) if copy else ())]
    made = [event for event in events if event.type is EventType.NORMALIZATION and copy and copy.path in event.note]
    return _Seen(
        file=file,
        aim=aim,
        source=service or file,
        copy=copy,
        made=next(iter(made), None),
        problem=window.problems.get((aim.link, escape_name(file.path)), ""),
    )


class _Problems:
    """The warnings of one link that name a file: they come in the order of the files, with which they are read."""

    def __init__(self, task: Task, link: str) -> None:
        self.link = link
        self._walk = self._warnings(task)
        self._next: Warning_ | None = None
        self._begun = False

    async def of(self, here: set[str]) -> Mapping[str, str]:
        """Give what was said of the files of a window, by their paths."""
        found: dict[str, list[str]] = {}
        if not self._begun:
            self._begun, self._next = True, await anext(self._walk, None)
        while self._next is not None and self._next.path in here:
            found.setdefault(self._next.path, []).append(self._next.detail)
            self._next = await anext(self._walk, None)
        return {path: "; ".join(words) for path, words in found.items()}

    async def close(self) -> None:
        await self._walk.aclose()

    async def _warnings(self, task: Task) -> AsyncGenerator[Warning_, None]:
        async for warnings in task.history.warnings():
            for warning in warnings:
                if warning.link == self.link and warning.path:
                    yield warning


def _text(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
