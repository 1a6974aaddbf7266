"""XML of others: what is looked at before anything else of a document is read, what tools write, made fit to stand
inside a METS, and what all users of XML schemas share.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO
from xml.parsers import expat

ONE_SCHEMA_AT_A_TIME = threading.Lock()
"""libxml2 keeps what it knows of schemas in globals: two threads that load them at once find types missing."""

HEAD_BYTES = 1 << 20
"""Most that stands before the end of the first tag. Of what never ends, expat would read all, again and again."""
SECTION_BYTES = 128 << 20
"""Longest part of a document that is held in memory at once."""
SECTION_SIGNS = 3_000_000
"""Most `<` and `=` in it: libxml2 takes some hundred bytes for each element and each attribute."""
NAMESPACES = 10_000
"""Most declarations of namespaces in such a part, and in the first tag: libxml2 looks through them for each name."""
_CHUNK_BYTES = 1 << 16

_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_DECLARATION = re.compile(r"\A\ufeff?\s*<\?xml[^>]*\?>\s*")


class RefusedXmlError(ValueError):
    """A document that is not read; the message says why, and `line` where that was seen."""

    def __init__(self, problem: str, line: int = 1) -> None:
        super().__init__(problem)
        self.line = line


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """A root element: its namespace, its name, its attributes (a name with a namespace is `NAMESPACE NAME`)."""

    namespace: str
    name: str
    attributes: Mapping[str, str]
    line: int


def root_of(file: BinaryIO) -> Root:
    """Read a document to the end of its first tag; the file is at its beginning again then.

    Raises `RefusedXmlError` for what is not well formed as far as that, has a document type declaration (without one
    there are no entities, no bombs made of them, and nothing to fetch), or does not come to an element. `OSError`.
    """
    parser = expat.ParserCreate(namespace_separator=" ")
    found: list[Root] = []

    def refuse(name: str, *_: object) -> None:
        raise RefusedXmlError(f"a document type declaration: {name[:100]}", parser.CurrentLineNumber)

    def start(name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        found.append(Root(namespace=namespace, name=local, attributes=attributes, line=parser.CurrentLineNumber))

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    read_bytes = 0
    try:
        while not found:
            chunk = file.read(_CHUNK_BYTES)
            read_bytes += len(chunk)
            if read_bytes > HEAD_BYTES:
                raise RefusedXmlError(f"its first tag does not end within {HEAD_BYTES} bytes")
            # At the end expat lets go of a token that was cut, which it may have put off (CVE-2023-52425).
            parser.Parse(chunk, not chunk)
    except expat.ExpatError as error:
        if not found:  # else it is what comes after the first tag that is wrong: others say so better
            raise RefusedXmlError(str(error), error.lineno) from error
    except (LookupError, ValueError) as error:  # an encoding that Python does not know, or that is none of texts
        if isinstance(error, RefusedXmlError):
            raise
        if not found:
            raise RefusedXmlError(f"its encoding cannot be read: {error}") from error
    file.seek(0)
    return found[0]


class Sections:
    """A file for an incremental parser, which holds what it has read until it is told to forget it: `forgotten`.

    Raises `RefusedXmlError` when too much would be held.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._held_bytes = self._signs = self._namespaces = 0
        self._kept = (0, 0, 0)

    def read(self, size: int = -1) -> bytes:
        return self._held(self._file.read(size))

    def readline(self, size: int = -1) -> bytes:
        return self._held(self._file.readline(size))

    def _held(self, chunk: bytes) -> bytes:
        self._held_bytes += len(chunk)
        self._signs += chunk.count(b"<") + chunk.count(b"=")
        self._namespaces += chunk.count(b"xmlns")
        if self._held_bytes > SECTION_BYTES:
            raise RefusedXmlError(f"a part of it is longer than {SECTION_BYTES} bytes")
        if self._signs > SECTION_SIGNS or self._namespaces > NAMESPACES:
            raise RefusedXmlError("a part of it has too many elements, attributes or namespaces")
        return chunk

    def forgotten(self) -> None:
        self._kept = (0, 0, 0)
        self._held_bytes = self._signs = self._namespaces = 0

    def kept(self) -> None:
        """What was read so far stays, whatever of the rest is let go with `spent`."""
        self._kept = (self._held_bytes, self._signs, self._namespaces)

    def spent(self) -> None:
        """What was read since then is forgotten."""
        self._held_bytes, self._signs, self._namespaces = self._kept


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
