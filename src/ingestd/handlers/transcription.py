"""Text in pictures, read by the registry's transcription rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ingestd.derivatives import (
    FAILED,
    Made,
    Maker,
    NotMade,
    Order,
    made_before,
    recorded,
    replaced,
    rule_for,
    rule_uses,
)
from ingestd.errors import Code
from ingestd.fpr.records import Purpose
from ingestd.fpr.registry import Registry
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Directory, Facts, File, FileUse, Warning_
from ingestd.premis import Event, EventOutcome, EventType, Program

FOLDER = "objects/metadata/OCRfiles"
LINK = "Transcribe"
_FAILED = "tool.transcription_failed"
_NO_TEXT = "no text was found"
_LOSS = "no text was read from pictures"
_NO_LANGUAGE = re.compile(r"Failed loading language '([^']+)'|Error opening data file .*?([^/]+)\.traineddata")
"""Tesseract goes on with the languages that it has, and fails where it has none of them."""


async def transcribe_file(task: Task, services: Services) -> Outcome:
    """Read the text of each file that a transcription rule is for, or whose preservation copy one is for.

    Text goes to `objects/metadata/OCRfiles/<name>-<file's UUID>.txt`, derived from the original, which gets the event
    `transcription`. Where there is no text there is no file, and the event says `not transcribed`. Option `language`
    names the languages. Without Tesseract, or without the data of a language, there is one warning. In a reingest, a
    text that was read before is removed (`deletion`) once it is read anew.
    """
    language = task.options["language"]
    maker = Maker.of(
        services.settings,
        services.commands,
        package=task.package,
        folder=task.folder,
        root=task.root,
        files=len(task.files),
    )
    orders = await _orders(task, services.registry, language)
    answers = await maker.make_all(orders, at_once=services.settings.tools.processes)
    told = _Told()
    for order, answer in zip(orders, answers, strict=True):
        told.add(order, answer)
    directories = await _directories(task) if told.files else []
    facts = Facts(
        directories=directories,
        files=told.files,
        events=told.events,
        warnings=told.warnings,
        rules=rule_uses(orders, answers),
    )
    return Outcome(facts=facts, tools=told.tools(), now_with=", ".join(sorted({answer.tool for answer in answers})))


async def _orders(task: Task, registry: Registry, language: str) -> Sequence[Order]:
    known = await task.history.derivatives([file.id for file in task.files])
    former = await made_before(task.history, task.package, known, FileUse.TEXT_OCR)
    orders = []
    for file in task.files:
        copies, replaces = known.get(file.id, ()), former.get(file.id, ())
        if any(copy.use is FileUse.TEXT_OCR and copy not in replaces for copy in copies):
            continue
        readable = [file, *(copy for copy in copies if copy.use is FileUse.PRESERVATION)]
        chosen = next(
            (
                (one, rule, command)
                for one in readable
                if (rule := rule_for(registry, Purpose.TRANSCRIPTION, one))
                and (command := registry.command(rule.command))
            ),
            None,
        )
        if chosen:
            source, rule, command = chosen
            order = Order(
                file=file,
                path=task.at(source.path),
                purpose=Purpose.TRANSCRIPTION,
                command=command,
                folder=task.at(FOLDER),
                rule=rule.id,
                language=language,
                replaces=replaces,
            )
            orders.append(order)
    return orders


async def _directories(task: Task) -> Sequence[Directory]:
    paths = ("objects/metadata", FOLDER)
    there = await task.history.taken(paths)
    return [Directory(path=path, original=path) for path in paths if path not in there]


@dataclass(kw_only=True, slots=True)
class _Told:
    """The facts of one window."""

    files: list[File] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    warnings: list[Warning_] = field(default_factory=list)
    used: dict[tuple[str, str], ToolUse] = field(default_factory=dict)

    def add(self, order: Order, answer: Made | NotMade) -> None:
        absent = _absent_languages(answer)
        for language in sorted(absent):
            detail = f"{answer.tool} has no data for the language {language}: text in it was not, or badly, read"
            self.warnings.append(Warning_(code=Code.TOOL_NOT_INSTALLED, detail=detail, link=LINK))
        if isinstance(answer, Made):
            self._transcribed(order, answer)
        elif absent < set(order.language.split("+")):
            self._not_transcribed(order, answer)

    def _transcribed(self, order: Order, made: Made) -> None:
        facts = recorded(made, f"{FOLDER}/{made.path.name}", order.file, FileUse.TEXT_OCR)
        note = f"%SIPDirectory%{facts.file.path}"
        detail = f'{made.source_detail}; command="{made.command.identifier}"; language="{order.language}"'
        gone, deletions = replaced(order, made)
        self.files += [*gone, facts.file]
        read = _event(order.file, EventOutcome.TRANSCRIBED, detail, note, made.program, made.at)
        self.events += [*deletions, read, *facts.events]
        use = ToolUse(name=made.tool, version=made.tool_version, used_for="transcription")
        self.used[made.tool, made.tool_version] = use

    def _not_transcribed(self, order: Order, answer: NotMade) -> None:
        program = Program(answer.tool, answer.tool_version)
        detail = program.words(command=str(order.command.identifier), language=order.language)
        if answer.empty:
            self.events.append(_event(order.file, EventOutcome.NOT_TRANSCRIBED, detail, _NO_TEXT, program, answer.at))
            return
        code = _FAILED if answer.code == FAILED else answer.code
        warning = answer.warning(order.file, LINK, _LOSS)
        self.warnings.append(Warning_(code=code, detail=warning.detail, path=warning.path, link=LINK))
        if not answer.for_all:
            told = _event(order.file, EventOutcome.NOT_TRANSCRIBED, detail, answer.detail, program, answer.at)
            self.events.append(told)

    def tools(self) -> Sequence[ToolUse]:
        return list(self.used.values())


def _absent_languages(answer: Made | NotMade) -> set[str]:
    return {found[1] or found[2] for found in _NO_LANGUAGE.finditer(answer.stderr_tail)}


def _event(file: File, outcome: EventOutcome, detail: str, note: str, program: Program, at: datetime) -> Event:
    return Event(
        object=file.id,
        type=EventType.TRANSCRIPTION,
        at=at,
        detail=detail,
        outcome=outcome,
        note=note,
        programs=[program],
    )
