"""A transfer that says all it can of itself, as an archivist reads its AIP."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import metsrw
import pytest
from lxml import etree

from ingestd.mets.validation import combined_schema
from tests.acceptance.aips import stored_path
from tests.acceptance.program import Program

pytestmark = pytest.mark.tool

STRUCT_MAP = """<mets xmlns="http://www.loc.gov/METS/"><structMap TYPE="logical" LABEL="Arrangement">
<div TYPE="fonds" LABEL="Papers"><fptr CONTENTIDS="objects/l&#xE9;/first.txt"/></div></structMap></mets>"""
PROCESSING = """<processingMCP><preconfiguredChoices><preconfiguredChoice>
<appliesTo>01d64f58-8295-4b7b-9cab-8f1b153a504f</appliesTo><goToChain>dc04c4c0-07ea-4796-b643-66d967ed33a4</goToChain>
</preconfiguredChoice></preconfiguredChoices></processingMCP>"""
RIGHTS = """file,basis,status,jurisdiction,terms,grant_act,grant_restriction
objects/lé/first.txt,copyright,copyrighted,gb,,disseminate,disallow
objects,license,,,CC-BY,use,allow
"""
NS = {
    "m": "http://www.loc.gov/METS/",
    "p": "http://www.loc.gov/premis/v3",
    "xlink": "http://www.w3.org/1999/xlink",
    "dc": "http://purl.org/dc/elements/1.1/",
    "dcterms": "http://purl.org/dc/terms/",
}
FILES = {
    "lé/first.txt": "one",
    "license/licence.txt": "all may read it",
    "a picture.bmp": "not much of a picture",
    "manualNormalization/preservation/a picture.tif": "nor is its copy",
    "processingMCP.xml": PROCESSING,
    "metadata/metadata.csv": "filename,dc.title,Mark\nobjects,Papers,\nobjects/lé,Letters,\nobjects/lé/first.txt,First,X\n",
    "metadata/metadata.json": '[{"filename": "objects/lé/first.txt", "dc.subject": ["a", "b"]}]',
    "metadata/source-metadata.csv": "filename,metadata,type\nobjects/lé/first.txt,mods.xml,mods\n",
    "metadata/mods.xml": '<mods xmlns="http://www.loc.gov/mods/v3"><titleInfo><title>é</title></titleInfo></mods>',
    "metadata/transfer_metadata.xml": "<disk><number>7</number></disk>",
    "metadata/sourceMD/card.xml": "<card/>",
    "metadata/file_labels.csv": "lé/first.txt,The first letter\n",
    "metadata/mets_structmap.xml": STRUCT_MAP,
    "metadata/rights.csv": RIGHTS,
}


class Made(NamedTuple):
    """An AIP that was made of `FILES`: its folder, its METS, and the METS as metsrw reads it."""

    folder: Path
    path: Path
    mets: Any

    @property
    def tree(self) -> Any:
        return etree.parse(str(self.path))

    def find(self, xpath: str) -> list[Any]:
        return list(self.tree.xpath(xpath, namespaces=NS))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    tmp_path = tmp_path_factory.mktemp("described")
    for name, text in FILES.items():
        (tmp_path / "Papers" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Papers" / name).write_text(text, encoding="utf-8")

    run = Program(tmp_path, LOG_LEVEL="error")("ingest", tmp_path / "Papers", "--output", tmp_path / "out", "--json")

    assert run.code == 0, run.err
    assert [] == run.result["warnings"]
    folder = stored_path(run.result)
    assert folder.is_dir(), "as processingMCP.xml asks"
    (path,) = folder.glob("data/METS.*.xml")
    return Made(folder, path, metsrw.METSDocument.fromfile(str(path)))


def test_everything_that_a_transfer_says_of_itself_is_in_its_mets(made: Made) -> None:
    mets = made.mets
    said = {
        entry.label: [section.contents.othermdtype or section.contents.mdtype for section in entry.dmdsecs]
        for entry in mets.all_files()
    }
    assert ["DC", "CUSTOM", "DC", "mods"] == said["The first letter"]
    assert ["PREMIS:OBJECT", "DC"] == said["le"]
    assert ["DC"] == said["objects"]
    (objects,) = [entry for entry in mets.all_files() if entry.label == "objects"]
    sources = [section.contents.othermdtype for section in objects.amdsecs[0].subsections]
    assert ["sourceMD", "transfer_metadata"] == sorted(sources)
    assert {"original", "preservation", "license", "metadata"} == {
        entry.use for entry in mets.all_files() if entry.type == "Item"
    }
    first = next(entry for entry in mets.all_files() if entry.label == "The first letter")
    pointer = f'<mets:fptr CONTENTIDS="objects/lé/first.txt" FILEID="file-{first.file_uuid}"/>'
    assert pointer in made.path.read_text(encoding="utf-8")


class TestWhatKnownReadersNeed:
    """Line by line what readers of Archivematica's AIPs rely on."""

    def test_the_aip_is_called_name_uuid_and_nothing_else_is_outside_of_the_transfer(self, made: Made) -> None:
        (label,) = made.find("m:structMap[@TYPE='physical']/m:div/@LABEL")
        names = made.find("m:dmdSec//p:originalName/text()")

        assert made.folder.name == label
        assert [label] == [name for name in names if not name.startswith("%transferDirectory%")]
        received = made.find("m:fileSec/m:fileGrp[@USE='original']/m:file/@ADMID")
        originals = [made.find(f"m:amdSec[@ID='{amd}']//p:originalName/text()")[0] for amd in received]
        assert all(name.startswith("%transferDirectory%objects/") for name in originals)

    def test_it_was_created_in_utc_and_not_in_the_future(self, made: Made) -> None:
        (created,) = made.find("m:metsHdr/@CREATEDATE")

        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", created)
        assert datetime.fromisoformat(created).replace(tzinfo=UTC) <= datetime.now(UTC)

    def test_dublin_core_of_the_package_is_named_by_the_objects_div(self, made: Made) -> None:
        (dmds,) = made.find("m:structMap[@TYPE='physical']/m:div/m:div[@LABEL='objects']/@DMDID")
        titles = [
            title
            for dmd in dmds.split()
            for title in made.find(f"m:dmdSec[@ID='{dmd}']//dcterms:dublincore/dc:title/text()")
        ]

        assert ["Papers"] == titles

    def test_rights_stand_with_the_files_that_they_govern_and_those_of_the_package_first(self, made: Made) -> None:
        first = next(entry for entry in made.mets.all_files() if entry.label == "The first letter")
        (governing,) = made.find(f"m:fileSec//m:file[@ID='file-{first.file_uuid}']/@ADMID")
        (package,) = made.find("m:dmdSec[1]//p:objectIdentifierValue/text()")
        about = "p:linkingObjectIdentifier/p:linkingObjectIdentifierValue"

        assert {first.file_uuid} == set(
            made.find(f"m:amdSec[@ID='{governing}']//p:rightsStatement[p:rightsBasis='Copyright']/{about}/text()")
        )
        assert [package] == made.find(f"m:amdSec[1]//p:rightsStatement[p:rightsBasis='License']/{about}/text()")
        assert 2 == len(made.find("//p:rightsStatement"))

    def test_a_derivative_and_its_original_name_each_other_in_one_group(self, made: Made) -> None:
        (original, derivative) = (
            next(
                file for file in made.find("m:fileSec//m:file") if file[0].get(f"{{{NS['xlink']}}}href").endswith(name)
            )
            for name in ("a_picture.bmp", ".tif")
        )
        source, copy = (file.get("ID").removeprefix("file-") for file in (original, derivative))
        related = "p:relatedObjectIdentifier/p:relatedObjectIdentifierValue/text()"

        assert original.get("GROUPID") == derivative.get("GROUPID") == f"Group-{source}"
        for file, other, word in ((original, copy, "is source of"), (derivative, source, "has source")):
            relation = f"m:amdSec[@ID='{file.get('ADMID')}']//p:relationship[p:relationshipSubType='{word}']"
            assert [other] == made.find(f"{relation}/{related}")

    def test_every_file_is_where_its_href_says_undecoded_and_nothing_else_is_there(self, made: Made) -> None:
        data = made.folder / "data"
        hrefs = made.find("m:fileSec//m:FLocat/@xlink:href")
        there = {str(path.relative_to(data)) for path in (data / "objects").rglob("*") if path.is_file()}

        assert there == set(hrefs)
        assert len(hrefs) == len(set(hrefs))
        assert (data / "objects/metadata").is_dir()

    def test_digests_are_by_an_algorithm_of_the_bags_manifests(self, made: Made) -> None:
        (algorithm,) = set(made.find("//p:messageDigestAlgorithm/text()"))

        assert (made.folder / f"manifest-{algorithm}.txt").is_file()

    def test_it_is_valid_by_mets_premis_and_xlink_combined(self, made: Made) -> None:
        assert combined_schema().validate(made.tree)

    def test_every_agent_event_and_right_is_found_again_by_metsrw(self, made: Made) -> None:
        entries = [entry for entry in made.mets.all_files() if entry.type == "Item"]
        named = {agent.identifier_value for entry in entries for agent in entry.get_premis_agents()}
        linked = set(made.find("//p:event//p:linkingAgentIdentifierValue/text()"))

        assert linked == named
        assert any(name.startswith("Siegfried-") for name in named)
        assert len(made.find("//p:event")) == sum(len(entry.get_premis_events()) for entry in entries)
        assert len(made.find("//p:rightsStatement")) == sum(len(entry.get_premis_rights()) for entry in entries)

    def test_a_file_that_programs_read_says_which_and_when_and_one_that_none_read_says_nothing(
        self, made: Made
    ) -> None:
        read = {
            amd.get("ID"): amd.xpath("m:digiprovMD//p:event[p:eventType='metadata extraction']", namespaces=NS)
            for amd in made.find("m:amdSec")
        }
        written = {amd.get("ID") for amd in made.find("m:amdSec[.//p:objectCharacteristicsExtension]")}
        agents = {
            agent.findtext("p:agentIdentifier/p:agentIdentifierValue", None, NS): agent.findtext(
                "p:agentName", None, NS
            )
            for agent in made.find("//p:agent[p:agentType='software']")
        }

        assert written == {amd for amd, events in read.items() if events}, "a picture, and no text"
        assert written
        for (event,) in (read[amd] for amd in written):
            link = "p:linkingAgentIdentifier[p:linkingAgentRole='executing program']/p:linkingAgentIdentifierValue"
            named = event.xpath(f"{link}/text()", namespaces=NS)
            assert "ExifTool" in {agents[name] for name in named}
            assert {"success"} == set(event.xpath(".//p:eventOutcome/text()", namespaces=NS))
            at = datetime.fromisoformat(event.findtext("p:eventDateTime", None, NS))
            others = [
                datetime.fromisoformat(one) for one in event.xpath("../../../..//p:eventDateTime/text()", namespaces=NS)
            ]
            assert min(others) < at <= datetime.now(UTC)
