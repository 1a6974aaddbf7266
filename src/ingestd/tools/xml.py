"""What tools write as XML, made fit to stand inside a METS document, and what all users of XML schemas share."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from xml.parsers import expat

ONE_SCHEMA_AT_A_TIME = threading.Lock()
"""libxml2 keeps what it knows of schemas in globals: two threads that load them at once find types missing."""

_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_DECLARATION = re.compile(r"\A\ufeff?\s*<\?xml[^>]*\?>\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """What a tool wrote about a file: one XML element without declaration, or why there is none."""

    xml: str = ""
    error: str = ""


def element(text: str) -> str:
    """Give the one root element in `text`, without an XML declaration; characters that XML forbids become U+FFFD.

    Raises `ValueError` when that is not well-formed, or has a document type (no tool here writes one: it came from
    the file).
    """
    text = _ILLEGAL.sub("\ufffd", _DECLARATION.sub("", text)).strip()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise ValueError(f"not well-formed XML: {error}") from error
    return text


def _refuse(*_: object) -> None:
    raise ValueError("a document type in a tool's output")
