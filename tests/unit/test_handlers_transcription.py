"""Text read from pictures, with Tesseract and with a site's own commands."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from ingestd.config import Settings
from ingestd.errors import Code, RequestError
from ingestd.handlers.transcription import FOLDER, transcribe_file
from ingestd.messages import ProcessingConfig
from ingestd.oais import Facts, File, FileUse, Reingest, Warning_
from ingestd.premis import Event, EventOutcome, EventType, Format
from tests import fpr_samples as samples
from tests.normalizing import TEXT, bench, command, need, receive, rule
from tests.steps import Bench

pytestmark = pytest.mark.tool

TIFF = "fmt/353"
_OUT = "%SIPObjectsDirectory%metadata/OCRfiles/%fileName%-%fileUUID%"


def reader(script: str, **more: str) -> str:
    """A site's transcription command for text files."""
    fields = {"output_location": f"{_OUT}.txt", "usage": "transcription", **more}
    return command("read", script.replace("%OUT%", _OUT), **fields) + rule("read", "transcription")


async def run(made: Bench, language: str = "eng") -> None:
    async for files in made.journal.files(under="objects", uses=(FileUse.ORIGINAL,), window=64):
        await made.run(transcribe_file, files=files, options={"language": language})


async def transcriptions(made: Bench) -> Sequence[Event]:
    files = await made.files()
    events = await made.journal.events([file.id for file in files])
    return [one for file in files for one in events.get(file.id, ()) if one.type is EventType.TRANSCRIPTION]


async def texts(made: Bench) -> list[File]:
    return await made.files(uses=(FileUse.TEXT_OCR,))


async def warnings_of(made: Bench) -> list[Warning_]:
    return [warning async for window in made.journal.warnings() for warning in window]


class TestWithTesseract:
    async def test_the_text_of_a_picture_is_kept_with_its_events(self, tmp_path: Path) -> None:
        samples.picture(tmp_path / "a.tif")
        async with bench(tmp_path) as made:
            need(made.services, "tesseract")
            await receive(made, {"objects/deep/a.tif": (tmp_path / "a.tif").read_bytes()}, TIFF)
            (original,) = await made.files()

            await run(made)

            (text,) = await texts(made)
            assert f"{FOLDER}/a-{original.id}.txt" == text.path
            assert b"Hello preservation" in (made.root / text.path).read_bytes()
            assert original.id == text.derived_from
            (event,) = await transcriptions(made)
            assert (original.id, EventOutcome.TRANSCRIBED) == (event.object, event.outcome)
            assert f"%SIPDirectory%{text.path}" == event.note
            assert event.detail.startswith('program="Tesseract"; version="')
            assert 'language="eng"' in event.detail
            events = (await made.journal.events([text.id]))[text.id]
            assert [EventType.CREATION, EventType.MESSAGE_DIGEST_CALCULATION] == [one.type for one in events]
            assert ["Tesseract", "Tesseract"] == [one.programs[0].name for one in (event, events[0])]
            assert () == events[1].programs
            folders = [folder.path async for window in made.journal.directories() for folder in window]
            assert {"objects/metadata", FOLDER} <= set(folders)
            assert await made.paths() == made.on_disk()

    async def test_a_picture_without_text_is_not_transcribed_and_has_no_file(self, tmp_path: Path) -> None:
        Image.new("RGB", (200, 200), "white").save(tmp_path / "a.tif")
        async with bench(tmp_path) as made:
            need(made.services, "tesseract")
            await receive(made, {"objects/a.tif": (tmp_path / "a.tif").read_bytes()}, TIFF)

            await run(made)

            (event,) = await transcriptions(made)
            assert (EventOutcome.NOT_TRANSCRIBED, "no text was found") == (event.outcome, event.note)
            assert ["objects/a.tif"] == made.on_disk()
            assert [] == await warnings_of(made)

    @pytest.mark.parametrize(("language", "read"), [("xyz", 0), ("eng+xyz", 2)])
    async def test_a_language_without_data_is_one_warning_for_all_files(
        self, tmp_path: Path, language: str, read: int
    ) -> None:
        samples.picture(tmp_path / "a.tif")
        async with bench(tmp_path) as made:
            need(made.services, "tesseract")
            picture = (tmp_path / "a.tif").read_bytes()
            await receive(made, {"objects/a.tif": picture, "objects/b.tif": picture}, TIFF)

            await run(made, language)

            (warning,) = await warnings_of(made)
            assert (Code.TOOL_NOT_INSTALLED, "") == (warning.code, warning.path)
            assert "the language xyz" in warning.detail
            assert read == len(await texts(made)) == len(await transcriptions(made))

    @pytest.mark.parametrize("language", ["eng", "eng+xyz"])
    async def test_a_damaged_picture_is_a_warning_that_names_it(self, tmp_path: Path, language: str) -> None:
        async with bench(tmp_path) as made:
            need(made.services, "tesseract")
            await receive(made, {"objects/a.tif": b"II*\0 and no more"}, TIFF)

            await run(made, language)

            (warning,) = [warning for warning in await warnings_of(made) if warning.path]
            assert ("objects/a.tif", "tool.transcription_failed") == (warning.path, warning.code)
            assert str(tmp_path) not in warning.detail
            (event,) = await transcriptions(made)
            assert EventOutcome.NOT_TRANSCRIBED is event.outcome


class TestWithAnyCommand:
    async def test_a_program_that_is_not_installed_is_one_warning_and_no_event(self, tmp_path: Path) -> None:
        async with bench(tmp_path, reader("true", tool="nowhere")) as made:
            await receive(made, {"objects/a.txt": b"x", "objects/b.txt": b"y"})

            await run(made)

            (warning,) = await warnings_of(made)
            assert (Code.TOOL_NOT_INSTALLED, "") == (warning.code, warning.path)
            assert [] == await transcriptions(made)

    async def test_the_preservation_copy_is_read_where_no_rule_is_for_the_original(self, tmp_path: Path) -> None:
        async with bench(tmp_path, reader("cat %fileFullName% > %OUT%.txt")) as made:
            await made.receive({"objects/a.doc": b"original", "objects/a-copy.txt": b"copy"})
            known = await made.journal.files_at(["objects/a.doc", "objects/a-copy.txt"])
            original, copy = known["objects/a.doc"], known["objects/a-copy.txt"]
            derived = replace(
                copy,
                use=FileUse.PRESERVATION,
                derived_from=original.id,
                format=Format(name="Text", puid=TEXT),
            )
            await made.journal.record(Facts(files=[derived]))

            await run(made)

            (text,) = await texts(made)
            assert original.id == text.derived_from
            assert f"{FOLDER}/a-{original.id}.txt" == text.path
            assert b"copy" == (made.root / text.path).read_bytes()

    async def test_made_again_after_a_crash_there_is_one_text(self, tmp_path: Path) -> None:
        async with bench(tmp_path, reader("cat %fileFullName% > %OUT%.txt")) as made:
            await receive(made, {"objects/a.txt": b"x"})
            files = await made.files()
            options = {"language": "eng"}
            lost = [one async for one in made.outcomes(transcribe_file, files=files, options=options)]

            await run(made)
            await run(made)

            (text,) = await texts(made)
            expected: list[uuid.UUID] = [file.id for file in lost[0].facts.files]
            assert expected == [text.id]
            assert 2 == len(made.on_disk())

    async def test_the_language_is_told_to_the_command(self, tmp_path: Path) -> None:
        async with bench(tmp_path, reader("echo %language% > %OUT%.txt")) as made:
            await receive(made, {"objects/a.txt": b"x"})

            await run(made, "deu+script/Latin")

            (text,) = await texts(made)
            assert b"deu+script/Latin\n" == (made.root / text.path).read_bytes()


class TestTheOption:
    @pytest.mark.parametrize("text", ["eng", "deu+eng", "chi_sim", "script/Latin", "deu+script/Latin"])
    def test_takes_languages_as_tesseract_names_them(self, text: str) -> None:
        assert text == ProcessingConfig.resolve({"transcription_language": text}).transcription_language

    @pytest.mark.parametrize("text", ["", "eng+", "../eng", "--psm", "eng deu", "/etc", "a/b/c"])
    def test_takes_nothing_else(self, text: str) -> None:
        with pytest.raises(RequestError):
            ProcessingConfig.resolve({"transcription_language": text})

    def test_budgets_can_be_set(self) -> None:
        settings = Settings.load(environ={"INGESTD_NORMALIZATION__SECONDS": "5"})

        assert 5 == settings.normalization.seconds


class TestInAReingest:
    """A text that was read for an earlier version lies where the new one comes to be."""

    @staticmethod
    async def with_a_former_text(made: Bench) -> tuple[File, File]:
        await receive(made, {"objects/a.txt": b"new words"})
        (original,) = await made.files()
        path = f"{FOLDER}/a-{original.id}.txt"
        await made.receive({path: b"old words"})
        (found,) = (await made.journal.files_at([path])).values()
        former = replace(found, use=FileUse.TEXT_OCR, derived_from=original.id)
        born = Event(object=former.id, type=EventType.CREATION, at=original.digest.calculated_at)  # type: ignore[union-attr]
        await made.journal.record(Facts(files=[former], events=[born]))
        made.package = replace(made.package, reingest=Reingest.FULL, request_id=uuid.UUID(int=7), kept_rows=2)
        return original, former

    async def test_a_text_is_read_anew_and_the_former_one_deleted_however_often_the_process_dies(
        self, tmp_path: Path
    ) -> None:
        async with bench(tmp_path, reader("cat %fileFullName% > %OUT%.txt")) as made:
            original, former = await self.with_a_former_text(made)
            task = made.task(files=[original], options={"language": "eng"})
            for _ in range(2):
                await transcribe_file(task, made.services)
            await run(made)
            (text,) = await texts(made)
            events = (await made.journal.events([former.id]))[former.id]
            gone = [file async for window in made.journal.files(removed=True) for file in window]
            content = (made.root / text.path).read_bytes()

        assert (former.path, True) == (text.path, text.id != former.id)
        assert b"new words" == content
        assert [former.id] == [file.id for file in gone]
        assert [("creation", ""), ("deletion", f"made anew: {text.id}")] == [(e.type, e.note) for e in events]

    async def test_the_former_text_stays_where_none_is_read_and_dying_meanwhile_loses_nothing(
        self, tmp_path: Path
    ) -> None:
        async with bench(tmp_path, reader("exit 1")) as made:
            original, former = await self.with_a_former_text(made)
            task = made.task(files=[original], options={"language": "eng"})
            aside = made.folder / "scratch/derivatives/replaced" / str(former.id)
            aside.parent.mkdir(parents=True)
            (made.root / former.path).rename(aside)
            for _ in range(2):
                await transcribe_file(task, made.services)
            await run(made)
            (text,) = await texts(made)
            content = (made.root / text.path).read_bytes()

        assert former.id == text.id
        assert b"old words" == content
