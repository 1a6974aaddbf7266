"""Normalization by the registry's rules: preservation copies in the AIP, access copies and thumbnails beside it.

The original is always kept. What could not be normalized is a warning that names the file; a program that is not
installed is one warning for all that it should have done.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import shutil
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import aiofiles

from ingestd.derivatives import MANUAL, STEM_CHARACTERS, Made, Maker, NotMade, Order, recorded, rule_uses, side_by_side
from ingestd.fpr.records import Command, Purpose, Rule
from ingestd.fpr.registry import Registry
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Facts, File, FileUse, Warning_, escape_name
from ingestd.premis import Event, EventType, Format, now

LINK = "Normalize for preservation"
REPORT = "logs/normalization.csv"
_LOSS = {
    Purpose.PRESERVATION: "files that it should normalize have no preservation copy",
    Purpose.ACCESS: "files that it should normalize have no access copy of its making",
    Purpose.THUMBNAIL: "files that it should picture have no thumbnail of its making",
}
_LINKS = {
    Purpose.PRESERVATION: LINK,
    Purpose.ACCESS: "Normalize for access",
    Purpose.THUMBNAIL: "Make thumbnails",
}


def _maker(task: Task, services: Services) -> Maker:
    """Make ready for a window. A few files may share the processors that many would have kept busy."""
    threads = max(1, services.settings.tools.processes // max(1, len(task.files)))
    return Maker(
        package=task.package,
        root=task.root,
        scratch=task.folder / "scratch" / "normalization",
        private=services.settings.data_dir,
        commands=services.commands,
        limits=services.pool.limits,
        budget=services.settings.normalization,
        algorithm=services.settings.digest_algorithm,
        threads=threads,
    )


def _rule(registry: Registry, purpose: Purpose, file: File) -> Rule | None:
    return next(iter(registry.choose(purpose, file.format.puid if file.format else "")), None)


def _command(registry: Registry, rule: Rule | None) -> Command | None:
    return registry.command(rule.command) if rule else None


async def normalize(task: Task, services: Services) -> Outcome:
    """Make the preservation copies that the registry has rules for, beside their originals.

    A file that has a preservation copy, supplied with the transfer, gets no other one. The original's `normalization`
    event names the command and, in its note, the copy.
    """
    maker = _maker(task, services)
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
        if (rule := _rule(services.registry, Purpose.PRESERVATION, file))
        and (command := services.registry.command(rule.command))
        and not any(copy.use is FileUse.PRESERVATION for copy in supplied.get(file.id, ()))
    ]
    answers = await side_by_side(maker.make, orders, at_once=services.settings.tools.processes)
    files: list[File] = []
    events: list[Event] = []
    warnings: list[Warning_] = []
    for order, answer in zip(orders, answers, strict=True):
        if isinstance(answer, NotMade):
            warnings.append(answer.warning(order.file, LINK, _LOSS[Purpose.PRESERVATION]))
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
    detail = "; ".join(
        text for text in (f'ArchivematicaFPRCommandID="{made.command.identifier}"', made.source_detail) if text
    )
    note = f"%SIPDirectory%{path}"
    return Event(object=original.id, type=EventType.NORMALIZATION, at=now(), detail=detail, note=note)


def _tools(answers: Sequence[Made | NotMade], used_for: str) -> Sequence[ToolUse]:
    used = {(answer.tool, answer.tool_version) for answer in answers if isinstance(answer, Made)}
    return [ToolUse(name=name, version=version, used_for=used_for) for name, version in sorted(used)]


# --- for a DIP -------------------------------------------------------------------------------------------------------


def dip_folder(task: Task) -> Path:
    """Where access copies (`objects`) and thumbnails (`thumbnails`) are kept until a DIP is made of them."""
    return task.folder / "dip"


async def normalize_for_access(task: Task, services: Services) -> Outcome:
    """Make `dip/objects/<file's UUID>-<name>` of every file of the window: the supplied access copy, or one made by
    rule, or by the default rule where there is no other or where it failed. Nothing of it becomes part of the AIP.
    """
    return await _for_dip(task, services, Purpose.ACCESS, dip_folder(task) / "objects")


async def make_thumbnails(task: Task, services: Services) -> Outcome:
    """Make `dip/thumbnails/<file's UUID>.jpg` of every file of the window; rules and defaults as for access copies."""
    return await _for_dip(task, services, Purpose.THUMBNAIL, dip_folder(task) / "thumbnails")


async def _for_dip(task: Task, services: Services, purpose: Purpose, folder: Path) -> Outcome:
    maker = _maker(task, services)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    supplied = await task.history.derivatives([file.id for file in task.files])

    async def provide(file: File) -> tuple[Sequence[Warning_], Sequence[tuple[Order, Made | NotMade]]]:
        copies = [copy for copy in supplied.get(file.id, ()) if copy.use is FileUse.ACCESS]
        if copies and purpose is Purpose.ACCESS:
            stem = PurePosixPath(file.path).stem[:STEM_CHARACTERS]
            name = f"{file.id}-{stem}{PurePosixPath(copies[0].path).suffix}"
            await asyncio.to_thread(_copy, task.at(copies[0].path), folder / name)
            return (), ()
        return await _by_rule(maker, file, task.at(file.path), purpose, folder)

    answers = await side_by_side(provide, task.files, at_once=services.settings.tools.processes)
    warnings = [warning for said, _ in answers for warning in said]
    tried = [one for _, several in answers for one in several]
    made = [answer for _, answer in tried]
    used_for = "access copies" if purpose is Purpose.ACCESS else "thumbnails"
    return Outcome(
        facts=Facts(warnings=warnings, rules=rule_uses((order for order, _ in tried), made)),
        tools=_tools(made, used_for),
        now_with=", ".join(sorted({one.tool for one in made})),
    )


async def _by_rule(
    maker: Maker, file: File, path: Path, purpose: Purpose, folder: Path
) -> tuple[Sequence[Warning_], Sequence[tuple[Order, Made | NotMade]]]:
    """Try the file's rule, then the default; say what failed on the way, and what was tried."""
    registry = maker.commands.registry
    chosen = [rule for rule in (_rule(registry, purpose, file), *registry.default_rules(purpose)) if rule]
    warnings: list[Warning_] = []
    tried: list[tuple[Order, Made | NotMade]] = []
    for rule in _one_for_each_command(chosen):
        found = registry.command(rule.command)
        if found is None:
            continue
        order = Order(file=file, path=path, purpose=purpose, command=found, folder=folder, rule=rule.id)
        if await asyncio.to_thread(_is_there, maker, order):
            break
        answer = await maker.make(order)
        tried.append((order, answer))
        if isinstance(answer, Made):
            break
        warnings.append(answer.warning(file, _LINKS[purpose], _LOSS[purpose]))
    return warnings, tried


def _one_for_each_command(rules: Sequence[Rule]) -> Sequence[Rule]:
    seen: dict[str, Rule] = {}
    for rule in rules:
        seen.setdefault(rule.command, rule)
    return list(seen.values())


def _is_there(maker: Maker, order: Order) -> bool:
    """Whether a run before a crash made it: what is at its place is whole, and was proved."""
    return any(maker.place(order, command).exists() for command in maker.candidates(order.command))


def _copy(source: Path, target: Path) -> None:
    if not target.exists():
        passing = target.with_name(f".{target.name}")
        shutil.copyfile(source, passing)
        passing.replace(target)


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
        rule = _rule(self.registry, Purpose.PRESERVATION, seen.file)
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
    command = _command(services.registry, _rule(services.registry, Purpose.PRESERVATION, file))
    if command is None:
        return False
    if command.id not in known:
        known[command.id] = services.commands.resolve(command) is None
    return known[command.id]


def _lines(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
