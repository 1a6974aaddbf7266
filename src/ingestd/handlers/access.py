"""What a DIP is made of: access copies and thumbnails, by the registry's rules, or as they were supplied.

Each is a file of the package below `DIP`, derived from its original, with the events that made it. Nothing of it
becomes part of the AIP, whose METS says nothing of it, as Archivematica's does not.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath

from ingestd.derivatives import (
    MANUAL,
    STEM_CHARACTERS,
    Made,
    Maker,
    NotMade,
    Order,
    Recorded,
    created,
    recorded,
    rule_uses,
    with_its_maildir,
)
from ingestd.errors import SystemFault
from ingestd.fixity import digest_now
from ingestd.fpr.records import Command, Purpose, Rule
from ingestd.fpr.registry import Registry
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import DIP, Facts, File, FileUse, Warning_, escape_name
from ingestd.premis import Digest, Event, EventType, Program, now


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """What is made for a DIP. `loss` is what files go without whose tool is not there."""

    purpose: Purpose
    use: FileUse
    folder: str
    link: str
    loss: str
    used_for: str


_ACCESS = _Kind(
    purpose=Purpose.ACCESS,
    use=FileUse.ACCESS,
    folder=f"{DIP}/objects",
    link="Make access copies",
    loss="files that it should normalize have no access copy of its making",
    used_for="access copies",
)
_THUMBNAIL = _Kind(
    purpose=Purpose.THUMBNAIL,
    use=FileUse.THUMBNAIL,
    folder=f"{DIP}/thumbnails",
    link="Make thumbnails",
    loss="files that it should picture have no thumbnail of its making",
    used_for="thumbnails",
)


async def normalize_for_access(task: Task, services: Services) -> Outcome:
    """Make `DIP/objects/<original's UUID>-<name>` of every original of the window.

    An access copy that came with the transfer is taken as it is. Otherwise the rule for the service copy is followed,
    where there is one, or for the original; the default rule where there is no other, or where it failed. Messages of a
    maildir have none but the mbox of the whole.
    """
    return await _provide(task, services, _ACCESS, defaults=True)


async def make_thumbnails(task: Task, services: Services) -> Outcome:
    """Make `DIP/thumbnails/<original's UUID>.jpg` of every original of the window; rules as for access copies.

    With the option `mode` = `without_defaults`, what has no rule of its own, or could not be pictured, has none.
    """
    return await _provide(task, services, _THUMBNAIL, defaults=task.options.get("mode") != "without_defaults")


async def _provide(task: Task, services: Services, kind: _Kind, *, defaults: bool) -> Outcome:
    work = _Work(task, services, kind, defaults=defaults)
    known = await task.history.derivatives([file.id for file in task.files])
    provided = [
        await work.begin(file, [copy for copy in known.get(file.id, ()) if not copy.path.startswith(f"{DIP}/")])
        for file in task.files
    ]
    while waiting := [one for one in provided if one.rules and not one.facts]:
        await work.go_on(waiting)
    tried = [pair for one in provided for pair in one.tried]
    facts = Facts(
        files=[one.facts.file for one in provided if one.facts],
        events=[event for one in provided if one.facts for event in one.facts.events],
        warnings=[warning for one in provided for warning in one.warnings],
        rules=rule_uses((order for order, _ in tried), (answer for _, answer in tried)),
    )
    used = {(made.tool, made.tool_version) for _, made in tried if isinstance(made, Made)}
    tools = [ToolUse(name=name, version=version, used_for=kind.used_for) for name, version in sorted(used)]
    return Outcome(facts=facts, tools=tools, now_with=", ".join(tool.name for tool in tools))


@dataclass(kw_only=True, slots=True)
class _Provided:
    """How far one original is: the file that was made, if any, what was tried, and what failed on the way.

    `source` is what is read; `rules` are those that are left to try.
    """

    file: File
    source: File
    rules: Sequence[tuple[Rule, Command]] = ()
    facts: Recorded | None = None
    tried: list[tuple[Order, Made | NotMade]] = field(default_factory=list)
    warnings: list[Warning_] = field(default_factory=list)


class _Work:
    """The work of one window."""

    def __init__(self, task: Task, services: Services, kind: _Kind, *, defaults: bool) -> None:
        self._task = task
        self._kind = kind
        self._defaults = defaults
        self._registry = services.registry
        self._algorithm = services.settings.digest_algorithm
        self._at_once = services.settings.tools.processes
        self._maker = Maker.of(
            services.settings,
            services.commands,
            package=task.package,
            folder=task.folder,
            root=task.root,
            files=len(task.files),
        )

    async def begin(self, file: File, copies: Sequence[File]) -> _Provided:
        """Take what came with the transfer, or find the rules to try."""
        supplied = next((copy for copy in copies if copy.use is self._kind.use), None)
        if supplied is not None:
            return _Provided(file=file, source=file, facts=await asyncio.to_thread(self._taken, file, supplied))
        source = next((copy for copy in copies if copy.use is FileUse.SERVICE), file)
        task, purpose = self._task, self._kind.purpose
        if with_its_maildir(self._registry, task.package, task.root, file, purpose):
            return _Provided(file=file, source=source)
        rules = _chosen(self._registry, purpose, source, defaults=self._defaults)
        return _Provided(file=file, source=source, rules=rules)

    async def go_on(self, waiting: Sequence[_Provided]) -> None:
        """Try the next rule of each: its own, or the default after that failed."""
        orders = [self._order(one) for one in waiting]
        answers = await self._maker.make_all(orders, at_once=self._at_once)
        for one, order, answer in zip(waiting, orders, answers, strict=True):
            one.rules = one.rules[1:]
            one.tried.append((order, answer))
            if isinstance(answer, NotMade):
                one.warnings.append(answer.warning(one.file, self._kind.link, self._kind.loss))
                continue
            facts = recorded(answer, f"{self._kind.folder}/{answer.path.name}", one.file, self._kind.use)
            one.facts = replace(
                facts, events=(_normalized(facts.file, answer.detail, answer.at, [answer.program]), *facts.events)
            )

    def _order(self, one: _Provided) -> Order:
        rule, command = one.rules[0]
        return Order(
            # An access system finds the original by what the copy's name begins with.
            file=replace(one.source, id=one.file.id),
            path=self._task.at(one.source.path),
            purpose=self._kind.purpose,
            command=command,
            folder=self._task.at(self._kind.folder),
            rule=rule.id,
        )

    def _taken(self, file: File, supplied: File) -> Recorded:
        """Copy what came with the transfer."""
        source = PurePosixPath(supplied.path)
        stem = PurePosixPath(file.path).stem[:STEM_CHARACTERS]
        path = f"{self._kind.folder}/{file.id}-{stem}{source.suffix}"
        _copy(self._task.at(supplied.path), self._task.at(path))
        value = digest_now(self._task.at(path), (self._algorithm,))[self._algorithm]
        if supplied.digest and supplied.digest.algorithm is self._algorithm and supplied.digest.value != value:
            raise SystemFault(f"{escape_name(supplied.path)} is not what was received: {self._algorithm} {value}")
        id_ = uuid.uuid5(file.id, f"{self._kind.purpose}:{supplied.id}")
        digest = Digest(algorithm=self._algorithm, value=value, calculated_at=now())
        copy = replace(
            supplied, id=id_, path=path, original=path, digest=digest, format=None, derived_from=file.id, row=0
        )
        return Recorded(file=copy, events=(_normalized(copy, MANUAL, digest.calculated_at), *created(id_, digest)))


def _chosen(registry: Registry, purpose: Purpose, file: File, *, defaults: bool) -> Sequence[tuple[Rule, Command]]:
    """Give the rules to try, each command once."""
    own = registry.rules(purpose, registry.version_of(file.format))[:1]
    rules: dict[str, Rule] = {}
    for rule in [*own, *(registry.default_rules(purpose) if defaults else ())]:
        rules.setdefault(rule.command, rule)
    return [(rule, command) for name, rule in rules.items() if (command := registry.command(name))]


def _normalized(copy: File, detail: str, at: datetime, programs: Sequence[Program] = ()) -> Event:
    """Say it of the copy: it is nothing that happened to the original in the AIP."""
    note = f"%SIPDirectory%{escape_name(copy.path)}"
    return Event(object=copy.id, type=EventType.NORMALIZATION, at=at, detail=detail, note=note, programs=programs)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    passing = target.with_name(f".{target.name}")
    shutil.copyfile(source, passing)
    passing.replace(target)
