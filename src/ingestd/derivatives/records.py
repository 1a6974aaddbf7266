"""Derivatives as records: what is ordered, what was made or why not, and how both are worded as facts."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ingestd.fpr.records import Command, Purpose
from ingestd.oais import File, FileUse, RuleUse, Warning_, escape_name
from ingestd.premis import Digest, Event, EventType, Program, now

FAILED = "tool.normalization_failed"
"""Code of the warning that a command did not make what it should."""
MANUAL = "manual normalization"
"""eventDetail of a normalization that was done before the transfer, as Archivematica words it."""
STEM_CHARACTERS = 150
"""Of a name that goes into another name together with a UUID and an extension (file systems allow 255 bytes)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What is to be made, as `rule` has it: by `command` or what stands in for it, of `file`, into `folder`.

    `language` is that of texts, as Tesseract names them. `replaces` are derivatives of an earlier version of the AIP in
    whose place it comes.
    """

    file: File
    path: Path
    purpose: Purpose
    command: Command
    folder: Path
    rule: str = ""
    language: str = "eng"
    replaces: Sequence[File] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A derivative that is at its place. `source_detail` is eventDetail of the event that made it."""

    id: uuid.UUID
    path: Path
    size_bytes: int
    digest: Digest
    modified_at: datetime
    command: Command
    tool: str
    tool_version: str
    source_detail: str
    stderr_tail: str = ""

    @property
    def program(self) -> Program:
        return Program(self.tool, self.tool_version)

    @property
    def at(self) -> datetime:
        """When it was made: its digest is that of what was just written."""
        return self.digest.calculated_at

    @property
    def detail(self) -> str:
        """Word eventDetail of a `normalization` event as Archivematica does."""
        command = f'ArchivematicaFPRCommandID="{self.command.identifier}"'
        return f"{command}; {self.source_detail}" if self.source_detail else command


@dataclass(frozen=True, kw_only=True, slots=True)
class NotMade:
    """Why nothing was made. `for_all`: it is the same for every file that wants this tool. `empty`: the command did
    its work, and there was nothing to write.
    """

    code: str
    detail: str
    tool: str
    tool_version: str = ""
    for_all: bool = False
    empty: bool = False
    stderr_tail: str = ""
    at: datetime = field(default_factory=now, compare=False)

    def warning(self, file: File, link: str, loss: str) -> Warning_:
        """Word it as a warning; `loss` says what every file that wants the tool goes without."""
        if self.for_all:
            return Warning_(code=self.code, detail=f"{self.detail}: {loss}", link=link)
        return Warning_(code=self.code, detail=self.detail, path=escape_name(file.path), link=link)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """A derivative as facts: the new file, and the events `creation` and `message digest calculation`."""

    file: File
    events: Sequence[Event] = field(default_factory=tuple)


def recorded(made: Made, path: str, source: File, use: FileUse) -> Recorded:
    """Word a derivative as facts; `path` is where it is within the package."""
    file = File(
        id=made.id,
        path=path,
        original=path,
        use=use,
        size_bytes=made.size_bytes,
        digest=made.digest,
        modified_at=made.modified_at,
        derived_from=source.id,
    )
    return Recorded(file=file, events=created(made.id, made.digest, [made.program]))


def created(file: uuid.UUID, digest: Digest, programs: Sequence[Program] = ()) -> Sequence[Event]:
    """Word that a file came to be, made by programs: `creation`, and the digest that was calculated of it then."""
    at, detail = digest.calculated_at, f'program="python"; module="hashlib.{digest.algorithm}()"'
    digested = EventType.MESSAGE_DIGEST_CALCULATION
    return (
        Event(object=file, type=EventType.CREATION, at=at, programs=programs),
        Event(object=file, type=digested, at=at, detail=detail, note=digest.value),
    )


def rule_uses(orders: Iterable[Order], answers: Iterable[Made | NotMade]) -> Sequence[RuleUse]:
    """Say which rules were followed for orders, and whether it worked out: a page without text is read, too."""
    return [
        RuleUse(
            rule=order.rule,
            command=order.command.id,
            ok=isinstance(answer, Made) or (answer.empty and order.purpose is Purpose.TRANSCRIPTION),
        )
        for order, answer in zip(orders, answers, strict=True)
        if order.rule and not (isinstance(answer, NotMade) and answer.for_all)
    ]
