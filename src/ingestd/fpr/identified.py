"""Format identification as facts: files with their formats, events, warnings. Several steps tell them alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingestd.fpr.registry import Registry
from ingestd.oais import File, Warning_, escape_name
from ingestd.premis import Event, EventOutcome, EventType, Format, now, program
from ingestd.tools.siegfried import Identification, Siegfried

UNIDENTIFIED = Format(name="Unknown")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identified:
    """What was found of some files: themselves with their formats, an event for each, a warning where it failed."""

    files: Sequence[File]
    events: Sequence[Event]
    warnings: Sequence[Warning_]
    version: str


async def identify(
    files: Sequence[File], paths: Sequence[Path], *, siegfried: Siegfried, registry: Registry
) -> Identified:
    """Identify `files`, which are at `paths`, by signature. Raises `ToolError` where Siegfried cannot be started."""
    version = await siegfried.version()
    answers = await siegfried.identify(paths)
    detail = program("Siegfried", version, signature=await siegfried.signature())
    at = now()
    known = [replace(file, format=format_of(answer, registry)) for file, answer in zip(files, answers, strict=True)]
    events = [
        Event(
            object=file.id,
            type=EventType.FORMAT_IDENTIFICATION,
            at=at,
            detail=detail,
            outcome=EventOutcome.POSITIVE if answer.format else EventOutcome.NOT_IDENTIFIED,
            note=answer.format.puid if answer.format else "No Matching Format",
        )
        for file, answer in zip(files, answers, strict=True)
    ]
    warnings = [
        Warning_(code="tool.identification_failed", detail=answer.error, path=escape_name(file.path))
        for file, answer in zip(files, answers, strict=True)
        if answer.error
    ]
    return Identified(files=known, events=events, warnings=warnings, version=version)


def format_of(answer: Identification, registry: Registry) -> Format:
    """Name a format as the registry does where it knows it, else as PRONOM does."""
    if answer.format is None:
        return UNIDENTIFIED
    known = registry.format_version(answer.format.puid)
    if known is None:
        return answer.format
    return replace(answer.format, name=known.description, version=known.version or answer.format.version)
