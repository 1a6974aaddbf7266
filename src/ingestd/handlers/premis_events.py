"""What others recorded of the files before they came here: `metadata/premis.xml`."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TypeVar

from ingestd.errors import Code, ContentError, Violation
from ingestd.job import Outcome, Services, Task
from ingestd.metadata.premis_elements import Identified, Linked, statements
from ingestd.metadata.premis_import import FILE, PremisDocument
from ingestd.oais import Facts, Warning_, unescape_name
from ingestd.premis import Agent, Event, time_in
from ingestd.references import find, mended

RIGHTS_OF_NOTHING = "content.premis_rights_unmatched"
_PLACES = ("%transferDirectory%", "%SIPDirectory%")
_WINDOW = 256
Item = TypeVar("Item")


async def load_premis_events_from_xml(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Read the events of `premis.xml`, with their agents, and its rights: all of them, or none.

    A file is found by its `originalName` (`objects/…`). An event needs a file of the transfer and an agent; a file and
    an agent need an event or rights; links lead to what is there. Raises `ContentError` (`content.premis_invalid`) with
    the line of everything that is wrong. An event keeps its type, outcome and time as they are written, and its
    identifier if that is a UUID.
    """
    file = await task.history.file_at(FILE)
    if file is None:
        return
    path = task.at(FILE)
    facts = await mended(path, file)
    if facts is not None:
        yield Outcome(facts=facts, cursor=task.cursor)
    with PremisDocument() as document:
        _refuse(await asyncio.to_thread(document.read, path))
        await _find_files(task, document)
        _refuse(await asyncio.to_thread(document.unrelated))
        async for facts in _facts(task, document):
            yield Outcome(facts=facts, cursor=task.cursor)
        async for some in _windows(document.events(task.cursor)):
            events = await _unknown(task, [_event(task, linked) for linked in some])
            yield Outcome(facts=Facts(events=events), cursor=some[-1].number)


async def _unknown(task: Task, events: Sequence[Event]) -> Sequence[Event]:
    """The events that are not recorded yet: an AIP that is reingested may have them from a version before."""
    recorded = await task.history.events(list({event.object for event in events}))
    known = {(object_, event.id) for object_, several in recorded.items() for event in several}
    return [event for event in events if (event.object, event.id) not in known]


def _refuse(violations: Sequence[Violation]) -> None:
    if violations:
        raise ContentError(
            f"nothing of {FILE} was read: it has {len(violations)} fault{'s' if len(violations) != 1 else ''}",
            code=Code.CONTENT_PREMIS_INVALID,
            violations=tuple(violations),
        )


async def _find_files(task: Task, document: PremisDocument) -> None:
    after = 0
    while window := await asyncio.to_thread(document.objects, after, _WINDOW):
        found = await find(task.history, task.package.id, [_names(name) for _, name in window])
        ids = {row: one.id.bytes for (row, _), one in zip(window, found, strict=True) if one is not None and one.file}
        await asyncio.to_thread(document.found, ids, task.package.id.bytes)
        after = window[-1][0]
    await asyncio.to_thread(document.found, {}, task.package.id.bytes)


def _names(original: str) -> Sequence[str]:
    """The paths that an originalName may stand for: other systems write where the file was, and escape its bytes."""
    for place in _PLACES:
        original = original.removeprefix(place)
    return list(dict.fromkeys([original, unescape_name(original)]))


async def _facts(task: Task, document: PremisDocument) -> AsyncIterator[Facts]:
    """Agents and rights, which are said once however often they are said."""
    async for agents in _windows(document.agents()):
        yield Facts(agents=[_agent(agent) for agent in agents])
    async for some in _windows(document.rights()):
        yield Facts(rights=[said for linked in some for said in statements(linked, uuid.UUID(bytes=linked.object))])
    lost = await asyncio.to_thread(document.rights_of_nothing)
    if lost:
        detail = f"{lost} rights statements are about nothing in the transfer and were left out"
        yield Facts(warnings=[Warning_(code=RIGHTS_OF_NOTHING, detail=detail, path=FILE)])


def _agent(agent: Identified) -> Agent:
    return Agent(identifier_type=agent.type, identifier=agent.value, **agent.read())


def _event(task: Task, linked: Linked) -> Event:
    words = linked.said.read()
    return Event(
        object=uuid.UUID(bytes=linked.object),
        id=_identifier(task, linked.said),
        type=words["type"],
        at=time_in(words["at"]) or task.package.created_at,
        said_at=words["at"],
        detail=words["detail"],
        outcome=words["outcome"],
        note=words["note"],
        agents=linked.agents,
    )


def _identifier(task: Task, event: Identified) -> uuid.UUID:
    try:
        return uuid.UUID(event.value)
    except ValueError:
        return uuid.uuid5(task.package.id, f"event:{event.type}\n{event.value}")


async def _windows(items: Iterator[Item]) -> AsyncIterator[list[Item]]:
    while some := await asyncio.to_thread(lambda: list(itertools.islice(items, _WINDOW))):
        yield some
