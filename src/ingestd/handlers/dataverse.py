"""Dataverse datasets: what `metadata/dataset.json` says of a dataset and its files, proved and taken over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from ingestd.errors import Code, ContentError, Violation
from ingestd.job import Outcome, Services, Task
from ingestd.manifests import Wrong, leads_out
from ingestd.metadata.dataverse import (
    AGENTS_FILE,
    PLACES,
    Dataset,
    DatasetFile,
    agents,
    is_dataset,
    no_dataset,
    read,
)
from ingestd.metadata.tables import invalid
from ingestd.metadata.xml import UnreadableError
from ingestd.mets import unfit
from ingestd.oais import Description, Facts, File, FileUse, TransferType, Warning_, escape_name
from ingestd.premis import Agent, AgentLink, Event, Identifier, now
from ingestd.promises import Promise, prove
from ingestd.references import find

MISSING = "content.dataverse_file_missing"
DERIVATION = "derivation"
_WINDOW = 32
_RESTRICTED = "it is restricted, and was not exported"
_TABLE = "the submitted file of this table is not there: nothing proves the checksum"
_BESIDE = {
    "RData": ("{stem}.RData",),
    "DDI": ("{stem}-ddi.xml", "{stem}ddi.xml", "{stem}_ddi.xml"),
    "citation": tuple(
        f"{{stem}}{sign}citation-{kind}"
        for sign in ("", "-", "_")
        for kind in ("endnote.xml", "ris.ris", "bib.bib", "bibtex.bib")
    ),
}
"""What Dataverse puts beside a table in its bundle."""


async def read_dataverse_dataset(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Read `dataset.json`: prove the files by their checksums, then take over what is said of the dataset and of them.

    Of a table, the submitted file is the original, and what Dataverse made of it (`.tab`, `.RData`) derivatives, with
    an event `derivation` of Dataverse's. Files that are not there are violations, restricted ones warnings. A transfer
    of the type `dataverse` has a `dataset.json` (`content.structure_invalid`).
    """
    if task.package.type not in {TransferType.AUTO, TransferType.DATAVERSE}:
        return
    document = await _document(task)
    if document is None:
        return
    dataset, more = await asyncio.to_thread(_read, task, document)
    if not task.cursor:
        wrong = Wrong()
        async for outcome in _prove(task, document, dataset, wrong):
            yield outcome
        if wrong.total:
            raise ContentError(
                f"the files are not those that dataset.json names: {wrong}",
                code=Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH,
                violations=wrong.listed,
                remediation="Export the dataset again, or those of its files that the violations name.",
            )
    files = iter(dataset.files[task.cursor :])
    acting = [agent.link for agent in more or [dataset.agent]]
    while window := list(islice(files, _WINDOW)):
        found = await _find(task, window)
        made = [_of_table(found[one.number], dataset, acting) for one in window if one.is_table]
        yield Outcome(facts=_together(made, more or [dataset.agent]), cursor=window[-1].number)
    if task.cursor <= len(dataset.files):
        yield Outcome(facts=await _whole(task, document, dataset), cursor=len(dataset.files) + 1)


async def _document(task: Task) -> File | None:
    files = await task.history.files_received_as(PLACES)
    found = next((files[place] for place in PLACES if place in files), None)
    if task.package.type is TransferType.DATAVERSE:
        if found is None:
            raise no_dataset()
        return found
    known = found is not None and await asyncio.to_thread(is_dataset, task.at(found.path))
    return found if known else None


def _read(task: Task, document: File) -> tuple[Dataset, Sequence[Agent]]:
    """The dataset, and the agents of `agents.json`, none where there is none; blocks."""
    name = document.original
    try:
        dataset = read(task.at(document.path))
        name = AGENTS_FILE
        return dataset, agents(task.at(AGENTS_FILE)) if task.at(AGENTS_FILE).is_file() else ()
    except UnreadableError as error:
        expected = (
            "a dataset as Dataverse's API gives it" if name != AGENTS_FILE else "agents as Archivematica has them"
        )
        raise invalid(name, [Violation(path=name, rule="dataverse", expected=expected, actual=str(error))]) from error


@dataclass(kw_only=True, slots=True)
class _Found:
    """The files that one file of the dataset is: `file`, and of a table the `tab` and what is beside it by kind."""

    file: File | None = None
    tab: File | None = None
    beside: list[tuple[str, File]] = field(default_factory=list)


async def _find(task: Task, window: Sequence[DatasetFile]) -> Mapping[int, _Found]:
    """Find a window of files: where they should be, or, of a table, in its bundle, a folder or a zip."""
    asked: list[tuple[DatasetFile, str, list[str]]] = []
    for one in (one for one in window if not leads_out(one.path)):
        asked.append((one, "file", one.places))
        if not one.is_table:
            continue
        folders = one.bundles
        asked.append((one, "tab", one.places_of_table))
        for kind, names in _BESIDE.items():
            wanted = [name.format(stem=one.stem) for name in names]
            asked += [(one, kind, [f"{folder}/{name}" for folder in folders]) for name in wanted]
    answers = await find(task.history, task.package.id, [names for _, _, names in asked])
    found = {one.number: _Found() for one in window}
    for (one, role, _), answer in zip(asked, answers, strict=True):
        if answer is None or answer.file is None:
            continue
        here = found[one.number]
        if role == "file":
            here.file = answer.file
        elif role == "tab":
            here.tab = answer.file
        elif here.file is None or answer.file.id != here.file.id:
            here.beside.append((role, answer.file))
    return found


async def _prove(task: Task, document: File, dataset: Dataset, wrong: Wrong) -> AsyncIterator[Outcome]:
    files = iter(dataset.files)
    while window := list(islice(files, _WINDOW)):
        found = await _find(task, window)
        promises, warnings = [], []
        for one in window:
            here, place = found[one.number], f"{document.original}: file {one.number}"
            if here.file is not None and one.digest:
                promises.append(Promise(file=here.file, algorithm=one.algorithm, digest=one.digest, place=place))
            elif here.file is None and (one.restricted or here.tab is not None):
                detail = _TABLE if here.tab else _RESTRICTED
                warnings.append(Warning_(code=MISSING, detail=f"{place}: {detail}", path=escape_name(one.path)))
            elif here.file is None:
                actual = "a path that leads out" if leads_out(one.path) else "no such file"
                expected = f"a file, since {place} names it"
                wrong.add(Violation(path=escape_name(one.path)[:500], rule="present", expected=expected, actual=actual))
        kept = await prove(task.root, task.history, promises, document.original)
        for violation in kept.violations:
            wrong.add(violation)
        yield Outcome(facts=Facts(events=kept.events, warnings=[*warnings, *kept.warnings]))


def _of_table(found: _Found, dataset: Dataset, acting: Sequence[AgentLink]) -> Facts:
    """What Dataverse made of a submitted table becomes its derivatives; what describes it, metadata."""
    source = found.file
    derived = [file for kind, file in found.beside if kind == "RData"] + ([found.tab] if found.tab else [])
    described = [(kind, file) for kind, file in found.beside if kind != "RData"]
    files = [replace(file, use=FileUse.METADATA) for _, file in described]
    if source is None:
        return Facts(files=files)
    events = [
        Event(
            object=source.id,
            type=DERIVATION,
            at=dataset.released_at or now(),
            detail="made by Dataverse from the submitted table",
            note=f"%transferDirectory%{escape_name(file.path)}",
            agents=acting,
        )
        for file in derived
    ]
    files += [replace(file, use=FileUse.DERIVATIVE, derived_from=source.id) for file in derived]
    said = [Description(target=source.id, kind=kind, reference=file.id) for kind, file in described]
    return Facts(files=files, events=events, descriptions=said)


def _together(several: Sequence[Facts], acting: Sequence[Agent]) -> Facts:
    return Facts(
        files=[file for facts in several for file in facts.files],
        events=[event for facts in several for event in facts.events],
        descriptions=[said for facts in several for said in facts.descriptions],
        agents=acting,
    )


async def _whole(task: Task, document: File, dataset: Dataset) -> Facts:
    """The dataset as Dublin Core and as DDI, and a reference to the document that says it."""
    package = task.package.id
    reason = await unfit(dataset.ddi)
    ddi = [] if reason else [Description(target=package, kind="DDI", xml=dataset.ddi, standard=True)]
    warnings = [Warning_(code="content.metadata_not_embedded", detail=reason, path=document.path)] if reason else []
    kind, value = dataset.identifier
    return Facts(
        files=[replace(document, use=FileUse.METADATA)],
        descriptions=[
            Description(target=package, kind="DC", pairs=dataset.pairs),
            *ddi,
            Description(target=package, kind="dataset.json", reference=document.id),
        ],
        identifiers=[Identifier(object=package, type=kind, value=value)] if value else [],
        warnings=warnings,
    )
