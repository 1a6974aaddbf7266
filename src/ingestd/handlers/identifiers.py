"""Identifiers for files and directories, and the events that say how files came in."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime

from ingestd.errors import Violation
from ingestd.job import UNPACKED_BY, Outcome, Services, Task
from ingestd.metadata.identifiers import FILE, Named, read
from ingestd.metadata.tables import LISTED, invalid
from ingestd.oais import Facts, File, FileUse, Warning_, escape_name
from ingestd.premis import Event, EventType, Identifier, Program, now
from ingestd.references import find, mended

OVERRIDDEN = "content.identifiers_overridden"
UNMATCHED = "content.metadata_unmatched"
_WINDOW = 256


async def assign_uuids_to_directories(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Give every directory among the objects a UUID: v5 of the package and the directory's original path."""
    async for directories in task.history.directories(under="objects"):
        new = [
            replace(d, id=uuid.uuid5(task.package.id, f"directory:{escape_name(d.original)}"))
            for d in directories
            if d.id is None
        ]
        if new:
            yield Outcome(facts=Facts(directories=new))


async def assign_file_uuids(task: Task, services: Services) -> Outcome:
    """Say that each file came in: `ingestion`, and `registration` where there is an accession number.

    The UUID itself is given when a file is received, as v5 of the package and the original path.
    """
    known = await task.history.facts()
    unpacked_by = [Program(*words) for words in json.loads(known.get(UNPACKED_BY, "[]"))]
    events = [
        Event(
            object=file.id,
            type=EventType.INGESTION,
            at=_received_at(file),
            programs=unpacked_by if file.use is FileUse.ORIGINAL else (),
        )
        for file in task.came_now
    ]
    if task.package.accession:
        note = f"accession#{task.package.accession}"
        events += [
            Event(object=file.id, type=EventType.REGISTRATION, at=_received_at(file), note=note)
            for file in task.came_now
            if file.use is FileUse.ORIGINAL
        ]
    return Outcome(facts=Facts(events=events))


async def load_identifiers(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Read the package's identifiers from the request, and those of files, folders and the package from
    `metadata/identifiers.json`.

    Of the package's identifiers of one type the request's are right, and those of the file left out with a warning. An
    item about something that is not in the transfer is a warning; every item that cannot be used is listed
    (`content.metadata_invalid`).
    """
    own = [Identifier(object=task.package.id, type=kind, value=value) for kind, value in task.package.identifiers]
    if own:
        yield Outcome(facts=Facts(identifiers=own), cursor=task.cursor)
    file = await task.history.file_at(FILE)
    if file is None:
        return
    path = task.at(FILE)
    faults = (item for item in read(path) if isinstance(item, Violation))
    violations = await asyncio.to_thread(lambda: list(itertools.islice(faults, LISTED)))
    if violations:
        raise invalid(FILE, violations)
    facts = await mended(path, file)
    if facts is not None:
        yield Outcome(facts=facts, cursor=task.cursor)
    items = (item for item in read(path) if isinstance(item, Named) and item.number > task.cursor)
    while window := await asyncio.to_thread(lambda: list(itertools.islice(items, _WINDOW))):
        yield await _named(task, window)


async def _named(task: Task, items: Sequence[Named]) -> Outcome:
    stated = {kind for kind, _ in task.package.identifiers}
    identifiers: list[Identifier] = []
    directories, warnings = [], []
    found = await find(task.history, task.package.id, [[item.path] for item in items])
    for item, one in zip(items, found, strict=True):
        if one is None:
            detail = f"item {item.number} (line {item.line}) is about something that is not in the transfer"
            warnings.append(Warning_(code=UNMATCHED, detail=detail, path=escape_name(item.path)))
            continue
        if one.directory is not None:
            directories.append(one.directory)
        for kind, value in item.identifiers:
            if one.id == task.package.id and kind in stated and (kind, value) not in task.package.identifiers:
                detail = f"the {kind} {value} is left out: the request says the package's {kind}"
                warnings.append(Warning_(code=OVERRIDDEN, detail=detail, path=FILE))
            else:
                identifiers.append(Identifier(object=one.id, type=kind, value=value))
    facts = Facts(directories=directories, identifiers=identifiers, warnings=warnings)
    return Outcome(facts=facts, cursor=items[-1].number)


def _received_at(file: File) -> datetime:
    return file.digest.calculated_at if file.digest else now()
