from __future__ import annotations

import json
import os
import uuid
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree

from ingestd.job import Task
from ingestd.messages import RequestSource
from ingestd.oais import FileUse, Reingest, escape_name, safe_name, unescape_name
from ingestd.premis import Event, EventType, since_reingestion
from tests.fakes import FakeHistory
from tests.steps import AT, a_file, a_package

names = st.binary(min_size=1, max_size=80).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)


@given(names)
@example(os.fsdecode(b"\xc3%A9"))
@example(os.fsdecode(b"%\x80"))
@example(os.fsdecode(b"%4\x80"))
@example("%25%2525\x7f\x85\ufffe\uffff")
def test_every_name_comes_back_from_its_escape(name: str) -> None:
    assert name == unescape_name(escape_name(name))


@given(names)
def test_an_escaped_name_fits_in_xml_and_json(name: str) -> None:
    escaped = escape_name(name)
    element = etree.Element("name")
    element.text = escaped

    assert etree.fromstring(etree.tostring(element)).text == escaped
    assert json.loads(json.dumps(escaped).encode("utf-8")) == escaped


@given(names, names)
def test_two_names_have_two_escapes(one: str, other: str) -> None:
    assert (one == other) == (escape_name(one) == escape_name(other))


@pytest.mark.parametrize("name", ["a b.txt", "100%", "é", "日本", "a/b", "50% of 3"])
def test_a_plain_name_stands_for_itself(name: str) -> None:
    assert name == escape_name(name)


@given(st.one_of(names, st.text(min_size=1, max_size=40, alphabet=st.characters(exclude_categories=["Cs"]))))
@example("．")
@example("‥")
@example("…")
@example("．hidden")
@example("😀")
@example("日本")
@example("⁄etc⁄passwd")
def test_a_safe_name_is_one_plain_part_of_a_path(name: str) -> None:
    safe = safe_name(name)

    assert safe
    assert set(safe) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.()")
    assert PurePosixPath("objects").joinpath("x").with_name(safe).parts == ("objects", safe)
    assert safe not in {".", ".."}
    assert name.startswith(".") or not safe.startswith(".")


@given(names)
def test_a_safe_name_is_safe_already(name: str) -> None:
    assert safe_name(name) == safe_name(safe_name(name))


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Überraschung.txt", "Uberraschung.txt"),
        ("a b&c.txt", "a_b_c.txt"),
        ("fname-^~", "fname-__"),
        (os.fsdecode(b"caf\xe9.txt"), "caf.txt"),
        (".hidden", ".hidden"),
        ("", "_"),
        ("..", "_."),
    ],
)
def test_names_are_transliterated_or_replaced(name: str, safe: str) -> None:
    assert safe == safe_name(name)


def test_labels_fit_in_a_file_name_however_long_a_name_becomes() -> None:
    package = a_package(name="好" * 200)

    assert len(f"{package.label}.tar.bz2.part") <= 255
    assert str(package.id) in package.label
    assert package.transfer_id == uuid.uuid5(package.id, "transfer")
    assert package.transfer_label.endswith(str(package.transfer_id))


@given(st.lists(st.sampled_from([EventType.REINGESTION, EventType.VIRUS_CHECK, "removal from backlog"])))
def test_what_happened_since_a_reingestion_is_what_follows_the_last_one(types: list[str]) -> None:
    events = [Event(object=uuid.UUID(int=1), type=type_, at=AT) for type_ in types]

    since = list(since_reingestion(events))

    assert EventType.REINGESTION not in [event.type for event in since]
    assert events[len(events) - len(since) :] == since
    assert len(since) == len(events) or events[-len(since) - 1].type == EventType.REINGESTION


@pytest.mark.parametrize(
    ("kind", "examined"),
    [
        (None, ["old", "copy", "papers", "new"]),
        (Reingest.METADATA, ["new"]),
        (Reingest.PARTIAL, ["new"]),
        (Reingest.FULL, ["old", "new"]),
    ],
)
def test_what_is_examined_depends_on_the_kind_of_reingest(
    kind: Reingest | None, examined: list[str], tmp_path: Path
) -> None:
    uses = {"old": FileUse.ORIGINAL, "copy": FileUse.PRESERVATION, "papers": FileUse.METADATA, "new": FileUse.METADATA}
    files = [a_file(name, use=use, row=row) for row, (name, use) in enumerate(uses.items(), start=1)]
    task = Task(
        package=a_package(reingest=kind, kept_rows=3 if kind else 0),
        folder=tmp_path,
        root=tmp_path,
        history=FakeHistory(),
        source=RequestSource(location="/nowhere"),
        target="primary",
        files=files,
    )

    assert examined == [file.path for file in task.at_hand]
