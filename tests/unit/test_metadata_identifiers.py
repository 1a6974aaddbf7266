from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from ingestd.errors import Violation
from ingestd.metadata.identifiers import Named, read


def faults(tmp_path: Path, text: str | bytes) -> list[tuple[str, str]]:
    raw = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "i.json").write_bytes(raw)
    return [
        (item.path.removeprefix("metadata/identifiers.json"), item.rule)
        for item in read(tmp_path / "i.json")
        if isinstance(item, Violation)
    ]


def item(file: object = "objects/a", *identifiers: tuple[object, object]) -> dict[str, object]:
    pairs = identifiers or (("DOI", "10.1/a"),)
    return {"file": file, "identifiers": [{"identifier": value, "identifierType": kind} for kind, value in pairs]}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_folders_and_the_package_are_named(tmp_path: Path, mark: str) -> None:
    said = [item("objects/a", ("DOI", "1"), ("DOI", "2")), item("./objects/d/"), item(""), item("objects/")]
    (tmp_path / "i.json").write_text(mark + json.dumps(said, indent=1))
    named = [one for one in read(tmp_path / "i.json") if isinstance(one, Named)]

    assert ["objects/a", "objects/d", "objects", "objects"] == [one.path for one in named]
    assert [("DOI", "1"), ("DOI", "2")] == list(named[0].identifiers)
    assert [1, 2, 3, 4] == [one.number for one in named]


def test_an_empty_array_says_nothing(tmp_path: Path) -> None:
    assert [] == faults(tmp_path, " [ ] \n")


@pytest.mark.parametrize("text", ["", '{"file": "a"}', "[{}\n {}]", "[] []", b"[\xff]"])
def test_what_is_no_array_is_said(tmp_path: Path, text: str | bytes) -> None:
    assert faults(tmp_path, text)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (7, "object"),
        (item(7), "file"),
        (item("objects/\ud800"), "not_unicode"),
        ({"file": "objects/a"}, "identifiers"),
        ({"file": "objects/a", "identifiers": []}, "identifiers"),
        (item("objects/a", ("", "1")), "identifierType"),
        (item("objects/a", ("DOI", 1)), "identifier"),
        (item("objects/a", ("DOI", "x" * 5000)), "identifier"),
    ],
)
def test_every_item_that_cannot_be_used_is_said(tmp_path: Path, value: object, rule: str) -> None:
    text = "[\n" + json.dumps(item()) + ",\n" + json.dumps(value) + ",\n" + json.dumps(value) + "]"

    assert [("3", rule), ("4", rule)] == [(place.split(":")[1], found) for place, found in faults(tmp_path, text)]


def test_a_long_array_is_read_item_by_item(tmp_path: Path) -> None:
    with (tmp_path / "i.json").open("w") as out:
        out.write("[")
        out.writelines(f"{json.dumps(item(f'objects/{number}'))},\n" for number in range(10_000))
        out.write(json.dumps(item()) + "]")
    tracemalloc.start()
    try:
        count = sum(isinstance(one, Named) for one in read(tmp_path / "i.json"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (10_001, True) == (count, peak < 2**20)
