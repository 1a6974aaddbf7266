"""The sample transfers beside the repository, each with what becomes of it today."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.aips import open_aip, stored_below, stored_path
from tests.acceptance.program import Program

pytestmark = [pytest.mark.tool, pytest.mark.slow]

SYSTEM_FILES = {"Thumbs.db", "Icon", "Icon\r", ".DS_Store", "desktop.ini"}
DIRECTORY_TREE = 1
"""Files that ingestd itself writes among the metadata."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What a transfer becomes: how its files are used, and the warnings that are about it."""

    original: int
    metadata: int = 0
    documentation: int = 0
    removed: int = 0
    unmatched: int = 0
    """Rows of metadata.csv for files that the sample lacks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failing:
    """What is told of a transfer that cannot become an AIP."""

    code: str
    paths: frozenset[str]


TRANSFERS: dict[str, Expected | Failing] = {
    "small": Expected(original=1),
    "Images": Expected(original=9),
    "OCRImage": Expected(original=1),
    "CSVmetadata": Expected(original=1, metadata=1, documentation=1, unmatched=1),
    # Its checksum files name four files that the sample lacks; rights.csv two of them, row after row.
    "DemoTransferCSV": Failing(
        code="content.checksum_manifest_mismatch",
        paths=frozenset(
            {
                "artwork/MARBLES.TGA",
                "bird.mp3",
                "beihai.tif",
                "View_from_lookout_over_Queenstown_towards_the_Remarkables_in_spring.jpg",
                *(f"metadata/rights.csv:{line}:1" for line in range(2, 10)),
            }
        ),
    ),
    # Six transfers in one folder: what they call metadata is content of the whole.
    "MetadataXMLValidation": Expected(original=95),
    "BagTransfer": Expected(original=3, metadata=3),
    "UnzippedBag": Expected(original=2, metadata=4),
    "ZippedBag.zip": Expected(original=2, metadata=4),
    "badNames": Expected(original=103, removed=3),
    "Unicode": Expected(original=2, removed=2),
    "hiddenFile": Expected(original=2, removed=4),
    "thumbs_db_file": Expected(original=2, removed=2),
    # What is empty is a folder, and named in the METS alone.
    "emptyDirectory.tar": Expected(original=1, removed=1),
    "fixityCheckShouldFail": Failing(
        code="content.checksum_manifest_mismatch", paths=frozenset({"Nemastylis_geminiflora_Flower.PNG"})
    ),
    # What is packed within a transfer stays packed until packages are extracted; broken ones are kept then, too.
    "zippedWithBadNames": Expected(original=23, removed=3),
    "passwordProtected": Expected(original=3, removed=2),
    "broken_package_format_types": Expected(original=6),
}
IN_ARCHIVES = {"ZippedBag.zip": 6, "emptyDirectory.tar": 2}
"""How many files the archives hold."""

NOT_EXTRACTED = ("--set", "extract_packages=false")
"""So that the counts are those of what was received."""


def files_in(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield os.path.relpath(os.path.join(parent, name), folder)  # noqa: PTH118  names are bytes


def is_left_out(path: str) -> bool:
    """Hidden, or left behind by an operating system."""
    parts = Path(path).parts
    return any(part.startswith(".") for part in parts) or parts[-1] in SYSTEM_FILES


def test_every_transfer_that_is_there_has_its_expected_outcome(shared: Path) -> None:
    there = {path.name for path in (shared / "transfers").iterdir() if path.name != "README.md"}

    assert there == set(TRANSFERS)


@pytest.mark.parametrize("name", TRANSFERS)
def test_a_sample_transfer_becomes_what_is_written_down(name: str, shared: Path, tmp_path: Path) -> None:
    expected, source = TRANSFERS[name], shared / "transfers" / name
    ingestd = Program(tmp_path)

    run = ingestd("ingest", source, "--output", tmp_path / "output", "--json", *NOT_EXTRACTED)

    if isinstance(expected, Failing):
        error = run.result["error"]
        assert error["code"] == expected.code
        assert {violation["path"] for violation in error["violations"]} == expected.paths
        assert stored_below(tmp_path / "output") == []
        return
    assert run.code == 0, run.err
    result = run.result
    counts = Counter(result["counts"])
    found = Expected(
        original=counts["originals"],
        metadata=counts["metadata"] - DIRECTORY_TREE,
        documentation=counts["submission_documentation"],
        removed=counts["removed"],
        unmatched=sum(w["count"] for w in result["warnings"] if w["code"] == "content.metadata_unmatched"),
    )
    assert found == expected
    aip = open_aip(stored_path(result), tmp_path / "opened")
    assert len(aip.of("original")) == expected.original
    assert stored_below(tmp_path / "output") == [stored_path(result)]

    received = list(files_in(source)) if source.is_dir() else []
    total = len(received) or IN_ARCHIVES[name]
    assert total == expected.original + expected.metadata + expected.documentation + expected.removed
    if received:
        assert sum(map(is_left_out, received)) == expected.removed


def test_every_name_of_bad_names_is_kept_for_ever(shared: Path, tmp_path: Path) -> None:
    source = shared / "transfers" / "badNames"
    ingestd = Program(tmp_path)

    run = ingestd("ingest", source, "--output", tmp_path / "output", "--json", *NOT_EXTRACTED)

    assert run.code == 0, run.err
    aip = open_aip(stored_path(run.result), tmp_path / "opened")
    kept = {name.removeprefix("%transferDirectory%") for name in aip.original_names}
    asked = {path for path in files_in(source) if not is_left_out(path)}
    plain = {path for path in asked if path.isprintable() and "%" not in path}
    assert plain
    assert plain - kept == set()
    assert len(kept) == len(asked) + DIRECTORY_TREE
    assert all(path.isascii() and " " not in path for path in aip.use)
