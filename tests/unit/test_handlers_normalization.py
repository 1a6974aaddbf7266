"""Preservation copies and the report of all normalization, with real programs."""

from __future__ import annotations

import csv
import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from ingestd.derivatives import FAILED
from ingestd.errors import Code, ResourceError
from ingestd.fpr.records import Purpose
from ingestd.handlers.access import make_thumbnails, normalize_for_access
from ingestd.handlers.normalization import normalize
from ingestd.handlers.reports import REPORT, write_normalization_report
from ingestd.journal import RuleCount
from ingestd.oais import Facts, File, FileUse, Warning_
from ingestd.premis import Event, EventType, Format
from tests import fpr_samples as samples
from tests.normalizing import bench, command, need, puid_of, receive, rule
from tests.steps import Bench, a_package, inside

pytestmark = pytest.mark.tool

COPY = command("copy-text", "cat %fileFullName% > %OUT%.txt") + rule("copy-text")


async def events_of(made: Bench, file: uuid.UUID) -> Sequence[Event]:
    return (await made.journal.events([file])).get(file, ())


async def warnings_of(made: Bench) -> list[Warning_]:
    return [warning async for window in made.journal.warnings() for warning in window]


async def originals(made: Bench) -> list[File]:
    return await made.files(uses=(FileUse.ORIGINAL,))


async def run(made: Bench, step: Any = normalize) -> None:
    """Run a step over the originals as the engine does."""
    async for files in made.journal.files(under="objects", uses=(FileUse.ORIGINAL,), window=64):
        await made.run(step, files=files)


class TestPreservationCopies:
    @pytest.mark.parametrize(
        ("name", "puid", "make", "made_of", "program"),
        [
            ("a.bmp", "fmt/116", samples.picture, {"fmt/353"}, "convert"),
            ("a.mp3", "fmt/134", samples.sound, {"fmt/6", "fmt/141", "fmt/142", "fmt/143"}, "ffmpeg"),
            ("a.pdf", "fmt/17", samples.pdf, {"fmt/477"}, "gs"),
        ],
    )
    async def test_is_of_the_format_that_the_policy_asks_for(
        self, tmp_path: Path, name: str, puid: str, make: samples.Maker, made_of: set[str], program: str
    ) -> None:
        async with bench(tmp_path) as made:
            need(made.services, program)
            make(tmp_path / name)
            await receive(made, {f"objects/deep/{name}": (tmp_path / name).read_bytes()}, puid)

            await run(made)

            (copy,) = await made.files(uses=(FileUse.PRESERVATION,))
            assert puid_of(made.root / copy.path) in made_of

    async def test_lies_beside_its_original_and_is_recorded_with_its_events(self, tmp_path: Path) -> None:
        async with bench(tmp_path, COPY) as made:
            await receive(made, {"objects/deep/a.txt": b"some text"})
            (original,) = await originals(made)

            await run(made)

            (copy,) = await made.files(uses=(FileUse.PRESERVATION,))
            chosen = made.services.registry.command("copy-text")
            assert chosen is not None
            assert uuid.uuid5(original.id, f"{Purpose.PRESERVATION}:copy-text") == copy.id
            assert f"objects/deep/a-{copy.id}.txt" == copy.path
            assert original.id == copy.derived_from
            assert copy.digest is not None
            assert (9, hashlib.sha256(b"some text").hexdigest()) == (copy.size_bytes, copy.digest.value)
            assert copy.modified_at is not None
            (event,) = await events_of(made, original.id)
            assert EventType.NORMALIZATION is event.type
            assert f'ArchivematicaFPRCommandID="{chosen.identifier}"; program="Shell"; version="' in event.detail
            assert event.detail.endswith(event.programs[0].words())
            assert f"%SIPDirectory%{copy.path}" == event.note
            assert [
                (EventType.CREATION, ""),
                (EventType.MESSAGE_DIGEST_CALCULATION, copy.digest.value),
            ] == [(one.type, one.note) for one in await events_of(made, copy.id)]
            assert sorted(["objects/deep/a.txt", copy.path]) == made.on_disk()

    async def test_is_not_made_of_a_file_without_a_rule_or_without_a_format(self, tmp_path: Path) -> None:
        async with bench(tmp_path) as made:
            await receive(made, {"objects/a.jpg": b"x"}, "fmt/43")
            await made.receive({"objects/b": b"y"})

            await run(made)

            assert [] == await warnings_of(made)
            assert ["objects/a.jpg", "objects/b"] == made.on_disk()

    async def test_is_not_made_where_one_came_with_the_transfer(self, tmp_path: Path) -> None:
        async with bench(tmp_path, COPY) as made:
            await receive(made, {"objects/a.txt": b"x", "objects/copy.txt": b"y"})
            original, copy = await originals(made)
            supplied = replace(copy, use=FileUse.PRESERVATION, derived_from=original.id)
            await made.journal.record(Facts(files=[supplied]))

            await run(made)

            assert ["objects/a.txt", "objects/copy.txt"] == made.on_disk()

    async def test_has_a_name_that_file_systems_hold_however_long_the_originals_is(self, tmp_path: Path) -> None:
        async with bench(tmp_path, COPY) as made:
            await receive(made, {f"objects/{'n' * 236}.txt": b"x"})

            await run(made)

            (copy,) = await made.files(uses=(FileUse.PRESERVATION,))
            assert 255 >= len(PurePosixPath(copy.path).name)
            assert (made.root / copy.path).is_file()

    async def test_are_made_of_many_files_side_by_side(self, tmp_path: Path) -> None:
        async with bench(tmp_path, COPY) as made:
            contents = {f"objects/{number}.txt": str(number).encode() for number in range(20)}
            await receive(made, contents)

            await run(made)

            by_id = {file.id: file for file in await originals(made)}
            copies = await made.files(uses=(FileUse.PRESERVATION,))
            assert 20 == len(copies)
            assert 40 == len(made.on_disk())
            for copy in copies:
                assert copy.derived_from is not None
                assert contents[by_id[copy.derived_from].path] == (made.root / copy.path).read_bytes()


FAILING = {
    "ends with an error": ("echo no such luck >&2; exit 3", FAILED, "Shell ended with exit code 3: no such luck"),
    "writes nothing": ("true", FAILED, "Shell wrote nothing to a-"),
    "writes an empty file": (": > %OUT%.txt", FAILED, "Shell wrote an empty file"),
    "writes a folder": ("mkdir %OUT%.txt", FAILED, "Shell wrote something that is not a file"),
    "writes a link": ("ln -s %fileFullName% %OUT%.txt", FAILED, "Shell wrote something that is not a file"),
    "writes a file for every frame": (
        "touch %OUT%-0.txt %OUT%-1.txt",
        FAILED,
        ", but 2 others (a-",
    ),
    "hangs": ("sleep 60", Code.TOOL_TIMEOUT, "Shell took longer than it may and was stopped"),
    "writes too much": (
        "head -c 3000000 /dev/zero > %OUT%.txt",
        FAILED,
        "Shell makes more of 4 bytes than the 1048576",
    ),
    "does not pass its verification": ("echo x > %OUT%.txt", FAILED, "did not pass refuse"),
}
REFUSE = command("refuse", "exit 1", usage="verification", output_location="", verification="", event_detail="")


class TestACommandThat:
    @pytest.mark.parametrize("what", FAILING)
    async def test_fails_costs_one_warning_and_leaves_nothing_but_the_original(self, tmp_path: Path, what: str) -> None:
        script, code, detail = FAILING[what]
        verification = "refuse" if "verification" in what else "output-exists"
        site = REFUSE + command("bad", script, verification=verification) + rule("bad")
        budget = {"seconds": 1.0, "max_bytes": 2**20}
        async with bench(tmp_path, site, normalization=budget) as made:
            await receive(made, {"objects/deep/a.txt": b"text", "objects/deep/b.doc": b"x"})

            await run(made)

            first, second = await warnings_of(made)
            assert ["objects/deep/a.txt", "objects/deep/b.doc"] == made.on_disk()
            assert ("objects/deep/a.txt", code) == (first.path, first.code)
            assert detail in first.detail
            assert "objects/deep/b.doc" == second.path
            assert str(tmp_path) not in first.detail
            assert not inside(made.folder / "scratch")

    async def test_wants_a_program_that_is_not_installed_costs_one_warning_for_all_files(self, tmp_path: Path) -> None:
        site = command("absent", "true", tool="nowhere") + rule("absent")
        async with bench(tmp_path, site) as made:
            await receive(made, {"objects/a.txt": b"x", "objects/b.txt": b"y"})

            await run(made)

            (warning,) = await warnings_of(made)
            assert (Code.TOOL_NOT_INSTALLED, "") == (warning.code, warning.path)
            assert "Nowhere is not installed" in warning.detail

    async def test_stands_in_for_one_without_its_program_is_run_and_named(self, tmp_path: Path) -> None:
        site = (
            command("absent", "true", tool="nowhere", otherwise="copy-text")
            + command("copy-text", "cat %fileFullName% > %OUT%.txt")
            + rule("absent")
        )
        async with bench(tmp_path, site) as made:
            await receive(made, {"objects/a.txt": b"x"})
            (original,) = await originals(made)

            await run(made)

            chosen = made.services.registry.command("copy-text")
            assert chosen is not None
            assert str(chosen.identifier) in (await events_of(made, original.id))[0].detail

    async def test_grows_a_file_beyond_the_ratio_is_over_budget(self, tmp_path: Path) -> None:
        site = command("grow", "head -c 5000 /dev/zero > %OUT%.txt") + rule("grow")
        budget = {"max_ratio": 10, "ratio_from_bytes": 100}
        async with bench(tmp_path, site, normalization=budget) as made:
            await receive(made, {"objects/a.txt": b"0123456789", "objects/b.txt": b"0" * 1000})

            await run(made)

            (warning,) = await warnings_of(made)
            assert "objects/a.txt" == warning.path
            assert 1 == len(await made.files(uses=(FileUse.PRESERVATION,)))

    async def test_finds_the_disk_full_stops_the_package_and_blames_no_file(self, tmp_path: Path) -> None:
        site = command("full", "echo 'cat: write error: No space left on device' >&2; exit 1") + rule("full")
        async with bench(tmp_path, site, normalization={"ratio_from_bytes": 2**60, "max_bytes": 2**60}) as made:
            await receive(made, {"objects/a.txt": b"x"})

            with pytest.raises(ResourceError, match="no space"):
                await run(made)


ONCE = command(
    "once",
    "if [ -e $TMPDIR/../seen ]; then exit 1; fi; touch $TMPDIR/../seen; echo x > %OUT%.txt",
) + rule("once")


async def lose(made: Bench) -> list[File]:
    """Run the step on all files, and die before what it tells is recorded; give the copies that it made."""
    files = await originals(made)
    return [file async for one in made.outcomes(normalize, files=files) for file in one.facts.files]


class TestThreads:
    @pytest.mark.parametrize(("files", "threads"), [(1, b"4\n"), (2, b"2\n"), (8, b"1\n")])
    async def test_processors_are_shared_among_the_files_of_a_window(
        self, tmp_path: Path, files: int, threads: bytes
    ) -> None:
        site = command("count", "echo %threads% > %OUT%.txt") + rule("count")
        async with bench(tmp_path, site, tools={"processes": 4}) as made:
            await receive(made, {f"objects/{number}.txt": b"x" for number in range(files)})

            await run(made)

            copies = await made.files(uses=(FileUse.PRESERVATION,))
            assert {threads} == {(made.root / copy.path).read_bytes() for copy in copies}


class TestAfterACrash:
    async def test_what_was_made_and_not_recorded_is_found_and_not_made_again(self, tmp_path: Path) -> None:
        async with bench(tmp_path, ONCE) as made:
            await receive(made, {"objects/a.txt": b"x"})
            lost = await lose(made)
            before = made.services.pool.spawned

            await run(made)

            (copy,) = await made.files(uses=(FileUse.PRESERVATION,))
            assert lost == [replace(copy, row=0)]
            assert before == made.services.pool.spawned
            assert await made.paths() == made.on_disk()
            event = (await events_of(made, copy.derived_from or copy.id))[0]
            assert 'program="Shell"; version="' in event.detail

    async def test_what_is_damaged_is_made_again_in_its_own_place(self, tmp_path: Path) -> None:
        async with bench(tmp_path, COPY) as made:
            await receive(made, {"objects/a.txt": b"x", "objects/b.txt": b"y"})
            lost = await lose(made)
            (made.root / lost[0].path).write_bytes(b"?")

            await run(made)

            copies = await made.files(uses=(FileUse.PRESERVATION,))
            assert sorted(file.id for file in lost) == sorted(copy.id for copy in copies)
            assert await made.paths() == made.on_disk()
            assert b"x" == (made.root / lost[0].path).read_bytes()

    async def test_the_trace_of_what_now_fails_is_removed(self, tmp_path: Path) -> None:
        async with bench(tmp_path, ONCE) as made:
            await receive(made, {"objects/a.txt": b"x"})
            (lost,) = await lose(made)
            (made.root / lost.path).write_bytes(b"?")

            await run(made)

            assert ["objects/a.txt"] == made.on_disk()
            assert 1 == len(await warnings_of(made))


class TestTheReport:
    async def test_says_of_every_original_what_became_of_it_and_counts(self, tmp_path: Path) -> None:
        picky = "grep -q good %fileFullName% || { echo 'this is bad' >&2; exit 1; }; cat %fileFullName% > %OUT%.txt"
        site = command("picky", picky) + rule("picky") + command("absent", "true", tool="nowhere")
        site += rule("absent", puid="fmt/116")
        async with bench(tmp_path, site) as made:
            contents = {f"objects/{number:03}.txt": b"good" if number % 3 else b"bad" for number in range(9)}
            others = {f"objects/{number:03}.jpg": b"x" for number in range(300)}
            await receive(made, contents)
            await receive(made, others, "fmt/43")
            await receive(made, {"objects/a.bmp": b"x"}, "fmt/116")
            await receive(made, {"objects/b.jpg": b"x"}, "fmt/43")
            await receive(made, {"objects/b.png": b"x"}, "fmt/13")
            await made.receive({"objects/c": b"x"})
            await run(made)

            await made.run(write_normalization_report)

            with (made.root / REPORT).open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            facts = await made.journal.facts()
            by_file = {row["file"]: row for row in rows}
            assert [*contents, *others, "objects/a.bmp", "objects/b.jpg", "objects/b.png", "objects/c"] == [
                row["file"] for row in rows
            ]
            failed = [row for row in rows if row["outcome"] == "failed"]
            assert [path for path, content in contents.items() if content == b"bad"] == [row["file"] for row in failed]
            assert {"Shell ended with exit code 1: this is bad"} == {row["detail"] for row in failed}
            good = by_file["objects/001.txt"]
            assert ("normalized", "preservation:x-fmt/111", "picky") == (good["outcome"], good["rule"], good["command"])
            assert (made.root / good["derivative"]).read_bytes() == b"good"
            assert "tool not installed" == by_file["objects/a.bmp"]["outcome"]
            assert "no rule" == by_file["objects/b.jpg"]["outcome"]
            assert "kept as it is" == by_file["objects/b.png"]["outcome"]
            assert "format not known" == by_file["objects/c"]["outcome"]
            assert ("6", "3") == (
                facts["normalization_preservation_normalized"],
                facts["normalization_preservation_failed"],
            )
            (told,) = json.loads(facts["normalized"])["preservation"]
            assert ("picky", "Shell", 6) == (told["command"], told["tool"], told["files"])
            used = RuleCount(rule="preservation:x-fmt/111", command="picky", attempts=9, okay=6)
            assert [used] == await made.journal.rule_counts()

    async def test_says_that_nothing_was_asked_for_where_that_is_so(self, tmp_path: Path) -> None:
        async with bench(tmp_path, COPY) as made:
            await receive(made, {"objects/a.txt": b"x"})

            await made.run(write_normalization_report, package=a_package(processing={"normalize": False}))

            assert ",not asked for,," in (made.root / REPORT).read_text(encoding="utf-8")
            assert "1" == (await made.journal.facts())["normalization_preservation_not_asked_for"]

    async def test_names_formats_as_the_registry_does(self, tmp_path: Path) -> None:
        async with bench(tmp_path, COPY) as made:
            await made.receive({"objects/a.txt": b"x"})
            (file,) = await originals(made)
            named = replace(file, format=Format(name="Text", version="1", puid="x-fmt/111"))
            await made.journal.record(Facts(files=[named]))

            await made.run(write_normalization_report)

            assert "objects/a.txt,Text 1,x-fmt/111," in (made.root / REPORT).read_text(encoding="utf-8")

    async def test_warns_of_copies_that_are_of_other_formats_than_their_command_says(self, tmp_path: Path) -> None:
        async with bench(tmp_path, COPY) as made:
            await receive(made, {f"objects/{name}.txt": b"x" for name in ("fine", "none", "picture", "unseen")})
            await run(made)
            formats = {
                "fine": Format(name="Text", puid="x-fmt/22"),  # of the same group
                "none": Format(name="Unknown"),
                "picture": Format(name="TIFF", puid="fmt/353"),
                "unseen": None,
            }
            copies = await made.files(uses=(FileUse.PRESERVATION,))
            named = [replace(one, format=formats[PurePosixPath(one.path).name.partition("-")[0]]) for one in copies]
            await made.journal.record(Facts(files=named))

            (outcome,) = await made.run(write_normalization_report)

            said = {warning.path.partition("-")[0]: warning.detail for warning in outcome.facts.warnings}
            assert ["objects/none", "objects/picture"] == sorted(said)
            assert said["objects/picture"].endswith("says that it writes Generic TXT, and this is: TIFF")

    async def test_says_what_became_of_originals_for_a_dip_too(self, tmp_path: Path) -> None:
        site = command("bad", "echo 'no way' >&2; exit 1") + rule("bad", "access") + rule("bad", "thumbnail")
        async with bench(tmp_path, site) as made:
            await receive(made, {"objects/a.txt": b"x"})
            await made.receive({"objects/b": b"x", "objects/c": b"x", "objects/access/c.htm": b"y"})
            files = {file.path: file for file in await originals(made)}
            copy = replace(files["objects/access/c.htm"], use=FileUse.ACCESS, derived_from=files["objects/c"].id)
            await made.journal.record(Facts(files=[copy]))
            await run(made, normalize_for_access)
            async for window in made.journal.files(under="objects", uses=(FileUse.ORIGINAL,)):
                await made.run(make_thumbnails, files=window, options={"mode": "without_defaults"})
            asked = {"normalize": False, "normalize_for_access": True, "generate_thumbnails": "without_defaults"}

            await made.run(write_normalization_report, package=a_package(processing=asked))

            with (made.root / REPORT).open(encoding="utf-8", newline="") as file:
                rows = {(row["file"], row["purpose"]): row for row in csv.DictReader(file)}
            facts = await made.journal.facts()
            failing = rows["objects/a.txt", "access"]
            assert 9 == len(rows)
            assert "default" == failing["outcome"]
            assert failing["derivative"] == f"DIP/objects/{files['objects/a.txt'].id}-a.txt"
            assert failing["detail"].endswith("Shell ended with exit code 1: no way")
            assert "failed" == rows["objects/a.txt", "thumbnail"]["outcome"]
            assert "default" == rows["objects/b", "access"]["outcome"]
            supplied = rows["objects/c", "access"]
            assert ("manual", "", "") == (supplied["outcome"], supplied["rule"], supplied["command"])
            assert "2" == facts["normalization_access_default"]
            assert "1" == facts["normalization_access_manual"]
            assert ("1", "2") == (
                facts["normalization_thumbnail_failed"],
                facts["normalization_thumbnail_no_rule"],
            )
