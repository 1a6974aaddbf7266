"""Characterization by the registry's rules: tools that are kept running, tools that are run by rule, and defaults."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from ingestd.config import Settings, ToolSettings
from ingestd.errors import Code
from ingestd.fpr.layers import request_layer
from ingestd.fpr.registry import Registry
from ingestd.handlers.formats import characterize_file, identify_file_format
from ingestd.job import Task
from ingestd.oais import Facts
from ingestd.premis import EventOutcome, Program, now
from tests import fpr_samples as samples
from tests.bench import Bench, need, open_bench
from tests.stand_ins import FITS

BMP, DISK, TEXT = "fmt/116", "fmt/1087", "x-fmt/111"
JHOVE = """#!{python}
import pathlib, sys
if "-v" in sys.argv:
    print("Jhove (Rel. 1.28.0, 2023-07-15)")
    sys.exit()
paths = sys.argv[sys.argv.index("XML") + 1:]
with open({runs!r}, "a") as runs:
    runs.write(str(len(paths)) + "\\n")
print('<?xml version="1.0"?><jhove xmlns="http://schema.openarchives.org/OAI/2.0/jhove" name="Jhove"><date>now</date>')
for path in paths:
    if "locked" not in pathlib.Path(path).resolve().name:
        print(f'<repInfo uri="{{path}}"><format>BYTESTREAM</format></repInfo>')
print("</jhove>")
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    asked = [
        {"purpose": "characterization", "format": BMP, "command": "fits"},
        {"purpose": "characterization", "format": TEXT, "command": "jhove-describe"},
    ]
    off = [{"id": f"characterization:{BMP}:{tool}"} for tool in ("exiftool", "mediainfo", "ffprobe")]
    return Registry.load().over(request_layer({"rule": asked, "disable": off}))


@pytest_asyncio.fixture
async def bench(registry: Registry, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, registry) as bench:
        bench.pool.missing = frozenset({"fits.sh", "jhove"})
        yield bench


async def characterized(bench: Bench) -> Facts:
    return (await characterize_file(bench.task(), bench.services)).facts


def told(facts: Facts) -> Sequence[tuple[str, str]]:
    return [(warning.code, warning.path) for warning in facts.warnings]


def chosen(bench: Bench, command: str) -> Task:
    task = bench.task()
    return replace(task, package=replace(task.package, processing={"identification_command": command}))


@pytest.mark.tool
async def test_formats_are_identified_by_what_the_option_names_and_the_event_says_so(bench: Bench) -> None:
    need("convert")
    bench.put("a.png", "", make=samples.picture)
    bench.put("really a picture.txt", "", (bench.root / "objects" / "a.png").read_bytes())
    bench.put("nothing", "", b"\x00\x01\x02")
    names = {"siegfried": "Siegfried", "fido": "Fido", "extension": "ingestd"}
    said: dict[str, list[str]] = {}

    for command, name in names.items():
        outcome = await identify_file_format(chosen(bench, command), bench.services)
        said[command] = [file.format.puid for file in outcome.facts.files if file.format]
        assert {name} == {tool.name for tool in outcome.tools}
        assert all(f'program="{name}"; version="' in event.detail for event in outcome.facts.events)
        assert {name} == {program.name for event in outcome.facts.events for program in event.programs}
        assert EventOutcome.NOT_IDENTIFIED == outcome.facts.events[-1].outcome

    assert {"siegfried": ["fmt/11", "fmt/11", ""], "fido": ["fmt/11", "fmt/11", ""]} == {
        command: said[command] for command in ("siegfried", "fido")
    }
    assert ["fmt/11", "x-fmt/111", ""] == said["extension"]


async def test_what_siegfried_does_not_know_may_be_named_by_a_rule_for_its_extension(bench: Bench) -> None:
    noise = b"\x00\x01\x02"
    bench.put("disk.DD", "", noise)
    bench.put("disk.img", "", noise)
    bench.put("other.unheard", "", noise)
    samples.picture(bench.folder / "a.png")
    bench.put("really a picture.img", "", (bench.folder / "a.png").read_bytes())

    facts = (await identify_file_format(bench.task(), bench.services)).facts

    raw = "archivematica-fmt/4"
    assert [raw, raw, "", "fmt/11"] == [file.format.puid for file in facts.files if file.format]
    assert [raw, raw, "No Matching Format", "fmt/11"] == [event.note for event in facts.events]
    assert ['extension=".dd"', 'extension=".img"'] == [event.detail.split("; ")[-1] for event in facts.events[:2]]
    assert not any("extension" in event.detail for event in facts.events[2:])


CUSTOM = """
[[identification_command]]
id = "first-line"
tool = "ingestd"
description = "The word on the first line"
output = "MIME"
script_type = "bashScript"
script = 'head -n 1 "$1" | grep -v hang || sleep 60'

[[identification_rule]]
command = "first-line"
output = "text/letter"
format = "x-fmt/111"
"""


async def test_a_site_identifies_with_a_command_and_rules_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "fpr.d"
    folder.mkdir()
    (folder / "own.toml").write_text(CUSTOM)
    settings = Settings(data_dir=tmp_path / "data", tools=ToolSettings(processes=2, wall_seconds=1))
    async with open_bench(tmp_path, Registry.load([folder]), settings) as bench:
        bench.put("a", "", b"text/letter\nDear Ann")
        bench.put("b", "", b"text/unheard-of")
        bench.put("c", "", b"hang")

        facts = (await identify_file_format(chosen(bench, "first-line"), bench.services)).facts

    assert ["x-fmt/111", "", ""] == [file.format.puid for file in facts.files if file.format]
    assert [("tool.identification_failed", "objects/c")] == told(facts)


@pytest.mark.tool
async def test_a_format_without_a_rule_is_described_by_the_default(bench: Bench) -> None:
    need("exiftool")
    odd, unknown = bench.put("a.xyz", "fmt/9999"), bench.put("b", "")

    facts = await characterized(bench)

    assert [(odd.id, "ExifTool"), (unknown.id, "ExifTool")] == [(item.file, item.tool) for item in facts.extensions]
    assert {"default_characterization:unknown-file-format:exiftool-any"} == {use.rule for use in facts.rules}
    assert all(use.ok for use in facts.rules)


@pytest.mark.tool
async def test_a_disk_image_is_described_by_fiwalk_without_a_path_of_this_server(bench: Bench) -> None:
    need("fiwalk", "mkfs.vfat")
    bench.put("a.img", DISK, make=samples.disk)

    facts = await characterized(bench)

    (described,) = [item for item in facts.extensions if item.tool != "ExifTool"]
    assert "<fileobject>" in described.xml
    assert str(bench.folder) not in described.xml


async def test_a_tool_that_a_site_asks_for_by_rule_is_run_and_counted(bench: Bench) -> None:
    bench.pool.pretend("fits.sh", FITS)
    odd = 'a b$(touch x)`touch y`\\" $z.bmp'
    good, broken, prose = (bench.put(name, BMP) for name in (odd, "broken.bmp", "prose.bmp"))

    facts = await characterized(bench)

    (described,) = facts.extensions
    assert (good.id, "FITS") == (described.file, described.tool)
    assert described.xml.startswith("<fits ")
    assert f"<filepath>objects/{odd}</filepath>" in described.xml
    assert [("tool.characterization_failed", broken.path), ("tool.characterization_failed", prose.path)] == told(facts)
    assert "no tool could open it" in facts.warnings[0].detail
    assert [True, False, False] == [use.ok for use in facts.rules]
    assert [good.id, broken.id, prose.id] == [event.object for event in facts.events]
    assert [("success", ""), ("fail", facts.warnings[0].detail), ("fail", facts.warnings[1].detail)] == [
        (event.outcome, event.note) for event in facts.events
    ]
    assert {("metadata extraction", 'program="FITS"; version="1.6.0"', (Program("FITS", "1.6.0"),))} == {
        (event.type, event.detail, tuple(event.programs)) for event in facts.events
    }


@pytest.mark.tool
async def test_one_event_names_all_programs_that_read_a_file_and_says_which_of_them_failed(tmp_path: Path) -> None:
    need("exiftool")
    asked = [{"purpose": "characterization", "format": BMP, "command": "fits"}]
    off = [{"id": f"characterization:{BMP}:{tool}"} for tool in ("mediainfo", "ffprobe")]
    async with open_bench(tmp_path, Registry.load().over(request_layer({"rule": asked, "disable": off}))) as bench:
        bench.pool.pretend("fits.sh", FITS)
        bench.put("a.bmp", BMP, make=samples.picture)
        bench.put("broken.bmp", BMP, make=samples.picture)
        before = now()

        facts = await characterized(bench)

    names = [[program.name for program in event.programs] for event in facts.events]
    assert [["ExifTool", "FITS"]] * 2 == names
    assert [("success", False), ("warning", True)] == [
        (event.outcome, "FITS: " in event.note and "ExifTool" not in event.note) for event in facts.events
    ]
    assert all(before <= event.at <= now() for event in facts.events)
    assert str(bench.folder) not in repr(facts)


async def test_a_tool_that_is_missing_is_one_warning_for_all_files_and_no_attempt(bench: Bench) -> None:
    bench.put("a.bmp", BMP)
    bench.put("b.bmp", BMP)

    facts = await characterized(bench)

    assert [(Code.TOOL_NOT_INSTALLED, "")] == told(facts)
    assert "FITS" in facts.warnings[0].detail
    assert not facts.rules
    assert not facts.events


async def test_jhove_describes_all_files_in_one_run_each_in_a_document_of_its_own(bench: Bench) -> None:
    runs = bench.folder / "runs"
    bench.pool.pretend("jhove", JHOVE.format(python=sys.executable, runs=str(runs)))
    one, _, two = (bench.put(name, TEXT) for name in ('a "b".txt', "locked.txt", "c.txt"))

    facts = await characterized(bench)

    assert ["3"] == runs.read_text().split()
    assert [one.id, two.id] == [item.file for item in facts.extensions]
    assert all(item.xml.startswith('<jhove xmlns="http://schema.openarchives.org') for item in facts.extensions)
    assert 'uri="a &quot;b&quot;.txt"' in facts.extensions[0].xml
    assert str(bench.folder) not in json.dumps([item.xml for item in facts.extensions])
    assert [("tool.characterization_failed", "objects/locked.txt")] == told(facts)
