"""Pre-flight of metadata files: each is read by the reader that its step will use, and held against the names there.

What the step only warns of is no finding. Whether a fault fails the package is the workflow's to say.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ingestd.config import MetadataXmlSettings, RightsRules, Settings
from ingestd.errors import Code, Violation
from ingestd.metadata import descriptions, identifiers, labels, processing, source_documents, xml
from ingestd.metadata.premis_import import FILE as PREMIS
from ingestd.metadata.premis_import import PremisDocument
from ingestd.metadata.rights import FILE as RIGHTS
from ingestd.metadata.rights import OF_REQUEST, RightsTable, lost
from ingestd.metadata.tables import LISTED, Row, Table
from ingestd.mets import structmap, why_unfit
from ingestd.mets.identifiers import Identifiers
from ingestd.oais import RightsClaim, Warning_
from ingestd.preflight.transfer import Transfer

_DUBLIN_CORE = "metadata/dublincore.xml"
_STRUCT_MAP = "metadata/mets_structmap.xml"
_PROCESSING = "processingMCP.xml"
NOT_FOUND = "content.metadata_unmatched"
READ = tuple(
    name.rpartition("/")[2]
    for name in (
        *(_PROCESSING, _DUBLIN_CORE, _STRUCT_MAP, RIGHTS, PREMIS, identifiers.FILE, labels.LABELS),
        *(descriptions.FILE, descriptions.JSON_FILE, source_documents.FILE),
    )
)
"""Names of the files that are read."""

Check = Callable[[Transfer, Path], Iterator[Violation]]


def check_metadata(
    transfer: Transfer, settings: Settings, rights: Sequence[RightsClaim], *, fatal: Mapping[str, bool]
) -> list[Warning_]:
    """Read every metadata file whose step the workflow has; give warnings. `fatal`: by step, whether a fault fails.
    `rights` are those that the request states.
    """
    warnings: list[Warning_] = []
    strict = settings.metadata.rights_rules is RightsRules.STRICT

    def rights_csv(transfer: Transfer, path: Path) -> Iterator[Violation]:
        yield from _rights(transfer, path, warnings, strict=strict)

    def source_metadata(transfer: Transfer, path: Path) -> Iterator[Violation]:
        yield from _source_metadata(transfer, path, settings.metadata_xml)

    def processing_mcp(transfer: Transfer, path: Path) -> Iterator[Violation]:
        yield from _processing(transfer, path) if settings.processing_from_transfer else ()

    if fatal.get("rights_from_csv"):
        wrong = [lost(one, number) for number, one in enumerate(rights) if _is_lost(transfer, one.paths)]
        transfer.refuse(Code.CONTENT_METADATA_INVALID, f"{OF_REQUEST} has {_number(len(wrong))}", wrong)
    checks: Mapping[str, tuple[str, Check]] = {
        "read_processing_configuration": (_PROCESSING, processing_mcp),
        "rights_from_csv": (RIGHTS, rights_csv),
        "load_identifiers": (identifiers.FILE, _identifiers),
        "load_premis_events_from_xml": (PREMIS, _premis),
        "load_metadata_csv": (descriptions.FILE, _metadata_csv),
        "load_metadata_json": (descriptions.JSON_FILE, _metadata_json),
        "load_dublin_core": (_DUBLIN_CORE, _dublin_core),
        "load_source_metadata": (source_documents.FILE, source_metadata),
        "load_file_labels": (labels.LABELS, _labels),
        "load_struct_map": (_STRUCT_MAP, _struct_map),
    }
    for step, (name, check) in checks.items():
        if step in fatal:
            with transfer.opened(_place(transfer, name)) as path:
                faults = list(_watched(transfer, check(transfer, path))) if path is not None else []
            if fatal[step]:
                code = Code.CONTENT_PREMIS_INVALID if name == PREMIS else Code.CONTENT_METADATA_INVALID
                transfer.refuse(code, f"{name} has {_number(len(faults))}", faults)
            else:
                warnings += [
                    Warning_(code=_code(name), detail=f"{one.path} {one.rule}: {one.actual}", path=name)
                    for one in faults
                ]
    return warnings


def _place(transfer: Transfer, name: str) -> str:
    """Where the metadata are: a bag has them in its payload, if that has the folders of a transfer."""
    return f"{transfer.base}{name}" if not transfer.bag or transfer.standard else ""


def _number(faults: int) -> str:
    return f"{faults} fault{'s' if faults != 1 else ''}{' or more' if faults >= LISTED else ''}"


def _code(name: str) -> str:
    return Code.CONTENT_PREMIS_INVALID if name == PREMIS else Code.CONTENT_METADATA_INVALID


def _watched(transfer: Transfer, violations: Iterable[Violation]) -> Iterator[Violation]:
    for violation in itertools.islice(violations, LISTED):
        transfer.watch()
        yield violation


# --- one file each ---------------------------------------------------------------------------------------------------


def _metadata_csv(transfer: Transfer, path: Path) -> Iterator[Violation]:
    yield from _only(transfer, descriptions.rows(Table(path=path, shape=descriptions.SHAPE)))


def _metadata_json(transfer: Transfer, path: Path) -> Iterator[Violation]:
    yield from _only(transfer, descriptions.entries(path))


def _identifiers(transfer: Transfer, path: Path) -> Iterator[Violation]:
    yield from _only(transfer, identifiers.read(path))


def _labels(transfer: Transfer, path: Path) -> Iterator[Violation]:
    yield from _only(transfer, Table(path=path, shape=labels.SHAPE).rows())


def _only(transfer: Transfer, items: Iterable[object]) -> Iterator[Violation]:
    for item in items:
        transfer.watch()
        if isinstance(item, Violation):
            yield item


def _rights(transfer: Transfer, path: Path, warnings: list[Warning_], *, strict: bool) -> Iterator[Violation]:
    """A row about what is not there is wrong, unless it may still come: then it is a warning, where all was seen."""
    for item in RightsTable(path=path, strict=strict).rows():
        transfer.watch()
        if isinstance(item, Violation):
            yield item
        elif isinstance(item, RightsClaim) and _is_lost(transfer, item.paths):
            yield lost(item)
        elif isinstance(item, RightsClaim) and not transfer.overview.said and not transfer.has(item.paths):
            detail = f"line {item.line} is about something that is not in the source, unless an archive there holds it"
            warnings.append(Warning_(code=NOT_FOUND, detail=f"{detail}: {item.paths[0][:100]}", path=RIGHTS))


def _is_lost(transfer: Transfer, names: Sequence[str]) -> bool:
    return not transfer.has(names) and not transfer.may_get(names)


def _source_metadata(transfer: Transfer, path: Path, settings: MetadataXmlSettings) -> Iterator[Violation]:
    """Documents themselves are read where a fault of theirs fails the package, and they can be had."""
    table, schemas = Table(path=path, shape=source_documents.SHAPE), source_documents.schemas_of(settings)
    reads = settings.fail_on_error and transfer.overview.opens_all
    for item in table.rows():
        transfer.watch()
        if isinstance(item, Row):
            cell = item.get("metadata")
            names = [f"metadata/{name.removeprefix('metadata/')}" for name in table.names(cell)]
            here = bool(transfer.overview.said) or (bool(cell) and transfer.has_file(names))
            faults = source_documents.row_faults(table, item, [cell] if here else [])
            yield from faults
            if reads and cell and not faults and transfer.has(table.names(item.get("filename"))):
                problem = _problem(transfer, names, schemas, item.get("type"))
                yield from [source_documents.document_fault(table, item, problem)] if problem else []
        else:
            yield item


def _problem(transfer: Transfer, names: Sequence[str], schemas: xml.Schemas, kind: str) -> str:
    """Why the document that has one of these names is not to be used; empty where it is, or was not read."""
    place = next((place for name in names for place in transfer.places(name) if transfer.overview.is_file(place)), "")
    with transfer.opened(place) as document:
        judged = schemas.judged(document, kind) if document is not None else None
    if judged is None or judged.document is None or judged.problem:
        return judged.problem if judged else ""
    reason = why_unfit(judged.document.text)
    return f"{source_documents.UNFIT}: {reason}" if reason else ""


def _premis(_: Transfer, path: Path) -> Iterator[Violation]:
    with PremisDocument() as document:
        yield from document.read(path)


def _dublin_core(_: Transfer, path: Path) -> Iterator[Violation]:
    expected = "<dublincore> with elements of Dublin Core"
    try:
        xml.read(path)
    except xml.UnreadableError as error:
        yield Violation(path=_DUBLIN_CORE, rule="xml", expected=expected, actual=str(error))


def _processing(_: Transfer, path: Path) -> Iterator[Violation]:
    expected = "<processingMCP> with <preconfiguredChoices>, as Archivematica writes it"
    try:
        processing.read(path)
    except xml.UnreadableError as error:
        yield Violation(path=_PROCESSING, rule="xml", expected=expected, actual=str(error))


def _struct_map(transfer: Transfer, path: Path) -> Iterator[Violation]:
    faults = structmap.faults(path, _STRUCT_MAP)
    yield from faults
    with Identifiers() as identifiers:
        windows = structmap.cut(path, _STRUCT_MAP, identifiers) if not faults else ()
        for piece in itertools.chain.from_iterable(windows):
            transfer.watch()
            if isinstance(piece, Violation):
                yield piece
            elif isinstance(piece, structmap.Pointer) and not _is_pointed_at(transfer, piece.names):
                yield structmap.missing(piece, _STRUCT_MAP)


def _is_pointed_at(transfer: Transfer, names: Sequence[str]) -> bool:
    return transfer.keeps_file(names) or transfer.may_get(names)
