"""Rights: what the request says, and what `metadata/rights.csv` says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ingestd.config import RightsRules
from ingestd.errors import Violation
from ingestd.job import Outcome, Services, Task
from ingestd.metadata.rights import FILE, OF_REQUEST, Doubt, RightsTable, lost
from ingestd.metadata.tables import LISTED, invalid
from ingestd.oais import Facts, FileUse, RightsClaim, Warning_
from ingestd.premis import RightsStatement
from ingestd.references import Found, find, mended

INCOMPLETE = "content.rights_incomplete"
OVERRIDDEN = "content.rights_overridden"
WITHOUT_FILES = "content.rights_without_files"
_WINDOW = 256
_Item = RightsClaim | Violation | Doubt


async def rights_from_csv(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Read the rights that the request states, and those of `rights.csv`.

    A row about a folder is about each file in it, one about `objects` about the package. Where the request says
    something of the same thing with the same basis, the row is left out, with a warning. Every wrong row is listed
    (`content.metadata_invalid`): also what is about something that is not in the transfer. What Archivematica would
    lose or write half is a warning; with the setting `metadata.rights_rules = strict` it is wrong.
    """
    stated = await _stated(task)
    async for outcome in _recorded(task, task.package.rights, stated, task.cursor):
        yield outcome
    file = await task.history.file_at(FILE)
    if file is None:
        return
    path, strict = task.at(FILE), services.settings.metadata.rights_rules is RightsRules.STRICT
    violations = await _violations(task, path, strict=strict)
    if violations:
        raise invalid(FILE, violations)
    facts = await mended(path, file)
    if facts is not None:
        yield Outcome(facts=facts, cursor=task.cursor)
    async for outcome in _rows(task, path, strict=strict):
        yield outcome


async def _stated(task: Task) -> Sequence[Found]:
    """What the request's rights are about. Raises `ContentError` where that is not in the transfer."""
    found = await find(task.history, task.package.id, [claim.paths for claim in task.package.rights])
    pairs = enumerate(zip(task.package.rights, found, strict=True))
    wrong = [lost(claim, number) for number, (claim, one) in pairs if one is None]
    if wrong:
        raise invalid(OF_REQUEST, wrong)
    return [one for one in found if one is not None]


async def _violations(task: Task, path: Path, *, strict: bool) -> list[Violation]:
    """The first of all that is wrong with the file, in the order of its lines."""
    violations: list[Violation] = []
    async for items in _windows(RightsTable(path=path, strict=strict).rows()):
        wrong = [item for item in items if isinstance(item, Violation)]
        claims = [item for item in items if isinstance(item, RightsClaim)]
        found = await find(task.history, task.package.id, [claim.paths for claim in claims])
        wrong += [lost(claim) for claim, one in zip(claims, found, strict=True) if one is None]
        violations += sorted(wrong, key=_line)
        if len(violations) >= LISTED:
            break
    return violations[:LISTED]


def _line(violation: Violation) -> int:
    line = violation.path.removeprefix(f"{FILE}:").partition(":")[0]
    return int(line) if line.isdigit() else 0


async def _rows(task: Task, path: Path, *, strict: bool) -> AsyncIterator[Outcome]:
    table = RightsTable(path=path, strict=strict)
    if table.table.warnings():
        yield Outcome(facts=Facts(warnings=table.table.warnings()), cursor=task.cursor)
    said = {
        (one.id, claim.statement.basis) for claim, one in zip(task.package.rights, await _stated(task), strict=True)
    }
    cursor = task.cursor
    async for items in _windows(table.rows()):
        new = [item for item in items if not isinstance(item, RightsClaim) or item.line > task.cursor]
        claims = [item for item in new if isinstance(item, RightsClaim)]
        found = await find(task.history, task.package.id, [claim.paths for claim in claims])
        pairs = [(claim, one) for claim, one in zip(claims, found, strict=True) if one is not None]
        overridden = [claim for claim, one in pairs if (one.id, claim.statement.basis) in said]
        kept = [(claim, one) for claim, one in pairs if (one.id, claim.statement.basis) not in said]
        doubts = [item for item in new if isinstance(item, Doubt)]
        warnings = [*map(_doubted, doubts), *map(_overridden, overridden)]
        async for outcome in _recorded(task, [claim for claim, _ in kept], [one for _, one in kept], cursor):
            yield outcome
        cursor = claims[-1].line if claims else cursor
        yield Outcome(facts=Facts(warnings=warnings), cursor=cursor)


def _doubted(doubt: Doubt) -> Warning_:
    said = doubt.violation
    detail = f"{said.path.removeprefix(FILE + ':')} {said.rule}: {said.actual}; expected {said.expected}"
    return Warning_(code=INCOMPLETE, detail=detail, path=FILE)


def _overridden(claim: RightsClaim) -> Warning_:
    detail = f"line {claim.line} is left out: the request says what {claim.statement.basis.lower()} rights there are"
    return Warning_(code=OVERRIDDEN, detail=detail, path=FILE)


async def _recorded(
    task: Task, claims: Sequence[RightsClaim], found: Sequence[Found], cursor: int
) -> AsyncIterator[Outcome]:
    """Give the rights of files and of the package as they are, those of a folder as rights of each file in it.

    The cursor stays where it is: recording a right again changes nothing.
    """
    direct = [
        replace(claim.statement, object=one.id)
        for claim, one in zip(claims, found, strict=True)
        if one.directory is None
    ]
    if direct:
        yield Outcome(facts=Facts(rights=direct), cursor=cursor)
    for claim, one in zip(claims, found, strict=True):
        if one.directory is not None:
            async for outcome in _of_folder(task, claim, one.directory.path, cursor):
                yield outcome


async def _of_folder(task: Task, claim: RightsClaim, folder: str, cursor: int) -> AsyncIterator[Outcome]:
    some = False
    async for files in task.history.files(under=folder, uses=(FileUse.ORIGINAL,), window=_WINDOW):
        some = some or bool(files)
        rights: list[RightsStatement] = [replace(claim.statement, object=file.id) for file in files]
        yield Outcome(facts=Facts(rights=rights), cursor=cursor)
    if not some:
        detail = f"line {claim.line} is about a folder without files" if claim.line else "rights of an empty folder"
        yield Outcome(
            facts=Facts(warnings=[Warning_(code=WITHOUT_FILES, detail=detail, path=claim.paths[0])]), cursor=cursor
        )


async def _windows(items: Iterator[_Item]) -> AsyncIterator[list[_Item]]:
    while some := await asyncio.to_thread(lambda: list(itertools.islice(items, _WINDOW))):
        yield some
