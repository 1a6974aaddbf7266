"""Validation: what each file is held against is said by the registry's rules; a `validation` event says what came out.

A program that is not there, crashes, is stopped or prints what cannot be understood says nothing about a file: that is
a warning, and no event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import escape

from ingestd.errors import Code, ToolError
from ingestd.fpr.contracts import ContractError, Finding, read_off
from ingestd.fpr.records import Adapter, Command, Purpose, Rule, ScriptType, Tool
from ingestd.fpr.variables import values_for
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Facts, File, RuleUse, Warning_, escape_name, safe_name
from ingestd.premis import Event, EventOutcome, EventType, Program, now
from ingestd.together import tasks
from ingestd.tools import jhove
from ingestd.tools.run import Run, Stop

FAILED = "validation.failed"
REPORTS = "logs/implementationChecks"
_RUNS = 8
"""How often one program is started anew for what it was told together, when it does not come to the end of it."""
_NOTE_CHARACTERS = 2000
_TOLD_CHARACTERS = 300
_NAME_CHARACTERS = 150


async def validate_file(task: Task, services: Services) -> Outcome:
    """Run every validation rule of each file's format; a `validation` event for each that came to an outcome.

    `fail` is a warning besides (`validation.failed`); so is a program that said nothing of a file. A program that is
    not installed, with nothing to stand in for it, is one warning for the package. Exit code 0 whatever was found.
    With the option `reports` = `yes`, what the programs printed is kept in `logs/implementationChecks`.
    """
    plan = _plan(task.at_hand, services)
    answers: list[_Answer] = []
    for work in plan.work.values():
        work.version = await services.commands.version(work.tool)
    async with tasks() as group:
        for work in plan.work.values():
            if _takes_many(work.command):
                group.create_task(_together(task, services, work, answers))
                continue
            for check in work.checks:
                group.create_task(_alone(task, services, work, check, answers))
    answers.sort(key=lambda answer: (answer.check.number, answer.check.order))
    if task.options.get("reports") == "yes":
        await asyncio.to_thread(_keep_reports, task, answers)
    return _told(task, plan, answers)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Check:
    """One file of the window (by its number there) that one command is run on, for its rule of this order."""

    number: int
    order: int
    file: File
    rule: Rule


@dataclass(kw_only=True, slots=True)
class _Work:
    """What one command has to do in this window."""

    command: Command
    tool: Tool
    version: str = ""
    checks: list[_Check] = field(default_factory=list)

    @property
    def program(self) -> Program:
        return Program(self.tool.name, self.version)


@dataclass(kw_only=True, slots=True)
class _Plan:
    work: dict[str, _Work] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """What came of a check: a finding, or the code and words of what kept the program from one."""

    check: _Check
    work: _Work
    finding: Finding | None = None
    detail: str = ""
    code: str = ""
    problem: str = ""
    at: datetime = field(default_factory=now)


def _plan(files: Sequence[File], services: Services) -> _Plan:
    """Say which commands are run on which files; one that stands in for two rules of a file is run once."""
    plan = _Plan()
    for number, file in enumerate(files):
        version = services.registry.version_of(file.format)
        chosen: set[str] = set()
        for order, rule in enumerate(services.registry.choose(Purpose.VALIDATION, version)):
            command = services.registry.command(rule.command)
            if command is None:
                continue
            able = services.commands.resolve(command)
            tool = services.registry.tool(able.tool if able else command.tool)
            if able is None or tool is None:
                plan.missing.add(tool.name if tool else command.tool)
            elif able.id not in chosen:
                chosen.add(able.id)
                work = plan.work.setdefault(able.id, _Work(command=able, tool=tool))
                work.checks.append(_Check(number=number, order=order, file=file, rule=rule))
    return plan


def _takes_many(command: Command) -> bool:
    """Whether one run may be for many files: the outcome of each must be in what is printed, not in the exit code."""
    reading = command.outcome
    patterns = reading and (reading.pass_pattern or reading.partial_pattern or reading.fail_pattern)
    return command.adapter is Adapter.JHOVE and command.script_type is ScriptType.COMMAND and bool(patterns)


async def _alone(task: Task, services: Services, work: _Work, check: _Check, answers: list[_Answer]) -> None:
    values = values_for(task.package, task.root, check.file)
    try:
        done = await services.commands.run(work.command, values, purpose=Purpose.VALIDATION)
        if not done.ok:
            raise done.error()
        finding = done.finding()
    except ToolError as error:
        answers.append(_Answer(check=check, work=work, code=error.code, problem=error.detail))
    except ContractError as error:
        answers.append(_Answer(check=check, work=work, code=Code.TOOL_BAD_OUTPUT, problem=str(error)))
    else:
        answers.append(_Answer(check=check, work=work, finding=finding, detail=done.event_detail))


async def _together(task: Task, services: Services, work: _Work, answers: list[_Answer]) -> None:
    """Run a program once for all files; where it does not come to the end, go on after the file that stopped it."""
    waiting = [work.checks]
    for _ in range(_RUNS):
        if not waiting:
            return
        checks = waiting.pop()
        try:
            found, problem = await _run_together(task, services, work, checks)
        except ToolError as error:
            answers += [_Answer(check=c, work=work, code=error.code, problem=error.detail) for c in checks]
            continue
        answers += found
        answered = {answer.check.number for answer in found}
        left = [check for check in checks if check.number not in answered]
        if len(checks) == 1 and left:
            answers.append(_Answer(check=left[0], work=work, code=problem.code, problem=problem.detail))
        else:
            waiting += [some for some in (left[1:], left[:1]) if some]
    rest = [check for checks in waiting for check in checks]
    detail = f"{work.tool.name} did not come to the end of the files before, {_RUNS} times"
    answers += [_Answer(check=check, work=work, code=Code.TOOL_CRASHED, problem=detail) for check in rest]


async def _run_together(
    task: Task, services: Services, work: _Work, checks: Sequence[_Check]
) -> tuple[Sequence[_Answer], ToolError]:
    """Give what was found, and the error that explains why the rest of the files, if there is any, has no finding."""
    paths = [task.at(check.file.path).absolute() for check in checks]
    # Links are made and removed in microseconds: nothing to leave the loop for.
    with jhove.told(paths, services.pool.home()) as links:
        run = await services.commands.run_on_all(work.command, links)
        reports = {
            number: report.replace(str(links[number]).encode(), _in_xml(checks[number].file.path))
            for number, report in jhove.reports(run.stdout).items()
        }
    found = [_read(work, checks[number], run, report) for number, report in reports.items()]
    said = jhove.trouble(run.stdout) or ("" if run.stopped or not run.ok else "said nothing of the file")
    bad = Code.TOOL_BAD_OUTPUT if said else None
    return found, run.error(work.tool.name, work.version, code=bad, detail=said)


def _in_xml(path: str) -> bytes:
    return escape(escape_name(path), {'"': "&quot;"}).encode()


def _read(work: _Work, check: _Check, run: Run, report: bytes) -> _Answer:
    """Read one file's outcome off its part of the print, as the command reads it off a run for that file alone."""
    assert work.command.outcome is not None  # noqa: S101  or it would not take many files
    try:
        alone = replace(run, exit_code=0, signal=None, stopped=Stop.NO, stdout=report, stderr_tail="")
        finding = read_off(work.command.outcome, alone)
    except ContractError as error:
        return _Answer(check=check, work=work, code=Code.TOOL_BAD_OUTPUT, problem=str(error))
    return _Answer(check=check, work=work, finding=finding, detail=work.program.words())


def _told(task: Task, plan: _Plan, answers: Sequence[_Answer]) -> Outcome:
    events: list[Event] = []
    warnings = [_missing(name) for name in sorted(plan.missing)]
    for answer in answers:
        file, name, finding = answer.check.file, answer.work.tool.name, answer.finding
        if finding is None:
            said = f"{name} could not check the file: {_plain(task, answer.problem, _TOLD_CHARACTERS)}"
            warnings.append(Warning_(code=answer.code, detail=said, path=escape_name(file.path)))
            continue
        note = _plain(task, finding.note, _NOTE_CHARACTERS)
        events.append(
            Event(
                object=file.id,
                type=EventType.VALIDATION,
                at=answer.at,
                detail=answer.detail,
                outcome=finding.outcome,
                note=note,
                programs=[answer.work.program],
            )
        )
        if finding.outcome is EventOutcome.FAIL:
            said = f"{name}: {note[:_TOLD_CHARACTERS] or 'not valid'}"
            warnings.append(Warning_(code=FAILED, detail=said, path=escape_name(file.path)))
    uses = {
        work.tool.name: ToolUse(name=work.tool.name, version=work.version, used_for="validation")
        for work in plan.work.values()
    }
    rules = [
        RuleUse(rule=answer.check.rule.id, command=answer.check.rule.command, ok=answer.finding is not None)
        for answer in answers
    ]
    facts = Facts(events=events, warnings=warnings, rules=rules)
    return Outcome(facts=facts, tools=list(uses.values()), now_with=", ".join(uses))


def _missing(name: str) -> Warning_:
    detail = f"{name} is not installed: files that it should check are not validated with it"
    return Warning_(code=Code.TOOL_NOT_INSTALLED, detail=detail)


def _plain(task: Task, text: str, most: int) -> str:
    """Leave the folders of this server out of what a program said, and shorten it."""
    text = text.replace(f"{task.root.absolute()}/", "")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _keep_reports(task: Task, answers: Sequence[_Answer]) -> None:
    folder = task.at(REPORTS)
    for answer in answers:
        report = answer.finding.report.strip() if answer.finding else ""
        if not report:
            continue
        path = answer.check.file.path
        name = safe_name(Path(path).name)[:_NAME_CHARACTERS]
        extension = "xml" if report.startswith("<") else "txt"
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{name}-{answer.check.file.id}-{safe_name(answer.work.command.id)}.{extension}"
        text = report.replace(f"{task.root.absolute()}/", "")
        place.write_text(f"{text}\n", encoding="utf-8", errors="replace")
