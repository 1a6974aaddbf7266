"""Normalization for preservation by the registry's rules.

The original is always kept. What could not be normalized is a warning that names the file; a program that is not
installed is one warning for all that it should have done.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ingestd.derivatives import (
    Made,
    Maker,
    NotMade,
    Order,
    made_before,
    recorded,
    replaced,
    rule_for,
    rule_uses,
    with_its_maildir,
)
from ingestd.fpr.records import Purpose
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Facts, File, FileUse, Warning_
from ingestd.premis import Event, EventType

LINK = "Normalize for preservation"
_LOSS = "files that it should normalize have no preservation copy"


async def normalize(task: Task, services: Services) -> Outcome:
    """Make the preservation copies that the registry has rules for, beside their originals.

    A file that has a preservation copy, supplied with the transfer, gets no other one, and a message of a maildir none
    but the mbox of the whole. In a reingest, one that was made before is removed (`deletion`) once it is made anew. The
    original's `normalization` event names the command and, in its note, the copy.
    """
    maker = Maker.of(
        services.settings,
        services.commands,
        package=task.package,
        folder=task.folder,
        root=task.root,
        files=len(task.files),
    )
    known = await task.history.derivatives([file.id for file in task.files])
    former = await made_before(task.history, task.package, known, FileUse.PRESERVATION)
    orders = [
        Order(
            file=file,
            path=task.at(file.path),
            purpose=Purpose.PRESERVATION,
            command=command,
            folder=task.at(file.path).parent,
            rule=rule.id,
            replaces=former.get(file.id, ()),
        )
        for file in task.files
        if (rule := rule_for(services.registry, Purpose.PRESERVATION, file))
        and (command := services.registry.command(rule.command))
        and not any(
            copy.use is FileUse.PRESERVATION and copy not in former.get(file.id, ()) for copy in known.get(file.id, ())
        )
        and not with_its_maildir(services.registry, task.package, task.root, file, Purpose.PRESERVATION)
    ]
    answers = await maker.make_all(orders, at_once=services.settings.tools.processes)
    files: list[File] = []
    events: list[Event] = []
    warnings: list[Warning_] = []
    for order, answer in zip(orders, answers, strict=True):
        if isinstance(answer, NotMade):
            warnings.append(answer.warning(order.file, LINK, _LOSS))
            continue
        facts = recorded(answer, _beside(order.file, answer.path), order.file, FileUse.PRESERVATION)
        gone, deletions = replaced(order, answer)
        files += [*gone, facts.file]
        events += [*deletions, _normalized(order.file, answer, facts.file.path), *facts.events]
    return Outcome(
        facts=Facts(files=files, events=events, warnings=warnings, rules=rule_uses(orders, answers)),
        tools=_tools(answers, "normalization"),
        now_with=", ".join(sorted({answer.tool for answer in answers})),
    )


def _beside(file: File, place: Path) -> str:
    return str(PurePosixPath(file.path).with_name(place.name))


def _normalized(original: File, made: Made, path: str) -> Event:
    note = f"%SIPDirectory%{path}"
    return Event(
        object=original.id,
        type=EventType.NORMALIZATION,
        at=made.at,
        detail=made.detail,
        note=note,
        programs=[made.program],
    )


def _tools(answers: Sequence[Made | NotMade], used_for: str) -> Sequence[ToolUse]:
    used = {(answer.tool, answer.tool_version) for answer in answers if isinstance(answer, Made)}
    return [ToolUse(name=name, version=version, used_for=used_for) for name, version in sorted(used)]
