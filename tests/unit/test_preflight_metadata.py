"""Pre-flight finds in metadata files what their steps would refuse, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ingestd.config import MetadataXmlSettings
from ingestd.errors import Code
from ingestd.preflight import Report
from tests.preflights import codes, look, rules, write

RIGHTS = "file,basis,status,jurisdiction\n"
STRUCT_MAP = '<mets xmlns="http://www.loc.gov/METS/"><structMap>{}</structMap></mets>'
ROW = "filename,metadata,type\n{},{},mods\n"


def rights(*files: str) -> dict[str, str]:
    rows = "".join(f"{file},copyright,copyrighted,ch\n" for file in files)
    return {"metadata/rights.csv": RIGHTS + rows}


def struct_map(*names: str) -> dict[str, str]:
    divs = "".join(f'<div><fptr CONTENTIDS="{name}"/></div>' for name in names)
    return {"metadata/mets_structmap.xml": STRUCT_MAP.format(f"<div>{divs}</div>")}


def warned(report: Report) -> Sequence[str]:
    return [warning.code for warning in report.warnings]


async def test_rights_of_what_is_not_there_are_refused_as_their_step_refuses_them(tmp_path: Path) -> None:
    files = {"objects/a.txt": "1", "objects/é b.txt": "1", **rights("objects/gone.txt", "objects/a.txt", "photos")}
    stated = {"rights": [{"file": "objects/lost", "basis": "license", "terms": "CC0"}]}
    report = await look(write(tmp_path / "t", files), metadata=stated)

    assert [Code.CONTENT_METADATA_INVALID] * 2 == codes(report)
    places = {("metadata/rights.csv:2:1", "file"), ("metadata/rights.csv:4:1", "file")}
    assert {("metadata.rights.0.file", "file"), *places} == rules(report)
    assert [] == warned(report)


@pytest.mark.parametrize("name", ["objects/e_b.txt", "objects/a.txt", "objects", "objects/folder", ".h"])
async def test_what_can_be_found_by_any_of_its_names_is_there(name: str, tmp_path: Path) -> None:
    files = {"a.txt": "1", "objects/é b.txt": "1", "objects/folder/c": "1", ".h": "1"}
    report = await look(write(tmp_path / "t", {**files, **rights(name)}))

    assert [] == report.errors
    assert [] == report.warnings


@pytest.mark.parametrize("name", ["a.txt", "folder", "objects/.h"])
async def test_a_name_without_objects_is_none_of_an_object(name: str, tmp_path: Path) -> None:
    files = {"a.txt": "1", "folder/b": "1", ".h": "1", **rights(name)}

    assert {("metadata/rights.csv:2:1", "file")} == rules(await look(write(tmp_path / "t", files)))


async def test_of_names_that_become_the_same_any_may_be_meant(tmp_path: Path) -> None:
    files = {"objects/a b.txt": "1", "objects/a_b.txt": "1", "objects/a!b.txt": "1"}
    report = await look(write(tmp_path / "t", {**files, **rights("objects/a_b_1.txt", "objects/a_b_2.txt")}))

    assert [] == report.errors


async def test_what_an_archive_may_hold_is_a_warning_and_not_refused(tmp_path: Path) -> None:
    name = "objects/x.zip/inner/letter.txt"
    files = {"objects/x.zip": "PK", **rights(name), **struct_map(name)}
    report = await look(write(tmp_path / "t", files))

    assert [] == report.errors
    assert ["content.metadata_unmatched"] == warned(report)


async def test_attachments_of_mail_come_later(tmp_path: Path) -> None:
    files = {"mail/cur/1": "", "mail/new/2": "", **rights("objects/attachments/mail/cur/1/photo.jpg")}
    source = write(tmp_path / "t", files)

    assert [] == (await look(source, type="maildir")).errors
    assert [Code.CONTENT_METADATA_INVALID] == codes(await look(source))


async def test_a_struct_map_names_files_that_will_be_there(tmp_path: Path) -> None:
    files = {"a b.txt": "1", "objects/Thumbs.db": "1", "objects/.hidden": "1"}
    good = struct_map("objects/a b.txt", "objects/a%20b.txt", "objects/a_b.txt")
    bad = struct_map("objects/a b.txt", "objects/gone", "objects/Thumbs.db", "objects/.hidden", "objects")

    assert [] == (await look(write(tmp_path / "good", {**files, **good}))).errors
    report = await look(write(tmp_path / "bad", {**files, **bad}))
    assert [Code.CONTENT_METADATA_INVALID] == codes(report)
    assert {"CONTENTIDS"} == {rule for _, rule in rules(report)}
    assert 4 == len(rules(report))


async def test_an_fptr_that_names_nothing_is_told(tmp_path: Path) -> None:
    mets = STRUCT_MAP.format("<div><fptr/></div>")
    report = await look(write(tmp_path / "t", {"a": "1", "metadata/mets_structmap.xml": mets}))

    assert {"CONTENTIDS"} == {rule for _, rule in rules(report)}


async def test_documents_are_held_against_the_schemas_where_a_fault_fails_the_package(tmp_path: Path) -> None:
    schema = tmp_path / "mods.dtd"
    schema.write_text("<!ELEMENT mods (title)><!ELEMENT title (#PCDATA)>")
    documents = {"metadata/good.xml": "<mods><title>A</title></mods>", "metadata/bad.xml": "<mods/>"}
    table = ROW.format("objects/a", "bad.xml") + "objects/a,good.xml,mods\nobjects/gone,bad.xml,mods\n"
    source = write(tmp_path / "t", {"a": "1", **documents, "metadata/source-metadata.csv": table})

    def judged(*, fail: bool) -> MetadataXmlSettings:
        return MetadataXmlSettings(schemas={"mods": schema}, fail_on_error=fail)

    lenient = await look(source, {"metadata_xml": judged(fail=False)})
    strict = await look(source, {"metadata_xml": judged(fail=True)})
    assert [] == lenient.errors
    assert {("metadata/source-metadata.csv:2:2", "document")} == rules(strict)
    (violation,) = strict.errors[0].violations
    assert "not valid by mods.dtd" in violation.actual


async def test_a_processing_configuration_that_is_only_kept_may_be_anything(tmp_path: Path) -> None:
    source = write(tmp_path / "t", {"objects/a": "1", "processingMCP.xml": "<other/>"})

    assert [Code.CONTENT_METADATA_INVALID] == codes(await look(source))
    assert [] == (await look(source, {"processing_from_transfer": False})).errors
