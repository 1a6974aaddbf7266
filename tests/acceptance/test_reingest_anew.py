"""Partial and full reingests: what is made anew, what it takes the place of, and that nothing else changes."""

from __future__ import annotations

import itertools
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import ingestd
from ingestd.config import Settings
from ingestd.ingest import Ingest
from ingestd.mets import ReadDescription, ReadFile, Record
from tests.acceptance.aips import stored_path
from tests.acceptance.program import NO_DERIVATIVES, Program, kill_in
from tests.acceptance.reingesting import (
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
from tests.aip_samples import COPY, DEED, FILES, LETTER, PHOTO, archivematica, bag, mets, mets_0
from tests.normalizing import TOOLS, command, rule

pytestmark = [pytest.mark.tool]

_TEXT = "%SIPObjectsDirectory%metadata/OCRfiles/%fileName%-%fileUUID%"
SITE = "".join(
    [
        TOOLS,
        command("copy-text", "cat %fileFullName% > %OUT%.txt") + rule("copy-text"),
        command(
            "read-text",
            f"tr a-z A-Z < %fileFullName% > {_TEXT}.txt",
            usage="transcription",
            output_location=f"{_TEXT}.txt",
        ),
        rule("read-text", "transcription"),
        command("show-text", "cat %fileFullName% > %OUT%.txt") + rule("show-text", "access"),
        command("turn-text", "rev %fileFullName% > %OUT%.txt"),
    ]
)
"""A site that copies texts to preserve them, and shouts them to read them."""
ANEW = {"normalize": True, "transcribe_files": True}


def site(folder: Path) -> Settings:
    place = folder / "site"
    place.mkdir()
    (place / "site.toml").write_text(SITE, encoding="utf-8")
    made = settings_in(folder)
    processing = {**made.processing, **ANEW}
    return made.model_copy(update={"fpr_folders": (place,), "fpr_overrides": True, "processing": processing})


@pytest.fixture
async def ingest(tmp_path: Path) -> AsyncIterator[Ingest]:
    async with ingestd.open(site(tmp_path)) as opened:
        yield opened


def a_bag(folder: Path) -> Path:
    """A text, one that came with its preservation copy, and something that no rule is for."""
    for path, content in {
        "objects/Zoë.txt": "Dear Ann,\n",
        "objects/notes.txt": "Nothing.\n",
        "objects/drawing.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
        "objects/manualNormalization/preservation/notes.pdf": "a copy made by hand",
    }.items():
        place = folder / "data" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content, encoding="utf-8")
    bag(folder, algorithm="sha256", info={"Contact-Name": "Ann"})
    return folder


def of(said: Sequence[Record], name: str) -> ReadFile:
    """The original that was received by this name."""
    (found,) = [one for one in files(said).values() if one.original_name.endswith(f"/{name}") and one.use == "original"]
    return found


def made_of(said: Sequence[Record], source: ReadFile, use: str) -> ReadFile:
    (found,) = [one for one in files(said).values() if (one.derived_from, one.use) == (source.identifier, use)]
    return found


def new_events(file: ReadFile) -> Counter[str]:
    events = [event.type for event in file.events]
    return Counter(events[len(events) - events[::-1].index("reingestion") :])


def deletions(said: Sequence[Record]) -> dict[str, tuple[str, str]]:
    """What was deleted: its source, and what its last event says."""
    gone = [one for one in files(said).values() if one.removed and one.events[-1].type == "deletion"]
    return {one.identifier: (one.derived_from, one.events[-1].note) for one in gone}


async def test_a_full_reingest_makes_all_anew_and_keeps_what_was(ingest: Ingest, tmp_path: Path) -> None:
    first = await ingest.preserve(a_bag(tmp_path / "source"), name="letters", external_identifier="PP/1")
    assert first.aip is not None
    stored = f"urn:uuid:{first.aip.id}"

    second = await reingest(ingest, stored, reingest={"type": "full"})
    again = await reingest(
        ingest, stored, reingest={"type": "partial"}, processing={"normalize_for_access": True}, idempotency_key="k"
    )
    same = await reingest(
        ingest, stored, reingest={"type": "partial"}, processing={"normalize_for_access": True}, idempotency_key="k"
    )

    assert ["v3", "v3"] == [result.aip.stored[0].version for result in (same, again) if result.aip]
    one, two, three = [
        await records(path_of(result), tmp_path / f"opened-{at}") for at, result in enumerate((first, second, again))
    ]
    letter, copies, texts = [], [], []
    for said in (one, two, three):
        letter.append(of(said, "Zoë.txt"))
        copies.append(made_of(said, letter[-1], "preservation"))
        texts.append(made_of(said, letter[-1], "text/ocr"))
    # What is made anew has an identifier of its version, and there is one of each; what was received is what it was.
    assert 1 == len({(file.identifier, file.path, file.original_name, *file.digests.items()) for file in letter})
    assert 3 == len({copy.identifier for copy in copies})
    assert [texts[1].identifier] * 2 != [text.identifier for text in texts[:2]]
    assert texts[1].identifier == texts[2].identifier
    assert 1 == len({text.path for text in texts})
    assert [{copy.identifier, text.identifier} for copy, text in zip(copies, texts, strict=True)] == [
        set(file.source_of) for file in letter
    ]
    by_hand = {made_of(said, of(said, "notes.txt"), "preservation").identifier for said in (one, two, three)}
    assert 1 == len(by_hand)
    # The former ones leave their trace, for good.
    assert {
        copies[0].identifier: (letter[0].identifier, f"made anew: {copies[1].identifier}"),
        texts[0].identifier: (letter[0].identifier, f"made anew: {texts[1].identifier}"),
    }.items() <= deletions(two).items()
    assert deletions(two).items() <= deletions(three).items()
    assert deletions(three)[copies[1].identifier] == (letter[0].identifier, f"made anew: {copies[2].identifier}")
    # New events after old ones, those that fit the kind of reingest.
    for before, after in itertools.pairwise(letter):
        assert list(before.events) == list(after.events[: len(before.events)])
    examined = {"format identification": 1, "metadata extraction": 1}
    assert new_events(letter[1]) == {**examined, "normalization": 1, "transcription": 1}
    assert new_events(letter[2]) == {"normalization": 1}
    assert new_events(of(two, "drawing.svg")) == examined
    assert not new_events(of(three, "drawing.svg"))
    # The former PREMIS objects stand as they were written.
    assert [0, 1, 2] == [len(file.superseded) for file in letter]
    assert [said.xml for said in letter[2].superseded] == [file.object.xml for file in letter[:2] if file.object]
    assert [1, 1] == [len(of(said, "drawing.svg").superseded) for said in (two, three)]
    assert letter[2].extensions == letter[1].extensions
    # What the bags said is said again.
    info = (next((tmp_path / "opened-2").iterdir()) / "bag-info.txt").read_text()
    assert "External-Identifier: PP/1\n" in info
    assert [("Contact-Name", "Ann")] == [
        pair
        for said in three
        if isinstance(said, ReadDescription) and said.kind == "BagIt"
        for pair in said.pairs
        if pair[0] == "Contact-Name"
    ]
    assert again.dip is not None
    assert (3, 2) == (again.dip.access_copies, again.dip.texts)


async def test_what_cannot_be_made_anew_stays_and_no_rule_removes_nothing(ingest: Ingest, tmp_path: Path) -> None:
    first = await ingest.preserve(a_bag(tmp_path / "source"), name="letters")
    assert first.aip is not None
    failing = {"rule": [{"purpose": "preservation", "format": "x-fmt/111", "command": "turn-nothing"}]}
    (tmp_path / "site" / "more.toml").write_text(command("turn-nothing", "exit 1"), encoding="utf-8")

    async with ingestd.open(site_again(tmp_path)) as reopened:
        second = await reingest(reopened, f"urn:uuid:{first.aip.id}", reingest={"type": "full"}, fpr=failing)

    one, two = [await records(path_of(r), tmp_path / f"opened-{at}") for at, r in enumerate((first, second))]
    before, after = (made_of(said, of(said, "Zoë.txt"), "preservation") for said in (one, two))
    assert (before.identifier, before.path, before.digests) == (after.identifier, after.path, after.digests)
    assert "tool.normalization_failed" in [warning.code for warning in second.warnings]
    assert {source for source, _ in deletions(two).values()} == {
        of(one, name).identifier for name in ("Zoë.txt", "notes.txt")
    }


def site_again(folder: Path) -> Settings:
    made = settings_in(folder)
    processing = {**made.processing, **ANEW}
    return made.model_copy(update={"fpr_folders": (folder / "site",), "fpr_overrides": True, "processing": processing})


async def test_an_aip_of_archivematica_is_examined_anew_and_its_premis_2_superseded(
    ingest: Ingest, tmp_path: Path
) -> None:
    made = replace(COPY, events=(("creation", ""),))
    folder = archivematica(tmp_path / "theirs", text=with_history(mets((LETTER, PHOTO, made, DEED))))
    before = files(await theirs(tmp_path / "theirs"))

    second = await reingest(ingest, folder, reingest={"type": "full"})
    assert second.aip is not None
    third = await reingest(ingest, f"urn:uuid:{second.aip.id}", metadata={"dc": {"title": "Letters"}})

    two, three = [files(await records(path_of(r), tmp_path / f"opened-{at}")) for at, r in enumerate((second, third))]
    for now in (two, three):
        letter = now[LETTER.identifier]
        assert ["superseded", "superseded"] == [said.status for said in letter.superseded]
        assert ["an older object", before[LETTER.identifier].object.xml] == [  # type: ignore[union-attr]
            "an older object" if "older" in said.xml else said.xml for said in letter.superseded
        ]
        assert "info:lc/xmlns/premis-v2" in letter.superseded[1].xml
        assert ("x-fmt/111", "Plain Text File") != (letter.format and (letter.format.puid, letter.format.name))
        assert ["rightsMD"] == [said.section for said in now[PHOTO.identifier].superseded if "right" in said.section]
        assert now[GONE].removed
        assert ["ingestion", "deletion"] == [event.type for event in now[GONE].events][:2]
    # Of a picture that is none, nothing can be made: Archivematica's copy stays.
    assert two[COPY.identifier].path == COPY.path
    assert {file.identifier for file in FILES} <= set(two)


async def test_of_archivematica_0_8_the_object_is_taken_out_of_its_premis_to_be_superseded(
    ingest: Ingest, tmp_path: Path
) -> None:
    folder = archivematica(tmp_path / "theirs", text=mets_0())

    result = await reingest(ingest, folder, reingest={"type": "full"})

    now = files(await records(path_of(result), tmp_path / "opened"))
    (former,) = now[LETTER.identifier].superseded
    assert f">{LETTER.digest}<" in former.xml
    assert "<premis:event" not in former.xml


GONE = "deadbeef-0000-4000-8000-000000000001"


def with_history(text: str) -> str:
    """What Archivematica writes when it reingests: superseded sections, and the group of deleted files."""
    superseded = (
        '<techMD ID="techMD_0" STATUS="superseded" CREATED="2011-01-01T00:00:00"><mdWrap MDTYPE="PREMIS:OBJECT"><xmlData>'
        '<object xmlns="info:lc/xmlns/premis-v2" version="2.2" xsi:type="file"><originalName>an older one</originalName></object>'
        "</xmlData></mdWrap></techMD>"
    )
    rights = (
        '<rightsMD ID="rightsMD_0" STATUS="superseded"><mdWrap MDTYPE="PREMIS:RIGHTS"><xmlData>'
        '<rightsStatement xmlns="info:lc/xmlns/premis-v2"><rightsBasis>Copyright</rightsBasis></rightsStatement>'
        "</xmlData></mdWrap></rightsMD>"
    )
    gone = mets([replace(LETTER, identifier=GONE, events=(("ingestion", ""), ("deletion", "")))])
    section = gone[gone.index("<amdSec") : gone.index("</amdSec>")].replace("_1", "_gone")
    group = f'<fileGrp USE="deleted"><file ID="gone-{GONE}" GROUPID="Group-{GONE}" ADMID="amdSec_gone"/></fileGrp>'
    text = text.replace('<amdSec ID="amdSec_1">', f'{section}</amdSec>\n<amdSec ID="amdSec_1">{superseded}')
    after = text.index("</techMD>", text.index('<amdSec ID="amdSec_2">')) + len("</techMD>")
    return (text[:after] + rights + text[after:]).replace("</fileSec>", f"{group}</fileSec>")


async def test_rows_without_a_document_delete_and_what_a_bag_says_goes_along(ingest: Ingest, tmp_path: Path) -> None:
    folder = archivematica(tmp_path / "theirs")
    bag(folder, info={"Contact-Name": "Ann", "Bagging-Date": "2012-05-06", "Bag-Size": "1 MB"})
    said = described(tmp_path / "one", [["filename", "dc.title"]])
    (said / "card.xml").write_text("<card><n>1</n></card>")
    (said / "source-metadata.csv").write_text("filename,metadata,type\nobjects/letter.txt,card.xml,card\n")
    taken = described(tmp_path / "two", [["filename", "dc.title"]])
    (taken / "source-metadata.csv").write_text(
        "filename,metadata,type\nobjects/letter.txt,,card\nobjects/letter.txt,,none\n"
    )

    second = await reingest(ingest, folder, reingest=adding(said))
    assert second.aip is not None
    stored = f"urn:uuid:{second.aip.id}"
    third = await reingest(ingest, stored, reingest=adding(taken))
    fourth = await reingest(ingest, stored, reingest=adding(said))

    path = "objects/letter.txt"
    two, three, four = [
        await records(path_of(r), tmp_path / f"opened-{at}") for at, r in enumerate((second, third, fourth))
    ]
    assert ["original"] == statuses(two, path)
    assert ["deleted"] == statuses(three, path)
    assert ["deleted", "update"] == statuses(four, path)
    assert ["content.metadata_unmatched"] == [one.code for one in third.warnings if "none" in "".join(one.samples)]
    info = (next((tmp_path / "opened-2").iterdir()) / "bag-info.txt").read_text().splitlines()
    assert "Contact-Name: Ann" in info
    assert 1 == sum(line.startswith("Bagging-Date") for line in info)
    assert not any(line.startswith("Bag-Size") for line in info)
    kept = next((tmp_path / "opened-2").iterdir()) / "data/logs/versions/1/bag-info.txt"
    assert (folder / "bag-info.txt").read_bytes() == kept.read_bytes()
    assert [] == descriptions(two, path, "none")


def statuses(said: Sequence[Record], path: str) -> list[str]:
    return [
        str(one.status) for one in said if isinstance(one, ReadDescription) and (one.path, one.kind) == (path, "card")
    ]


@pytest.mark.slow
def test_a_full_reingest_that_is_killed_while_copies_are_made_has_each_once(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    slow = command("copy-text", "sleep 0.1; cat %fileFullName% > %OUT%.txt") + rule("copy-text")
    (tmp_path / "site/site.toml").write_text(TOOLS + slow, encoding="utf-8")
    program = Program(
        tmp_path,
        KEEP_WORK="false",
        LOG_LEVEL="error",
        CLAMAV__SCANNER="off",
        FPR_FOLDERS=json.dumps([str(tmp_path / "site")]),
        PROCESSING=json.dumps({**NO_DERIVATIVES, "validate_formats": False, "normalize": True}),
    )
    source = tmp_path / "source"
    source.mkdir()
    for number in range(12):
        (source / f"{number:03}.txt").write_text(f"{number}\n")
    first = program("ingest", source, "--json")
    again = ("reingest", first.result["aip"]["id"], "--type", "full", "--json")

    code = kill_in(program, list(again), "Normalize for preservation")
    run = program(*again)

    assert code == -signal.SIGKILL
    assert run.code == 0, run.err
    assert run.result["attempt"] == 2
    assert program("aip", "verify", stored_path(run.result)).code == 0
    assert (12, 12) == (run.result["counts"]["derivatives"], run.result["counts"]["removed"])
