from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from ingestd.mets.markup import attribute, element_name, fit_element, href, text
from ingestd.oais import unescape_name

ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@given(st.text(alphabet=st.characters()))
def test_text_comes_back_and_what_xml_cannot_hold_is_shown(value: str) -> None:
    back = etree.fromstring(f"<a>{text(value)}</a>").text or ""

    assert ILLEGAL.search(back) is None
    if not ILLEGAL.search(value):
        assert value == back


@given(st.text(alphabet=st.characters()))
def test_an_attribute_comes_back_with_its_line_breaks(value: str) -> None:
    back = etree.fromstring(f'<a b="{attribute(value)}"/>').get("b")

    if not ILLEGAL.search(value):
        assert value == back


def test_text_that_xml_cannot_hold_is_shown_byte_by_byte() -> None:
    assert "a%00b%FF%ED%A0%80" == text("a\0b\udcff\ud800")


def test_a_quotation_mark_stays_readable_in_text() -> None:
    assert 'program="Siegfried"' == text('program="Siegfried"')


@given(st.binary(min_size=1))
def test_a_location_gives_back_any_path_byte_by_byte(raw: bytes) -> None:
    path = os.fsdecode(raw)
    written = etree.fromstring(f'<a b="{href(path)}"/>').get("b") or ""

    assert raw == os.fsencode(unescape_name(written))


@pytest.mark.parametrize("path", ["objects/a b.txt", "objects/é(1)-_.txt"])
def test_an_ordinary_location_is_readable_as_it_is(path: str) -> None:
    assert path == href(path)


@given(st.text(alphabet=st.characters()))
def test_any_heading_makes_an_element(heading: str) -> None:
    name = element_name(heading)

    assert name == etree.fromstring(f"<{name}/>").tag


def test_the_declaration_of_a_tools_xml_is_left_out() -> None:
    assert "<a/>" == fit_element('\ufeff<?xml version="1.0" encoding="UTF-16"?>\n\n<a/>\n')
