from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from ingestd.mets import ReadDescription, ReadFile, read, unfit_premis, validate, write
from ingestd.oais import Description, DescriptionStatus, Facts, FileUse, Section
from tests.mets_samples import AT, a_file, a_package, a_rich_history, identifier
from tests.unit.test_mets_writer import NS, metsrw_document

PHOTO = identifier("objects/art/photo.jpg")
XML = '<mods xmlns="http://www.loc.gov/mods/v3"><titleInfo><title>é &lt;</title></titleInfo></mods>'


async def document(path: Path, *said: Description) -> Any:
    history = a_rich_history()
    history.record(Facts(descriptions=said))
    written = await write(history, a_package(), path, created_at=AT, document_empty_directories=True)
    assert [] == list(written.problems)
    assert [] == list(await validate(path))
    return etree.parse(str(path))


def found(tree: Any, path: str) -> list[Any]:
    return list(tree.getroot().xpath(path, namespaces={**NS, "mods": "http://www.loc.gov/mods/v3"}))


async def test_xml_stands_in_a_dmd_sec_of_its_type_and_metsrw_finds_it(tmp_path: Path) -> None:
    tree = await document(tmp_path / "METS.xml", Description(target=PHOTO, kind="MODS record", xml=XML))
    wrap = found(tree, "m:dmdSec/m:mdWrap[@OTHERMDTYPE='MODS record']")

    assert ["é <"] == found(tree, "m:dmdSec/m:mdWrap[@OTHERMDTYPE='MODS record']//mods:title/text()")
    assert ["OTHER"] == [one.get("MDTYPE") for one in wrap]
    entry = next(e for e in metsrw_document(tmp_path / "METS.xml").all_files() if e.file_uuid == str(PHOTO))
    assert ["DC", "OTHER", "OTHER"] == [section.contents.mdtype for section in entry.dmdsecs]
    assert "MODS record" == entry.dmdsecs[-1].contents.othermdtype


async def test_source_metadata_of_a_file_stand_between_its_object_and_its_events(tmp_path: Path) -> None:
    tree = await document(
        tmp_path / "METS.xml",
        Description(target=PHOTO, kind="card", section=Section.SOURCE, pairs=[("shelf mark", "X & 1")]),
    )
    parts = found(tree, f"m:amdSec[@ID=//m:file[@ID='file-{PHOTO}']/@ADMID]/*")
    names = [etree.QName(part).localname for part in parts]

    assert ["techMD", "sourceMD", "digiprovMD"] == names[:3]
    assert names == sorted(names, key=["techMD", "sourceMD", "digiprovMD"].index)
    assert ["X & 1"] == found(tree, "//m:sourceMD/m:mdWrap[@OTHERMDTYPE='card']/m:xmlData/shelf_mark/text()")
    (entry,) = [e for e in metsrw_document(tmp_path / "METS.xml").all_files() if e.file_uuid == str(PHOTO)]
    assert ["card"] == [s.contents.othermdtype for s in entry.amdsecs[0].subsections if s.subsection == "sourceMD"]


async def test_source_metadata_of_the_package_are_the_last_amd_sec_and_the_objects_div_names_it(tmp_path: Path) -> None:
    package = a_package().id
    paper = identifier("objects/metadata/transfers/t/metadata.csv")
    tree = await document(
        tmp_path / "METS.xml",
        Description(target=package, kind="BagIt", section=Section.SOURCE, pairs=[("Bag-Count", "1"), ("x", "y")]),
        Description(target=package, kind="OTHER", section=Section.SOURCE, reference=paper),
    )
    (amd,) = found(tree, "m:structMap[1]/m:div/m:div[@LABEL='objects']/@ADMID")
    last = found(tree, "m:amdSec")[-1]

    assert amd == last.get("ID")
    assert ["1"] == found(tree, "//m:mdWrap[@OTHERMDTYPE='BagIt']/m:xmlData/Bag-Count/text()")
    assert ["objects/metadata/transfers/t/metadata.csv"] == found(tree, "m:amdSec/m:sourceMD/m:mdRef/@xlink:href")
    objects = next(e for e in metsrw_document(tmp_path / "METS.xml").all_files() if e.label == "objects")
    assert [2] == [len(section.subsections) for section in objects.amdsecs]


async def test_what_is_superseded_keeps_its_status_its_time_and_its_group(tmp_path: Path) -> None:
    earlier = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    old = Description(
        target=PHOTO,
        kind="card",
        pairs=[("a", "1")],
        status=DescriptionStatus.ORIGINAL_SUPERSEDED,
        created_at=earlier,
        group="g1",
    )
    tree = await document(
        tmp_path / "METS.xml", old, replace(old, pairs=[("a", "2")], status=DescriptionStatus.UPDATE, created_at=None)
    )
    sections = found(tree, "m:dmdSec[m:mdWrap/@OTHERMDTYPE='card']")

    assert [
        ("original-superseded", "2020-01-02T03:04:05", "g1"),
        ("update", "2026-11-20T18:57:41", "g1"),
    ] == [(s.get("STATUS"), s.get("CREATED"), s.get("GROUPID")) for s in sections]


async def test_what_cannot_stand_there_is_kept_as_text_and_told(tmp_path: Path) -> None:
    history = a_rich_history()
    gone = a_file("objects/metadata/gone.xml", use=FileUse.METADATA, removed=True)
    history.record(
        Facts(
            files=[gone],
            descriptions=[
                Description(target=PHOTO, kind="bad", xml="<a><b></a>"),
                Description(target=PHOTO, kind="lost", reference=gone.id),
            ],
        )
    )
    written = await write(history, a_package(), tmp_path / "METS.xml", created_at=AT, document_empty_directories=True)
    tree = etree.parse(str(tmp_path / "METS.xml"))

    assert ["mets.description.bad", "mets.description.lost"] == [problem.rule for problem in written.problems]
    assert ["<a><b></a>"] == found(tree, "m:dmdSec/m:mdWrap[@OTHERMDTYPE='bad']/m:xmlData/text/text()")
    assert [] == list(await validate(tmp_path / "METS.xml"))


async def test_what_is_said_is_read_back_whole(tmp_path: Path) -> None:
    package, paper = a_package().id, identifier("objects/metadata/transfers/t/metadata.csv")
    earlier = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    old = DescriptionStatus.ORIGINAL_SUPERSEDED
    await document(
        tmp_path / "METS.xml",
        Description(target=PHOTO, kind="mods", xml=XML, status=old, created_at=earlier, group="g"),
        Description(target=PHOTO, kind="x", reference=paper),
        Description(target=PHOTO, kind="card", section=Section.SOURCE, pairs=[("a", "1"), ("b", "2")]),
        Description(target=package, kind="BagIt", section=Section.SOURCE, pairs=[("a", "1"), ("b", "2")]),
    )
    read_back = [one async for window in read(tmp_path / "METS.xml") for one in window]
    said = {one.kind: one for one in read_back if isinstance(one, ReadDescription) and one.kind in "mods x card BagIt"}
    photo = "objects/art/photo.jpg"

    assert {
        "mods": ReadDescription(kind="mods", path=photo, pairs=(), xml=XML, status=old, group="g"),
        "x": ReadDescription(kind="x", path=photo, pairs=(), reference="objects/metadata/transfers/t/metadata.csv"),
        "card": ReadDescription(kind="card", path=photo, pairs=(("a", "1"), ("b", "2")), section=Section.SOURCE),
        "BagIt": ReadDescription(kind="BagIt", path="objects", pairs=(("a", "1"), ("b", "2")), section=Section.SOURCE),
    } == said
    assert "2020-01-02T03:04:05" == said["mods"].created_at


_V3 = 'xmlns:premis="http://www.loc.gov/premis/v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="3.0"'
_FILE = (
    "<premis:objectIdentifier><premis:objectIdentifierType>UUID</premis:objectIdentifierType>"
    "<premis:objectIdentifierValue>1</premis:objectIdentifierValue></premis:objectIdentifier>"
    "<premis:objectCharacteristics><premis:format><premis:formatDesignation><premis:formatName>n</premis:formatName>"
    "</premis:formatDesignation></premis:format></premis:objectCharacteristics>"
)


@pytest.mark.parametrize(
    ("xml", "kind", "reason"),
    [
        (f'<premis:object {_V3} xsi:type="premis:file">{_FILE}</premis:object>', "PREMIS:OBJECT", ""),
        (f'<premis:object {_V3} xsi:type="premis:file"><premis:x/></premis:object>', "PREMIS:OBJECT", "not valid"),
        (f'<premis:object {_V3} xsi:type="premis:file" xmlID="a">{_FILE}</premis:object>', "PREMIS:OBJECT", "xmlID"),
        (f'<premis:object {_V3} xsi:type="premis:bitstream">{_FILE}</premis:object>', "PREMIS:OBJECT", "of a file"),
        (f'<premis:object {_V3} xsi:type="premis:file">{_FILE}</premis:object>', "PREMIS", "of a file"),
        ("<object/>", "OTHER", "not PREMIS"),
        ("", "PREMIS:OBJECT", "not PREMIS"),
        ("<m:mets xmlns:m='http://www.loc.gov/METS/'/>", "PREMIS:OBJECT", "of a file"),
    ],
)
async def test_what_cannot_stand_in_a_mets_as_it_was_written_is_told(xml: str, kind: str, reason: str) -> None:
    said = Description(target=PHOTO, kind=kind, xml=xml, section=Section.TECHNICAL)

    (found,) = await unfit_premis([said])

    assert reason in found
    assert bool(reason) == bool(found)


async def test_a_superseded_object_stands_before_the_one_that_holds_and_both_are_read(tmp_path: Path) -> None:
    old = f'<premis:object {_V3} xsi:type="premis:file" xsi:schemaLocation="a b">{_FILE}</premis:object>'
    said = Description(target=PHOTO, kind="PREMIS:OBJECT", xml=old, section=Section.TECHNICAL, standard=True)
    gone = replace(
        said, status=DescriptionStatus.ORIGINAL_SUPERSEDED, created_at=datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    )

    tree = await document(tmp_path / "METS.xml", gone, replace(said, created_at=AT))

    sections = found(tree, "//m:amdSec[m:techMD/@STATUS]/m:techMD")
    assert [("superseded", "2020-01-02T03:04:05"), ("current", "2026-11-20T18:57:41")] == [
        (one.get("STATUS"), one.get("CREATED")) for one in sections
    ]
    records = [record async for window in read(tmp_path / "METS.xml", whole=True) for record in window]
    (file,) = [one for one in records if isinstance(one, ReadFile) and one.superseded]
    assert ["2020-01-02T03:04:05"] == [one.created_at for one in file.superseded]
    assert file.object is not None
    assert "current" == file.object.status
