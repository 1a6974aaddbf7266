"""The sample transfer that the project ships, with every action on, as `make demo` runs it."""

import json
from pathlib import Path

import pytest

from tests.acceptance.program import Program
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.tool, pytest.mark.slow]


def test_the_demo_transfer_is_preserved_with_every_action(tmp_path: Path) -> None:
    # As in the Makefile, the data folder is relative; programs run in folders of their own.
    program = Program(tmp_path, PROCESSING="{}", DATA_DIR="data")
    run = program("ingest", REPOSITORY / "examples" / "demo-transfer", "--output", tmp_path / "out", "--json")

    assert 0 == run.code, run.err
    result = run.result
    counts = result["counts"]
    executed = {link["execute"] for link in result["timing"]["links"]}

    assert 14 == counts["originals"], "three of them from the archive within"
    assert 1 == counts["submission_documentation"]
    (normalization,) = result["normalization"]
    made = {(one["puid"], one["into_puid"]) for one in normalization["made"]}
    assert {("fmt/116", "fmt/353"), ("fmt/414", "fmt/6"), ("fmt/17", "fmt/477")} <= made, "image, sound, document"
    assert {"normalized", "kept as it is", "no rule"} >= set(normalization["outcomes"])
    assert counts["derivatives"] >= 4, "and a page is read"
    assert counts["files"] == counts["identified"]
    assert {"extract_contents", "validate_file", "normalize", "transcribe_file", "store_aip"} <= executed
    assert {warning["code"] for warning in result["warnings"]} <= {"tool.not_installed"}
    rules = {rule["id"]: rule for rule in json.loads(program("fpr", "rules", "--json").out)}
    assert (3, 0) == (rules["preservation:x-fmt/111"]["okay"], rules["preservation:x-fmt/111"]["not_okay"])
    assert "workflow.option_without_link" not in {warning["code"] for warning in result["warnings"]}
