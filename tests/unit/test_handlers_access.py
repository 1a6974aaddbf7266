"""Access copies and thumbnails, with real programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingestd.errors import SystemFault
from ingestd.handlers.access import make_thumbnails, normalize_for_access
from ingestd.oais import DIP, Facts, File, FileUse, Warning_
from ingestd.premis import EventType
from tests import fpr_samples as samples
from tests.normalizing import bench, command, need, puid_of, receive, rule
from tests.steps import Bench, inside

pytestmark = pytest.mark.tool

ACCESS = (
    command("readable", "cat %fileFullName% > %OUT%.html", output_location="%outputFileName%.html")
    + rule("readable", "access")
    + command("thumb", "echo x > %outputDirectory%%postfix%.jpg", output_location="%outputDirectory%%postfix%.jpg")
    + rule("thumb", "thumbnail")
)
BAD = command("bad", "exit 1") + rule("bad", "access") + rule("bad", "thumbnail")


async def run(made: Bench, step: Any, **options: str) -> None:
    """Run a step over the originals as the engine does."""
    async for files in made.journal.files(under="objects", uses=(FileUse.ORIGINAL,), window=64):
        await made.run(step, files=files, options=options)


async def originals(made: Bench) -> list[File]:
    return await made.files(under="objects", uses=(FileUse.ORIGINAL,))


async def warnings_of(made: Bench) -> Sequence[Warning_]:
    return [warning async for window in made.journal.warnings() for warning in window]


async def test_copies_are_recorded_below_the_dip_with_their_events_and_nothing_happens_to_the_original(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, ACCESS) as made:
        await receive(made, {"objects/deep/a.txt": b"some text"})
        (original,) = await originals(made)

        await run(made, normalize_for_access)
        await run(made, make_thumbnails)

        access, thumbnail = await made.files(under=DIP)
        events = await made.journal.events([original.id, access.id])
        normalization = events[access.id][0]
        assert (f"DIP/objects/{original.id}-a.html", FileUse.ACCESS) == (access.path, access.use)
        assert (f"DIP/thumbnails/{original.id}.jpg", FileUse.THUMBNAIL) == (thumbnail.path, thumbnail.use)
        assert {original.id} == {access.derived_from, thumbnail.derived_from}
        assert [EventType.NORMALIZATION, EventType.CREATION, EventType.MESSAGE_DIGEST_CALCULATION] == [
            event.type for event in events[access.id]
        ]
        assert normalization.detail.startswith('ArchivematicaFPRCommandID="')
        assert normalization.note == f"%SIPDirectory%{access.path}"
        assert original.id not in events
        assert [original] == await originals(made)


async def test_what_is_made_for_a_dip_does_not_count_among_what_is_in_the_aip(tmp_path: Path) -> None:
    async with bench(tmp_path, ACCESS) as made:
        await receive(made, {"objects/a.txt": b"x"})
        before = await made.journal.totals()

        await run(made, normalize_for_access)

        assert before == await made.journal.totals()
        assert 1 == (await made.journal.totals(under=DIP)).files


async def test_a_default_stands_in_where_there_is_no_rule_or_it_fails(tmp_path: Path) -> None:
    async with bench(tmp_path, BAD) as made:
        await receive(made, {"objects/a.txt": b"a text"})
        await made.receive({"objects/b.xyz": b"who knows"})
        first, second = await originals(made)

        await run(made, normalize_for_access)
        await run(made, make_thumbnails)

        names = [f"objects/{first.id}-a.txt", f"objects/{second.id}-b.xyz"]
        thumbnails = [f"thumbnails/{file.id}.jpg" for file in (first, second)]
        assert sorted([*names, *thumbnails]) == inside(made.root / DIP)
        assert b"who knows" == (made.root / DIP / names[1]).read_bytes()
        assert ["objects/a.txt"] * 2 == [warning.path for warning in await warnings_of(made)]


async def test_without_defaults_there_is_no_icon_for_what_has_no_picture_of_its_own(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        need(made.services, "convert")
        samples.picture(tmp_path / "a.bmp")
        await receive(made, {"objects/a.bmp": (tmp_path / "a.bmp").read_bytes()}, "fmt/116")
        await receive(made, {"objects/b.txt": b"x"})
        picture, _ = await originals(made)

        await run(made, make_thumbnails, mode="without_defaults")

        (name,) = inside(made.root / DIP)
        assert f"thumbnails/{picture.id}.jpg" == name
        assert puid_of(made.root / DIP / name) in {"fmt/42", "fmt/43", "fmt/44"}
        assert not await warnings_of(made)


async def test_an_access_copy_that_came_with_the_transfer_is_taken_as_it_is(tmp_path: Path) -> None:
    async with bench(tmp_path, ACCESS) as made:
        await receive(made, {"objects/a.txt": b"x", "objects/access/a.htm": b"by hand"})
        original, copy = await originals(made)
        await made.journal.record(Facts(files=[replace(copy, use=FileUse.ACCESS, derived_from=original.id)]))

        await run(made, normalize_for_access)

        (taken,) = await made.files(under=DIP)
        events = (await made.journal.events([taken.id]))[taken.id]
        assert f"DIP/objects/{original.id}-a.htm" == taken.path
        assert b"by hand" == (made.root / taken.path).read_bytes()
        assert copy.digest is not None
        assert taken.digest is not None
        assert (copy.digest.value, original.id) == (taken.digest.value, taken.derived_from)
        assert "manual normalization" == events[0].detail


async def test_a_supplied_copy_that_is_not_what_was_received_is_a_fault(tmp_path: Path) -> None:
    async with bench(tmp_path, ACCESS) as made:
        await receive(made, {"objects/a.txt": b"x", "objects/access/a.htm": b"by hand"})
        original, copy = await originals(made)
        await made.journal.record(Facts(files=[replace(copy, use=FileUse.ACCESS, derived_from=original.id)]))
        (made.root / copy.path).write_bytes(b"by another")

        with pytest.raises(SystemFault, match=r"access/a\.htm"):
            await run(made, normalize_for_access)


async def test_a_service_copy_is_what_access_copies_are_made_of(tmp_path: Path) -> None:
    async with bench(tmp_path, ACCESS) as made:
        await receive(made, {"objects/a.mov": b"large"}, "x-fmt/384")
        await receive(made, {"objects/service/a.txt": b"smaller"})
        original, copy = await originals(made)
        await made.journal.record(Facts(files=[replace(copy, use=FileUse.SERVICE, derived_from=original.id)]))

        await run(made, normalize_for_access)

        (access,) = await made.files(under=DIP)
        assert f"DIP/objects/{original.id}-a.html" == access.path
        assert original.id == access.derived_from
        assert b"smaller" == (made.root / access.path).read_bytes()


async def test_what_was_made_before_a_crash_is_not_made_again_and_is_the_same(tmp_path: Path) -> None:
    async with bench(tmp_path, ACCESS) as made:
        await receive(made, {"objects/a.txt": b"x"})
        await made.run(normalize_for_access, files=await originals(made), stop_after=0)
        before = made.services.pool.spawned

        await run(made, normalize_for_access)

        (access,) = await made.files(under=DIP)
        assert before == made.services.pool.spawned

        assert [access.path.removeprefix("DIP/")] == inside(made.root / DIP)
