"""Every command of the shipped registry, run with its real tool on a real file."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from ingestd.config import ToolSettings
from ingestd.fpr.commands import CommandRun, Commands
from ingestd.fpr.contracts import check_xml, identified_as
from ingestd.fpr.records import Command, Purpose, Usage
from ingestd.fpr.registry import Registry
from ingestd.premis import EventOutcome
from ingestd.tools.pool import Pool
from tests import fpr_samples as samples
from tests.outlook_samples import outlook

pytestmark = [pytest.mark.tool, pytest.mark.timeout(300)]

Case = tuple[str, samples.Maker]

CHARACTERIZATION: dict[str, Case] = {
    "exiftool": ("a b.png", samples.picture),
    "exiftool-any": ("a.xyz", samples.text),
    "mediainfo": ("a.wav", samples.sound),
    "ffprobe": ("a.wav", samples.sound),
    "fiwalk": ("a.img", samples.disk),
    "jhove-describe": ("a.tif", samples.picture),
}
NORMALIZATION: dict[str, tuple[str, samples.Maker, frozenset[str]]] = {
    "imagemagick-tiff": ("a.bmp", samples.picture, frozenset({"fmt/353"})),
    "imagemagick-tiff-composite": ("a.psd", samples.photoshop, frozenset({"fmt/353"})),
    "imagemagick-jpeg": ("a.tif", samples.picture, frozenset({"fmt/43"})),
    "imagemagick-thumbnail": ("a.png", samples.picture, frozenset({"fmt/43"})),
    "libraw-tiff": ("a.dng", samples.raw, frozenset({"fmt/353"})),
    "libraw-jpeg": ("a.dng", samples.raw, frozenset({"fmt/43"})),
    "libraw-thumbnail": ("a.dng", samples.raw, frozenset({"fmt/43"})),
    "ffmpeg-tiff": ("a.jp2", samples.picture, frozenset({"fmt/353"})),
    "ffmpeg-jpeg": ("a.exr", samples.exr, frozenset({"fmt/44"})),
    "ffmpeg-thumbnail": ("a.exr", samples.exr, frozenset({"fmt/44"})),
    "ffmpeg-wav": ("a.aiff", samples.deep_sound, frozenset({"fmt/6", "fmt/141", "fmt/142", "fmt/143"})),
    "ffmpeg-mp3": ("a.wav", samples.sound, frozenset({"fmt/134"})),
    "ffmpeg-ffv1": ("a.avi", samples.film, frozenset({"fmt/569"})),
    "ffmpeg-mp4": ("a.avi", samples.film, frozenset({"fmt/199"})),
    "ghostscript-pdfa": ("a.pdf", samples.pdf, frozenset({"fmt/477"})),
    "ghostscript-pdf": ("a.eps", samples.eps, frozenset({"fmt/276", "fmt/20"})),
    "inkscape-svg": ("a.svg", samples.svg, frozenset({"fmt/92"})),
    "inkscape-svg-of-postscript": ("a.eps", samples.eps, frozenset({"fmt/92"})),
    "inkscape-pdf": ("a.svg", samples.svg, frozenset({"fmt/19"})),
    "libreoffice-writer-pdfa": ("a b.odt", samples.office, frozenset({"fmt/477"})),
    "libreoffice-calc-pdfa": ("a.ods", samples.office, frozenset({"fmt/477"})),
    "libreoffice-impress-pdfa": ("a.odp", samples.office, frozenset({"fmt/477"})),
    "libreoffice-draw-pdfa": ("a.odg", samples.office, frozenset({"fmt/477"})),
    "maildir-mbox": ("mail", samples.maildir, frozenset({"fmt/720"})),
    "readpst-mbox": ("a.pst", outlook, frozenset({"fmt/720"})),
    "copy": ("a.txt", samples.text, frozenset({"x-fmt/111"})),
    "default-thumbnail": ("a.xyz", samples.text, frozenset({"fmt/43"})),
}
EXTRACTION: dict[str, Case] = {
    "7z-extract": ("a.zip", samples.zipped),
    "unar-extract": ("a.tar", samples.tarred),
    "tsk-recover": ("a.img", samples.disk),
}
VALIDATION: dict[str, Case] = {
    "jhove-aiff": ("a.aiff", samples.sound),
    "jhove-gif": ("a.gif", samples.picture),
    "jhove-jpeg": ("a.jpg", samples.picture),
    "jhove-jp2": ("a.jp2", samples.picture),
    "jhove-pdf": ("a.pdf", samples.pdf),
    "jhove-tiff": ("a.tif", samples.picture),
    "jhove-wave": ("a.wav", samples.sound),
    "imagemagick-decode": ("a.png", samples.picture),
    "ffmpeg-decode": ("a.avi", samples.film),
    "flac-test": ("a.flac", samples.sound),
    "mediaconch": ("a.mkv", samples.film),
    "jpylyzer": ("a.jp2", samples.picture),
    "qpdf-check": ("a.pdf", samples.pdf),
    "xmllint": ("a.xml", samples.xml),
    "fastwarc-check": ("a.warc.gz", samples.warc),
    "epubcheck": ("a.epub", samples.epub),
}
PASS_OVER_A_MISSING_END = {"jhove-aiff", "jhove-jp2"}
"""JHOVE's modules that read no further than the headers of what holds the samples."""
NOT_TO_BE_HAD = {"fits": "not packaged by Debian or PyPI", "verapdf": "not packaged by Debian or PyPI"}
ELSEWHERE = {
    "readpst-extract",
    "tesseract-text",
    "mediaconch-policies",
    "output-exists",
    "output-not-empty",
    "program-and-version",
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest_asyncio.fixture
async def commands(registry: Registry, tmp_path: Path) -> AsyncIterator[Commands]:
    async with Pool(ToolSettings(), scratch=tmp_path / "scratch") as pool:
        yield Commands(registry, pool, tmp_path)


@pytest.fixture(scope="module")
def puid_of() -> Callable[[Path], str]:
    import pygfried

    def identify(path: Path) -> str:
        return str(pygfried.identify(str(path), detailed=True)["files"][0]["matches"][0]["id"])

    return identify


def wanted(registry: Registry, commands: Commands, name: str) -> Command:
    """The command, or a skip that names the package that would bring its tool."""
    command = registry.command(name)
    assert command is not None
    tool = registry.tool(command.tool)
    assert tool is not None
    if not commands.available(tool):
        pytest.skip(f"{tool.name} is not installed here: package {tool.debian or tool.pypi}")
    return command


async def run_on(
    commands: Commands, command: Command, folder: Path, name: str, make: samples.Maker, **more: str
) -> CommandRun:
    """Make the file in a folder with a hostile name and run the command on it."""
    source = folder / 'it\'s "$(touch x)" `y` & z;'
    source.mkdir(exist_ok=True)
    path = source / name
    if not path.exists():
        await asyncio.to_thread(make, path)
    output = folder / "out put"
    output.mkdir(exist_ok=True)
    stem, dot, extension = name.rpartition(".")
    variables = {
        "inputFile": str(path),
        "fileFullName": str(path),
        "fileName": stem or name,
        "fileExtension": extension if dot else "",
        "fileExtensionWithDot": f".{extension}" if dot else "",
        "fileUUID": "2a0f6f3e-7b7c-4d0e-9f0b-3b5b5b5b5b5b",
        "outputDirectory": f"{output}/",
        "outputFileName": f"{output}/{stem or name}-x",
        "SIPObjectsDirectory": f"{folder}/objects/",
        "postfix": "-x",
    }
    return await commands.run(command, {**variables, **more})


def test_every_command_of_the_registry_is_run_by_a_test(registry: Registry) -> None:
    run = {*CHARACTERIZATION, *NORMALIZATION, *EXTRACTION, *VALIDATION, *ELSEWHERE, *NOT_TO_BE_HAD}

    assert {command.id for command in registry.active(Command)} == run


@pytest.mark.parametrize("name", CHARACTERIZATION)
async def test_a_characterization_prints_xml(name: str, registry: Registry, commands: Commands, tmp_path: Path) -> None:
    command = wanted(registry, commands, name)

    done = await run_on(commands, command, tmp_path, *CHARACTERIZATION[name])

    assert (done.problem, command.output_format) == ("", "fmt/101")
    check_xml(done.stdout)


@pytest.mark.parametrize("name", NORMALIZATION)
async def test_a_normalization_writes_the_format_it_says(
    name: str, registry: Registry, commands: Commands, tmp_path: Path, puid_of: Callable[[Path], str]
) -> None:
    command = wanted(registry, commands, name)
    sample, make, puids = NORMALIZATION[name]

    done = await run_on(commands, command, tmp_path, sample, make)

    assert done.problem == "", done.run.stderr_tail
    assert done.output is not None
    assert await asyncio.to_thread(puid_of, done.output) in puids
    assert done.verification is not None
    assert done.verification.ok
    assert done.event_detail == f'program="{done.tool.name}"; version="{done.tool_version}"'
    assert done.tool_version


@pytest.mark.parametrize("name", EXTRACTION)
async def test_an_extraction_brings_the_files_out(
    name: str, registry: Registry, commands: Commands, tmp_path: Path
) -> None:
    command = wanted(registry, commands, name)

    done = await run_on(commands, command, tmp_path, *EXTRACTION[name])

    assert done.problem == "", done.run.stderr_tail
    assert [path.read_text() for path in (tmp_path / "out put").rglob("one.txt")] == ["one"]


async def test_of_a_cd_the_long_names_come_out(registry: Registry, commands: Commands, tmp_path: Path) -> None:
    (rule,) = registry.choose(Purpose.EXTRACT, registry.format_version("fmt/468"))

    done = await run_on(commands, wanted(registry, commands, rule.command), tmp_path, "a.iso", samples.iso)

    assert done.problem == ""
    assert {path.name for path in (tmp_path / "out put").iterdir()} == {"one.txt", "A name as long as people like.text"}


@pytest.mark.parametrize("make", [samples.ext4, samples.iso, samples.partitioned], ids=lambda make: make.__name__)
async def test_file_systems_are_described(
    make: samples.Maker, registry: Registry, commands: Commands, tmp_path: Path
) -> None:
    done = await run_on(commands, wanted(registry, commands, "fiwalk"), tmp_path, "a.img", make)

    assert done.problem == ""
    assert b"<filename>one.txt</filename>" in done.stdout.replace(b"ONE.TXT", b"one.txt")


async def test_the_files_of_a_file_system_come_out(registry: Registry, commands: Commands, tmp_path: Path) -> None:
    done = await run_on(commands, wanted(registry, commands, "tsk-recover"), tmp_path, "a.img", samples.ext4)

    assert done.problem == ""
    assert (tmp_path / "out put" / "one.txt").read_text() == "one"


async def test_of_a_disk_each_partition_comes_out_in_a_folder(
    registry: Registry, commands: Commands, tmp_path: Path
) -> None:
    done = await run_on(commands, wanted(registry, commands, "tsk-recover"), tmp_path, "a.dd", samples.partitioned)

    files = {str(path.relative_to(tmp_path / "out put")) for path in (tmp_path / "out put").rglob("*.txt")}
    assert done.problem == "", done.run.stderr_tail
    assert files == {"partition_2/one.txt", "partition_3/one.txt"}


async def test_what_is_no_disk_image_is_said_so(registry: Registry, commands: Commands, tmp_path: Path) -> None:
    done = await run_on(commands, wanted(registry, commands, "tsk-recover"), tmp_path, "a.img", samples.text)

    assert not done.ok
    assert "Cannot determine file system type" in done.run.stderr_tail


@pytest.mark.parametrize("name", VALIDATION)
async def test_a_validation_tells_a_sound_file_from_a_damaged_one(
    name: str, registry: Registry, commands: Commands, tmp_path: Path
) -> None:
    command = wanted(registry, commands, name)
    sample, make = VALIDATION[name]

    sound = await run_on(commands, command, tmp_path, sample, make)
    damage = samples.beheaded if name in PASS_OVER_A_MISSING_END else samples.cut
    damaged = await run_on(commands, command, tmp_path, f"damaged-{sample}", damage(make))

    assert (sound.finding().outcome, sound.finding().note) == (EventOutcome.PASS, "")
    assert damaged.finding().outcome in {EventOutcome.FAIL, EventOutcome.PARTIAL_PASS}
    assert damaged.finding().note


async def test_the_bits_of_a_deep_sound_are_kept(registry: Registry, commands: Commands, tmp_path: Path) -> None:
    command = wanted(registry, commands, "ffmpeg-wav")

    done = await run_on(commands, command, tmp_path, "a.aiff", samples.deep_sound)

    assert done.output is not None
    sound = done.output.read_bytes()
    bits_at = sound.index(b"fmt ") + 8 + 14
    assert int.from_bytes(sound[bits_at : bits_at + 2], "little") == 24


async def test_text_in_a_picture_is_read(registry: Registry, commands: Commands, tmp_path: Path) -> None:
    command = wanted(registry, commands, "tesseract-text")

    done = await run_on(commands, command, tmp_path, "a.png", samples.picture)

    assert done.problem == "", done.run.stderr_tail
    assert done.output is not None
    assert "preservation" in done.output.read_text()


async def test_policies_of_a_site_are_checked(registry: Registry, commands: Commands, tmp_path: Path) -> None:
    command = wanted(registry, commands, "mediaconch-policies")
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "container.xml").write_text(
        '<?xml version="1.0"?><policy type="and" name="container">'
        '<rule name="Matroska" value="Format" tracktype="General" occurrence="*" operator="=">Matroska</rule></policy>'
    )
    variables = {"inputFile": str(tmp_path / "a.mkv"), "policiesDirectory": str(policies)}
    samples.film(tmp_path / "a.mkv")
    samples.sound(tmp_path / "a.wav")

    kept = await commands.run(command, variables, purpose=Purpose.POLICY_CHECK)
    broken = await commands.run(
        command, {**variables, "inputFile": str(tmp_path / "a.wav")}, purpose=Purpose.POLICY_CHECK
    )

    assert (kept.finding().outcome, kept.finding().policy) == (EventOutcome.PASS, "container.xml")
    assert broken.finding().outcome is EventOutcome.FAIL


async def test_messages_of_an_outlook_store_come_out_one_by_one(
    registry: Registry, commands: Commands, tmp_path: Path, puid_of: Callable[[Path], str]
) -> None:
    done = await run_on(commands, wanted(registry, commands, "readpst-extract"), tmp_path, "a.pst", outlook)

    (message,) = (path for path in (tmp_path / "out put").rglob("*") if path.is_file())
    assert done.problem == ""
    assert message.parent.name == "Inbox"
    assert "Hello preservation" in message.read_text()
    assert await asyncio.to_thread(puid_of, next(tmp_path.rglob("a.pst"))) == "x-fmt/248"


async def test_an_mbox_of_an_outlook_store_says_the_folder_of_each_message(
    registry: Registry, commands: Commands, tmp_path: Path
) -> None:
    done = await run_on(commands, wanted(registry, commands, "readpst-mbox"), tmp_path, "a.pst", outlook)

    assert done.output is not None
    text = done.output.read_text()
    assert "Subject: Hello\n" in text
    assert "X-Folder: Store/Inbox\n" in text


@pytest.mark.parametrize("name", ["readpst-mbox", "readpst-extract"])
async def test_a_store_that_cannot_be_read_is_said_so(
    name: str, registry: Registry, commands: Commands, tmp_path: Path
) -> None:
    command = wanted(registry, commands, name)

    done = await run_on(commands, command, tmp_path, "a.pst", samples.text)

    assert done.problem
    assert not done.ok


@pytest.mark.parametrize("name", ["siegfried", "fido", "extension"])
async def test_an_identification_command_says_what_a_file_is(
    name: str, registry: Registry, commands: Commands, tmp_path: Path
) -> None:
    command = next(item for item in registry.identification_commands if item.id == name)
    tool = registry.tool(command.tool)
    assert tool is not None
    if not commands.available(tool):
        pytest.skip(f"{tool.name} is not installed here: package {tool.pypi}")
    samples.picture(tmp_path / "a b.png")

    run = await commands.identify(command, tmp_path / "a b.png")

    assert registry.identified(command, identified_as(run.stdout)) == registry.format_version("fmt/11")


def test_the_samples_need_what_this_machine_has() -> None:
    missing = [
        program
        for program in ("ffmpeg", "convert", "mkfs.fat", "mcopy", "mkfs.ext4", "genisoimage")
        if not shutil.which(program)
    ]

    assert not missing, f"samples cannot be made without {missing}"


def test_each_command_is_tested_as_what_it_is_for(registry: Registry) -> None:
    tables: dict[Usage, set[str]] = {
        Usage.CHARACTERIZATION: {*CHARACTERIZATION},
        Usage.NORMALIZATION: {*NORMALIZATION},
        Usage.EXTRACTION: {*EXTRACTION},
        Usage.VALIDATION: {*VALIDATION},
    }

    assert tables == {
        usage: {command.id for command in registry.active(Command) if command.usage is usage and command.id in names}
        for usage, names in tables.items()
    }
