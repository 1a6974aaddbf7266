"""Text into XML: the one place where a value becomes markup, and where markup of others is let in.

Names go through `escape_name` first, so that their bytes come back; any other text keeps every character that XML 1.0
allows, and shows each that it does not allow as `%HH`, byte by byte.
"""

from __future__ import annotations

import os
import re
from typing import Any
from xml.parsers import expat

from ingestd.mets.vocabulary import METS, PREMIS, XLINK, XSI
from ingestd.oais import escape_name

ELEMENT_CHARACTERS = 10_000_000
"""Longest element of a tool that is let in; libxml2's default reading limit for one text."""
ELEMENT_DEPTH = 200
"""Deepest element of a tool that is let in; libxml2 by default reads 256 levels, of which METS takes a dozen."""
_NAME_CHARACTERS = 10_000

_SPECIAL = re.compile("[&<>\r\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_REFERENCES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
_NOT_IN_URI = re.compile(r"%(?![0-9A-Fa-f]{2})|[\[\]]")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.\-]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_DECLARATION = re.compile(r"\A\ufeff?\s*(?:<\?xml\s[^>]*\?>)?\s*")
_SCHEMA_HINTS = frozenset({f"{XSI} schemaLocation", f"{XSI} noNamespaceSchemaLocation"})


class UnfitElement(ValueError):
    """XML of a tool that cannot stand in the METS; the message says why."""


def text(value: str) -> str:
    """Write a value as the content of an element."""
    return _SPECIAL.sub(_reference, value)


def plain(value: str) -> str:
    """Give a value without what XML does not allow, for whoever hands it to an XML library."""
    return _SPECIAL.sub(lambda match: match[0] if match[0] in _REFERENCES else _reference(match), value)


def attribute(value: str) -> str:
    """Write a value between double quotes, so that line breaks and tabs survive the reader's normalization."""
    return text(value).replace('"', "&quot;").replace("\t", "&#9;").replace("\n", "&#10;")


def href(path: str) -> str:
    """Write a path as `xlink:href`: readable as it is where the name is safe, and given back by `unescape_name`."""
    return attribute(_NOT_IN_URI.sub(lambda match: f"%{ord(match[0]):02X}", escape_name(path)))


def element_name(heading: str) -> str:
    """Make an element's name of a column's heading: each character that XML names may not have becomes `_`."""
    name = _NOT_IN_NAME.sub("_", heading.strip())
    return name if _NAME.fullmatch(name) else f"_{name}"


def fit_element(xml: str, *, proven: bool = False) -> str:
    """Give one element that a tool wrote as it can be put into the METS: well formed, and without its declaration.

    Raises `UnfitElement` for what is not one well-formed element, declares a document type (and so entities), is too
    large or too deep for ordinary readers, or has parts that the METS schemas would judge: elements of METS, PREMIS and
    XLink, `xsi:type`, XLink attributes. With `proven`, only elements of METS are refused: the schemas have judged.
    """
    element = xml[_DECLARATION.match(xml).end() :].rstrip()  # type: ignore[union-attr]
    if len(element) > ELEMENT_CHARACTERS:
        raise UnfitElement(f"longer than {ELEMENT_CHARACTERS} characters")
    try:
        _Gate(proven=proven).parser.Parse(element, True)
    except (expat.ExpatError, UnicodeEncodeError) as error:
        raise UnfitElement(f"not well formed: {error}") from error
    return element


class _Gate:
    """An expat parser that raises `UnfitElement` at what may not come in."""

    def __init__(self, *, proven: bool) -> None:
        self.depth = 0
        self._foreign = (METS,) if proven else (METS, PREMIS, XLINK)
        self._judged = () if proven else (XSI, XLINK)
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._doctype

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > ELEMENT_DEPTH:
            raise UnfitElement(f"deeper than {ELEMENT_DEPTH} elements")
        if name.startswith(self._foreign):
            raise UnfitElement(f"an element of {name.partition(' ')[0]}")
        for key in (name, *attributes):
            if len(key) > _NAME_CHARACTERS:
                raise UnfitElement(f"a name longer than {_NAME_CHARACTERS} characters")
            if key.startswith(self._judged) and key not in _SCHEMA_HINTS:
                raise UnfitElement(f"the attribute {key.partition(' ')[2]} of {key.partition(' ')[0]}")

    def _end(self, _name: str) -> None:
        self.depth -= 1

    def _doctype(self, *_declared: Any) -> None:
        raise UnfitElement("a document type declaration")


def _reference(match: re.Match[str]) -> str:
    character = match[0]
    if character in _REFERENCES:
        return _REFERENCES[character]
    try:
        raw = os.fsencode(character)
    except UnicodeEncodeError:  # a surrogate that stands for no byte of a name
        raw = character.encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in raw)
