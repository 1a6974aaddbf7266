"""The records of an AIP that is reingested: read from its METS, and what is said anew told from what was said before.

What had been done before stays as the METS tells it; only what the request brings, or a fuller reingest does again, is
new.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from ingestd.aip.restoring import METS_BEFORE, Restoring, agent, is_package, received_as
from ingestd.fixity import digest_file
from ingestd.job import CONTENT, Outcome, Services, Task
from ingestd.mets import ReadAgent, ReadDescription, ReadEntity, ReadFile, Record, read, unfit_premis
from ingestd.oais import (
    KEPT,
    Description,
    DescriptionStatus,
    Directory,
    Facts,
    File,
    Reingest,
    Section,
    Warning_,
    escape_name,
)
from ingestd.premis import Agent, Digest, Event, EventType, now, since_reingestion

_OBJECTS = "objects"
_WINDOW = 64
_DIRECTORIES = 256
_DERIVING = frozenset({EventType.NORMALIZATION, EventType.TRANSCRIPTION})
_SUPERSEDED = {
    DescriptionStatus.ORIGINAL: DescriptionStatus.ORIGINAL_SUPERSEDED,
    DescriptionStatus.UPDATE: DescriptionStatus.UPDATE_SUPERSEDED,
}


async def read_aip(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Read files, events, agents, rights and identifiers from the METS; each file gets a `reingestion`."""
    restoring = await _restoring(task, services)
    async for number, window in _windows(task, whole=True):
        if number > task.cursor:
            yield Outcome(facts=await _restored(task, restoring, window), cursor=number)
    kept = json.loads((await task.history.facts())[KEPT])
    totals = await task.history.totals()
    kept["rows"] = totals.files + totals.removed
    yield Outcome(facts=Facts(package={KEPT: json.dumps(kept)}), cursor=task.cursor)


async def _restoring(task: Task, services: Services) -> Restoring:
    kept = json.loads((await task.history.facts())[KEPT])
    return Restoring(
        package=uuid.UUID(kept["id"]),
        own=frozenset(agent.link for agent in await task.history.agents()),
        algorithm=services.settings.digest_algorithm,
        at=datetime.fromisoformat(kept["at"]),
        created_at=datetime.fromisoformat(kept["created_at"] or kept["at"]),
        may_supersede=task.package.reingest is not Reingest.METADATA,
        anew=CONTENT if task.package.reingest is Reingest.FULL else frozenset(),
    )


async def _windows(task: Task, *, whole: bool = False) -> AsyncIterator[tuple[int, Sequence[Record]]]:
    """The records of the METS in windows, which are the same each time, numbered from 1 on."""
    number = 0
    async with aclosing(read(task.folder / METS_BEFORE, window=_WINDOW, whole=whole)) as windows:  # type: ignore[type-var]
        async for window in windows:
            number += 1
            yield number, window


async def _restored(task: Task, restoring: Restoring, window: Sequence[Record]) -> Facts:
    agents: list[Agent] = [agent(record) for record in window if isinstance(record, ReadAgent)]
    parts: list[Facts] = []
    former: list[tuple[File, Description]] = []
    for said in (record for record in window if isinstance(record, ReadFile)):
        file, events = await _as_it_is(
            task, restoring, restoring.file(said, said.path or received_as(said.original_name))
        )
        part = restoring.facts(said, file)
        parts.append(replace(part, events=[*part.events, *events]))
        former += [(file, one) for one in restoring.former(said, file)]
    parts.append(await _former(former))
    return Facts(
        files=[file for part in parts for file in part.files],
        events=[event for part in parts for event in part.events],
        extensions=[extension for part in parts for extension in part.extensions],
        descriptions=[description for part in parts for description in part.descriptions],
        rights=[statement for part in parts for statement in part.rights],
        identifiers=[identifier for part in parts for identifier in part.identifiers],
        agents=[*agents, *(one for part in parts for one in part.agents)],
        warnings=[warning for part in parts for warning in part.warnings],
    )


async def _former(described: Sequence[tuple[File, Description]]) -> Facts:
    """The PREMIS of before that the new METS can hold as it was written; of other, that it cannot."""
    reasons = await unfit_premis([one for _, one in described])
    kept, warnings = [], []
    for (file, one), reason in zip(described, reasons, strict=True):
        if reason:
            detail = f"a {one.section} of before is in the version before alone: {reason}"
            warnings.append(Warning_(code="content.superseded_left", detail=detail, path=escape_name(file.path)))
        else:
            kept.append(one)
    return Facts(descriptions=kept, warnings=warnings)


async def _as_it_is(task: Task, restoring: Restoring, file: File) -> tuple[File, Sequence[Event]]:
    """Complete a file by what is on disk, which was proved before: its size, and a digest where another is known."""
    if file.removed:
        return file, ()
    path = task.at(file.path)
    size = (await asyncio.to_thread(path.lstat)).st_size
    if file.digest is not None:
        return replace(file, size_bytes=size), ()
    algorithm = restoring.algorithm
    value = (await digest_file(path, [algorithm]))[algorithm]
    digest = Digest(algorithm=algorithm, value=value, calculated_at=now())
    event = Event(
        object=file.id,
        type=EventType.MESSAGE_DIGEST_CALCULATION,
        at=digest.calculated_at,
        detail=f'program="python"; module="hashlib.{algorithm}()"',
        note=value,
    )
    return replace(file, size_bytes=size, digest=digest), (event,)


# --- folders and descriptions ----------------------------------------------------------------------------------------


async def read_aip_folders(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Record the folders that are there, then the UUIDs, first names and identifiers that the METS has for them."""
    restoring = await _restoring(task, services)
    if not task.cursor:
        folders = _folders(task.root, _OBJECTS)
        while window := await asyncio.to_thread(lambda: list(itertools.islice(folders, _DIRECTORIES))):
            yield Outcome(facts=Facts(directories=[Directory(path=path, original=path) for path in window]))
    async for number, records in _windows(task):
        entities = [record for record in records if isinstance(record, ReadEntity)]
        if number > task.cursor and entities:
            yield Outcome(facts=await _entities(task, restoring, entities), cursor=number)


def _folders(root: Path, top: str) -> Iterator[str]:
    for folder, inside, _ in os.walk(root / top):
        inside.sort()
        for name in inside:
            yield os.path.relpath(f"{folder}/{name}", root)


async def _entities(task: Task, restoring: Restoring, entities: Sequence[ReadEntity]) -> Facts:
    there = await task.history.directories_at([entity.path for entity in entities])
    directories = [
        Directory(
            path=entity.path,
            original=received_as(entity.original_name) or entity.path,
            id=restoring.identifier(entity.identifier),
        )
        for entity in entities
        if entity.path in there
    ]
    owners = {entity.path: restoring.identifier(entity.identifier) for entity in entities if entity.path in there}
    identifiers = []
    for entity in entities:
        object_ = restoring.package if is_package(entity) else owners.get(entity.path)
        if object_ is not None:
            identifiers += restoring.identifiers(object_, entity.identifiers)
    return Facts(directories=directories, identifiers=identifiers)


async def read_aip_descriptions(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Record what the METS says of files, folders and the package, with its history; it is told by its time."""
    restoring = await _restoring(task, services)
    async for number, records in _windows(task):
        said = [record for record in records if isinstance(record, ReadDescription)]
        if number > task.cursor and said:
            yield Outcome(facts=await _described(task, restoring, said), cursor=number)


async def _described(task: Task, restoring: Restoring, said: Sequence[ReadDescription]) -> Facts:
    paths = [path for one in said for path in (one.path, one.reference) if path]
    files = await task.history.files_at(paths)
    folders = await task.history.directories_at(paths)
    descriptions, directories, warnings = [], [], []
    for one in said:
        target: uuid.UUID | None = None
        if one.path in ("", _OBJECTS):
            target = restoring.package
        elif one.path in files:
            target = files[one.path].id
        elif one.path in folders:
            folder = folders[one.path]
            target = folder.id or uuid.uuid5(restoring.package, f"directory:{escape_name(folder.original)}")
            directories.append(replace(folder, id=target))
        if target is None:
            detail = f"metadata ({one.kind}) of what is not in the AIP are left out"
            warnings.append(Warning_(code="content.metadata_unmatched", detail=detail, path=escape_name(one.path)))
            continue
        file = files.get(one.reference) if one.reference else None
        descriptions.append(restoring.description(one, target, file.id if file else None))
    return Facts(descriptions=descriptions, directories=directories, warnings=warnings)


# --- what takes the place of what ------------------------------------------------------------------------------------


async def revise_descriptions(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Mark what is said anew as an update, and what was said before of the same thing, in the same kind, superseded; so
    are the PREMIS objects of files that were examined anew, or have another derivative now.

    As in Archivematica, both stay in the METS. What is said now has no time of its own yet.
    """
    package = task.package
    asked = [Description(target=package.id, kind="DC")] if package.metadata else []
    yield await _revised(task, [package.id], asked)
    async for directories in task.history.directories(under=_OBJECTS):
        yield await _revised(task, [directory.id for directory in directories if directory.id])
    async for files in task.history.files(under=_OBJECTS, window=_WINDOW):
        yield await _revised(task, [file.id for file in files], changed=await _changed(task, files))


async def _changed(task: Task, files: Sequence[File]) -> frozenset[uuid.UUID]:
    """Of files that the AIP had, those whose PREMIS objects are not what they were."""
    kept = [file for file in files if file.row <= task.package.kept_rows]
    events = await task.history.events([file.id for file in kept])
    full = task.package.reingest is Reingest.FULL
    return frozenset(
        file.id
        for file in kept
        if (full and file.use in CONTENT)
        or any(event.type in _DERIVING for event in since_reingestion(events.get(file.id, ())))
    )


async def _revised(
    task: Task,
    targets: Sequence[uuid.UUID],
    asked: Sequence[Description] = (),
    changed: frozenset[uuid.UUID] = frozenset(),
) -> Outcome:
    revised: list[tuple[int, Description]] = []
    for target, said in (await task.history.descriptions(targets)).items():
        descriptive = [(row, one) for row, one in said if one.section is Section.DESCRIPTIVE]
        technical = [(row, one) for row, one in said if one.section is Section.TECHNICAL and target in changed]
        revised += [(row, replace(one, status=_SUPERSEDED.get(one.status, one.status))) for row, one in technical]
        kinds = {one.kind for _, one in descriptive if one.created_at is None} | {one.kind for one in asked}
        for kind in sorted(kinds):
            revised += _of_kind(target, kind, [(row, one) for row, one in descriptive if one.kind == kind])
    return Outcome(facts=Facts(revised=revised))


def _of_kind(
    target: uuid.UUID, kind: str, said: Sequence[tuple[int, Description]]
) -> Iterator[tuple[int, Description]]:
    before = [(row, one) for row, one in said if one.created_at is not None]
    if not before:
        return
    group = next((one.group for _, one in before if one.group), "") or str(uuid.uuid5(target, f"versions:{kind}"))
    for row, one in before:
        yield row, replace(one, status=_SUPERSEDED.get(one.status, one.status), group=one.group or group)
    for row, one in said:
        if one.created_at is None:
            yield row, replace(one, status=DescriptionStatus.UPDATE, group=one.group or group)
