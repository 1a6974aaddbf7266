"""Identifiers for files and directories, and the events that say how files came in."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime

from ingestd.job import Outcome, Services, Task
from ingestd.oais import Facts, File, FileUse, escape_name
from ingestd.premis import Event, EventType, now


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
    events = [Event(object=file.id, type=EventType.INGESTION, at=_received_at(file)) for file in task.files]
    if task.package.accession:
        note = f"accession#{task.package.accession}"
        events += [
            Event(object=file.id, type=EventType.REGISTRATION, at=_received_at(file), note=note)
            for file in task.files
            if file.use is FileUse.ORIGINAL
        ]
    return Outcome(facts=Facts(events=events))


def _received_at(file: File) -> datetime:
    return file.digest.calculated_at if file.digest else now()
