"""Every reader of what comes from outside, as one table: a right document for each, how it is read to its end, and the
exceptions by which it says that it cannot. Tests give them anything else.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestd import bag, manifests, messages
from ingestd.errors import IngestError, Violation
from ingestd.fpr import contracts
from ingestd.fpr.dump import read_dump
from ingestd.fpr.registry import Registry
from ingestd.metadata import dataverse, descriptions, dspace, identifiers, labels, mail, processing, xml
from ingestd.metadata.premis_elements import read_rights, statements
from ingestd.metadata.premis_import import PremisDocument
from ingestd.metadata.rights import RightsTable
from ingestd.metadata.source_documents import SHAPE as SOURCES
from ingestd.metadata.source_documents import row_faults
from ingestd.metadata.tables import Row, Table
from ingestd.mets import read as read_mets
from ingestd.mets import structmap, validate
from ingestd.mets.identifiers import Identifiers
from ingestd.mets.markup import UnfitElement, fit_element
from ingestd.mets.structmap_sections import described_in
from ingestd.mets.transforms import read_transforms
from ingestd.tools import jhove
from ingestd.tools.xml import element
from tests import aip_samples, dspace_samples

NAME = "metadata/x"
PACKAGE = uuid.UUID("0b9f2f1e-8c1d-5a53-9f5e-6a2f6d0c7b11")

PREMIS = """<?xml version="1.0" encoding="UTF-8"?>
<p:premis xmlns:p="http://www.loc.gov/premis/v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="3.0">
<p:object xsi:type="p:file"><p:objectIdentifier><p:objectIdentifierType>local</p:objectIdentifierType>
<p:objectIdentifierValue>a</p:objectIdentifierValue></p:objectIdentifier><p:objectCharacteristics><p:format>
<p:formatDesignation><p:formatName>text</p:formatName></p:formatDesignation></p:format></p:objectCharacteristics>
<p:originalName>objects/letter.txt</p:originalName></p:object>
<p:event><p:eventIdentifier><p:eventIdentifierType>local</p:eventIdentifierType><p:eventIdentifierValue>e
</p:eventIdentifierValue></p:eventIdentifier><p:eventType>digitisation</p:eventType>
<p:eventDateTime>1999-05-06T07:08:09+02:00</p:eventDateTime><p:linkingAgentIdentifier>
<p:linkingAgentIdentifierType>local</p:linkingAgentIdentifierType><p:linkingAgentIdentifierValue>g
</p:linkingAgentIdentifierValue></p:linkingAgentIdentifier><p:linkingObjectIdentifier>
<p:linkingObjectIdentifierType>local</p:linkingObjectIdentifierType><p:linkingObjectIdentifierValue>a
</p:linkingObjectIdentifierValue></p:linkingObjectIdentifier></p:event>
<p:agent><p:agentIdentifier><p:agentIdentifierType>local</p:agentIdentifierType><p:agentIdentifierValue>g
</p:agentIdentifierValue></p:agentIdentifier><p:agentName>Ann</p:agentName><p:agentType>person</p:agentType></p:agent>
<p:rights><p:rightsStatement><p:rightsStatementIdentifier><p:rightsStatementIdentifierType>local
</p:rightsStatementIdentifierType><p:rightsStatementIdentifierValue>r</p:rightsStatementIdentifierValue>
</p:rightsStatementIdentifier><p:rightsBasis>License</p:rightsBasis><p:licenseInformation><p:licenseTerms>CC
</p:licenseTerms></p:licenseInformation><p:rightsGranted><p:act>use</p:act><p:restriction>Allow</p:restriction>
</p:rightsGranted><p:linkingObjectIdentifier><p:linkingObjectIdentifierType>local</p:linkingObjectIdentifierType>
<p:linkingObjectIdentifierValue>a</p:linkingObjectIdentifierValue></p:linkingObjectIdentifier></p:rightsStatement>
</p:rights></p:premis>
"""
RIGHTS_STATEMENT = PREMIS[PREMIS.index("<p:rightsStatement>") : PREMIS.index("</p:rights>")].replace(
    "<p:rightsStatement>", '<p:rightsStatement xmlns:p="http://www.loc.gov/premis/v3">'
)
STRUCT_MAP = """<mets xmlns="http://www.loc.gov/METS/"><structMap ID="s" TYPE="logical"><div LABEL="book">
<div LABEL="page" TYPE="page"><fptr CONTENTIDS="objects/letter.txt"/></div></div></structMap></mets>
"""
POINTER = """<mets xmlns="http://www.loc.gov/METS/" xmlns:xlink="http://www.w3.org/1999/xlink"><fileSec><fileGrp><file
 ID="f"><FLocat xlink:href="a.7z" LOCTYPE="OTHER"/><transformFile TRANSFORMTYPE="decompression" TRANSFORMORDER="1"
 TRANSFORMALGORITHM="bzip2"/></file></fileGrp></fileSec></mets>
"""
PROCESSING = """<processingMCP><preconfiguredChoices><preconfiguredChoice>
<appliesTo>755b4177-c587-41a7-8c52-015277568302</appliesTo><goToChain>97ea7702-e4d5-48bc-b4b5-d15d897806ab</goToChain>
</preconfiguredChoice></preconfiguredChoices></processingMCP>
"""
DUBLIN_CORE = '<dublincore xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title a="b">A letter</dc:title></dublincore>'
DATASET = {
    "data": {
        "persistentUrl": "https://doi.org/10.5072/X",
        "publisher": "Demo",
        "protocol": "doi",
        "authority": "10.5072",
        "identifier": "X",
        "latestVersion": {
            "versionNumber": 1,
            "releaseTime": "2020-01-02T03:04:05Z",
            "license": {"name": "CC0", "uri": "https://example.org"},
            "termsOfUse": "any",
            "metadataBlocks": {
                "citation": {
                    "fields": [
                        {"typeName": "title", "value": "Light"},
                        {"typeName": "author", "value": [{"authorName": {"value": "Keeper"}}]},
                        {"typeName": "dsDescription", "value": [{"dsDescriptionValue": {"value": "On light"}}]},
                    ]
                }
            },
            "files": [
                {
                    "label": "a.tab",
                    "directoryLabel": "d",
                    "restricted": False,
                    "dataFile": {
                        "filename": "a.tab",
                        "checksum": {"type": "MD5", "value": "d41d8cd98f00b204e9800998ecf8427e"},
                        "originalFormatLabel": "Comma Separated Values",
                    },
                }
            ],
        },
    }
}
AGENTS = {
    "agents": [
        {"agentIdentifierType": "URI", "agentIdentifierValue": "u", "agentName": "n", "agentType": "organization"}
    ]
}
MAIL = b"""From: a@example.org
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="b"

--b
Content-Type: text/plain; charset=utf-8; name*0*=utf-8''%c3; name*1*=%a9.txt
Content-Disposition: attachment; filename="=?utf-8?q?=C3=A9?=.txt"
Content-Transfer-Encoding: base64

YQ==
--b
Content-Type: message/rfc822

Subject: x

y
--b--
"""
DUMP = [
    {
        "model": "fpr.format",
        "pk": 1,
        "fields": {"uuid": str(PACKAGE), "description": "A", "group": str(uuid.UUID(int=7)), "slug": "a"},
    },
    {"model": "fpr.formatgroup", "pk": 1, "fields": {"uuid": str(uuid.UUID(int=7)), "description": "G"}},
    {
        "model": "fpr.formatversion",
        "pk": 1,
        "fields": {"uuid": str(uuid.UUID(int=8)), "format": str(PACKAGE), "pronom_id": "fmt/43", "lastmodified": "x"},
    },
    {
        "model": "fpr.fpcommand",
        "pk": 1,
        "fields": {
            "uuid": str(uuid.UUID(int=9)),
            "tool": str(uuid.UUID(int=11)),
            "command": "convert %fileFullName% x",
            "script_type": "command",
            "command_usage": "normalization",
            "output_location": "%outputDirectory%%prefix%%fileName%%postfix%.tif",
        },
    },
    {"model": "fpr.fptool", "pk": 1, "fields": {"uuid": str(uuid.UUID(int=11)), "description": "T", "version": "1"}},
    {
        "model": "fpr.fprule",
        "pk": 1,
        "fields": {
            "uuid": str(uuid.UUID(int=10)),
            "purpose": "preservation",
            "command": str(uuid.UUID(int=9)),
            "format": str(uuid.UUID(int=8)),
        },
    },
]
REQUEST = {
    "specversion": "1.0",
    "type": "org.ingestd.preservation.request.v1",
    "id": "1",
    "source": "urn:x",
    "time": "2026-01-02T03:04:05Z",
    "data": {
        "source": {"location": "/a", "checksum": {"algorithm": "md5", "value": "d41d8cd98f00b204e9800998ecf8427e"}},
        "metadata": {"dc": {"title": ["A"]}, "identifiers": [{"type": "DOI", "value": "10/1"}]},
        "deadline_seconds": 10,
        "client_context": {"a": [1]},
    },
}
COMMAND = {
    "type": "org.ingestd.control.retry.v1",
    "id": "1",
    "source": "urn:x",
    "data": {"request": "1", "from": "start"},
}
JHOVE = b"""<jhove xmlns="j" name="Jhove"><repInfo uri="/scratch/0.tif"><status>Well-Formed</status></repInfo>
<repInfo uri="/scratch/1.tif"><message id="JHOVE-CORE-1">no</message></repInfo></jhove>"""
DIGESTS = b"d41d8cd98f00b204e9800998ecf8427e  objects/a.txt\n\\d41d8cd98f00b204e9800998ecf8427e *a\\nb\n"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """`read` reads a file to its end; what it gives, however deep, is what later steps get. `refuses`: how it says no,
    besides `IngestError`.
    """

    right: bytes
    read: Callable[[Path], object]
    refuses: tuple[type[Exception], ...] = ()
    is_xml: bool = False


def _table(shape: Any) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        table = Table(path=path, shape=shape)
        found: list[object] = []
        for row in table.rows():
            found.append(row)
            if isinstance(row, Row):
                found += [{"spelled": table.names(cell)} for cell in row.cells]
        return [*found, table.warnings()]

    return read


def _source_metadata(path: Path) -> object:
    table = Table(path=path, shape=SOURCES)
    rows = list(table.rows())
    return [row_faults(table, row, ["a.xml"]) if isinstance(row, Row) else row for row in rows]


def _metadata_csv(path: Path) -> object:
    return list(descriptions.rows(Table(path=path, shape=descriptions.SHAPE)))


def _premis(path: Path) -> object:
    with PremisDocument() as document:
        found = document.read(path)
        objects = document.objects(0, 100)
        document.found({row: PACKAGE.bytes for row, _ in objects}, PACKAGE.bytes)
        unrelated = document.unrelated()
        events = list(document.events(0))
        rights = [] if found else [list(statements(one, PACKAGE)) for one in document.rights()]
        return [found, objects, unrelated, [one.said.read() for one in events], rights, list(document.agents())]


def _dublin_core(path: Path) -> object:
    document = xml.read(path)
    return [xml.dublin_core(document), document.keys("dc"), fitted(document.text)]


def fitted(text: str) -> str:
    try:
        return fit_element(text)
    except UnfitElement as error:
        return str(error)


def _struct_map(path: Path) -> object:
    found = list(structmap.faults(path, NAME))
    with Identifiers() as identifiers:
        return [found, [] if found else [*described_in(path), *structmap.cut(path, NAME, identifiers)]]


def _dspace(path: Path) -> object:
    assert dspace.is_export(path) in {True, False}
    return dspace.read(path)


def _dataverse(path: Path) -> object:
    assert dataverse.is_dataset(path) in {True, False}
    return dataverse.read(path)


def _mail(path: Path) -> object:
    return list(mail.attachments(path))


def _manifest(path: Path) -> object:
    return [
        [{"spelled": manifests.spellings(line.path)} if isinstance(line, manifests.Entry) else line, line]
        for line in manifests.read(path, "md5", name=NAME)
    ]


def _bag(path: Path) -> object:
    """A `bagit.txt` with an encoding, and then everything else of a bag, in that encoding."""
    said = bag.read_declaration(path)
    encoding = said.encoding
    lines = list(manifests.read(path, "md5", name=NAME, encoding=encoding))
    return [said, lines, list(bag.read_info(path, encoding, name=NAME)), list(bag.read_fetch(path, encoding))]


def _mets(path: Path) -> object:
    async def all_of_it() -> list[object]:
        return [record async for window in read_mets(path, whole=True) for record in window]

    return asyncio.run(all_of_it())


def _valid(path: Path) -> object:
    return asyncio.run(validate(path))


def _rights(path: Path) -> object:
    return read_rights(path.read_bytes().decode("utf-8", "replace"), PACKAGE, PACKAGE)


def _element(path: Path) -> object:
    return fitted(element(path.read_bytes().decode("utf-8", "replace")))


def _jhove(path: Path) -> object:
    printed = path.read_bytes()
    return [jhove.reports(printed), list(jhove.documents(printed)), jhove.trouble(printed)]


def _request(path: Path) -> object:
    envelope = messages.read_request(path.read_bytes())
    again = messages.RequestEnvelope.model_validate_json(envelope.model_dump_json())
    assert again == envelope
    return [envelope.data.package_id(), envelope.data.metadata.as_records()]


def _command(path: Path) -> object:
    return messages.read_command(path.read_bytes()).model_dump_json()


def dump_reader() -> Reader:
    shipped = Registry.load()
    return Reader(right=json.dumps(DUMP).encode(), read=lambda path: read_dump(path.read_bytes(), shipped).notes)


def _finding(path: Path) -> object:
    return contracts.finding(path.read_bytes())


def _checked(path: Path) -> object:
    contracts.check_xml(path.read_bytes())
    return "fine"


METS = aip_samples.mets().encode()
READERS: Mapping[str, Reader] = {
    "metadata.csv": Reader(
        right='filename,dc.title,dc.créator,x y\nobjects/a.txt,A,"B, C",\n'.encode(), read=_metadata_csv
    ),
    "rights.csv": Reader(
        right=b"file,basis,status,jurisdiction,grant_act,grant_restriction,start_date\n"
        b"objects/a.txt,copyright,copyrighted,gb,disseminate,Allow,2000/01/02\n",
        read=lambda path: [list(RightsTable(path=path, strict=strict).rows()) for strict in (False, True)],
    ),
    "source-metadata.csv": Reader(right=b"filename,metadata,type\nobjects/a.txt,a.xml,mods\n", read=_source_metadata),
    "file_labels.csv": Reader(right=b"a.txt,The letter\n", read=_table(labels.SHAPE)),
    "identifiers.json": Reader(right=identifiers.EXAMPLE.encode(), read=lambda path: list(identifiers.read(path))),
    "metadata.json": Reader(
        right=b'[{"filename": "objects/a.txt", "dc.title": ["A", "B"], "x": 1.5, "y": null}]',
        read=lambda path: list(descriptions.entries(path)),
    ),
    "premis.xml": Reader(right=PREMIS.encode(), read=_premis, is_xml=True),
    "dublincore.xml": Reader(
        right=DUBLIN_CORE.encode(), read=_dublin_core, refuses=(xml.UnreadableError,), is_xml=True
    ),
    "processingMCP.xml": Reader(
        right=PROCESSING.encode(), read=lambda path: processing.read(path), refuses=(xml.UnreadableError,), is_xml=True
    ),
    "mets_structmap.xml": Reader(right=STRUCT_MAP.encode(), read=_struct_map, is_xml=True),
    "dspace mets.xml": Reader(right=dspace_samples.mets(), read=_dspace, refuses=(xml.UnreadableError,), is_xml=True),
    "METS": Reader(right=METS, read=_mets, is_xml=True),
    "METS, validated": Reader(right=METS, read=_valid, is_xml=True),
    "pointer": Reader(right=POINTER.encode(), read=read_transforms, is_xml=True),
    "rights of a METS": Reader(right=RIGHTS_STATEMENT.encode(), read=_rights, refuses=(ValueError,), is_xml=True),
    "output of a tool": Reader(right=DUBLIN_CORE.encode(), read=_element, refuses=(ValueError,), is_xml=True),
    "XML of a command": Reader(
        right=DUBLIN_CORE.encode(), read=_checked, refuses=(contracts.ContractError,), is_xml=True
    ),
    "JHOVE": Reader(right=JHOVE, read=_jhove),
    "finding of a command": Reader(
        right=b'{"eventOutcomeInformation": "pass", "eventOutcomeDetailNote": "x", "stdout": null}',
        read=_finding,
        refuses=(contracts.ContractError,),
    ),
    "dataset.json": Reader(right=json.dumps(DATASET).encode(), read=_dataverse, refuses=(xml.UnreadableError,)),
    "agents.json": Reader(
        right=json.dumps(AGENTS).encode(), read=lambda path: dataverse.agents(path), refuses=(xml.UnreadableError,)
    ),
    "mail": Reader(right=MAIL, read=_mail, refuses=(mail.UnreadableMailError,)),
    "checksum.md5": Reader(right=DIGESTS, read=_manifest),
    "bag": Reader(
        right=b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n" + DIGESTS + b"http://a.b/c 12 data/c\n",
        read=_bag,
    ),
    "request": Reader(right=json.dumps(REQUEST).encode(), read=_request),
    "command": Reader(right=json.dumps(COMMAND).encode(), read=_command),
    "FPR dump": dump_reader(),
}


NAMES = re.compile(r"\.(names|paths|path|reference|original_name|label)\b|spelled")
"""Where names of files stand, whose bytes need not be UTF-8."""


def unsound(value: object, path: str = "") -> Iterator[str]:
    """Name what in a result could not be written down: texts that are no Unicode, and names that are no bytes."""
    if isinstance(value, str):
        try:
            os.fsencode(value) if NAMES.search(path) else value.encode()
        except UnicodeEncodeError:
            yield f"{path}: {value[:80]!r}"
    elif isinstance(value, Violation):
        yield from unsound([value.path, value.rule, value.expected, value.actual], "violation")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from unsound(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from unsound(key, f"{path}.{key!r}")
            yield from unsound(one, f"{path}.{key!r}")
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for number, one in enumerate(value):
            yield from unsound(one, f"{path}[{number}]")


def outcome(reader: Reader, path: Path) -> object:
    """Read a file: give what comes, or how it is refused. Whatever else happens is raised."""
    try:
        return reader.read(path)
    except IngestError as error:
        return [error.violations, error.detail, error.remediation]
    except reader.refuses as error:
        return str(error)
