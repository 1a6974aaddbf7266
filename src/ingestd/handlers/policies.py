"""Policy checks: files held against a site's MediaConch policies, and the policies kept with what they were used on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from xml.sax.saxutils import escape

from ingestd.errors import Code, SystemFault, ToolError
from ingestd.fixity import digest_now
from ingestd.fpr.contracts import ContractError, Finding, check_xml
from ingestd.fpr.records import Command, Purpose, Rule, Tool
from ingestd.fpr.registry import Registry
from ingestd.fpr.variables import values_for
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Directory, Facts, File, FileUse, RuleUse, Warning_, escape_name, safe_name
from ingestd.premis import Digest, DigestAlgorithm, Event, EventOutcome, EventType, Program, now
from ingestd.together import tasks

FAILED = "policy_check.failed"
REPORTS = "logs/policyChecks"
KEPT = "metadata/submissionDocumentation/policies"
SHIPPED = "mediaconch-policies"
"""The registry's command for the policies of the folder. It is told one at a time: each has its event and report."""
GROUPS = frozenset({"audio", "video"})
"""Format groups that are held against the policies of the folder, where a format has no rule of its own."""
_NOTE_CHARACTERS = 2000
_TOLD_CHARACTERS = 300
_NAME_CHARACTERS = 150


async def policy_check(task: Task, services: Services) -> Outcome:
    """Hold files against policies: those of the folder that the setting `policies` names, and the registry's rules.

    Sound and film are held against every policy of the folder, and of the folder in it that is called after what they
    are (option `use`: `original`, `preservation`, `access`), whose policies take the place of others of their name; a
    format with `policy_check` rules against what those say. Each check is a `validation` event with program and policy,
    `pass` or `fail`; `fail` is a warning besides (`policy_check.failed`). Reports go to `logs/policyChecks/POLICY/`,
    and a policy that was used is a file of the package: below `metadata/submissionDocumentation/policies`, so this goes
    before that folder takes its place.

    Raises `SystemFault` (`system.configuration`) for a folder that cannot be read, or holds what is not a policy.
    """
    policies = await asyncio.to_thread(_read_policies, services.settings.policies, task.options.get("use", ""))
    plan = _plan(task.at_hand, policies, services)
    answers: list[_Answer] = []
    with TemporaryDirectory(prefix="policies-", dir=services.pool.home()) as scratch:
        folders = await asyncio.to_thread(_lay_out, Path(scratch), policies)
        for tool in {check.tool.id: check.tool for check in plan.checks}.values():
            await services.commands.version(tool)
        async with tasks() as group:
            for check in plan.checks:
                folder = folders[check.policy.name] if check.policy else services.settings.policies
                group.create_task(_run(task, services, check, str(folder or ""), answers))
    answers.sort(key=lambda answer: answer.check.order)
    await asyncio.to_thread(_keep_reports, task, answers)
    kept = await _keep_policies(task, services.settings.digest_algorithm, answers, policies)
    return _told(task, plan, answers, kept)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Policy:
    name: str
    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Check:
    """One command to be run on one file, with one policy of the folder, or as a rule of the registry has it."""

    order: int
    file: File
    command: Command
    tool: Tool
    rule: Rule | None = None
    policy: _Policy | None = None


@dataclass(kw_only=True, slots=True)
class _Plan:
    checks: list[_Check] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    check: _Check
    version: str
    detail: str = ""
    finding: Finding | None = None
    code: str = ""
    problem: str = ""
    at: datetime = field(default_factory=now)

    @property
    def policy(self) -> str:
        """The name of the policy, or what the command of a rule says is one."""
        if self.check.policy:
            return self.check.policy.name
        return (self.finding.policy if self.finding else "") or self.check.command.id


def _read_policies(folder: Path | None, use: str) -> Sequence[_Policy]:
    if folder is None:
        return ()
    policies = _policies_in(folder)
    if use and (folder / use).is_dir():
        policies |= _policies_in(folder / use)
    for policy in policies.values():
        try:
            check_xml(policy.content)
        except ContractError as error:
            raise _unusable(policy.name, str(error)) from error
    return [policies[name] for name in sorted(policies)]


def _policies_in(folder: Path) -> dict[str, _Policy]:
    try:
        paths = [path for path in folder.iterdir() if path.suffix == ".xml" and not path.name.startswith(".")]
        return {path.name: _Policy(name=path.name, content=path.read_bytes()) for path in paths if path.is_file()}
    except OSError as error:
        raise _unusable(folder.name, error.strerror or str(error)) from error


def _unusable(name: str, why: str) -> SystemFault:
    return SystemFault(
        f"no policy was checked: {name}: {why}",
        code=Code.SYSTEM_CONFIGURATION,
        remediation="Let the setting `policies` name a folder whose .xml files are MediaConch policies.",
    )


def _plan(files: Sequence[File], policies: Sequence[_Policy], services: Services) -> _Plan:
    plan = _Plan()
    for file in files:
        for rule, command, policy in _wanted(file, policies, services.registry):
            able = services.commands.resolve(command)
            tool = services.registry.tool(able.tool if able else command.tool)
            if able is None or tool is None:
                plan.missing.add(tool.name if tool else command.tool)
                continue
            plan.checks.append(
                _Check(order=len(plan.checks), file=file, command=able, tool=tool, rule=rule, policy=policy)
            )
    return plan


def _wanted(
    file: File, policies: Sequence[_Policy], registry: Registry
) -> Sequence[tuple[Rule | None, Command, _Policy | None]]:
    """Give the commands for a file, each with its rule, if it has one, and with the policy that it is told, or None
    where that is the rule's affair.
    """
    version = registry.version_of(file.format)
    chosen: list[tuple[Rule | None, str]] = [
        (rule, rule.command) for rule in registry.rules(Purpose.POLICY_CHECK, version)
    ]
    group = registry.group_of(version) if version and not chosen else None
    if group and group.id in GROUPS:
        chosen = [(None, SHIPPED)]
    commands = [(rule, command) for rule, name in chosen if (command := registry.command(name))]
    shipped = registry.command(SHIPPED)
    return [
        (rule, command, policy)
        for rule, command in commands
        for policy in (policies if shipped and command.id == shipped.id else (None,))
    ]


def _lay_out(scratch: Path, policies: Sequence[_Policy]) -> dict[str, Path]:
    """Give each policy a folder of its own."""
    folders = {policy.name: scratch / str(number) for number, policy in enumerate(policies)}
    for policy in policies:
        folders[policy.name].mkdir()
        (folders[policy.name] / policy.name).write_bytes(policy.content)
    return folders


async def _run(task: Task, services: Services, check: _Check, folder: str, answers: list[_Answer]) -> None:
    values = {**values_for(task.package, task.root, check.file), "policiesDirectory": folder}
    version = await services.commands.version(check.tool)
    try:
        done = await services.commands.run(check.command, values, purpose=Purpose.POLICY_CHECK)
        if not done.ok:
            said = done.run.stderr_tail.strip().splitlines()
            raise done.run.error(check.tool.name, version, detail=": ".join([done.problem, *said[-1:]]))
        finding = done.finding()
    except ToolError as error:
        answers.append(_Answer(check=check, version=version, code=error.code, problem=error.detail))
    except ContractError as error:
        answers.append(_Answer(check=check, version=version, code=Code.TOOL_BAD_OUTPUT, problem=str(error)))
    else:
        answers.append(_Answer(check=check, version=version, detail=done.event_detail, finding=finding))


def _told(task: Task, plan: _Plan, answers: Sequence[_Answer], kept: Facts) -> Outcome:
    events: list[Event] = []
    warnings = [_missing(name) for name in sorted(plan.missing)]
    for answer in answers:
        file, name, finding = answer.check.file, answer.check.tool.name, answer.finding
        if finding is None:
            said = f"{name} could not check {answer.policy}: {_plain(task, answer.problem)[:_TOLD_CHARACTERS]}"
            warnings.append(Warning_(code=answer.code, detail=said, path=escape_name(file.path)))
            continue
        note = _plain(task, finding.note)[:_NOTE_CHARACTERS]
        events.append(
            Event(
                object=file.id,
                type=EventType.VALIDATION,
                at=answer.at,
                detail=f'{answer.detail}; policy="{answer.policy}"',
                outcome=finding.outcome,
                note=note,
                programs=[Program(answer.check.tool.name, answer.version)],
            )
        )
        if finding.outcome is EventOutcome.FAIL:
            said = f"{answer.policy}: {note[:_TOLD_CHARACTERS] or 'not kept'}"
            warnings.append(Warning_(code=FAILED, detail=said, path=escape_name(file.path)))
    uses = {
        answer.check.tool.name: ToolUse(name=answer.check.tool.name, version=answer.version, used_for="policy check")
        for answer in answers
    }
    rules = [
        RuleUse(rule=rule.id, command=rule.command, ok=answer.finding is not None)
        for answer in answers
        if (rule := answer.check.rule)
    ]
    facts = Facts(events=events, warnings=warnings, rules=rules, files=kept.files, directories=kept.directories)
    return Outcome(facts=facts, tools=list(uses.values()), now_with=", ".join(uses))


def _missing(name: str) -> Warning_:
    detail = f"{name} is not installed: files are not held against policies with it"
    return Warning_(code=Code.TOOL_NOT_INSTALLED, detail=detail)


def _plain(task: Task, text: str) -> str:
    return text.replace(f"{task.root.absolute()}/", "")


# --- what is kept ----------------------------------------------------------------------------------------------------


def _keep_reports(task: Task, answers: Sequence[_Answer]) -> None:
    """Write what was printed, one file for each file and policy; a report holds no path of this server."""
    for answer in answers:
        report = answer.finding.report.strip() if answer.finding else ""
        if not report:
            continue
        file = answer.check.file
        folder = task.at(REPORTS) / safe_name(PurePosixPath(answer.policy).stem)[:_NAME_CHARACTERS]
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{safe_name(PurePosixPath(file.path).name)[:_NAME_CHARACTERS]}-{file.id}"
        place = folder / f"{name}.{'xml' if report.startswith('<') else 'txt'}"
        root = f"{task.root.absolute()}/"
        text = report.replace(escape(root, {'"': "&quot;"}), "").replace(root, "")
        place.write_text(f"{text}\n", encoding="utf-8", errors="replace")


async def _keep_policies(
    task: Task, algorithm: DigestAlgorithm, answers: Sequence[_Answer], policies: Sequence[_Policy]
) -> Facts:
    """Make the policies that were used files of the package, if they are not yet."""
    used = {answer.policy for answer in answers if answer.finding}
    files: list[File] = []
    for policy in policies:
        if policy.name in used:
            files += await _keep_policy(task, algorithm, policy)
    if not files:
        return Facts()
    parents = [str(parent) for parent in reversed(PurePosixPath(files[0].path).parents[:-1])]
    taken = await task.history.taken(parents)
    return Facts(files=files, directories=[Directory(path=p, original=p) for p in parents if p not in taken])


async def _keep_policy(task: Task, algorithm: DigestAlgorithm, policy: _Policy) -> Sequence[File]:
    """Give the record of a policy, none if it is recorded; what the submitter has under its name is left alone."""
    digest = hashlib.sha256(policy.content).hexdigest()[:8]
    name = PurePosixPath(safe_name(policy.name))
    for path in (f"{KEPT}/{name}", f"{KEPT}/{name.stem[:_NAME_CHARACTERS]}-{digest}.xml"):
        place = task.at(path)
        if await asyncio.to_thread(_put, task, place, policy.content):
            if await task.history.file_at(path) is not None:
                return ()
            value = (await asyncio.to_thread(digest_now, place, (algorithm,)))[algorithm]
            record = File(
                id=uuid.uuid5(task.package.request_id or task.package.id, f"file:{path}"),
                path=path,
                original=path,
                use=FileUse.SUBMISSION_DOCUMENTATION,
                size_bytes=len(policy.content),
                digest=Digest(algorithm=algorithm, value=value, calculated_at=now()),
            )
            return (record,)
    raise SystemFault(f"{KEPT} already has other policies called {name}")


def _put(task: Task, place: Path, content: bytes) -> bool:
    """Write a file, unless one is there; say whether it has this content. It is there complete, or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(place):
        return place.is_file() and not place.is_symlink() and place.read_bytes() == content
    passing = task.folder / f"policy-{uuid.uuid4()}"
    passing.write_bytes(content)
    passing.rename(place)
    return True
