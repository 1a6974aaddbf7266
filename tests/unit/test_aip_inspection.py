from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ingestd import aip
from ingestd.errors import ContentError, SourceError
from tests.aip_samples import AIP_ID, NAME, PHOTO, PREMIS_2, Sample, archivematica, mets, mets_0, packed

FORMS = ["folder", "7z", "zip", "tar", "tar.gz", "tar.bz2", "tar.zst"]


def an_aip(tmp_path: Path, form: str) -> Path:
    folder = archivematica(tmp_path)
    return folder if form == "folder" else packed(folder, form)


@pytest.mark.parametrize("form", FORMS)
async def test_an_aip_of_archivematica_is_read_however_it_is_packed(tmp_path: Path, form: str) -> None:
    found = await aip.inspect(an_aip(tmp_path, form))

    assert (NAME, AIP_ID, form) == (found.name, found.identifier, found.form)
    assert (4, 10) == (found.files, found.members)
    assert {"original": 2, "preservation": 1, "submissionDocumentation": 1} == {
        use: counted.files for use, counted in found.by_use.items()
    }
    assert {"x-fmt/111", "fmt/43", "fmt/353", "fmt/101"} == {counted.puid for counted in found.formats}
    assert [("fixity check", "Pass", 4), ("ingestion", "", 4)] == [(e.type, e.outcome, e.count) for e in found.events]
    assert ["Archivematica"] == [agent["name"] for agent in found.agents]
    assert ("External-Identifier", AIP_ID) in found.bag_info
    assert ([], []) == (found.troubles, found.notes)


async def test_a_derivative_stands_in_the_tree_with_its_source(tmp_path: Path) -> None:
    found = await aip.inspect(archivematica(tmp_path))

    (copy,) = [entry for entry in found.tree if entry.use == "preservation"]
    assert (PHOTO.identifier, "fmt/353") == (copy.derived_from, copy.puid)


async def test_the_oldest_mets_names_are_known_and_a_folder_need_not_be_a_bag(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects/letter.txt").write_bytes(b"Dear Zoe,\n")
    (tmp_path / "METS.xml").write_text(mets([Sample(path="objects/letter.txt", content=b"Dear Zoe,\n")]))

    found = await aip.inspect(tmp_path)

    assert ("METS.xml", 1, 2) == (found.mets, found.files, found.members)
    assert "original" == found.tree[1].use


async def test_an_aip_of_archivematica_0_8_says_as_much_as_a_later_one(tmp_path: Path) -> None:
    """One `premis` for each file, named by the digiprovMD that wraps it, and directories that point to their files."""
    for version, text in (("0.8", mets_0()), ("1.4", mets())):
        archivematica(tmp_path / version, text=text)
    old, new = [await aip.inspect(tmp_path / version) for version in ("0.8", "1.4")]

    assert (new.files, new.by_use, new.formats, new.events) == (old.files, old.by_use, old.formats, old.events)
    assert [replace(entry, derived_from="") for entry in new.tree if "METS" not in entry.path] == [
        replace(entry, derived_from="") for entry in old.tree if "METS" not in entry.path
    ]
    assert [entry.derived_from for entry in new.tree] == [entry.derived_from for entry in old.tree]
    assert ["Archivematica-0.8"] == [agent["identifier"] for agent in old.agents]
    assert [("Letters",)] == [tuple(value for _, value in said.pairs) for said in old.descriptions]
    (right,) = old.rights
    assert ("Copyright", "copyrighted; ca", ["disseminate: Disallow"], False, 1) == (
        right.basis,
        right.grounds,
        right.acts,
        right.whole,
        right.files,
    )
    assert ([], []) == (old.troubles, old.notes)


async def test_rights_and_source_metadata_of_the_package_are_told(tmp_path: Path) -> None:
    source = (
        '<sourceMD ID="sourceMD_1"><mdWrap MDTYPE="OTHER" OTHERMDTYPE="BagIt"><xmlData><Source-Organization xmlns="">Us'
        "</Source-Organization></xmlData></mdWrap></sourceMD>"
        '<sourceMD ID="sourceMD_2" STATUS="original-superseded"><mdRef LOCTYPE="OTHER" OTHERLOCTYPE="SYSTEM"'
        ' MDTYPE="OTHER" OTHERMDTYPE="sourceMD" xlink:href="objects/letter.txt"/></sourceMD>'
    )
    text = mets().replace("<fileSec>", f'<amdSec ID="amdSec_9">{source}</amdSec><fileSec>')
    text = text.replace('<div LABEL="objects"', '<div ADMID="amdSec_9" LABEL="objects"')
    text = text.replace("</techMD>", f'</techMD><rightsMD ID="r"><mdWrap MDTYPE="PREMIS:RIGHTS"><xmlData>{whole()}', 1)
    text = text.replace(whole(), f"{whole()}</xmlData></mdWrap></rightsMD>")

    found = await aip.inspect(archivematica(tmp_path, text=text))

    assert [
        ("Source metadata (BagIt)", [("Source-Organization", "Us")]),
        ("Source metadata (sourceMD), original-superseded", [("File", "objects/letter.txt")]),
    ] == [(said.title, said.rows) for said in found.descriptions]
    assert (0, 1) == (found.described, found.sourced)
    assert [("Donor", "the whole package")] == [(right.basis, right.about) for right in found.rights]


def whole() -> str:
    """A rights statement about the AIP itself."""
    return (
        f"<rightsStatement {PREMIS_2}><rightsStatementIdentifier><rightsStatementIdentifierType>UUID"
        "</rightsStatementIdentifierType><rightsStatementIdentifierValue>1</rightsStatementIdentifierValue>"
        "</rightsStatementIdentifier><rightsBasis>Other</rightsBasis><otherRightsInformation><otherRightsBasis>Donor"
        "</otherRightsBasis></otherRightsInformation><linkingObjectIdentifier><linkingObjectIdentifierType>UUID"
        f"</linkingObjectIdentifierType><linkingObjectIdentifierValue>{AIP_ID}</linkingObjectIdentifierValue>"
        "</linkingObjectIdentifier></rightsStatement>"
    )


async def test_only_so_many_files_are_listed_as_were_asked_for(tmp_path: Path) -> None:
    found = await aip.inspect(archivematica(tmp_path), files=2)

    assert (2, 8) == (len(found.tree), found.not_shown)


async def test_what_is_no_aip_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")

    with pytest.raises(ContentError, match=r"neither bagit\.txt nor a METS"):
        await aip.inspect(tmp_path)
    with pytest.raises(ContentError, match="no package"):
        await aip.inspect(tmp_path / "a.txt")
    with pytest.raises(SourceError, match="nothing at"):
        await aip.inspect(tmp_path / "b")
