"""Siegfried, ExifTool, MediaInfo and ffprobe, run for real on small files with ordinary and with odd names."""

import asyncio
import os
import shutil
import sys
import wave
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from ingestd.config import Settings, ToolSettings
from ingestd.errors import Code, ToolError
from ingestd.tools import Toolbox
from ingestd.tools.alias import alias
from ingestd.tools.crew import Crew
from ingestd.tools.exiftool import ExifTool
from ingestd.tools.pool import Pool
from ingestd.tools.xml import Described, element

pytestmark = pytest.mark.tool

ODD_NAMES = [
    b"new\nline.wav",
    b"-ver.wav",
    b'it\'s "so" & <so>.wav',
    b"b\xff\xfe.wav",
    b"Icon\r",
    b"http:x.wav",
    b" #a .wav",
]
MIB = 2**20


def sound(path: Path) -> Path:
    with path.open("wb") as file, wave.open(file) as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(8000)
        wav.writeframes(b"\0\1" * 800)
    return path


def odd(folder: Path) -> list[Path]:
    return [sound(folder / os.fsdecode(name)) for name in ODD_NAMES]


@pytest.fixture
async def tools(tmp_path: Path) -> AsyncIterator[Toolbox]:
    async with Toolbox(Settings(data_dir=tmp_path / "data", tools=ToolSettings(processes=2))) as tools:
        yield tools

    assert tools.pool.running == 0
    assert list((tmp_path / "data" / "scratch").iterdir()) == []


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "server-folder"
    folder.mkdir()
    return folder


def leaks(xml: str, folder: Path) -> bool:
    return str(folder) in xml or folder.name in xml or "ingestd-tools" in xml


# --- Siegfried


async def test_siegfried_identifies_by_content_and_extension_in_order(tools: Toolbox, files: Path) -> None:
    (files / "a.txt").write_text("hello")
    (files / "empty.pdf").touch()
    (files / "noise").write_bytes(bytes(range(256)))
    Image.new("RGB", (2, 2)).save(files / "p.png")

    text, empty, noise, png, missing = await tools.siegfried.identify(
        [files / "a.txt", files / "empty.pdf", files / "noise", files / "p.png", files / "missing"]
    )

    assert text.format
    assert (text.format.puid, text.format.name, text.format.mime) == ("x-fmt/111", "Plain Text File", "text/plain")
    assert "text match ASCII" in text.basis
    assert (empty.format, empty.error) == (None, "")
    assert "extension" in empty.warning
    assert (noise.format, noise.warning, noise.error) == (None, "no match", "")
    assert png.format
    assert png.format.name == "Portable Network Graphics"
    assert "no such file" in missing.error
    assert str(files) not in missing.error


async def test_siegfried_takes_every_name(tools: Toolbox, files: Path) -> None:
    found = await tools.siegfried.identify(odd(files))

    assert len(ODD_NAMES) == len(found)
    assert {"fmt/141", "fmt/6"} >= {one.format.puid for one in found if one.format}
    assert all(one.format for one in found)


async def test_siegfried_matches_the_extension_of_a_name_that_is_not_utf8(tools: Toolbox, files: Path) -> None:
    path = files / os.fsdecode(b"\xff.txt")
    path.write_text("hello")

    (found,) = await tools.siegfried.identify([path])

    assert "extension match txt" in found.basis


async def test_siegfried_says_its_version_and_signature(tools: Toolbox) -> None:
    assert (await tools.siegfried.version()).startswith("1.")
    assert (await tools.siegfried.signature()).startswith("DROID_SignatureFile_V")


async def test_more_files_than_one_batch_come_back_in_order(tools: Toolbox, files: Path) -> None:
    paths = []
    for number in range(150):
        path = files / f"{number}.{'txt' if number % 2 else 'xml'}"
        path.write_text("hello")
        paths.append(path)

    found = await tools.siegfried.identify(paths)

    assert ["txt" if n % 2 else "xml" for n in range(150)] == [
        "txt" if one.format and one.format.puid == "x-fmt/111" else "xml" for one in found
    ]


# --- the crew, with a worker that does what it is told by the file's name

WORKER = """
import json, os, sys, time
print(json.dumps({"version": "1"}), flush=True)
for line in sys.stdin:
    answers = []
    for path in json.loads(line):
        if "kill" in path: os.kill(os.getpid(), 7)
        if "hang" in path: time.sleep(60)
        if "babble" in path: print("nonsense", flush=True)
        answers.append({"pid": os.getpid()})
    print(json.dumps(answers), flush=True)
"""

MakeCrew = Callable[[str], Crew]


@pytest.fixture
async def make_crew(tmp_path: Path) -> AsyncIterator[MakeCrew]:
    async with Pool(ToolSettings(processes=2), scratch=tmp_path / "scratch") as pool:

        def make(code: str) -> Crew:
            program = tmp_path / "worker.py"
            program.write_text(code)
            return Crew(pool, "siegfried", count=1, batch_seconds=0.7, program=program)

        yield make


async def test_a_file_that_kills_the_worker_is_the_only_one_without_an_answer(make_crew: MakeCrew) -> None:
    crew = make_crew(WORKER)

    answers = [answer for _, answer in await crew.ask([Path(f"/{name}") for name in ("a", "kill", "b", "c")])]

    assert [next(iter(answer)) for answer in answers] == ["pid", "error", "pid", "pid"]
    assert "ended in the middle" in answers[1]["error"]
    await crew.aclose()


async def test_a_file_that_hangs_the_worker_is_the_only_one_without_an_answer(make_crew: MakeCrew) -> None:
    crew = make_crew(WORKER)

    answers = [answer for _, answer in await crew.ask([Path("/a"), Path("/hang"), Path("/b")])]

    assert [next(iter(answer)) for answer in answers] == ["pid", "error", "pid"]
    assert "no answer within" in answers[1]["error"]
    await crew.aclose()


async def test_a_worker_whose_answer_makes_no_sense_is_replaced(make_crew: MakeCrew) -> None:
    crew = make_crew(WORKER)

    answers = [answer for _, answer in await crew.ask([Path("/babble"), Path("/b")])]

    assert [next(iter(answer)) for answer in answers] == ["error", "pid"]
    await crew.aclose()


async def test_a_cancelled_question_is_not_answered_to_the_next(make_crew: MakeCrew) -> None:
    crew = make_crew(WORKER)
    ((_, first),) = await crew.ask([Path("/a")])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await crew.ask([Path("/hang")])
    ((_, second),) = await crew.ask([Path("/b")])

    assert first["pid"] != second["pid"]
    await crew.aclose()


async def test_a_worker_that_cannot_start_is_not_installed(make_crew: MakeCrew) -> None:
    crew = make_crew("import no_such_library")

    with pytest.raises(ToolError) as caught:
        await crew.ask([Path("/a")])

    assert Code.TOOL_NOT_INSTALLED is caught.value.code
    assert "no_such_library" in caught.value.stderr_tail


# --- ExifTool


async def test_exiftool_describes_many_files_without_a_path_of_the_server(tools: Toolbox, files: Path) -> None:
    paths = []
    for number in range(20):
        paths.append(files / f"picture {number} é.png")
        Image.new("RGB", (number + 1, 3)).save(paths[-1])

    found = await tools.exiftool.describe(paths)

    for number, one in enumerate(found):
        assert one.error == ""
        assert f">{number + 1}</PNG:ImageWidth>" in one.xml
        assert f"rdf:about='picture {number} é.png'" in one.xml
        assert not leaks(one.xml, files)
        assert one.xml.startswith("<rdf:RDF")
    assert tools.pool.spawned == 1


async def test_exiftool_takes_every_name(tools: Toolbox, files: Path) -> None:
    found = await tools.exiftool.describe(odd(files))

    assert [""] * len(ODD_NAMES) == [one.error for one in found]
    for one in found:
        assert "audio/x-wav" in one.xml
        assert not leaks(one.xml, files)
    assert "rdf:about='b%FF%FE.wav'" in found[3].xml
    assert "<System:FileName>new%0Aline.wav</System:FileName>" in found[0].xml


async def test_exiftool_says_what_it_cannot_read_and_goes_on(tools: Toolbox, files: Path) -> None:
    missing, there = await tools.exiftool.describe([files / "missing", sound(files / "a.wav")])

    assert missing.xml == ""
    assert "could not read" in missing.error
    assert "audio/x-wav" in there.xml


async def test_metadata_cannot_end_an_answer(tools: Toolbox, files: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", "\n{ready}\n{ready1}\n")
    Image.new("RGB", (1, 1)).save(files / "a.png", pnginfo=info)

    first, second = await tools.exiftool.describe([files / "a.png", sound(files / "b.wav")])

    assert "{ready1}" in first.xml
    assert "audio/x-wav" in second.xml


FAKE = """
import sys, time
name = ""
for line in sys.stdin:
    line = line.rstrip("\\n")
    if not line.startswith("-execute"):
        name = line
        continue
    if "hang" in name: time.sleep(60)
    if "die" in name: sys.exit(1)
    print(f"<a>{name.rpartition('/')[2]}</a>\\n{{ready{line[8:]}}}", flush=True)
"""


async def test_an_exiftool_that_hangs_or_dies_costs_one_file(tools: Toolbox) -> None:
    exiftool = ExifTool(tools.pool, file_seconds=0.5, argv=[sys.executable, "-S", "-c", FAKE])

    found = await exiftool.describe([Path(f"/{name}") for name in ("a", "hang", "b", "die", "c")])

    assert [one.xml for one in found] == ["<a>a</a>", "", "<a>b</a>", "", "<a>c</a>"]
    assert "no answer" in found[1].error
    assert "ended" in found[3].error
    await exiftool.aclose()


async def test_after_a_cancelled_description_the_next_gets_its_own_answer(tools: Toolbox) -> None:
    exiftool = ExifTool(tools.pool, argv=[sys.executable, "-S", "-c", FAKE])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await exiftool.describe([Path("/a"), Path("/hang")])

    assert [Described(xml="<a>b</a>")] == await exiftool.describe([Path("/b")])
    await exiftool.aclose()


# --- MediaInfo and ffprobe


async def test_mediainfo_describes_without_a_path_of_the_server(tools: Toolbox, files: Path) -> None:
    missing, found = await tools.mediainfo.describe([files / "missing.wav", sound(files / "a.wav")])

    assert missing.xml == ""
    assert missing.error
    assert str(files) not in missing.error
    root = ET.fromstring(found.xml)
    assert root.tag == "{https://mediaarea.net/mediainfo}MediaInfo"
    assert "PCM" in found.xml
    assert "<CompleteName>a.wav</CompleteName>" in found.xml
    assert not leaks(found.xml, files)
    assert "." in await tools.mediainfo.version()


async def test_mediainfo_takes_every_name(tools: Toolbox, files: Path) -> None:
    for one in await tools.mediainfo.describe(odd(files)):
        assert one.error == ""
        assert "Wave" in one.xml
        assert not leaks(one.xml, files)


async def test_mediainfo_takes_numbered_pictures_for_single_files(tools: Toolbox, files: Path) -> None:
    paths = [files / f"img{number:03}.png" for number in range(5)]
    for path in paths:
        Image.new("RGB", (4, 4)).save(path)

    found = await tools.mediainfo.describe(paths)

    size = paths[0].stat().st_size
    assert all(f"<FileSize>{size}</FileSize>" in one.xml for one in found)


needs_ffprobe = pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffprobe is not installed")


@needs_ffprobe
async def test_ffprobe_describes_every_name_without_a_path_of_the_server(tools: Toolbox, files: Path) -> None:
    for path in [sound(files / "a.wav"), *odd(files)]:
        [one] = await tools.ffprobe.describe([path])

        assert one.error == ""
        assert 'codec_name="pcm_s16le"' in one.xml
        assert not leaks(one.xml, files)
    [wave] = await tools.ffprobe.describe([files / "a.wav"])
    assert 'filename="a.wav"' in wave.xml


@needs_ffprobe
async def test_ffprobe_says_what_it_cannot_read(tools: Toolbox, files: Path) -> None:
    (files / "a.mp4").write_bytes(b"nothing of the kind")

    [one] = await tools.ffprobe.describe([files / "a.mp4"])

    assert one.xml == ""
    assert "Invalid data" in one.error
    assert str(files) not in one.error
    assert (await tools.ffprobe.version())[0].isalnum()


# --- all of them


async def test_the_inventory_names_what_is_there_and_what_is_missing(tools: Toolbox) -> None:
    inventory = {one.name: one for one in await tools.inventory()}

    assert inventory["tar"].found
    assert inventory["tar"].version.startswith("1.")
    assert inventory["pydantic"].is_library
    assert all(one.purpose.endswith(".") and one.package and one.needed_for for one in inventory.values())
    assert all(one.found or not one.version for one in inventory.values())
    if inventory["7-Zip"].found:
        assert float(inventory["7-Zip"].version) > 15


def test_an_ordinary_name_needs_no_alias(tmp_path: Path) -> None:
    path = Path("/a/b c é.txt")

    assert alias(path, tmp_path).told == path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "<a>", "<a/><b/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"])
def test_what_is_not_one_plain_element_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"XML|document type"):
        element(text)


def test_the_declaration_and_forbidden_characters_go() -> None:
    assert element("<?xml version='1.0' encoding='UTF-8'?>\n<a>\x01 é</a>\n") == "<a>\ufffd é</a>"
