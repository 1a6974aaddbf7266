"""Stored AIPs, ours and Archivematica's, made into their next version: nothing that was known is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

import ingestd
from ingestd import aip
from ingestd.aip.restoring import received_as
from ingestd.errors import Code
from ingestd.ingest import Ingest
from ingestd.messages import Outcome
from ingestd.mets import ReadAgent, ReadEntity, Record
from ingestd.premis import AgentLink
from tests.acceptance.aips import stored_path
from tests.acceptance.program import Program, kill_in
from tests.acceptance.reingesting import (
    SUPERSEDED,
    adding,
    described,
    descriptions,
    files,
    path_of,
    records,
    reingest,
    settings_in,
    theirs,
)
from tests.aip_samples import AIP_ID, COPY, FILES, PHOTO, archivematica, packed

pytestmark = [pytest.mark.tool]


@pytest.fixture(params=["pairtree", "ocfl"])
async def ingest(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Ingest]:
    async with ingestd.open(settings_in(tmp_path, request.param)) as opened:
        yield opened


def a_transfer(folder: Path) -> Path:
    """Names, folders, labels, rights, identifiers and descriptions of every kind."""
    for path, content in {
        "Zoë/letter 1.txt": "Dear Ann,\n",
        "Zoë/drawing.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
        "notes.txt": "Nothing.\n",
        "Thumbs.db": "removed",
        "metadata/submissionDocumentation/deed.txt": "A deed.\n",
        "metadata/file_labels.csv": "notes.txt,The notes\n",
        "metadata/identifiers.json": json.dumps(
            [
                {"file": "objects/notes.txt", "identifiers": [{"identifierType": "DOI", "identifier": "10.1/a"}]},
                {"file": "objects/Zoë", "identifiers": [{"identifierType": "ARK", "identifier": "ark:/1/z"}]},
                {"file": "objects", "identifiers": [{"identifierType": "Handle", "identifier": "1/2"}]},
            ]
        ),
        "metadata/rights.csv": (
            "file,basis,status,jurisdiction,note,grant_act,grant_restriction,grant_end_date\n"
            "objects/notes.txt,copyright,copyrighted,gb,of the keeper,disseminate,disallow,2040-12-31\n"
            "objects/notes.txt,copyright,copyrighted,gb,of the keeper,use,allow,open\n"
            "objects,donor,,,Deed of 1999,disseminate,conditional,\n"
        ),
        "metadata/metadata.csv": (
            "filename,dc.title,dcterms.isPartOf,shelf\nobjects,Letters,AIC#1,S 1\nobjects/Zoë,Of Zoë,,\n"
            "objects/notes.txt,Notes,,S 2\n"
        ),
    }.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content, encoding="utf-8")
    (folder / "empty").mkdir()
    return folder


def must_have_kept(before: Sequence[Record], after: Sequence[Record]) -> None:
    then, now = files(before), files(after)
    for identifier, old in then.items():
        new = now[identifier]
        for name in ("path", "use", "original_name", "size_bytes", "digests", "format", "modified_at", "label"):
            assert getattr(old, name) == getattr(new, name), (old.path, name)
        assert (old.identifiers, old.rights, old.extensions) == (new.identifiers, new.rights, new.extensions)
        assert (old.derived_from, old.source_of) == (new.derived_from, new.source_of)
        assert list(old.events) == list(new.events[: len(old.events)])
        assert [event.type for event in new.events[len(old.events) :]] == ([] if old.removed else ["reingestion"])
    assert {one for one in before if isinstance(one, ReadAgent)} <= {one for one in after if isinstance(one, ReadAgent)}
    entities = [one for one in before if isinstance(one, ReadEntity)]
    assert [one for one in after if isinstance(one, ReadEntity)][: len(entities)] == entities


async def test_a_metadata_reingest_keeps_all_and_tells_what_took_the_place_of_what(
    ingest: Ingest, tmp_path: Path
) -> None:
    first = await ingest.preserve(a_transfer(tmp_path / "source"), name="letters", external_identifier="PP/1")
    assert first.aip is not None
    rows = [["filename", "dc.title"], ["objects", "Letters of Zoë"], ["objects/Zoë/letter 1.txt", "A letter"]]
    stored = f"urn:uuid:{first.aip.id}"

    second = await reingest(ingest, stored, reingest=adding(described(tmp_path / "second", rows)))
    third = await reingest(ingest, stored, metadata={"dc": {"title": "Papers"}})

    said = [await records(path_of(one), tmp_path / f"opened-{at}") for at, one in enumerate((first, second, third))]
    assert second.aip is not None
    assert third.aip is not None
    assert first.aip.id == second.aip.id == third.aip.id
    assert ["v2", "v3"] == [second.aip.stored[0].version, third.aip.stored[0].version]
    assert ["%transferDirectory%Thumbs.db"] == [one.original_name for one in files(said[0]).values() if one.removed]
    must_have_kept(said[0], said[1])
    must_have_kept(said[1], said[2])
    assert [("original", "Letters")] == descriptions(said[0], "objects")
    assert [(SUPERSEDED, "Letters"), ("update", "Letters of Zoë")] == descriptions(said[1], "objects")
    assert [("original", "A letter")] == descriptions(said[1], "objects/Zoe/letter_1.txt")
    assert [("original", "Of Zoë")] == descriptions(said[2], "objects/Zoe")
    assert [("original", "S 1")] == descriptions(said[2], "objects", "CUSTOM")
    assert {("update", "Papers"), (SUPERSEDED, "Letters"), ("update-superseded", "Letters of Zoë")} == set(
        descriptions(said[2], "objects")
    )
    different = await aip.diff(path_of(second), path_of(third))
    assert set(different.counts) <= {"event added", "description added", "agent added", "other file added"} | {
        "metadata status changed",
        "other file changed",
        "other file removed",
    }
    folder = next((tmp_path / "opened-2").iterdir())
    assert "External-Identifier: PP/1" in (folder / "bag-info.txt").read_text()
    assert (folder / "data/objects/empty").is_dir()
    assert (folder / "data/logs/versions/1/filenameChange.log").is_file()


async def test_an_aip_of_archivematica_becomes_a_new_version_with_its_own_events_and_agents(
    ingest: Ingest, tmp_path: Path
) -> None:
    package = packed(archivematica(tmp_path / "theirs"), "7z")
    rows = [["filename", "dc.title"], ["objects/photos/tower.jpg", "The tower"]]
    before = await theirs(tmp_path / "theirs")

    result = await reingest(ingest, package, reingest=adding(described(tmp_path / "new", rows)))

    after = await records(path_of(result), tmp_path / "opened")
    assert result.aip is not None
    assert uuid.UUID(AIP_ID) == result.aip.id
    now = files(after)
    assert {file.identifier for file in FILES} <= set(now)
    for identifier, old in files(before).items():
        new = now[identifier]
        assert (old.path, old.use) == (new.path, new.use)
        assert received_as(old.original_name) == received_as(new.original_name)
        events = {(event.identifier, event.type, event.at, event.outcome, event.detail) for event in old.events}
        assert events <= {(event.identifier, event.type, event.at, event.outcome, event.detail) for event in new.events}
        linked = {link for event in new.events if event.at == "2012-05-06T07:08:09" for link in event.agents}
        assert {AgentLink("preservation system", "Archivematica-1.4")} == linked
    assert PHOTO.identifier == now[COPY.identifier].derived_from
    assert [("original", "The tower")] == descriptions(after, "objects/photos/tower.jpg")


async def test_what_is_not_what_it_says_is_refused_with_all_findings(ingest: Ingest, tmp_path: Path) -> None:
    folder = archivematica(tmp_path / "theirs")
    (folder / "data/objects/letter.txt").write_text("Dear Eve,\n")
    (folder / "data/objects/photos/tower.jpg").unlink()

    result = await reingest(ingest, folder)

    assert Outcome.FAILED is result.outcome
    assert result.error is not None
    assert Code.CONTENT_AIP_INVALID is result.error.code
    found = {violation.path for violation in result.error.violations}
    assert {"data/objects/letter.txt", "data/objects/photos/tower.jpg"} <= found


@pytest.mark.parametrize("place", ["metadata", "data/metadata"])
async def test_a_transfer_is_not_what_stands_in_its_folder_metadata(ingest: Ingest, tmp_path: Path, place: str) -> None:
    more = tmp_path / "more"
    (more / place).mkdir(parents=True)
    (more / place / "metadata.csv").write_text("filename,dc.title\nobjects,Papers\n")
    (more / "bagit.txt").write_text("BagIt-Version: 1.0\n")

    result = await reingest(ingest, archivematica(tmp_path / "theirs"), reingest=adding(more))

    assert result.error is not None
    assert Code.CONTENT_STRUCTURE_INVALID is result.error.code
    assert f"Give its folder {place} instead." == result.error.remediation


async def test_what_nobody_holds_is_rejected(ingest: Ingest) -> None:
    result = await reingest(ingest, f"urn:uuid:{uuid.uuid4()}")

    assert Outcome.REJECTED is result.outcome
    assert result.error is not None
    assert Code.SOURCE_NOT_FOUND is result.error.code


async def test_an_aip_that_is_stored_already_is_taken_from_there_or_not_at_all(ingest: Ingest, tmp_path: Path) -> None:
    folder = archivematica(tmp_path / "theirs")
    await reingest(ingest, folder)

    again = await reingest(ingest, folder)

    assert again.error is not None
    assert Code.STORAGE_CONFLICT is again.error.code
    assert f"urn:uuid:{AIP_ID}" in again.error.remediation


@pytest.mark.slow
@pytest.mark.parametrize("link", ["Read files and events from the METS"])
def test_a_killed_reingest_is_finished_by_the_same_command(link: str, tmp_path: Path) -> None:
    program = Program(tmp_path, KEEP_WORK="false", LOG_LEVEL="error", CLAMAV__SCANNER="off")
    source = tmp_path / "source"
    source.mkdir()
    for number in range(200):
        (source / f"{number:03}.txt").write_text(f"{number}\n")
    first = program("ingest", source, "--json")
    command = ("reingest", first.result["aip"]["id"], "--json")

    code = kill_in(program, list(command), link)
    run = program(*command)

    assert code == -signal.SIGKILL
    assert run.code == 0, run.err
    assert run.result["attempt"] == 2
    assert len(list((program.data_dir / "aips").rglob("*.7z"))) == 2
    assert program("aip", "verify", stored_path(run.result)).code == 0
    types = subprocess.run(
        [*("7z", "x", "-so", stored_path(run.result)), "-ir!METS.*.xml"], check=True, capture_output=True, text=True
    ).stdout.count("<premis:eventType>reingestion<")
    assert types == 201
