"""Examination of contents, with a program that stands in for bulk_extractor where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ingestd.fpr.registry import Registry
from ingestd.handlers.examination import examine_contents
from ingestd.job import Outcome
from ingestd.premis import Program
from tests.bench import Bench, open_bench

PROGRAM = """#!/bin/sh
# As the user manuals of 1.x and 2.x have it: -V (1.x ends with 1 then), -M depth, -j threads, -o a folder that is not there yet.
[ "$1" = -V ] && echo "bulk_extractor 2.0.3" && exit 1
[ "$1 $2 $3 $4 $5" = "-M 250 -j 1 -o" ] || exit 64
[ -e "$6" ] && echo "$6 exists" >&2 && exit 65
mkdir "$6" "$6/jpeg_carved" || exit 66
case "$7" in *bad*) echo "cannot read" >&2; exit 1;; esac
: > "$6/email.txt"
case "$7" in *nothing*) exit 0;; esac
echo "# Filename: $7" > "$6/report.xml"
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest_asyncio.fixture
async def bench(registry: Registry, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, registry) as bench:
        bench.pool.missing = frozenset({"bulk_extractor"})
        yield bench


async def examined(bench: Bench) -> Outcome:
    return await examine_contents(bench.task(), bench.services)


async def test_without_bulk_extractor_there_is_one_warning(bench: Bench) -> None:
    bench.put("a.txt", "x-fmt/111")
    bench.put("b.txt", "x-fmt/111")

    outcome = await examined(bench)

    assert [(w.code, w.path) for w in outcome.facts.warnings] == [("tool.not_installed", "")]
    assert outcome.exit_code == 0


async def test_reports_go_to_the_logs_without_empty_ones_and_without_paths_of_this_server(bench: Bench) -> None:
    bench.pool.pretend("bulk_extractor", PROGRAM)
    file = bench.put('it\'s "a".txt', "x-fmt/111")

    outcome = await examined(bench)

    folder = bench.root / "logs" / f"bulk-{file.id}"
    assert [path.name for path in folder.iterdir()] == ["report.xml"]
    assert (folder / "report.xml").read_text() == '# Filename: ./objects/it\'s "a".txt\n'
    assert [(tool.name, tool.version) for tool in outcome.tools] == [("bulk_extractor", "2.0.3")]
    assert list(outcome.facts.warnings) == []
    (event,) = outcome.facts.events
    assert (event.object, event.type, event.outcome) == (file.id, "forensic feature analysis", "success")
    assert (event.detail, list(event.programs)) == (
        'program="bulk_extractor"; version="2.0.3"',
        [Program("bulk_extractor", "2.0.3")],
    )
    assert event.note == f"logs/bulk-{file.id}: report.xml"
    assert list((bench.folder / "examination").iterdir()) == []


async def test_what_an_interrupted_run_has_left_does_not_stand_in_the_way(bench: Bench) -> None:
    bench.pool.pretend("bulk_extractor", PROGRAM)
    file = bench.put("a.txt", "x-fmt/111")
    (bench.folder / "examination" / str(file.id)).mkdir(parents=True)
    (bench.root / "logs" / f"bulk-{file.id}").mkdir(parents=True)
    (bench.root / "logs" / f"bulk-{file.id}" / "old.txt").write_text("old")

    outcome = await examined(bench)

    assert list(outcome.facts.warnings) == []
    assert [path.name for path in (bench.root / "logs" / f"bulk-{file.id}").iterdir()] == ["report.xml"]


async def test_a_file_in_which_nothing_is_found_has_no_folder(bench: Bench) -> None:
    bench.pool.pretend("bulk_extractor", PROGRAM)
    searched = bench.put("nothing.txt", "x-fmt/111")
    bench.put("empty.txt", "", b"")

    outcome = await examined(bench)

    assert list(outcome.facts.warnings) == []
    assert [(e.object, e.outcome, e.note) for e in outcome.facts.events] == [
        (searched.id, "success", "nothing was found")
    ]
    assert not (bench.root / "logs").exists()


async def test_a_run_that_fails_is_a_warning_on_its_file_and_leaves_nothing(bench: Bench) -> None:
    bench.pool.pretend("bulk_extractor", PROGRAM)
    bench.put("bad.txt", "x-fmt/111")
    good = bench.put("good.txt", "x-fmt/111")

    outcome = await examined(bench)

    (warning,) = outcome.facts.warnings
    assert (warning.code, warning.path) == ("tool.crashed", "objects/bad.txt")
    assert "cannot read" in warning.detail
    assert [(e.outcome, "cannot read" in e.note) for e in outcome.facts.events] == [("fail", True), ("success", False)]
    assert [path.name for path in (bench.root / "logs").iterdir()] == [f"bulk-{good.id}"]
