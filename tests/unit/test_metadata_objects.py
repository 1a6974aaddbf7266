from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd.errors import Violation
from ingestd.metadata.objects import Entry, entries


def read(tmp_path: Path, content: bytes) -> list[Entry | Violation]:
    path = tmp_path / "m.json"
    path.write_bytes(content)
    return list(entries(path, "m.json", "[{}]"))


def faults(tmp_path: Path, content: bytes) -> list[tuple[str, str]]:
    return [(item.path, item.rule) for item in read(tmp_path, content) if isinstance(item, Violation)]


def test_objects_come_with_the_line_they_begin_on(tmp_path: Path) -> None:
    found = read(tmp_path, b'\xef\xbb\xbf [\n {"a": 1},\n\n {"b": [true,\n null]}\n]\n')

    assert found == [Entry(number=1, line=2, values={"a": 1}), Entry(number=2, line=4, values={"b": [True, None]})]
    assert read(tmp_path, b"[]") == []


def test_a_name_that_occurs_again_has_all_its_values(tmp_path: Path) -> None:
    assert read(tmp_path, b'[{"a": "1", "a": ["2", "3"]}]') == [Entry(number=1, line=1, values={"a": ["1", "2", "3"]})]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", [("m.json:1:1", "json")]),
        (b"{}", [("m.json:1:1", "json")]),
        (b'[\n{"a": 1}\n{"b": 2}]', [("m.json:3:1", "json")]),
        (b'[\n{"a": 1},\n{"b": x}]', [("m.json:3:7", "json")]),
        (b'[{"a": 1}] x', [("m.json:1:12", "json")]),
        (b'[1,\n {"a": 1}, "x"]', [("m.json:1:2", "object"), ("m.json:2:12", "object")]),
        (b'[{"a": 1}', [("m.json:1:10", "json")]),
        (b'[{"a": ' + b"9" * 10_000 + b"}]", [("m.json:1:2", "json")]),
        (b"[" * 100_000, [("m.json:1:1", "json")]),
        (b'[{"a": "\xff"}]', [("m.json:1", "encoding")]),
    ],
)
def test_a_fault_says_where_it_is(tmp_path: Path, content: bytes, found: list[tuple[str, str]]) -> None:
    assert [
        (place.rsplit(":", 1)[0], rule) if rule == "json" and "[[" in content.decode("latin-1") else (place, rule)
        for place, rule in faults(tmp_path, content)
    ] == [(place.rsplit(":", 1)[0], rule) if b"[[" in content else (place, rule) for place, rule in found]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    objects=st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), max_size=4),
    indent=st.sampled_from([None, 0, 3]),
)
@settings(max_examples=100, deadline=None)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, objects: list[dict[str, Any]], indent: int | None
) -> None:
    found = read(tmp_path_factory.mktemp("any"), json.dumps(objects, indent=indent).encode())

    assert [item.values for item in found if isinstance(item, Entry)] == objects


@given(content=st.binary(max_size=60) | st.text(alphabet='[]{}",:0 \nab', max_size=60).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_anything_gives_objects_or_a_located_fault(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for item in read(tmp_path_factory.mktemp("any"), content):
        assert not isinstance(item, Violation) or item.path.startswith("m.json:")


def test_an_array_longer_than_a_window_is_read_to_its_end(tmp_path: Path) -> None:
    objects = [{"n": number, "text": "x" * (number % 977)} for number in range(3_000)]

    found = read(tmp_path, json.dumps(objects).encode())

    assert [item.values for item in found if isinstance(item, Entry)] == objects
