"""Derivatives that an AIP had before it was reingested, and that are made anew."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ingestd.derivatives.records import Made, Order
from ingestd.oais import File, FileUse, History, Package, escape_name
from ingestd.premis import Event, EventType, now


async def made_before(
    history: History, package: Package, known: Mapping[uuid.UUID, Sequence[File]], use: FileUse
) -> Mapping[uuid.UUID, Sequence[File]]:
    """Of what is `known` to be derived from files, what the AIP had of this use and a program had made.

    What came with the transfer has no event `creation`, and is never made anew.
    """
    had = [copy for several in known.values() for copy in several if copy.use is use and copy.row <= package.kept_rows]
    events = await history.events([copy.id for copy in had]) if had else {}
    made: dict[uuid.UUID, list[File]] = {}
    for copy in had:
        created = any(event.type == EventType.CREATION for event in events.get(copy.id, ()))
        if created and copy.derived_from is not None:
            made.setdefault(copy.derived_from, []).append(copy)
    return made


def replaced(order: Order, made: Made) -> tuple[Sequence[File], Sequence[Event]]:
    """Word what became of the derivatives in whose place a new one came: they are no files of the AIP any more."""
    at, note = now(), f"made anew: {made.id}"
    details = {old.id: f"removed from: {escape_name(old.path)}" for old in order.replaces}
    events = [
        Event(object=id_, type=EventType.DELETION, at=at, detail=detail, note=note) for id_, detail in details.items()
    ]
    return [replace(old, removed=True) for old in order.replaces], events


def set_aside(orders: Iterable[Order], root: Path, scratch: Path) -> None:
    """Make place: a new derivative may have the name of the former one. What is aside already was not put back: then
    the new one may be there.
    """
    for old in (old for order in orders for old in order.replaces):
        aside = _aside(scratch, old)
        if not aside.exists():
            aside.parent.mkdir(parents=True, exist_ok=True)
            (root / old.path).rename(aside)


def put_back(orders: Iterable[Order], root: Path, scratch: Path) -> None:
    """Put back what was set aside for orders of which nothing was made."""
    for old in (old for order in orders for old in order.replaces):
        _aside(scratch, old).rename(root / old.path)


def _aside(scratch: Path, file: File) -> Path:
    return scratch / "replaced" / str(file.id)
