from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestd.errors import Code, ContentError
from ingestd.handlers.dspace import ELSEWHERE, read_dspace_exports
from ingestd.messages import read_request
from ingestd.oais import File, FileUse, TransferType
from ingestd.premis import EventOutcome, EventType, Restriction, RightsBasis
from tests.dspace_samples import CONTENTS, item, mets
from tests.steps import Bench, a_package

ITEM = "objects/ITEM@123456789-7"
DSPACE = a_package(type=TransferType.DSPACE)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    yield bench
    await bench.journal.close()


async def file_at(bench: Bench, name: str, folder: str = ITEM) -> File:
    file = await bench.journal.file_at(f"{folder}/{name}")
    assert file is not None
    return file


async def test_bitstreams_have_the_use_of_their_bundle_and_the_name_their_submitter_gave(bench: Bench) -> None:
    await bench.receive(item(ITEM))

    await bench.run(read_dspace_exports, package=DSPACE)

    original = await file_at(bench, "bitstream_1.pdf")
    text, thumbnail = await file_at(bench, "bitstream_3.txt"), await file_at(bench, "bitstream_4.jpg")
    assert (FileUse.ORIGINAL, "Thesis ünder way.pdf") == (original.use, original.label)
    assert FileUse.LICENSE is (await file_at(bench, "bitstream_2.txt")).use
    assert (FileUse.TEXT_OCR, original.id) == (text.use, text.derived_from)
    assert (FileUse.DERIVATIVE, original.id) == (thumbnail.use, thumbnail.derived_from)
    assert FileUse.METADATA is (await file_at(bench, "mets.xml")).use


async def test_each_checksum_is_proved_with_an_event_and_once(bench: Bench) -> None:
    await bench.receive(item(ITEM))

    await bench.run(read_dspace_exports, package=DSPACE, stop_after=1)
    await bench.run(read_dspace_exports, package=DSPACE)

    for name in CONTENTS:
        file = await file_at(bench, name)
        (event,) = (await bench.journal.events([file.id]))[file.id]
        assert (EventType.FIXITY_CHECK, EventOutcome.PASS) == (event.type, event.outcome)
        assert f'module="hashlib.md5()"; file="{ITEM}/mets.xml"' in event.detail


async def test_damaged_missing_and_leading_out_bitstreams_are_told_at_once(bench: Bench) -> None:
    received = item(ITEM)
    received[f"{ITEM}/bitstream_1.pdf"] = b"damaged"
    del received[f"{ITEM}/bitstream_4.jpg"]
    out = '<file CHECKSUMTYPE="MD5" CHECKSUM="aa"><FLocat LOCTYPE="URL" xlink:href="../../../etc/passwd"/></file>'
    received[f"{ITEM}/mets.xml"] = mets(more=f'<fileGrp USE="ORIGINAL">{out}</fileGrp>')
    await bench.receive({**received, "objects/other/mets.xml": b"<mets><!-- no end"})

    with pytest.raises(ContentError) as raised:
        await bench.run(read_dspace_exports, package=DSPACE)

    assert raised.value.code is Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH
    assert {
        (f"{ITEM}/bitstream_1.pdf", "md5"),
        (f"{ITEM}/bitstream_4.jpg", "present"),
        (f"{ITEM}/../../../etc/passwd", "present"),
        ("objects/other/mets.xml", "mets.xml"),
    } == {(violation.path, violation.rule) for violation in raised.value.violations}


async def test_the_items_folder_has_its_descriptions_and_its_handle(bench: Bench) -> None:
    await bench.receive(item(ITEM))

    await bench.run(read_dspace_exports, package=DSPACE)

    folder = await bench.journal.directory_received_as(ITEM)
    assert folder is not None
    assert folder.id is not None
    said = [one for _, one in (await bench.journal.descriptions([folder.id]))[folder.id]]
    assert [("DC", False), ("MODS", True), ("DIM", False), ("DSPACEMETS", False)] == [
        (one.kind, one.standard) for one in said
    ]
    assert [("dc.identifier", "hdl:123456789/7"), ("dcterms.isPartOf", "hdl:123456789/2")] == list(said[0].pairs)
    assert "On light" in said[1].xml
    assert (await file_at(bench, "mets.xml")).id == said[3].reference
    (handle,) = (await bench.journal.identifiers([folder.id]))[folder.id]
    assert ("Handle", "123456789/7") == (handle.type, handle.value)


async def test_an_item_that_is_the_whole_transfer_describes_the_package(bench: Bench) -> None:
    await bench.receive(item("objects"))

    await bench.run(read_dspace_exports)

    package = bench.package.id
    assert 4 == len((await bench.journal.descriptions([package]))[package])
    assert "123456789/7" == (await bench.journal.identifiers([package]))[package][0].value


async def test_rights_and_licences_are_rights_of_the_files(bench: Bench) -> None:
    await bench.receive(item(ITEM))

    await bench.run(read_dspace_exports, package=DSPACE)

    original, licence = await file_at(bench, "bitstream_1.pdf"), await file_at(bench, "bitstream_2.txt")
    stated, granted = (await bench.journal.rights([original.id]))[original.id]
    assert RightsBasis.LICENSE is stated.basis
    assert [
        ("discover", (Restriction.ALLOW,), ("GENERAL PUBLIC",)),
        ("modify", (Restriction.DISALLOW,), ("GENERAL PUBLIC",)),
        ("modify", (Restriction.CONDITIONAL,), ("MANAGED GRP: Staff",)),
    ] == [(act.act, tuple(act.restrictions), tuple(act.notes)) for act in stated.granted]
    (documentation,) = granted.documentation
    assert ("UUID", str(licence.id), "DSpaceDepositLicense") == (
        documentation.type,
        documentation.value,
        documentation.role,
    )
    assert 1 == len((await bench.journal.rights([licence.id]))[licence.id])


async def test_an_entity_is_refused(bench: Bench) -> None:
    head = '<!DOCTYPE mets [<!ENTITY secret SYSTEM "file:///etc/passwd">]>'
    await bench.receive({**item(ITEM), f"{ITEM}/mets.xml": mets(head=head)})

    with pytest.raises(ContentError) as raised:
        await bench.run(read_dspace_exports, package=DSPACE)

    (violation,) = raised.value.violations
    assert "document type declaration" in violation.actual


async def test_what_the_export_has_elsewhere_is_a_warning(bench: Bench) -> None:
    away = '<fileGrp USE="ORIGINAL"><file><FLocat LOCTYPE="URL" xlink:href="https://repository.example/1"/></file>'
    await bench.receive({**item(ITEM), f"{ITEM}/mets.xml": mets(more=f"{away}</fileGrp>")})

    await bench.run(read_dspace_exports, package=DSPACE)

    warnings = [one async for window in bench.journal.warnings() for one in window]
    assert [ELSEWHERE] == [one.code for one in warnings]


@pytest.mark.parametrize(
    ("kind", "content", "read"),
    [
        (TransferType.AUTO, mets(), True),
        (TransferType.AUTO, b"<mets xmlns='http://www.loc.gov/METS/' TYPE='book'/>", False),
        (TransferType.AUTO, b"no xml", False),
        (TransferType.STANDARD, mets(), False),
    ],
)
async def test_only_what_dspace_wrote_is_read_without_being_asked(
    bench: Bench, kind: TransferType, content: bytes, read: bool
) -> None:
    await bench.receive({**item(ITEM), f"{ITEM}/mets.xml": content})

    await bench.run(read_dspace_exports, package=a_package(type=kind))

    assert read is ((await file_at(bench, "mets.xml")).use is FileUse.METADATA)


async def test_a_transfer_without_mets_xml_is_no_dspace_export(bench: Bench) -> None:
    await bench.receive({"objects/a.txt": b"a"})

    with pytest.raises(ContentError) as raised:
        await bench.run(read_dspace_exports, package=DSPACE)

    assert raised.value.code is Code.CONTENT_STRUCTURE_INVALID


def test_archivematicas_spelling_is_understood() -> None:
    request = read_request(b'{"source": {"location": "/x"}, "type": "DSpace"}').data

    assert TransferType.DSPACE is request.type


DUBLIN_CORE = """<?xml version="1.0" encoding="utf-8"?>
<dublin_core schema="dc"><dcvalue element="title" qualifier="none" language="en">On light</dcvalue>
<dcvalue element="contributor" qualifier="author">Keeper, Ann</dcvalue>
<dcvalue element="date" qualifier="issued">1999</dcvalue><dcvalue element="subject"> </dcvalue></dublin_core>"""
LOCAL = '<dublin_core schema="local"><dcvalue element="shelf" qualifier="mark">X 1</dcvalue></dublin_core>'
LIST = """thesis ü.pdf\tbundle:ORIGINAL\tdescription:The thesis\tprimary:true
thesis ü.pdf.txt\tbundle:TEXT
license.txt
data.csv\tbundle:ORIGINAL\tpermissions:-r 'Staff'
-r -s 1 -f far/away.tif
"""


def simple_item(folder: str, contents: str = LIST) -> dict[str, bytes]:
    """An item in DSpace's Simple Archive Format."""
    files = {
        "dublin_core.xml": DUBLIN_CORE,
        "metadata_local.xml": LOCAL,
        "contents": contents,
        "handle": "123456789/7\n",
        "thesis ü.pdf": "%PDF-1.4",
        "thesis ü.pdf.txt": "light",
        "license.txt": "I grant.",
        "data.csv": "1,2",
    }
    return {f"{folder}/{name}": content.encode() for name, content in files.items()}


async def test_an_item_in_the_simple_archive_format_is_taken_over(bench: Bench) -> None:
    await bench.receive(simple_item("objects/item_000"))

    await bench.run(read_dspace_exports)

    folder = "objects/item_000"
    thesis, text = await file_at(bench, "thesis ü.pdf", folder), await file_at(bench, "thesis ü.pdf.txt", folder)
    assert (FileUse.ORIGINAL, "The thesis") == (thesis.use, thesis.label)
    assert (FileUse.TEXT_OCR, thesis.id) == (text.use, text.derived_from)
    assert FileUse.LICENSE is (await file_at(bench, "license.txt", folder)).use
    for name in ("dublin_core.xml", "metadata_local.xml", "contents", "handle"):
        assert FileUse.METADATA is (await file_at(bench, name, folder)).use
    directory = await bench.journal.directory_received_as(folder)
    assert directory is not None
    assert directory.id is not None
    said = [one for _, one in (await bench.journal.descriptions([directory.id]))[directory.id]]
    assert [
        ("dc.title", "On light"),
        ("dc.contributor", "Keeper, Ann"),
        ("dcterms.issued", "1999"),
        ("dc.identifier", "hdl:123456789/7"),
    ] == [tuple(pair) for pair in said[0].pairs]
    assert [("local_shelf_mark", "X 1")] == [tuple(pair) for pair in said[1].pairs]
    assert ["DC", "CUSTOM", "DSPACESAF"] == [one.kind for one in said]
    data = await file_at(bench, "data.csv", folder)
    (rights,) = (await bench.journal.rights([data.id]))[data.id]
    assert ("permissions", "read", ["group: Staff"]) == (
        rights.other_basis,
        rights.granted[0].act,
        list(rights.granted[0].notes),
    )
    assert [ELSEWHERE] == [code for code, _, _ in await bench.journal.count_warnings()]


async def test_what_an_item_in_the_simple_archive_format_lists_must_be_there(bench: Bench) -> None:
    files = simple_item("objects/item_000", f"{LIST}gone.tif\n../out\n")
    await bench.receive({**files, "objects/other/dublin_core.xml": b"<dublin_core/>", "objects/contents": b"no item"})

    with pytest.raises(ContentError) as caught:
        await bench.run(read_dspace_exports)

    found = {one.path: one.expected for one in caught.value.violations}
    assert {"objects/item_000/gone.tif", "objects/item_000/../out"} == set(found)
    assert "objects/item_000/contents:6" in found["objects/item_000/gone.tif"]
