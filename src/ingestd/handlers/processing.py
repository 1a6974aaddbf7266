"""What a transfer says of its own processing: Archivematica's `processingMCP.xml`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace

from ingestd.errors import Violation
from ingestd.job import Outcome, Services, Task
from ingestd.messages import ProcessingConfig
from ingestd.metadata import processing, xml
from ingestd.metadata.tables import invalid
from ingestd.oais import TRANSFER_OPTIONS, Facts, Rename, Warning_
from ingestd.references import mended

FILE = "processingMCP.xml"
_PLACE = f"metadata/{FILE}"


async def read_processing_configuration(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Read `processingMCP.xml` at the top of the transfer as processing options, and keep it among the metadata.

    An option that the request names itself is the request's. A choice that is not known is a warning; a file that
    cannot be read is an error, since what it asks for cannot be known. With the setting `processing_from_transfer` off
    it is only kept.
    """
    file = await task.history.file_at(FILE)
    if file is not None and await task.history.file_at(_PLACE) is None:
        corrected = await mended(task.at(FILE), file)
        if corrected is not None:
            yield Outcome(facts=corrected)
        facts = await _facts(task) if services.settings.processing_from_transfer else Facts()
        yield Outcome(facts=replace(facts, renames=[Rename(old=FILE, new=_PLACE, as_received=True)]))
    if await task.history.file_at(_PLACE) is not None:
        await asyncio.to_thread(_move, task)


def _move(task: Task) -> None:
    if os.path.lexists(task.at(FILE)) and not os.path.lexists(task.at(_PLACE)):
        task.at(_PLACE).parent.mkdir(exist_ok=True)
        task.at(FILE).rename(task.at(_PLACE))


async def _facts(task: Task) -> Facts:
    try:
        choices = await asyncio.to_thread(processing.read, task.at(FILE))
    except xml.UnreadableError as error:
        expected = "<processingMCP> with <preconfiguredChoices>, as Archivematica writes it"
        raise invalid(FILE, [Violation(path=FILE, rule="xml", expected=expected, actual=str(error))]) from error
    told = {name: value for name, value in choices.options.items() if name not in task.package.asked}
    resolved = ProcessingConfig.resolve(told).as_options()
    problems = [*choices.problems, *_overruled(task, choices)]
    return Facts(
        package={TRANSFER_OPTIONS: json.dumps({name: resolved[name] for name in told})},
        warnings=[Warning_(code="content.processing_choice", detail=problem, path=_PLACE) for problem in problems],
    )


def _overruled(task: Task, choices: processing.Choices) -> list[str]:
    return [
        f"the request says {name}={task.package.processing[name]}, and the request is right; the file says {value}"
        for name, value in choices.options.items()
        if name in task.package.asked and task.package.processing[name] != value
    ]
