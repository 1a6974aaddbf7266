"""Pre-flight of metadata files: each is read by the reader that its step will use, and held against the names there.

What the step only warns of is no finding. Whether a fault fails the package is the workflow's to say.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ingestd.errors import Code, Violation
from ingestd.metadata import descriptions, identifiers, labels, processing, source_documents, xml
from ingestd.metadata.premis_import import FILE as PREMIS
from ingestd.metadata.premis_import import PremisDocument
from ingestd.metadata.rights import FILE as RIGHTS
from ingestd.metadata.rights import RightsTable
from ingestd.metadata.tables import LISTED, Row, Table
from ingestd.mets import structmap
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


def check_metadata(transfer: Transfer, *, fatal: Mapping[str, bool], strict_rights: bool) -> list[Warning_]:
    """Read every metadata file whose step the workflow has; give warnings. `fatal`: by step, whether a fault fails."""
    warnings: list[Warning_] = []

    def rights(transfer: Transfer, path: Path) -> Iterator[Violation]:
        yield from _rights(transfer, path, warnings, strict=strict_rights)

    checks: Mapping[str, tuple[str, Check]] = {
        "read_processing_configuration": (_PROCESSING, _processing),
        "rights_from_csv": (RIGHTS, rights),
        "load_identifiers": (identifiers.FILE, _identifiers),
        "load_premis_events_from_xml": (PREMIS, _premis),
        "load_metadata_csv": (descriptions.FILE, _metadata_csv),
        "load_metadata_json": (descriptions.JSON_FILE, _metadata_json),
        "load_dublin_core": (_DUBLIN_CORE, _dublin_core),
        "load_source_metadata": (source_documents.FILE, _source_metadata),
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
    """A row about what is not there is wrong, unless an archive among the objects may hold it."""
    for item in RightsTable(path=path, strict=strict).rows():
        transfer.watch()
        if isinstance(item, Violation):
            yield item
        elif isinstance(item, RightsClaim) and not transfer.overview.said and not transfer.has(item.paths):
            detail = f"line {item.line} is about something that is not in the source, unless an archive there holds it"
            warnings.append(Warning_(code=NOT_FOUND, detail=f"{detail}: {item.paths[0][:100]}", path=RIGHTS))


def _source_metadata(transfer: Transfer, path: Path) -> Iterator[Violation]:
    table = Table(path=path, shape=source_documents.SHAPE)
    for item in table.rows():
        transfer.watch()
        if isinstance(item, Row):
            cell = item.get("metadata")
            names = [f"metadata/{name.removeprefix('metadata/')}" for name in table.names(cell)]
            here = bool(transfer.overview.said) or (bool(cell) and transfer.has_file(names))
            yield from source_documents.row_faults(table, item, [cell] if here else [])
        else:
            yield item


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


def _struct_map(_: Transfer, path: Path) -> Iterator[Violation]:
    yield from structmap.faults(path, _STRUCT_MAP)
