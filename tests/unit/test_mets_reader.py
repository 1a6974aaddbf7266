from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pytest
from lxml import etree

from ingestd.errors import Code, ContentError
from ingestd.mets import ReadAgent, ReadDescription, ReadEntity, ReadFile, Record, Summary, read, validate, write
from ingestd.mets.vocabulary import METS, XSI
from ingestd.tools import xml as tools_xml
from tests.mets_samples import AT, JPEG, LongHistory, a_package, a_rich_history, identifier

M = f"{{{METS}}}"
XSI_DECLARED = f' xmlns:xsi="{XSI}"'
Kind = TypeVar("Kind", ReadAgent, ReadDescription, ReadEntity, ReadFile, Summary)


@pytest.fixture
async def mets(tmp_path: Path) -> Path:
    path = tmp_path / "METS.xml"
    await write(a_rich_history(), a_package(), path, created_at=AT, document_empty_directories=True)
    return path


async def records(path: Path, *, window: int = 256) -> list[Record]:
    return [record async for some in read(path, window=window) for record in some]


def only(kind: type[Kind], among: list[Record]) -> list[Kind]:
    return [record for record in among if isinstance(record, kind)]


async def test_every_file_comes_with_what_is_known_of_it(mets: Path) -> None:
    files = {file.path: file for file in only(ReadFile, await records(mets))}
    photo = files["objects/art/photo.jpg"]

    assert 7 == len(files)
    assert str(identifier("objects/art/photo.jpg")) == photo.identifier
    assert ("original", 21, "%transferDirectory%objects/art/phötö.jpg") == (
        photo.use,
        photo.size_bytes,
        photo.original_name,
    )
    assert {"sha256": f"{21:064x}"} == photo.digests
    assert photo.format is not None
    assert (JPEG.name, JPEG.version, JPEG.puid) == (photo.format.name, photo.format.version, photo.format.puid)
    assert "ingestion" == photo.events[0].type
    assert 6 == len(photo.events)
    assert 2 == len(photo.source_of)


async def test_a_derivative_names_its_source(mets: Path) -> None:
    files = {file.path: file for file in only(ReadFile, await records(mets))}

    assert files["objects/art/photo.jpg"].identifier == files["objects/art/photo-1.tif"].derived_from
    assert "" == files["objects/art-notes.txt"].derived_from


async def test_each_agent_comes_once(mets: Path) -> None:
    agents = only(ReadAgent, await records(mets))

    assert ["ingestd", "An Archive", "urn:test", "Siegfried", "ImageMagick"] == [agent.name for agent in agents]


async def test_descriptions_and_entities_come_with_their_paths(mets: Path) -> None:
    found = await records(mets)

    assert ["", "objects/art", "objects/art/notes", "objects/art-notes"] == [e.path for e in only(ReadEntity, found)]
    assert [
        ("DC", "objects", (("dc.title", "All of it"),)),
        ("DC", "objects/art", (("dc.title", "Art"),)),
        ("DC", "objects/art/photo.jpg", (("dc.title", "Phötö <1>"), ("dcterms.created", "1999"))),
        ("CUSTOM", "objects/art/photo.jpg", (("Reading_Room", "3 & 4"), ("shelf", ""))),
    ] == [(d.kind, d.path, d.pairs) for d in only(ReadDescription, found)]


async def test_a_summary_comes_last(mets: Path) -> None:
    summary = (await records(mets))[-1]

    assert isinstance(summary, Summary)
    assert (7, 4, 4, 5, a_package().label) == (
        summary.files,
        summary.entities,
        summary.descriptions,
        summary.agents,
        summary.label,
    )
    assert 3 == summary.by_use["original"]
    assert 1 == summary.by_event["filename change"]
    assert 10 == summary.directories


async def test_records_come_in_windows(mets: Path) -> None:
    windows = [len(some) async for some in read(mets, window=4)]

    assert windows[:-1] == [4] * (len(windows) - 1)


async def test_reading_can_stop_early(mets: Path) -> None:
    reading = read(mets, window=1)
    async for some in reading:
        assert some
        break
    await reading.aclose()  # type: ignore[attr-defined]


async def test_a_file_without_its_section_is_still_told(mets: Path) -> None:
    mets.write_text(mets.read_text().replace('ADMID="amdSec_1"', 'ADMID="amdSec_77"'))

    files = only(ReadFile, await records(mets))

    assert 7 == len(files)
    assert ["objects/art/photo.jpg"] == [file.path for file in files if file.size_bytes is None]


def with_one_section(mets: Path) -> Path:
    """The same METS with one amdSec for all files, each of which names the parts that are its own."""
    tree = etree.parse(str(mets))
    root = tree.getroot()
    sections = {section.get("ID"): section for section in root.iterfind(f"{M}amdSec")}
    one = etree.SubElement(root, f"{M}amdSec", ID="all")
    root.insert(root.index(next(iter(sections.values()))), one)
    for file in root.iter(f"{M}file"):
        section = sections[file.get("ADMID")]
        file.set("ADMID", " ".join(str(part.get("ID")) for part in section))
        one.extend(list(section))
        root.remove(section)
    order = [f"{M}{name}" for name in ("techMD", "rightsMD", "sourceMD", "digiprovMD")]
    one[:] = sorted(one, key=lambda part: order.index(part.tag))
    changed = mets.with_name("one.xml")
    tree.write(str(changed))
    return changed


@pytest.mark.parametrize("whole", [False, True])
async def test_one_section_for_all_files_says_the_same_as_one_for_each(mets: Path, *, whole: bool) -> None:
    one = with_one_section(mets)

    before = [record async for window in read(mets, whole=whole) for record in window]
    after = [record async for window in read(one, whole=whole) for record in window]

    assert not await validate(one, schematron=False)
    assert 1 < len(only(ReadFile, before))
    assert only(Summary, before) == only(Summary, after)
    # Where in an element libxml2 declares a namespace is not said anew.
    plain = [
        sorted(repr(one).replace(XSI_DECLARED, "") for one in said if not isinstance(one, Summary))
        for said in (before, after)
    ]
    assert plain[0] == plain[1]


async def test_a_section_of_all_files_may_be_larger_than_what_is_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "METS.xml"
    await write(LongHistory(100), a_package(), path, created_at=AT, document_empty_directories=False)
    one = with_one_section(path)
    monkeypatch.setattr(tools_xml, "SECTION_SIGNS", 20_000)

    assert 40_000 < one.read_bytes().count(b"<")
    assert 100 == len(only(ReadFile, await records(one)))
    assert not await validate(one, schematron=False)
    (refused,) = await validate(one)
    assert "too many elements" in refused.actual, "the schematron needs a whole amdSec"


async def test_an_older_archivematica_mets_of_premis_2_is_read(tmp_path: Path) -> None:
    (tmp_path / "METS.xml").write_text(
        """<mets:mets xmlns:mets="http://www.loc.gov/METS/" xmlns:xlink="http://www.w3.org/1999/xlink">
        <mets:amdSec ID="amdSec_1">
          <mets:techMD ID="t0" STATUS="superseded"><mets:mdWrap MDTYPE="PREMIS:OBJECT"><mets:xmlData>
            <object xmlns="info:lc/xmlns/premis-v2"><objectCharacteristics><size>1</size></objectCharacteristics></object>
          </mets:xmlData></mets:mdWrap></mets:techMD>
          <mets:techMD ID="t1"><mets:mdWrap MDTYPE="PREMIS:OBJECT"><mets:xmlData>
            <object xmlns="info:lc/xmlns/premis-v2">
              <objectIdentifier><objectIdentifierType>UUID</objectIdentifierType>
                <objectIdentifierValue>7f0f1dd2-0b3c-4c0e-8d3b-2a9d7a3d0b11</objectIdentifierValue></objectIdentifier>
              <objectCharacteristics><size>42</size></objectCharacteristics>
              <originalName>%transferDirectory%objects/old.txt</originalName>
            </object></mets:xmlData></mets:mdWrap></mets:techMD>
          <mets:digiprovMD ID="d1"><mets:mdWrap MDTYPE="PREMIS:EVENT"><mets:xmlData>
            <event xmlns="info:lc/xmlns/premis-v2"><eventType>name cleanup</eventType><eventDetail>how</eventDetail></event>
          </mets:xmlData></mets:mdWrap></mets:digiprovMD>
        </mets:amdSec>
        <mets:fileSec><mets:fileGrp USE="original">
          <mets:file ID="file-7f0f1dd2-0b3c-4c0e-8d3b-2a9d7a3d0b11" ADMID="amdSec_1">
            <mets:FLocat LOCTYPE="OTHER" xlink:href="objects/old.txt"/></mets:file>
        </mets:fileGrp></mets:fileSec>
        <mets:structMap TYPE="physical"><mets:div TYPE="Directory" LABEL="old-1"/></mets:structMap></mets:mets>"""
    )

    file, summary = await records(tmp_path / "METS.xml")

    assert isinstance(file, ReadFile)
    assert ("objects/old.txt", 42, "name cleanup", "how") == (
        file.path,
        file.size_bytes,
        file.events[0].type,
        file.events[0].detail,
    )
    assert isinstance(summary, Summary)
    assert ("old-1", 1) == (summary.label, summary.files)


@pytest.mark.parametrize(
    "text", ["", "<a>", "<html/>", '<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]><m>&x;</m>', "<a>&b;</a>"]
)
async def test_what_is_no_mets_is_an_error_that_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "METS.xml").write_text(text)

    with pytest.raises(ContentError) as caught:
        await records(tmp_path / "METS.xml")

    assert Code.CONTENT_METADATA_INVALID is caught.value.code
    assert "METS.xml" == caught.value.violations[0].path


@pytest.mark.parametrize(
    ("schema", "standard"),
    [('xsi:schemaLocation="http://www.loc.gov/mods/v3 http://www.loc.gov/standards/mods/mods.xsd"', True), ("", False)],
)
async def test_what_is_of_an_mdtype_of_mets_stays_so_where_its_schema_is_named(
    schema: str, standard: bool, tmp_path: Path
) -> None:
    (tmp_path / "METS.xml").write_text(
        f"""<mets xmlns="http://www.loc.gov/METS/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
        <dmdSec ID="d"><mdWrap MDTYPE="MODS"><xmlData>
          <mods xmlns="http://www.loc.gov/mods/v3" {schema}><note>n</note></mods></xmlData></mdWrap></dmdSec>
        <structMap><div/></structMap></mets>"""
    )

    (said,) = only(ReadDescription, await records(tmp_path / "METS.xml"))

    assert ("MODS", standard) == (said.kind, said.standard)
