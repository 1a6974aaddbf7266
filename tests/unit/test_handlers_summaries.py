"""What a person finds in an AIP beside its files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from ingestd.config import Settings
from ingestd.handlers.names import change_object_names
from ingestd.handlers.summaries import add_readme, write_logs
from ingestd.handlers.transfer import remove_hidden_files_and_directories
from ingestd.oais import Facts, Warning_
from ingestd.premis import Event, EventOutcome, EventType, Program
from ingestd.schemas import documents
from tests.steps import AT, Bench, a_package, file_id, inside


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    package = a_package(name="Les <b>é</b>", accession="2026-17", workflow_digest="f" * 64)
    bench = await Bench.open(tmp_path, package=package, options={"under": "objects"})
    await bench.receive({"objects/a b": b"1", "objects/.h": b"2", "objects/c": b"333"}, folders=["logs"])
    await bench.journal.record(Facts(package={"mets_created_at": AT.isoformat()}))
    yield bench
    await bench.journal.close()


async def checked(bench: Bench) -> None:
    """A removed file, a changed name, three checks of one file, and a warning that names a place."""
    await bench.run(remove_hidden_files_and_directories)
    await bench.run(change_object_names)
    checks = [
        Event(
            object=file_id("objects/c"),
            type=kind,
            at=AT,
            detail=Program("x", "1").words(),
            outcome=outcome,
            note="a, b",
        )
        for kind, outcome in (
            (EventType.VIRUS_CHECK, EventOutcome.CLEAN),
            (EventType.VALIDATION, EventOutcome.FAIL),
            (EventType.METADATA_EXTRACTION, EventOutcome.SUCCESS),
        )
    ]
    warnings = [
        Warning_(code="tool.crashed", detail=f"cannot read {bench.folder}/{name} <y>", path="objects/c")
        for name in ("x", "z")
    ]
    await bench.journal.record(Facts(events=checks, warnings=warnings))


def rows(bench: Bench, name: str) -> list[list[str]]:
    with (bench.root / "logs" / name).open(newline="") as file:
        return list(csv.reader(file))


async def test_the_logs_say_which_names_changed_and_what_was_removed(bench: Bench) -> None:
    await checked(bench)

    await bench.run(write_logs)

    assert (bench.root / "logs/filenameChange.log").read_text() == "objects/a b -> objects/a_b\n"
    assert "objects/.h" in (bench.root / "logs/removedFiles.log").read_text()


async def test_each_check_of_each_file_is_a_line_in_its_report(bench: Bench) -> None:
    await checked(bench)

    await bench.run(write_logs)

    identifier, at = str(file_id("objects/c")), AT.isoformat()
    by = Program("x", "1").words()
    assert [["objects/c", identifier, at, "Pass", by, "a, b"]] == rows(bench, "virusScan.csv")[1:]
    assert [["objects/c", identifier, at, "fail", by, "a, b"]] == rows(bench, "validation.csv")[1:]
    assert [["objects/c", identifier, at, "success", by, "a, b"]] == rows(bench, "characterization.csv")[1:]


async def test_every_warning_is_a_line_in_their_report(bench: Bench) -> None:
    await checked(bench)
    many = [
        Warning_(code="content.archive_corrupt", detail=f"in {bench.folder}", path=f"objects/{n}") for n in range(9)
    ]
    await bench.journal.record(Facts(warnings=many))

    await bench.run(write_logs)

    told = [row[:3] for row in rows(bench, "warnings.csv")[1:]]
    assert [[f"objects/{n}", "content.archive_corrupt", "in "] for n in range(9)] == told[-9:]


async def test_reports_that_would_be_empty_are_not_written(bench: Bench) -> None:
    await bench.run(write_logs)

    assert inside(bench.root / "logs") == ["summary.json"]


async def test_the_summary_counts_and_is_what_its_schema_says(bench: Bench) -> None:
    await checked(bench)

    await bench.run(write_logs)

    summary = json.loads((bench.root / "logs/summary.json").read_text())
    Draft202012Validator(json.loads(documents(Settings())["summary.schema.json"])).validate(summary)
    assert (2, 4, 1) == (summary["files"], summary["size_bytes"], summary["removed"])
    assert [("Unknown", 2)] == [(one["name"], one["files"]) for one in summary["formats"]]
    assert {"type": "validation", "outcome": "fail", "count": 1} in summary["events"]
    assert [("tool.crashed", 2)] == [(one["code"], one["count"]) for one in summary["warnings"]]
    assert ("f" * 64, "0" * 16) == (summary["workflow_digest"], summary["registry_digest"])


async def test_no_place_of_the_server_is_told(bench: Bench) -> None:
    await checked(bench)
    await bench.run(write_logs)
    await bench.run(add_readme)

    told = [(bench.root / path).read_text() for path in (*bench.on_disk(),) if path.startswith(("logs/", "README"))]
    assert not any(str(bench.folder) in text for text in told)


async def test_made_twice_they_are_the_same(bench: Bench) -> None:
    await checked(bench)
    await bench.run(write_logs)
    await bench.run(add_readme)
    first = bench.contents()

    await bench.run(write_logs)
    await bench.run(add_readme)

    assert first == bench.contents()


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href", "onload", "onclick"}]

    def handle_data(self, data: str) -> None:
        self.words += data


async def test_the_readme_tells_a_person_what_this_is_and_nothing_of_it_is_markup_or_from_elsewhere(
    bench: Bench,
) -> None:
    await checked(bench)
    await bench.run(write_logs)
    await bench.run(add_readme)

    page = Page((bench.root / "README.html").read_text())
    assert not {"b", "y", "script", "img", "link", "iframe"} & set(page.tags)
    assert [] == page.links
    for told in (
        "Les <b>é</b>",
        str(bench.package.id),
        "2026-17",
        "sha256sum -c manifest-sha256.txt",
        "RFC 8493",
        "ISO 14721",
        "PREMIS",
        "Your Organization Name Here",
        "a file was checked against the rules of its format",
        "fail: 1",
        "1 more files came and were removed",
        "originals: what was received",
    ):
        assert told in page.words
    assert [] == re.findall(r"\$[a-z{]", page.words)
