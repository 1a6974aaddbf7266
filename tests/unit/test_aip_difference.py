from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ingestd import aip
from tests.aip_samples import COPY, DEED, LETTER, PHOTO, Sample, archivematica, mets_0, packed


def kinds(found: aip.Difference) -> dict[str, list[str]]:
    return {kind: [change.path for change in found.changes if change.kind == kind] for kind in found.counts}


async def test_an_aip_is_the_same_however_it_is_packed(tmp_path: Path) -> None:
    folder = archivematica(tmp_path)

    found = await aip.diff(packed(folder, "7z"), packed(folder, "tar.gz"))

    assert (True, 4, []) == (found.same, found.same_files, list(found.changes))


async def test_a_new_version_differs_in_what_was_done(tmp_path: Path) -> None:
    before = archivematica(tmp_path / "before")
    moved = replace(LETTER, path="objects/letters/letter.txt")
    changed = Sample(path=PHOTO.path, content=b"\xff\xd8\xff\xe0 much more", puid="fmt/44")
    checked = replace(DEED, events=(*DEED.events, ("virus check", "Pass")))
    new = Sample(path="objects/new.txt", content=b"new")
    after = archivematica(tmp_path / "after", files=[moved, changed, checked, new])

    found = await aip.diff(before, after)

    assert {
        "file removed": [f"data/{COPY.path}"],
        "file added": ["data/objects/new.txt"],
        "content changed": [f"data/{PHOTO.path}"],
        "file moved": ["data/objects/letters/letter.txt"],
        "size changed": [f"data/{PHOTO.path}"],
        "original name changed": ["data/objects/letters/letter.txt"],
        "format changed": [f"data/{PHOTO.path}"],
        "event added": [f"data/{DEED.path}"],
        "other file changed": [f"data/METS.{found.before[-36:]}.xml"],
    } == kinds(found)
    assert not found.same
    (event,) = [change.after for change in found.changes if change.kind == "event added"]
    assert event.startswith("virus check, Pass")


async def test_rights_and_metadata_are_compared_and_what_a_document_says_too(tmp_path: Path) -> None:
    text = mets_0()
    before = archivematica(tmp_path / "before", text=text)
    dublin_core = "<dublincore><title>Letters</title></dublincore>"
    mods = '<mods xmlns="http://www.loc.gov/mods/v3"><note>{}</note></mods>'
    other = text.replace(dublin_core, mods.format("one")).replace("Disallow", "Allow")
    after = archivematica(tmp_path / "after", text=other)
    last = archivematica(tmp_path / "last", text=other.replace("<note>one", "<note>two"))

    first, second = await aip.diff(before, after), await aip.diff(after, last)

    told = {change.kind: (change.path, change.before or change.after) for change in first.changes}
    assert ("objects", "DC: dc.title=Letters") == told["description removed"]
    assert ("objects", "DC: <mods>") == told["description added"]
    assert (f"data/{LETTER.path}", "Copyright | copyrighted; ca | disseminate: Disallow") == told["rights removed"]
    assert (f"data/{LETTER.path}", "Copyright | copyrighted; ca | disseminate: Allow") == told["rights added"]
    assert {"description removed", "description added", "other file changed"} == set(second.counts)
