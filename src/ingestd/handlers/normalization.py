"""Normalization for preservation by the registry's rules, and the report of all normalization.

The original is always kept. What could not be normalized is a warning that names the file; a program that is not
installed is one warning for all that it should have done.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import aiofiles

from ingestd.derivatives import MANUAL, Made, Maker, NotMade, Order, recorded, rule_for, rule_uses, side_by_side
from ingestd.fpr.records import Command, Purpose, Rule
from ingestd.fpr.registry import Registry
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Facts, File, FileUse, Warning_, escape_name
from ingestd.premis import Event, EventType, Format, now

LINK = "Normalize for preservation"
REPORT = "logs/normalization.csv"
_LOSS = "files that it should normalize have no preservation copy"


async def normalize(task: Task, services: Services) -> Outcome:
    """Make the preservation copies that the registry has rules for, beside their originals.

    A file that has a preservation copy, supplied with the transfer, gets no other one. The original's `normalization`
    event names the command and, in its note, the copy.
    """
    maker = Maker.of(
        services.settings,
        services.commands,
        package=task.package,
        folder=task.folder,
        root=task.root,
        files=len(task.files),
    )
    supplied = await task.history.derivatives([file.id for file in task.files])
    orders = [
        Order(
            file=file,
            path=task.at(file.path),
            purpose=Purpose.PRESERVATION,
            command=command,
            folder=task.at(file.path).parent,
            rule=rule.id,
        )
        for file in task.files
        if (rule := rule_for(services.registry, Purpose.PRESERVATION, file))
        and (command := services.registry.command(rule.command))
        and not any(copy.use is FileUse.PRESERVATION for copy in supplied.get(file.id, ()))
    ]
    answers = await side_by_side(maker.make, orders, at_once=services.settings.tools.processes)
    files: list[File] = []
    events: list[Event] = []
    warnings: list[Warning_] = []
    for order, answer in zip(orders, answers, strict=True):
        if isinstance(answer, NotMade):
            warnings.append(answer.warning(order.file, LINK, _LOSS))
            continue
        facts = recorded(answer, _beside(order.file, answer.path), order.file, FileUse.PRESERVATION)
        files.append(facts.file)
        events += [_normalized(order.file, answer, facts.file.path), *facts.events]
    return Outcome(
        facts=Facts(files=files, events=events, warnings=warnings, rules=rule_uses(orders, answers)),
        tools=_tools(answers, "normalization"),
        now_with=", ".join(sorted({answer.tool for answer in answers})),
    )


def _beside(file: File, place: Path) -> str:
    return str(PurePosixPath(file.path).with_name(place.name))


def _normalized(original: File, made: Made, path: str) -> Event:
    note = f"%SIPDirectory%{path}"
    return Event(object=original.id, type=EventType.NORMALIZATION, at=now(), detail=made.detail, note=note)


def _tools(answers: Sequence[Made | NotMade], used_for: str) -> Sequence[ToolUse]:
    used = {(answer.tool, answer.tool_version) for answer in answers if isinstance(answer, Made)}
    return [ToolUse(name=name, version=version, used_for=used_for) for name, version in sorted(used)]


# --- report ----------------------------------------------------------------------------------------------------------

COLUMNS = ("file", "format", "PUID", "rule", "command", "outcome", "derivative", "detail")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """An original and what is known of its normalization; `missing`: the tool of its rule is not installed."""

    file: File
    copies: Sequence[File]
    events: Sequence[Event]
    problem: str
    missing: bool

    @property
    def copy(self) -> File | None:
        return next((copy for copy in self.copies if copy.use is FileUse.PRESERVATION), None)

    @property
    def made(self) -> Event | None:
        copy = self.copy
        events = [event for event in self.events if event.type is EventType.NORMALIZATION]
        return next((event for event in events if copy and copy.path in event.note), None)


@dataclass(kw_only=True, slots=True)
class _Report:
    """The report as it grows, with counts of outcomes."""

    registry: Registry
    asked_for: bool
    outcomes: Counter[str] = field(default_factory=Counter)

    def row(self, seen: _Seen) -> Sequence[str]:
        rule = rule_for(self.registry, Purpose.PRESERVATION, seen.file)
        outcome = self._outcome(seen, rule)
        self.outcomes[outcome] += 1
        format_ = seen.file.format or Format(name="")
        return (
            escape_name(seen.file.path),
            " ".join(filter(None, (format_.name, format_.version))),
            format_.puid,
            rule.id if rule else "",
            rule.command if rule else "",
            outcome,
            escape_name(seen.copy.path) if seen.copy else "",
            seen.made.detail if seen.made else seen.problem,
        )

    def _outcome(self, seen: _Seen, rule: Rule | None) -> str:
        if seen.made:
            return "manual" if seen.made.detail == MANUAL else "normalized"
        if rule:
            return self._not_made(seen)
        known = self.registry.format_version(seen.file.format.puid) if seen.file.format else None
        if known is None:
            return "format not known"
        return "kept as it is" if known.preservation else "no rule"

    def _not_made(self, seen: _Seen) -> str:
        if not self.asked_for:
            return "not asked for"
        return "tool not installed" if seen.missing else "failed"

    def facts(self) -> dict[str, str]:
        return {f"normalization_{name.replace(' ', '_')}": str(count) for name, count in self.outcomes.items()}


async def write_normalization_report(task: Task, services: Services) -> Outcome:
    """Write `logs/normalization.csv`: what became of each original, and why.

    Outcomes are `normalized`, `manual`, `failed`, `tool not installed`, `not asked for`, and where there is no rule
    `kept as it is` (fit for preservation, by the registry), `no rule` or `format not known`. The package's facts get
    the counts (`normalization_<outcome>`).
    """
    report = _Report(registry=services.registry, asked_for=bool(task.package.processing["normalize"]))
    missing: dict[str, bool] = {}
    await asyncio.to_thread(task.at("logs").mkdir, exist_ok=True)
    passing = task.folder / "scratch" / "normalization.csv"
    await asyncio.to_thread(passing.parent.mkdir, parents=True, exist_ok=True)
    async with (
        aiofiles.open(passing, "w", encoding="utf-8", newline="") as out,
        aclosing(_problems(task)) as problems,
    ):
        await out.write(_lines([COLUMNS]))
        head = await anext(problems, None)
        async for files in task.history.files(under="objects", uses=(FileUse.ORIGINAL,)):
            ids = [file.id for file in files]
            copies, events = await task.history.derivatives(ids), await task.history.events(ids)
            here = {escape_name(file.path) for file in files}
            said: dict[str, str] = {}
            while head is not None and head.path in here:
                said[head.path] = head.detail
                head = await anext(problems, None)
            rows = [
                report.row(
                    _Seen(
                        file=file,
                        copies=copies.get(file.id, ()),
                        events=events.get(file.id, ()),
                        problem=said.get(escape_name(file.path), ""),
                        missing=_missing(services, file, missing),
                    )
                )
                for file in files
            ]
            await out.write(_lines(rows))
    await asyncio.to_thread(os.replace, passing, task.at(REPORT))
    return Outcome(facts=Facts(package=report.facts()))


async def _problems(task: Task) -> AsyncGenerator[Warning_, None]:
    """Give the warnings that name a file which could not be normalized: in the order of the files."""
    async for warnings in task.history.warnings():
        for warning in warnings:
            if warning.link == LINK and warning.path:
                yield warning


def _missing(services: Services, file: File, known: dict[str, bool]) -> bool:
    command = _command(services.registry, file)
    if command is None:
        return False
    if command.id not in known:
        known[command.id] = services.commands.resolve(command) is None
    return known[command.id]


def _command(registry: Registry, file: File) -> Command | None:
    rule = rule_for(registry, Purpose.PRESERVATION, file)
    return registry.command(rule.command) if rule else None


def _lines(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
