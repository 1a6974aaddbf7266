"""Metadata in XML that came with the transfer: `source-metadata.csv`, `transfer_metadata.xml`, `sourceMD`."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ingestd.errors import Violation
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.metadata import xml
from ingestd.metadata.source_documents import FILE, SHAPE, UNFIT, document_fault, row_faults, schemas_of
from ingestd.metadata.tables import LISTED, Row, Table, invalid, read
from ingestd.mets import unfit
from ingestd.oais import Description, DescriptionStatus, Directory, Facts, File, Section, Warning_, escape_name
from ingestd.premis import Event, EventOutcome, EventType, Program, now
from ingestd.references import find, mended

TRANSFER_FILE = "metadata/transfer_metadata.xml"
FOLDER = "metadata/sourceMD"
_HOLDING = frozenset({DescriptionStatus.ORIGINAL, DescriptionStatus.UPDATE})
_WINDOW = 16
"""Rows at once: their documents are in memory meanwhile."""


async def load_source_metadata(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Read `source-metadata.csv`: which XML document (a path within `metadata`) says what, of a type, about what.

    Each document stands in a dmdSec of its type. A row without one says, in a reingest, that what was said of this type
    holds no more: it is marked `deleted`. It is held against the site's schemas (setting `metadata_xml`), with
    an event `validation`; one that is not valid, cannot be read or cannot stand in a METS is referred to instead, with
    a warning, or, with `metadata_xml.fail_on_error`, fails the package. Every row that cannot be used is listed first.
    """
    path = task.at(FILE)
    file = await task.history.file_at(FILE)
    if file is None:
        return
    table = await asyncio.to_thread(lambda: Table(path=path, shape=SHAPE))
    violations = await _check(task, table)
    if violations:
        raise invalid(FILE, violations)
    corrected = await mended(path, file)
    if corrected is not None:
        yield Outcome(facts=corrected, cursor=task.cursor)
    if table.warnings():
        yield Outcome(facts=Facts(warnings=table.warnings()), cursor=task.cursor)
    schemas = schemas_of(services.settings.metadata_xml)
    strict = services.settings.metadata_xml.fail_on_error
    rows = (row for row in read(path, SHAPE) if row.line > task.cursor)
    while window := await asyncio.to_thread(lambda: list(itertools.islice(rows, _WINDOW))):
        loading = _Loading(task=task, table=table, schemas=schemas)
        await loading.load(window)
        if loading.faults and strict:
            raise invalid(FILE, loading.faults)
        yield loading.outcome(window[-1].line)


async def _check(task: Task, table: Table) -> Sequence[Violation]:
    """Every row that cannot be used, up to as many as are told."""
    found: list[Violation] = []
    items = table.rows()
    while window := await asyncio.to_thread(lambda: list(itertools.islice(items, 256))):
        rows = [item for item in window if isinstance(item, Row)]
        found += [item for item in window if isinstance(item, Violation)]
        documents = await _documents(task, table, rows)
        for row in rows:
            found += row_faults(table, row, documents)
        if len(found) >= LISTED:
            break
    return found[:LISTED]


async def _documents(task: Task, table: Table, rows: Sequence[Row]) -> dict[str, File]:
    """The documents that rows name, by cell: files that are recorded, so nothing outside the transfer is ever read."""
    places = {
        row.get("metadata"): [f"metadata/{name.removeprefix('metadata/')}" for name in table.names(row.get("metadata"))]
        for row in rows
        if row.get("metadata")
    }
    files = await task.history.files_received_as([path for paths in places.values() for path in paths])
    found = {cell: next((files[path] for path in paths if path in files), None) for cell, paths in places.items()}
    return {cell: file for cell, file in found.items() if file is not None}


@dataclass(kw_only=True)
class _Loading:
    """A window of rows, and what is found out of it."""

    task: Task
    table: Table
    schemas: xml.Schemas
    descriptions: list[Description] = field(default_factory=list)
    directories: list[Directory] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    revised: list[tuple[int, Description]] = field(default_factory=list)
    warnings: list[Warning_] = field(default_factory=list)
    faults: list[Violation] = field(default_factory=list)

    def outcome(self, cursor: int) -> Outcome:
        facts = Facts(
            directories=self.directories,
            descriptions=self.descriptions,
            revised=self.revised,
            events=self.events,
            warnings=self.warnings,
        )
        tools = [ToolUse(name=xml.PROGRAM, version=xml.VERSION, used_for="validation")] if self.events else []
        return Outcome(facts=facts, cursor=cursor, tools=tools)

    async def load(self, rows: Sequence[Row]) -> None:
        documents = await _documents(self.task, self.table, rows)
        names = [self.table.names(row.get("filename")) for row in rows]
        targets = await find(self.task.history, self.task.package.id, names)
        for row, target in zip(rows, targets, strict=True):
            file = documents.get(row.get("metadata"))
            if target is None:
                self._warn("unmatched", row.get("filename"), f"line {row.line} describes what is not in the transfer")
            elif file is None:
                await self._delete(row, target.id)
            else:
                self.directories += [target.directory] if target.directory else []
                await self._describe(row, target.id, file)

    async def _delete(self, row: Row, target: uuid.UUID) -> None:
        said = (await self.task.history.descriptions([target])).get(target, ())
        gone = [
            (number, replace(one, status=DescriptionStatus.DELETED))
            for number, one in said
            if one.section is Section.DESCRIPTIVE and one.kind == row.get("type") and one.created_at is not None
            if one.status in _HOLDING
        ]
        self.revised += gone
        if not gone:
            told = f"line {row.line} removes metadata of the type {row.get('type')}: there are none"
            self._warn("unmatched", row.get("filename"), told)

    async def _describe(self, row: Row, target: uuid.UUID, file: File) -> None:
        kind = row.get("type")
        problem, text = await self._text(file, kind)
        if problem:
            self._warn("not_embedded", file.path, problem)
            self.faults.append(document_fault(self.table, row, problem))
        reference = file.id if problem else None
        self.descriptions.append(Description(target=target, kind=kind, xml=text, reference=reference))

    async def _text(self, file: File, kind: str) -> tuple[str, str]:
        """Why a document cannot be used, or its text."""
        judged = await asyncio.to_thread(self.schemas.judged, self.task.at(file.path), kind)
        if judged.verdict is not None:
            self.events.append(_event(file, judged.verdict))
        if judged.problem or judged.document is None:
            return judged.problem, ""
        reason = await unfit(judged.document.text)
        return (f"{UNFIT}: {reason}", "") if reason else ("", judged.document.text)

    def _warn(self, code: str, path: str, detail: str) -> None:
        self.warnings.append(Warning_(code=f"content.metadata_{code}", detail=detail, path=escape_name(path)))


_PROGRAM = Program(xml.PROGRAM, xml.VERSION)


def _event(file: File, verdict: xml.Verdict) -> Event:
    source = {"validation-source-type": verdict.kind, "validation-source": verdict.schema}
    words = "; ".join(f'{key}="{value}"' for key, value in {"type": "metadata", **source}.items())
    return Event(
        object=file.id,
        type=EventType.VALIDATION,
        at=now(),
        detail=f"{words}; {_PROGRAM.words()}",
        programs=[_PROGRAM],
        outcome=EventOutcome.FAIL if verdict.faults else EventOutcome.PASS,
        note="; ".join(verdict.faults),
    )


async def load_transfer_metadata(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Take `transfer_metadata.xml` and the files of `sourceMD` as source metadata of the package as a whole.

    The first is put into the METS, if it can stand there; the others are referred to.
    """
    async for files in task.history.files(under="metadata", after_row=task.cursor):
        said, warnings = [], []
        for file in files:
            if file.path == TRANSFER_FILE:
                described, problem = await _transfer_metadata(task, file)
                said.append(described)
                if problem:
                    code = "content.metadata_not_embedded"
                    warnings.append(Warning_(code=code, detail=problem, path=file.path))
            elif file.path.startswith(f"{FOLDER}/"):
                said.append(_referred(task, file, "sourceMD"))
        if said:
            yield Outcome(facts=Facts(descriptions=said, warnings=warnings), cursor=files[-1].row)


async def describe_disk_image(task: Task, services: Services) -> Outcome:
    """Take what the request says of the making of disk images as source metadata, as Archivematica takes its form."""
    kind = Path(TRANSFER_FILE).stem
    said = Description(target=task.package.id, kind=kind, section=Section.SOURCE, pairs=task.package.imaging)
    return Outcome(facts=Facts(descriptions=[said] if task.package.imaging else []))


async def _transfer_metadata(task: Task, file: File) -> tuple[Description, str]:
    """What is said, and why it is not in the METS itself."""
    kind = Path(TRANSFER_FILE).stem
    try:
        document = await asyncio.to_thread(xml.read, task.at(file.path))
    except xml.UnreadableError as error:
        return _referred(task, file, kind), str(error)
    problem = await unfit(document.text)
    if problem:
        return _referred(task, file, kind), problem
    return Description(target=task.package.id, kind=kind, section=Section.SOURCE, xml=document.text), ""


def _referred(task: Task, file: File, kind: str) -> Description:
    return Description(target=task.package.id, kind=kind, section=Section.SOURCE, reference=file.id)
