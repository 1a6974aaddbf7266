"""Copies that came with the transfer: paired with their originals, by name and by normalization.csv."""

from __future__ import annotations

import csv
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest_asyncio

from ingestd.handlers import supplied
from ingestd.handlers.names import change_object_names
from ingestd.handlers.supplied import CSV_INVALID, UNMATCHED, relate_supplied_copies
from ingestd.oais import Facts, File, FileUse, Warning_
from ingestd.premis import EventType
from tests.steps import Bench

MANUAL = "objects/manualNormalization"
CSV = f"{MANUAL}/normalization.csv"


@pytest_asyncio.fixture
async def made(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    yield bench
    await bench.journal.close()


async def copies(made: Bench, use: FileUse = FileUse.PRESERVATION) -> Mapping[str, File]:
    """The copies of a use, by the original path of what they are derived from."""
    files = {file.id: file for file in await made.files()}
    return {files[file.derived_from].original: file for file in files.values() if file.use is use and file.derived_from}


async def warnings_of(made: Bench) -> list[Warning_]:
    return [warning async for window in made.journal.warnings() for warning in window]


async def relate(made: Bench, contents: Mapping[str, bytes], *, safe: bool = False) -> None:
    await made.receive(contents)
    if safe:
        await made.run(change_object_names, options={"under": "objects"})
    await made.run(relate_supplied_copies)


class TestByName:
    async def test_a_copy_is_moved_beside_the_original_of_its_folder_and_name(self, made: Bench) -> None:
        await relate(made, {"objects/deep/a.mp3": b"o", f"{MANUAL}/preservation/deep/a.wav": b"copy"})

        copy = (await copies(made))["objects/deep/a.mp3"]
        assert f"objects/deep/a-{copy.id}.wav" == copy.path
        assert ["objects/deep/a-" + f"{copy.id}.wav", "objects/deep/a.mp3"] == made.on_disk()
        assert b"copy" == (made.root / copy.path).read_bytes()
        assert copy.derived_from is not None
        (event,) = (await made.journal.events([copy.derived_from]))[copy.derived_from]
        assert (EventType.NORMALIZATION, "manual normalization") == (event.type, event.detail)
        assert f"%SIPDirectory%{copy.path}" == event.note
        assert {} == await made.journal.events([copy.id])

    async def test_names_that_only_begin_alike_are_not_confused(self, made: Bench) -> None:
        contents = {
            "objects/a.mp3": b"1",
            "objects/ab.mp3": b"2",
            "objects/art/mn.jpg": b"3",
            f"{MANUAL}/preservation/art/mn.tif": b"4",
            f"{MANUAL}/preservation/ab.wav": b"5",
        }
        await relate(made, contents)

        assert {"objects/art/mn.jpg", "objects/ab.mp3"} == (await copies(made)).keys()
        assert [] == await warnings_of(made)

    async def test_names_are_compared_as_received_where_safe_names_differ(self, made: Bench) -> None:
        contents = {
            "objects/e.bmp": b"plain",
            "objects/é.bmp": b"accent",
            "objects/e e.x.bmp": b"space",
            "objects/e_e.x.bmp": b"line",
            f"{MANUAL}/preservation/é.tif": b"of accent",
            f"{MANUAL}/preservation/e e.x.tif": b"of space",
        }
        await relate(made, contents, safe=True)

        found = {original: (made.root / copy.path).read_bytes() for original, copy in (await copies(made)).items()}
        assert {"objects/é.bmp": b"of accent", "objects/e e.x.bmp": b"of space"} == found

    async def test_a_copy_in_a_folder_whose_name_changed_finds_its_original(self, made: Bench) -> None:
        contents = {"objects/my folder/a.doc": b"o", f"{MANUAL}/preservation/my folder/a.pdf": b"c"}
        await relate(made, contents, safe=True)

        assert "objects/my_folder/a-" in (await copies(made))["objects/my folder/a.doc"].path

    async def test_a_copy_of_nothing_or_of_several_stays_as_an_original_with_a_warning(self, made: Bench) -> None:
        contents = {
            "objects/a.doc": b"1",
            "objects/a.odt": b"2",
            f"{MANUAL}/preservation/a.pdf": b"3",
            f"{MANUAL}/preservation/b.pdf": b"4",
            f"{MANUAL}/preservation/nowhere/a.pdf": b"5",
        }
        await relate(made, contents)

        assert {} == await copies(made)
        assert sorted(contents) == made.on_disk()
        assert {FileUse.ORIGINAL} == {file.use for file in await made.files()}
        said = {warning.path: warning for warning in await warnings_of(made)}
        assert set(contents) - {"objects/a.doc", "objects/a.odt"} == said.keys()
        assert {UNMATCHED} == {warning.code for warning in said.values()}
        assert "each of a.doc, a.odt" in said[f"{MANUAL}/preservation/a.pdf"].detail

    async def test_an_original_has_one_copy_of_a_use(self, made: Bench) -> None:
        contents = {
            "objects/a.doc": b"1",
            f"{MANUAL}/preservation/a.odt": b"2",
            f"{MANUAL}/preservation/a.pdf": b"3",
        }
        await relate(made, contents)

        assert ".odt" == Path((await copies(made))["objects/a.doc"].path).suffix
        (warning,) = await warnings_of(made)
        assert (f"{MANUAL}/preservation/a.pdf", UNMATCHED) == (warning.path, warning.code)

    async def test_submission_documentation_is_no_original(self, made: Bench) -> None:
        await made.receive({"objects/a.doc": b"1", f"{MANUAL}/preservation/a.pdf": b"2"})
        (file,) = (await made.journal.files_at(["objects/a.doc"])).values()
        await made.journal.record(Facts(files=[replace(file, use=FileUse.SUBMISSION_DOCUMENTATION)]))

        await made.run(relate_supplied_copies)

        assert {} == await copies(made)


class TestOtherFolders:
    async def test_access_copies_are_moved_beside_their_originals_too(self, made: Bench) -> None:
        await relate(made, {"objects/a.doc": b"1", f"{MANUAL}/access/a.pdf": b"2"})

        copy = (await copies(made, FileUse.ACCESS))["objects/a.doc"]
        assert f"objects/a-{copy.id}.pdf" == copy.path

    async def test_service_and_access_copies_stay_where_they_are(self, made: Bench) -> None:
        contents = {
            "objects/deep/a.tif": b"1",
            "objects/service/deep/a.jp2": b"2",
            "objects/access/deep/a.jpg": b"3",
            "objects/access/b.jpg": b"4",
        }
        await relate(made, contents)

        assert "objects/service/deep/a.jp2" == (await copies(made, FileUse.SERVICE))["objects/deep/a.tif"].path
        assert "objects/access/deep/a.jpg" == (await copies(made, FileUse.ACCESS))["objects/deep/a.tif"].path
        assert ["objects/access/b.jpg"] == [warning.path for warning in await warnings_of(made)]
        assert sorted(contents) == made.on_disk()

    async def test_a_transfer_without_any_is_left_alone(self, made: Bench) -> None:
        await relate(made, {"objects/a.doc": b"1"})

        assert ["objects/a.doc"] == made.on_disk()
        assert [] == await warnings_of(made)


AMBIGUOUS = {
    "objects/a.doc": b"1",
    "objects/a.odt": b"2",
    f"{MANUAL}/preservation/a.pdf": b"3",
    f"{MANUAL}/access/a.html": b"4",
}


class TestByCsv:
    async def test_says_which_of_several_originals_a_copy_is_of(self, made: Bench) -> None:
        lines = (
            b"\xef\xbb\xbf# original, access, preservation\r\n\r\n"
            b"a.odt, manualNormalization/access/a.html, manualNormalization/preservation/a.pdf\r\n"
        )
        await relate(made, {**AMBIGUOUS, CSV: lines})

        assert ["objects/a.odt"] == [*await copies(made)]
        assert ["objects/a.odt"] == [*await copies(made, FileUse.ACCESS)]
        assert [] == await warnings_of(made)

    async def test_names_as_received_and_as_changed_and_with_a_header_are_understood(self, made: Bench) -> None:
        lines = (
            "original,access,preservation\r"
            "é 1.doc,,preservation/x é.pdf\r"
            'objects/e_2.doc,,"objects/manualNormalization/preservation/y_e.pdf"\r'
            "e 3.doc,,z é.pdf"
        )
        contents = {
            "objects/é 1.doc": b"1",
            "objects/é 2.doc": b"2",
            "objects/e 3.doc": b"3",
            f"{MANUAL}/preservation/x é.pdf": b"4",
            f"{MANUAL}/preservation/y é.pdf": b"5",
            f"{MANUAL}/preservation/z é.pdf": b"6",
            CSV: lines.encode(),
        }
        await relate(made, contents, safe=True)

        found = {original: (made.root / copy.path).read_bytes() for original, copy in (await copies(made)).items()}
        assert {"objects/é 1.doc": b"4", "objects/é 2.doc": b"5", "objects/e 3.doc": b"6"} == found
        assert [] == await warnings_of(made)

    async def test_names_that_are_no_utf8_are_understood(self, made: Bench) -> None:
        raw = "objects/caf\udce9.doc"
        contents = {raw: b"1", f"{MANUAL}/preservation/x.pdf": b"2", CSV: b"caf\xe9.doc,,preservation/x.pdf\n"}
        await relate(made, contents)

        assert [raw] == [*await copies(made)]

    async def test_every_line_that_is_wrong_is_named_and_the_others_count(self, made: Bench) -> None:
        lines = (
            b"gone.doc,,preservation/a.pdf\n"
            b"a.doc\n"
            b"a.doc,,preservation/gone.pdf\n"
            b"a.doc,,../../../etc/passwd\n"
            b"a.doc,,a.odt\n"
            b"a.odt,access/a.html,\n"
        )
        await relate(made, {**AMBIGUOUS, CSV: lines})

        said = [warning.detail for warning in await warnings_of(made) if warning.code == CSV_INVALID]
        assert [1, 2, 3, 4, 5] == [int(text.split(":")[0].removeprefix("line ")) for text in said]
        assert ["objects/a.odt"] == [*await copies(made, FileUse.ACCESS)]
        assert CSV in made.on_disk()

    async def test_a_copy_that_is_named_for_two_originals_is_given_to_the_first(self, made: Bench) -> None:
        await relate(made, {**AMBIGUOUS, CSV: b"a.doc,,preservation/a.pdf\na.odt,,preservation/a.pdf\n"})

        assert ["objects/a.doc"] == [*await copies(made)]
        assert "is named as the copy of several originals" in [warning.detail for warning in await warnings_of(made)]

    async def test_what_is_no_csv_is_a_warning(self, made: Bench) -> None:
        await relate(made, {**AMBIGUOUS, CSV: b'a.doc,,"' + b"x" * (csv.field_size_limit() + 1) + b"\n"})

        assert "line 1: this is no CSV" in (await warnings_of(made))[0].detail

    async def test_many_lines_are_read_in_windows(self, made: Bench) -> None:
        count = 600
        contents = {f"objects/{n}.doc": b"1" for n in range(count)}
        contents |= {f"{MANUAL}/preservation/c{n}.pdf": b"2" for n in range(count)}
        contents[CSV] = "".join(f"{n}.doc,,preservation/c{n}.pdf\n" for n in range(count)).encode()
        await relate(made, contents)

        assert count == len(await copies(made))
        assert [] == await warnings_of(made)

    async def test_one_that_is_too_long_is_not_read(self, made: Bench) -> None:
        await made.receive({CSV: b"x"})
        with (made.root / CSV).open("r+b") as file:
            file.truncate(supplied._CSV_BYTES + 1)

        await made.run(relate_supplied_copies)

        assert "was not read" in (await warnings_of(made))[0].detail


class TestTheFolder:
    async def test_goes_away_with_its_csv_whose_removal_is_told(self, made: Bench) -> None:
        contents = {
            "objects/deep/a.doc": b"1",
            f"{MANUAL}/preservation/deep/a.pdf": b"2",
            CSV: b"deep/a.doc,,preservation/deep/a.pdf\n",
        }
        await made.receive(contents, folders=[f"{MANUAL}/preservation/empty", f"{MANUAL}/access"])

        await made.run(relate_supplied_copies)

        assert not (made.root / MANUAL).exists()
        paths = [directory.path async for window in made.journal.directories() for directory in window]
        assert ["objects", "objects/deep"] == sorted(paths)
        (listed,) = await made.files(removed=True)
        assert CSV == listed.path
        assert [EventType.FILE_REMOVED] == [event.type for event in (await made.journal.events([listed.id]))[listed.id]]

    async def test_stays_where_something_else_is_in_it(self, made: Bench) -> None:
        contents = {"objects/a.doc": b"1", f"{MANUAL}/preservation/a.pdf": b"2", f"{MANUAL}/notes/how.txt": b"3"}
        await relate(made, contents)

        assert f"{MANUAL}/notes/how.txt" in made.on_disk()
        assert not (made.root / MANUAL / "preservation").exists()


class TestAfterACrash:
    async def test_wherever_it_stopped_it_ends_the_same(self, tmp_path: Path) -> None:
        contents = {
            **AMBIGUOUS,
            "objects/b.doc": b"5",
            f"{MANUAL}/preservation/b.pdf": b"6",
            CSV: b"a.odt,access/a.html,preservation/a.pdf\n",
        }
        whole = await self._ended(tmp_path / "whole", contents, None)

        for stop_after in range(8):
            again = await self._ended(tmp_path / str(stop_after), contents, stop_after)
            assert whole == again

    async def _ended(self, folder: Path, contents: Mapping[str, bytes], stop_after: int | None) -> object:
        folder.mkdir()
        made = await Bench.open(folder)
        try:
            await made.receive(contents)
            if stop_after is not None:
                await made.run(relate_supplied_copies, stop_after=stop_after)
            await made.run(relate_supplied_copies)
            files = await made.files()
            ids: list[uuid.UUID] = [file.id for file in files]
            events = await made.journal.events(ids)
            directories = [d.path async for window in made.journal.directories() for d in window]
            return (
                sorted((str(file.id), file.path, file.use, str(file.derived_from)) for file in files),
                sorted((str(one.object), one.type, one.note) for id_ in ids for one in events.get(id_, ())),
                sorted(directories),
                made.on_disk(),
                await warnings_of(made),
            )
        finally:
            await made.journal.close()
