"""A transfer that says all it can of itself, as an archivist reads its AIP."""

from __future__ import annotations

from pathlib import Path

import metsrw
import pytest

from tests.acceptance.aips import stored_path
from tests.acceptance.program import Program

pytestmark = pytest.mark.tool

STRUCT_MAP = """<mets xmlns="http://www.loc.gov/METS/"><structMap TYPE="logical" LABEL="Arrangement">
<div TYPE="fonds" LABEL="Papers"><fptr CONTENTIDS="objects/l&#xE9;/first.txt"/></div></structMap></mets>"""
PROCESSING = """<processingMCP><preconfiguredChoices><preconfiguredChoice>
<appliesTo>01d64f58-8295-4b7b-9cab-8f1b153a504f</appliesTo><goToChain>dc04c4c0-07ea-4796-b643-66d967ed33a4</goToChain>
</preconfiguredChoice></preconfiguredChoices></processingMCP>"""
FILES = {
    "lé/first.txt": "one",
    "license/licence.txt": "all may read it",
    "processingMCP.xml": PROCESSING,
    "metadata/metadata.csv": "filename,dc.title,Mark\nobjects,Papers,\nobjects/lé,Letters,\nobjects/lé/first.txt,First,X\n",
    "metadata/metadata.json": '[{"filename": "objects/lé/first.txt", "dc.subject": ["a", "b"]}]',
    "metadata/source-metadata.csv": "filename,metadata,type\nobjects/lé/first.txt,mods.xml,mods\n",
    "metadata/mods.xml": '<mods xmlns="http://www.loc.gov/mods/v3"><titleInfo><title>é</title></titleInfo></mods>',
    "metadata/transfer_metadata.xml": "<disk><number>7</number></disk>",
    "metadata/sourceMD/card.xml": "<card/>",
    "metadata/file_labels.csv": "lé/first.txt,The first letter\n",
    "metadata/mets_structmap.xml": STRUCT_MAP,
}


def test_everything_that_a_transfer_says_of_itself_is_in_its_mets(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / "Papers" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Papers" / name).write_text(text, encoding="utf-8")

    run = Program(tmp_path, LOG_LEVEL="error")("ingest", tmp_path / "Papers", "--output", tmp_path / "out", "--json")

    assert run.code == 0, run.err
    assert [] == run.result["warnings"]
    folder = stored_path(run.result)
    assert folder.is_dir(), "as processingMCP.xml asks"
    (path,) = folder.glob("data/METS.*.xml")
    mets = metsrw.METSDocument.fromfile(str(path))
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
    assert {"original", "license", "metadata"} == {entry.use for entry in mets.all_files() if entry.type == "Item"}
    first = next(entry for entry in mets.all_files() if entry.label == "The first letter")
    pointer = f'<mets:fptr CONTENTIDS="objects/lé/first.txt" FILEID="file-{first.file_uuid}"/>'
    assert pointer in path.read_text(encoding="utf-8")
