"""Validation of files with real programs; and with a JHOVE that is told what to print, where there is no real one."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from ingestd.errors import Code
from ingestd.fpr.layers import request_layer
from ingestd.fpr.registry import Registry
from ingestd.handlers.validation import validate_file
from ingestd.job import Outcome
from ingestd.oais import FileUse
from ingestd.premis import Event, EventOutcome, EventType
from ingestd.tools.pool import Pool
from tests import fpr_samples as samples
from tests.bench import Bench, need, open_bench
from tests.stand_ins import VERAPDF

TIFF, PDF, JPEG, GIF, XML, FLAC, PNG = "fmt/353", "fmt/17", "fmt/43", "fmt/4", "fmt/101", "fmt/279", "fmt/11"
PROGRAM = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
if "-v" in sys.argv:
    print("Jhove (Rel. 1.28.0, 2023-07-15)")
    sys.exit()
paths = sys.argv[sys.argv.index("XML") + 1:]
module = sys.argv[sys.argv.index("-m") + 1]
names = [pathlib.Path(path).resolve().name for path in paths]
with (folder / "runs").open("a") as runs:
    runs.write(json.dumps([module, *names]) + "\\n")
print("<jhove>")
for path, name in zip(paths, names):
    if "crash" in name:
        sys.stdout.flush()
        sys.exit(1)
    status = "Well-Formed and valid"
    message = ""
    if "broken" in name:
        status, message = "Not well-formed", '<message severity="error" id="TIFF-HUL-1">No &lt;IFD&gt; in it</message>'
    if "odd" in name:
        status, message = "Well-Formed, but not valid", '<message severity="error" id="TIFF-HUL-2">Odd</message>'
    if "locked" in name:
        status, message = "Unknown", '<message severity="error" id="JHOVE-CORE-1">File not found</message>'
    print(f'<repInfo uri="{{path}}"><status>{{status}}</status>{{message}}</repInfo>')
print("</jhove>")
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest_asyncio.fixture
async def bench(registry: Registry, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, registry) as bench:
        bench.pool.missing = frozenset({"jhove"})
        yield bench


def pretend_jhove(bench: Bench) -> None:
    bench.pool.pretend("jhove", PROGRAM.format(python=sys.executable, folder=str(bench.folder)))


def runs_of(bench: Bench) -> Sequence[list[str]]:
    return [json.loads(line) for line in (bench.folder / "runs").read_text().splitlines()]


async def validated(bench: Bench, **options: str) -> Outcome:
    return await validate_file(bench.task(**options), bench.services)


def told(outcome: Outcome) -> list[tuple[str, str]]:
    return [(event.outcome, event.note) for event in outcome.facts.events]


def only(outcome: Outcome) -> Event:
    assert len(outcome.facts.events) == 1
    return outcome.facts.events[0]


@pytest.mark.tool
async def test_a_sound_file_passes_and_the_event_names_program_and_version(bench: Bench) -> None:
    need("xmllint")
    file = bench.put("a b.xml", XML, make=samples.xml)

    outcome = await validated(bench)

    event = only(outcome)
    assert (event.object, event.type, event.outcome, event.note) == (
        file.id,
        EventType.VALIDATION,
        EventOutcome.PASS,
        "",
    )
    assert event.detail.startswith('program="xmllint')
    assert 'version="2' in event.detail
    assert event.detail == event.programs[0].words()
    assert outcome.facts.warnings == []
    assert [(tool.name, tool.used_for) for tool in outcome.tools] == [(event.detail.split('"')[1], "validation")]
    assert outcome.exit_code == 0


@pytest.mark.tool
async def test_a_damaged_file_fails_with_a_note_a_warning_and_exit_code_0(bench: Bench) -> None:
    need("xmllint")
    bench.put("broken.xml", XML, b"<notes><note>one</notes>")

    outcome = await validated(bench)

    event = only(outcome)
    assert event.outcome is EventOutcome.FAIL
    assert "note" in event.note
    assert str(bench.folder) not in event.note
    assert [(w.code, w.path) for w in outcome.facts.warnings] == [("validation.failed", "objects/broken.xml")]
    assert outcome.exit_code == 0


@pytest.mark.tool
async def test_a_pdf_is_checked_by_qpdf_where_jhove_is_missing(bench: Bench) -> None:
    need("qpdf")
    bench.put("a.pdf", PDF, make=samples.pdf)
    bench.put("cut.pdf", PDF, make=samples.cut(samples.pdf))

    outcome = await validated(bench)

    assert [event.detail.split(";")[0] for event in outcome.facts.events] == ['program="qpdf"'] * 2
    assert outcome.facts.events[0].outcome is EventOutcome.PASS
    assert outcome.facts.events[1].outcome in {EventOutcome.FAIL, EventOutcome.PARTIAL_PASS}
    assert outcome.facts.events[1].note
    assert "not installed" not in str(outcome.facts.warnings)


@pytest.mark.tool
async def test_a_cut_flac_fails_its_own_digest(bench: Bench) -> None:
    need("flac", "ffmpeg")
    bench.put("a.flac", FLAC, make=samples.sound)
    bench.put("cut.flac", FLAC, make=samples.cut(samples.sound))

    outcome = await validated(bench)

    assert [event.outcome for event in outcome.facts.events] == [EventOutcome.PASS, EventOutcome.FAIL]


@pytest.mark.tool
async def test_no_path_of_this_server_is_in_a_note(bench: Bench) -> None:
    need("convert")
    bench.put("bad.png", PNG, make=samples.beheaded(samples.picture))

    outcome = await validated(bench)

    event = only(outcome)
    assert event.outcome is EventOutcome.FAIL
    assert "objects/bad.png" in event.note
    assert str(bench.folder) not in event.note


async def test_files_without_a_rule_or_a_format_are_left_alone(bench: Bench) -> None:
    bench.put("a.txt", "x-fmt/111")
    bench.files.append(replace(bench.put("b", ""), format=None))

    outcome = await validated(bench)

    assert (list(outcome.facts.events), list(outcome.facts.warnings), list(outcome.tools)) == ([], [], [])


async def test_a_program_that_is_missing_is_one_warning_and_no_event(bench: Bench) -> None:
    bench.pool.missing |= {"xmllint"}
    bench.put("a.xml", XML)
    bench.put("b.xml", XML)

    outcome = await validated(bench)

    assert list(outcome.facts.events) == []
    assert [(w.code, w.path) for w in outcome.facts.warnings] == [("tool.not_installed", "")]
    assert "xmllint" in outcome.facts.warnings[0].detail


async def test_a_program_that_crashes_is_a_warning_and_no_outcome(bench: Bench) -> None:
    bench.pool.pretend("xmllint", "#!/bin/sh\nkill -SEGV $$\n")
    bench.put("a.xml", XML)

    outcome = await validated(bench)

    assert list(outcome.facts.events) == []
    assert [(w.code, w.path) for w in outcome.facts.warnings] == [("tool.crashed", "objects/a.xml")]


async def test_a_program_that_hangs_is_a_warning_and_no_outcome(bench: Bench) -> None:
    bench.pool.limits = replace(bench.pool.limits, wall_seconds=0.5)
    bench.pool.pretend("xmllint", "#!/bin/sh\n[ $1 = --version ] || sleep 60\n")
    bench.put("a.xml", XML)

    outcome = await validated(bench)

    assert list(outcome.facts.events) == []
    assert [w.code for w in outcome.facts.warnings] == ["tool.timeout"]


async def test_an_exit_code_of_a_shell_that_could_not_run_its_program_is_no_outcome(bench: Bench) -> None:
    bench.pool.pretend("xmllint", "#!/bin/sh\nexit 127\n")
    bench.put("a.xml", XML)

    outcome = await validated(bench)

    assert list(outcome.facts.events) == []
    assert [w.code for w in outcome.facts.warnings] == ["tool.bad_output"]


async def test_jhove_runs_once_for_all_files_of_a_module(bench: Bench) -> None:
    pretend_jhove(bench)
    for name in ("a.tif", "broken.tif", "odd.tif"):
        bench.put(name, TIFF)
    bench.put("a.gif", GIF)

    outcome = await validated(bench)

    assert sorted(runs_of(bench)) == [["GIF-hul", "a.gif"], ["TIFF-hul", "a.tif", "broken.tif", "odd.tif"]]
    assert told(outcome) == [
        (EventOutcome.PASS, ""),
        (EventOutcome.FAIL, "No <IFD> in it"),
        (EventOutcome.PARTIAL_PASS, "Odd"),
        (EventOutcome.PASS, ""),
    ]
    assert {event.detail for event in outcome.facts.events} == {'program="JHOVE"; version="1.28.0"'}
    assert [(w.code, w.path) for w in outcome.facts.warnings] == [("validation.failed", "objects/broken.tif")]


async def test_a_file_that_jhove_crashes_on_does_not_keep_the_others_from_their_outcome(bench: Bench) -> None:
    pretend_jhove(bench)
    for name in ("a.tif", "crash.tif", "broken.tif", "z.tif"):
        bench.put(name, TIFF)

    outcome = await validated(bench)

    assert [event.outcome for event in outcome.facts.events] == [
        EventOutcome.PASS,
        EventOutcome.FAIL,
        EventOutcome.PASS,
    ]
    assert [(w.code, w.path) for w in outcome.facts.warnings] == [
        ("tool.crashed", "objects/crash.tif"),
        ("validation.failed", "objects/broken.tif"),
    ]


async def test_a_jhove_that_always_crashes_is_not_started_for_every_file(bench: Bench) -> None:
    pretend_jhove(bench)
    for number in range(30):
        bench.put(f"crash{number}.tif", TIFF)

    outcome = await validated(bench)

    assert len(runs_of(bench)) == 8
    assert list(outcome.facts.events) == []
    assert {w.path for w in outcome.facts.warnings} == {f"objects/crash{number}.tif" for number in range(30)}


async def test_a_file_that_jhove_cannot_open_is_not_called_invalid(bench: Bench) -> None:
    pretend_jhove(bench)
    bench.put("locked.tif", TIFF)

    outcome = await validated(bench)

    assert list(outcome.facts.events) == []
    assert [w.code for w in outcome.facts.warnings] == ["tool.bad_output"]
    assert "File not found" in outcome.facts.warnings[0].detail


async def test_reports_on_derivatives_are_kept_without_paths_of_this_server(bench: Bench) -> None:
    pretend_jhove(bench)
    file = replace(bench.put("a & b.tif", TIFF), use=FileUse.PRESERVATION)
    bench.files = [file]

    await validated(bench, use="preservation", reports="yes")

    kept = list((bench.folder / "transfer/logs/implementationChecks").iterdir())
    assert [path.name for path in kept] == [f"a___b.tif-{file.id}-jhove-tiff.xml"]
    text = kept[0].read_text()
    assert '<repInfo uri="objects/a &amp; b.tif">' in text
    assert str(bench.folder) not in text


async def test_no_reports_on_originals_are_kept(bench: Bench) -> None:
    pretend_jhove(bench)
    bench.put("a.tif", TIFF)

    await validated(bench, use="original")

    assert not (bench.folder / "transfer/logs").exists()


@pytest.mark.tool
async def test_the_real_jhove_tells_sound_files_from_damaged_ones_in_one_run(bench: Bench) -> None:
    found = Pool.which(bench.pool, "jhove")
    if found is None:
        pytest.skip("JHOVE is not installed here: package jhove of Debian 13")
    bench.pool.missing = frozenset()
    bench.put("a.pdf", PDF, make=samples.pdf)
    bench.put('it\'s "x" & \udcff.pdf', PDF, make=samples.pdf)
    bench.put("cut.pdf", PDF, make=samples.cut(samples.pdf))
    before = bench.pool.spawned

    outcome = await validated(bench)

    assert [event.outcome for event in outcome.facts.events] == [
        EventOutcome.PASS,
        EventOutcome.PASS,
        EventOutcome.FAIL,
    ]
    assert outcome.facts.events[2].note
    assert outcome.facts.events[0].detail.startswith('program="JHOVE"; version="1.')
    assert bench.pool.spawned - before == 2  # its version, and one run


async def test_verapdf_checks_pdf_a_where_a_site_asks_for_it_by_rule(registry: Registry, tmp_path: Path) -> None:
    asked = request_layer({"rule": [{"purpose": "validation", "format": "fmt/477", "command": "verapdf"}]})
    async with open_bench(tmp_path, registry.over(asked)) as bench:
        bench.pool.missing = frozenset({"jhove", "qpdf"})
        bench.pool.pretend("verapdf", VERAPDF)
        for name in ("good.pdf", "PAPER", "bad.pdf", "half.pdf", "cut.pdf", "locked.pdf", "odd.pdf"):
            bench.put(name, "fmt/477", make=samples.pdf)

        outcome = await validated(bench)

    free = "No object shall be <free> and used"
    told = [(e.outcome, e.note) for e in outcome.facts.events if 'program="veraPDF"; version="1.26.5"' in e.detail]
    assert told == [
        (EventOutcome.PASS, ""),
        (EventOutcome.PASS, ""),
        (EventOutcome.FAIL, free),
        (EventOutcome.FAIL, free),
        (EventOutcome.FAIL, "Exception: can not locate xref table"),
        (EventOutcome.FAIL, "Exception: The PDF stream appears to be encrypted."),
    ]
    (odd,) = [warning for warning in outcome.facts.warnings if warning.path.endswith("odd.pdf")]
    assert Code.TOOL_BAD_OUTPUT == odd.code
    assert str(tmp_path) not in odd.detail
    assert [True] * 6 + [False] == [use.ok for use in outcome.facts.rules if use.command == "verapdf"]
