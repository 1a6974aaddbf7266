"""The DIP: made, proved, packed and stored, with real programs."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import metsrw
import pytest

from ingestd.errors import Code, StorageError
from ingestd.handlers.access import make_thumbnails, normalize_for_access
from ingestd.handlers.dip import dip_folder, dip_id, make_dip, set_dip_aside, store_dip
from ingestd.oais import DIP, Directory, Facts, FileUse
from tests.mets_samples import AGENTS
from tests.normalizing import bench, receive
from tests.steps import Bench, a_file, inside
from tests.unit.test_handlers_access import ACCESS, run

pytestmark = pytest.mark.tool


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Bench]:
    """Two originals with access copies and thumbnails, and the text of one."""
    async with bench(tmp_path, ACCESS) as made:
        await made.journal.add_agents(AGENTS)
        await receive(made, {"objects/deep/a.txt": b"one", "objects/b c.txt": b"two"})
        original = (await made.files(under="objects"))[0]
        await run(made, normalize_for_access)
        await run(made, make_thumbnails)
        path = f"objects/metadata/OCRfiles/a-{original.id}.txt"
        await made.receive({path: b"read"})
        text = a_file(path, b"read", use=FileUse.TEXT_OCR, derived_from=original.id)
        await made.journal.record(
            Facts(directories=[Directory(path="objects/metadata", original="objects/metadata")], files=[text])
        )
        yield made


async def stored(made: Bench) -> Path:
    for step in (set_dip_aside, make_dip, store_dip):
        await made.run(step)
    return Path(unquote(urlsplit((await made.journal.facts())["dip_stored_url"]).path))


def unpack(packed: Path, into: Path) -> Path:
    into.mkdir()
    subprocess.run(["tar", "-xf", str(packed), "-C", str(into)], check=True)
    (folder,) = into.iterdir()
    return folder


async def test_has_archivematicas_layout_and_leaves_nothing_in_the_transfer(made: Bench, tmp_path: Path) -> None:
    originals = await made.files(under="objects", uses=(FileUse.ORIGINAL,))

    packed = await stored(made)

    folder = unpack(packed, tmp_path / "out")
    ids = sorted(str(file.id) for file in originals)
    assert made.package.label == folder.name
    assert {f"thumbnails/{id_}.jpg" for id_ in ids} <= set(inside(folder))
    assert ids == sorted(path.name[:36] for path in (folder / "objects").iterdir())
    assert [f"METS.{made.package.id}.xml"] == [path.name for path in folder.iterdir() if path.is_file()]
    assert 1 == len(list((folder / "OCRfiles").iterdir()))
    assert not (made.root / DIP).exists()
    assert not dip_folder(made.task()).parent.exists()


async def test_metsrw_finds_originals_and_what_the_dip_has_of_them(made: Bench, tmp_path: Path) -> None:
    folder = unpack(await stored(made), tmp_path / "out")

    mets = metsrw.METSDocument.fromfile(str(folder / f"METS.{made.package.id}.xml"))

    files = [entry for entry in mets.all_files() if entry.type == "Item"]
    in_dip = [entry for entry in files if entry.use != "original"]
    groups: dict[str, set[str]] = {}
    for entry in files:
        groups.setdefault(entry.group_id(), set()).add(entry.use)
    assert inside(folder) == sorted(
        [f"METS.{made.package.id}.xml", *(entry.path.replace("%20", " ") for entry in in_dip)]
    )
    assert [{"access", "original", "thumbnail"}, {"access", "original", "text/ocr", "thumbnail"}] == sorted(
        groups.values(), key=len
    )
    access = next(entry for entry in files if entry.use == "access")
    (premis,) = access.get_premis_objects()
    events = {event.identifier_value: event.type for event in access.get_premis_events()}
    (relation,) = premis.relationship
    source = relation.related_object_identifier__related_object_identifier_value
    event = relation.related_event_identifier__related_event_identifier_value
    assert f"Group-{source}" == access.group_id()
    assert "normalization" == events[event]


async def test_doing_it_again_after_a_crash_gives_the_same_dip_once(made: Bench) -> None:
    await made.run(set_dip_aside)
    await made.run(make_dip, stop_after=0)
    await made.run(set_dip_aside)
    await made.run(make_dip)
    await made.run(store_dip, stop_after=0)

    await made.run(store_dip)

    facts = await made.journal.facts()
    place = Path(unquote(urlsplit(facts["dip_stored_url"]).path))
    assert str(dip_id(made.task())) == facts["dip_id"]
    assert [place.name, f"{place.name}.sha256"] == sorted(path.name for path in place.parent.iterdir())
    assert ("2", "2", "1") == (facts["dip_access"], facts["dip_thumbnails"], facts["dip_texts"])


@pytest.mark.parametrize("change", ["other", "missing", "more"])
async def test_a_dip_that_is_not_as_recorded_is_not_made(made: Bench, change: str) -> None:
    await made.run(set_dip_aside)
    folder = dip_folder(made.task())
    copy = next((folder / "objects").iterdir())
    match change:
        case "other":
            copy.write_bytes(b"?")
        case "missing":
            copy.unlink()
        case _:
            (folder / "objects" / "stranger").touch()

    with pytest.raises(StorageError, match="the DIP was not made: the packed DIP differs") as caught:
        await made.run(make_dip)

    assert Code.STORAGE_DIP_FAILED is caught.value.code
    assert "dip_digest" not in await made.journal.facts()
    assert [made.package.label] == [path.name for path in folder.parent.iterdir()]


async def test_a_store_that_does_not_take_it_is_an_error_that_the_workflow_walks_past(made: Bench) -> None:
    await made.run(set_dip_aside)
    await made.run(make_dip)
    (dip_folder(made.task()).parent / f"{made.package.label}.tar").unlink()

    with pytest.raises(StorageError, match="the DIP was not stored") as caught:
        await made.run(store_dip)

    assert Code.STORAGE_DIP_FAILED is caught.value.code


async def test_where_no_dip_was_made_there_is_none_to_store(made: Bench) -> None:
    await made.run(store_dip)

    assert "dip_stored_url" not in await made.journal.facts()
