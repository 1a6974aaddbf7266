from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lxml import etree

from ingestd.mets import ReadDescription, read, validate, write
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
