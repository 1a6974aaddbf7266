from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd.errors import Violation
from ingestd.metadata import xml
from ingestd.mets import structmap
from ingestd.mets.identifiers import Identifiers

PIECES = st.lists(
    st.sampled_from(
        [
            "<a>",
            "</a>",
            "<a/>",
            "<b x='1'>",
            "</b>",
            "text",
            "&amp;",
            "&e;",
            "<!DOCTYPE a [<!ENTITY e 'x'>]>",
            "\0",
            "é",
            "<?xml version='1.0' encoding='latin-1'?>",
            "<!--c-->",
            "]]>",
            "<m:mets xmlns:m='http://www.loc.gov/METS/'>",
            "<m:structMap>",
            "<m:div>",
            "<m:fptr CONTENTIDS='o'/>",
            "</m:div>",
            "</m:structMap>",
            "</m:mets>",
        ]
    ),
    max_size=8,
).map("".join)


def at(folder: Path, content: bytes) -> Path:
    (folder / "x.xml").write_bytes(content)
    return folder / "x.xml"


@given(content=PIECES.map(str.encode) | st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_anything_is_a_document_or_is_refused_with_words(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    with contextlib.suppress(xml.UnreadableError):
        document = xml.read(at(tmp_path_factory.mktemp("any"), content))
        assert document.text.startswith("<")


@given(content=PIECES.map(str.encode))
@settings(max_examples=60, deadline=None)
def test_any_struct_map_is_cut_or_refused_with_a_place(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = at(tmp_path_factory.mktemp("any"), content)

    if not structmap.faults(path, "m.xml"):
        with Identifiers() as identifiers:
            pieces = [piece for window in structmap.cut(path, "m.xml", identifiers) for piece in window]
        assert any(isinstance(piece, Violation) or "mets:structMap" in str(piece) for piece in pieces)


def test_a_document_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = at(tmp_path, b"<a/>")
    with path.open("r+b") as file:
        file.truncate(xml.DOCUMENT_BYTES + 1)

    with pytest.raises(xml.UnreadableError, match="bytes"):
        xml.read(path)


def test_what_a_schema_includes_from_the_network_is_taken_from_beside_it(tmp_path: Path) -> None:
    (tmp_path / "part.xsd").write_text(
        '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="a" type="xs:integer"/></xs:schema>'
    )
    (tmp_path / "whole.xsd").write_text(
        '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">'
        '<xs:include schemaLocation="http://schemas.invalid/v1/part.xsd"/></xs:schema>'
    )
    schemas = xml.Schemas({"a": tmp_path / "whole.xsd"})
    good, bad = (xml.read(at(tmp_path, text)) for text in (b"<a>1</a>", b"<a>x</a>"))

    verdicts = [schemas.judge(document, "a") for document in (good, bad)]

    assert [[], 1] == [verdicts[0].faults if verdicts[0] else None, len(verdicts[1].faults) if verdicts[1] else 0]


def test_the_schema_of_the_most_particular_key_counts(tmp_path: Path) -> None:
    location = 'xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:schemaLocation="urn:a a.xsd urn:b b.xsd"'
    document = xml.read(at(tmp_path, f'<a xmlns="urn:a" {location}/>'.encode()))

    assert ["mine", "a.xsd", "b.xsd", "urn:a", "a"] == list(document.keys("mine"))
