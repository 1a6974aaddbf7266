"""DSpace exports: what is said of each item and of its bitstreams, proved and taken over.

It is said by the `mets.xml` of DSpace's AIPs, or by `dublin_core.xml` and `contents` of the Simple Archive Format. An
item is the folder its document is in, or what was unpacked of `ITEM@….zip`; or the whole transfer.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ingestd.errors import Code, ContentError, Violation
from ingestd.job import Outcome, Services, Task
from ingestd.manifests import Wrong, leads_out
from ingestd.metadata import simple_archive
from ingestd.metadata.dspace import NAME, Bitstream, Export, is_export, no_export, read
from ingestd.metadata.xml import UnreadableError
from ingestd.mets import unfit
from ingestd.oais import Description, Directory, Facts, File, FileUse, TransferType, Warning_, escape_name
from ingestd.premis import DocumentationIdentifier, Identifier, RightsBasis, RightsStatement
from ingestd.promises import Promise, prove
from ingestd.references import PACKAGE, find

ELSEWHERE = "content.dspace_bitstream_elsewhere"
NOT_EMBEDDED = "content.metadata_not_embedded"
DOCUMENT = "DSPACEMETS"
SIMPLE_ARCHIVE = "DSPACESAF"
_WINDOW = 256
_USES: Mapping[str, FileUse] = {
    "LICENSE": FileUse.LICENSE,
    "CC-LICENSE": FileUse.LICENSE,
    "CC_LICENSE": FileUse.LICENSE,
    "TEXT": FileUse.TEXT_OCR,
    "THUMBNAIL": FileUse.DERIVATIVE,
    "BRANDED_PREVIEW": FileUse.DERIVATIVE,
    "METADATA": FileUse.METADATA,
}
"""What files of a bundle are; those of any other are originals."""
_DERIVED = frozenset({FileUse.TEXT_OCR, FileUse.DERIVATIVE})


async def read_dspace_exports(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Read every document that DSpace wrote: prove the checksums of the bitstreams, then take over what is said.

    Bitstreams get the use of their bundle, the submitter's name as their label, and rights; texts and thumbnails are
    derived from the original of their group. The item's folder gets its descriptions and its handle. Everything that
    is wrong is told at once: damaged or missing bitstreams as `content.checksum_manifest_mismatch`. A transfer of the
    type `dspace` has at least one (`content.structure_invalid`).
    """
    if task.package.type not in {TransferType.AUTO, TransferType.DSPACE}:
        return
    if not task.cursor:
        found, wrong = 0, Wrong()
        async for file in _documents(task):
            found += 1
            async for outcome in _prove(task, file, wrong):
                yield outcome
        if wrong.total:
            raise ContentError(
                f"what DSpace exported is not what it says: {wrong}",
                code=Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH,
                violations=wrong.listed,
                remediation="Export the items that the violations name again.",
            )
        if not found and task.package.type is TransferType.DSPACE:
            raise no_export()
    async for file in _documents(task, after_row=task.cursor):
        async for outcome in _take_over(task, file):
            yield outcome


async def _documents(task: Task, after_row: int = 0) -> AsyncIterator[File]:
    async for files in task.history.files(under="objects", after_row=after_row):
        for file in files:
            name = PurePosixPath(file.original).name
            promised = task.package.type is TransferType.DSPACE
            if (name == NAME and (promised or await asyncio.to_thread(is_export, task.at(file.path)))) or (
                name == simple_archive.NAME and await asyncio.to_thread(simple_archive.is_item, task.at(file.path))
            ):
                yield file


def _read(path: Path) -> Export:
    return simple_archive.read_item(path) if path.name == simple_archive.NAME else read(path)


# --- what is promised ------------------------------------------------------------------------------------------------


async def _prove(task: Task, document: File, wrong: Wrong) -> AsyncIterator[Outcome]:
    try:
        export = await asyncio.to_thread(_read, task.at(document.path))
    except UnreadableError as error:
        path = escape_name(document.original)
        rule, expected = PurePosixPath(path).name, "the document of an item, that can be read"
        wrong.add(Violation(path=path, rule=rule, expected=expected, actual=str(error)))
        return
    for window in _windows(export.bitstreams):
        here = [one for one in window if "://" not in one.href]
        files = await _files(task, document, here)
        promises = []
        for one in here:
            place, file = f"{escape_name(_lists(document))}:{one.line}", files.get(one.href)
            if file is None:
                expected = f"a file, since {place} names it"
                actual = "a path that leads out" if leads_out(one.href) else "no such file"
                path = escape_name(f"{_folder(document)}/{one.href}"[:500])
                wrong.add(Violation(path=path, rule="present", expected=expected, actual=actual))
            elif one.digest:
                promises.append(Promise(file=file, algorithm=one.algorithm, digest=one.digest, place=place))
        kept = await prove(task.root, task.history, promises, document.original)
        for violation in kept.violations:
            wrong.add(violation)
        yield Outcome(facts=Facts(events=kept.events, warnings=kept.warnings))


async def _files(task: Task, document: File, bitstreams: Sequence[Bitstream]) -> Mapping[str, File]:
    """The files that bitstreams are, by their href."""
    hrefs = [one.href for one in bitstreams if one.href and not leads_out(one.href)]
    return await _named(task, document, hrefs)


async def _named(task: Task, document: File, hrefs: Sequence[str]) -> Mapping[str, File]:
    folder = _folder(document)
    names = [[f"{folder}/{href}", f"{folder}/{unquote(href)}"] for href in hrefs]
    found = await find(task.history, task.package.id, names)
    return {href: one.file for href, one in zip(hrefs, found, strict=True) if one is not None and one.file is not None}


def _lists(document: File) -> str:
    """What names the bitstreams."""
    said = PurePosixPath(document.original)
    return str(said.with_name(simple_archive.CONTENTS) if said.name == simple_archive.NAME else said)


def _folder(document: File) -> str:
    return str(PurePosixPath(document.original).parent)


def _windows(bitstreams: Iterable[Bitstream]) -> Iterator[list[Bitstream]]:
    rest = iter(bitstreams)
    while window := list(islice(rest, _WINDOW)):
        yield window


# --- what is said ----------------------------------------------------------------------------------------------------


async def _take_over(task: Task, document: File) -> AsyncIterator[Outcome]:
    """Take over what one document says; the cursor moves with the last of it, since only that cannot be said twice."""
    export = await asyncio.to_thread(_read, task.at(document.path))
    licences = await _licences(task, document, export)
    originals: dict[str, uuid.UUID] = {}
    for derived in (False, True):
        for window in _windows(b for b in export.bitstreams if _is_derived(b) is derived):
            files = await _files(task, document, window)
            for one in window:
                if one.group and one.href in files and _use(one) is FileUse.ORIGINAL:
                    originals.setdefault(one.group, files[one.href].id)
            said = _bitstreams(window, files, originals, export, licences)
            yield Outcome(facts=replace(said, warnings=_elsewhere(document, window)), cursor=task.cursor)
    yield Outcome(facts=await _whole(task, document, export), cursor=document.row)


def _use(bitstream: Bitstream) -> FileUse:
    return _USES.get(bitstream.bundle.upper(), FileUse.ORIGINAL)


def _is_derived(bitstream: Bitstream) -> bool:
    return _use(bitstream) in _DERIVED


def _bitstreams(
    window: Sequence[Bitstream],
    files: Mapping[str, File],
    originals: Mapping[str, uuid.UUID],
    export: Export,
    licences: Sequence[RightsStatement],
) -> Facts:
    changed, rights = [], []
    for one in window:
        file = files.get(one.href)
        if file is None or file.removed:
            continue
        use = _use(one)
        source = originals.get(one.group) if use in _DERIVED else None
        changed.append(replace(file, use=use, label=one.name or file.label, derived_from=source))
        said = [*(one.rights or export.rights), *(licences if use is FileUse.ORIGINAL else ())]
        rights += [replace(statement, object=file.id) for statement in said]
    return Facts(files=changed, rights=rights)


def _elsewhere(document: File, window: Sequence[Bitstream]) -> list[Warning_]:
    detail = "names a file that the export itself does not have"
    return [
        Warning_(
            code=ELSEWHERE, detail=f"line {one.line} {detail}: {one.href[:200]}", path=escape_name(_lists(document))
        )
        for one in window
        if "://" in one.href
    ]


async def _licences(task: Task, document: File, export: Export) -> Sequence[RightsStatement]:
    """The licences that the export has as files, as rights whose documentation they are."""
    hrefs = [one.href for one in export.licences if one.href and not leads_out(one.href)]
    files = await _named(task, document, hrefs)
    return [
        RightsStatement(
            object=task.package.id,
            basis=RightsBasis.LICENSE,
            notes=(one.kind,),
            documentation=(DocumentationIdentifier(type="UUID", value=str(files[one.href].id), role=one.kind),),
        )
        for one in export.licences
        if one.href in files
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """What a document is about: a folder, or the package."""

    id: uuid.UUID
    directory: Directory | None = None


async def _place(task: Task, document: File) -> _Place:
    folder = _folder(document)
    directory = None if folder == PACKAGE else await task.history.directory_received_as(folder)
    if directory is None:
        return _Place(id=task.package.id)
    id_ = directory.id or uuid.uuid5(task.package.id, f"directory:{escape_name(directory.original)}")
    return _Place(id=id_, directory=replace(directory, id=id_))


async def _whole(task: Task, document: File, export: Export) -> Facts:
    """What is said of the item: its handles as Dublin Core, its descriptions, and the document itself."""
    place = await _place(task, document)
    handles = [("dc.identifier", export.handle), ("dcterms.isPartOf", export.parent)]
    pairs = [*export.pairs, *((name, f"hdl:{value}") for name, value in handles if value)]
    descriptions = [
        Description(target=place.id, kind=kind, pairs=said)
        for kind, said in (("DC", pairs), ("CUSTOM", export.custom))
        if said
    ]
    warnings = []
    for said in export.described:
        reason = await unfit(said.text)
        if reason:
            detail = f"its {said.kind} cannot stand in a METS: {reason}"
            warnings.append(Warning_(code=NOT_EMBEDDED, detail=detail, path=escape_name(document.path)))
        else:
            descriptions.append(Description(target=place.id, kind=said.kind, xml=said.text, standard=said.standard))
    kind = DOCUMENT if not export.documents else SIMPLE_ARCHIVE
    descriptions.append(Description(target=place.id, kind=kind, reference=document.id))
    others = await _named(task, document, export.documents)
    identifiers = [Identifier(object=place.id, type="Handle", value=export.handle)] if export.handle else []
    return Facts(
        directories=[place.directory] if place.directory else [],
        files=[replace(file, use=FileUse.METADATA) for file in [*others.values()] or [document]],
        descriptions=descriptions,
        identifiers=identifiers,
        warnings=warnings,
    )
