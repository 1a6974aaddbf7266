"""A structMap that came with the transfer, `mets_structmap.xml`, cut out of its METS for ours. Everything here blocks.

It names files by CONTENTIDS, since it knows no identifiers: each `fptr` and `area` gets the FILEID of its file. It may
refer to dmdSecs of its METS that come along (`structmap_sections`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote
from xml.parsers import expat

from lxml import etree

from ingestd.errors import Violation
from ingestd.mets.identifiers import Identifiers, Kind
from ingestd.mets.markup import attribute
from ingestd.mets.owners import Owners
from ingestd.mets.validation import LIMIT, combined_schema, forget
from ingestd.mets.vocabulary import METS, XLINK
from ingestd.tools.xml import ONE_SCHEMA_AT_A_TIME, RefusedXmlError, Sections, root_of

KEPT = "structmap.xml"
"""The file in a package's working folder that has the structMap, ready to be put into the METS."""
DESCRIBED = "structmap-dmd.xml"
"""The file beside it that has the dmdSecs that it refers to."""
FACT = "custom_structmap"
"""The fact of the package that says that it is there."""
CUSTOM_ID = "structMap_3"
"""The identifier of a structMap that has none of its own: after the physical and the normative one."""
_CHUNK_BYTES = 1 << 16
_DEPTH = 200
_XML = "http://www.w3.org/XML/1998/namespace"
_OURS = re.compile(r"(?:amdSec|dmdSec|techMD|rightsMD|sourceMD|digiprovMD|structMap)_\w+|file-.*")
_PARTS = frozenset({"techMD", "rightsMD", "sourceMD", "digiprovMD"})
_HREF = f"{XLINK} href"
_PREFIXES = {XLINK: "xlink", _XML: "xml"}
_EXAMPLE = '<fptr CONTENTIDS="objects/letter.txt"/>'


@dataclass(frozen=True, kw_only=True, slots=True)
class Pointer:
    """A place in the text where a file's identifier goes: the file's name, and where that stands."""

    name: str
    line: int
    column: int

    @property
    def names(self) -> Sequence[str]:
        """What the file may be called: CONTENTIDS are URIs, which people write as they are or encoded."""
        return [self.name, unquote(self.name)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """A reference to a section that does not come along."""

    attribute: str
    name: str
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Owned:
    """A reference to an administrative section of a file, by what the file is called: its own amdSec is meant."""

    left: Left
    names: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Administered:
    """The place of an ADMID, whose references are the `owned`, as far as their files are there."""

    owned: Sequence[Owned]


Piece: TypeAlias = str | Pointer | Administered | Left | Violation


def missing(pointer: Pointer, name: str) -> Violation:
    """What is wrong with a place that names no file of the transfer; `name` is the document's."""
    place = f"{name}:{pointer.line}:{pointer.column}"
    return Violation(path=place, rule="CONTENTIDS", expected="a file of the transfer", actual=pointer.name[:200])


def own_identifier(value: str) -> str:
    """What an identifier of the other METS is called in ours: one that ours might have becomes another."""
    return f"custom-{value}" if _OURS.fullmatch(value) and value != CUSTOM_ID else value


def faults(path: Path, name: str) -> Sequence[Violation]:
    """What is wrong with the document: not well formed, a document type, not valid METS, not one structMap."""
    try:
        found = _schema_faults(path, name)
    except (RefusedXmlError, etree.XMLSyntaxError) as error:
        return [Violation(path=name, rule="xml", expected="a METS without a document type", actual=str(error))]
    return found


def cut(path: Path, name: str, identifiers: Identifiers) -> Iterator[Sequence[Piece]]:
    """Give the structMap as text, in windows, a `Pointer` wherever an identifier goes, and what is wrong with it.

    `identifiers` has the dmdSecs that come along. A reference to an administrative section that the METS's fileSec has
    for one file is `Administered`: ours has an amdSec for it. Any other reference is `Left`.
    """
    try:
        with path.open("rb") as file, Owners() as owners:
            cutter = _Cutter(name, identifiers, owners)
            while chunk := file.read(_CHUNK_BYTES):
                cutter.parser.Parse(chunk, False)
                yield cutter.taken()
            cutter.parser.Parse(b"", True)
            yield cutter.taken()
    except expat.ExpatError as error:
        place = f"{name}:{error.lineno}:{error.offset + 1}"
        yield [Violation(path=place, rule="xml", expected="well-formed XML", actual=str(error))]


def _schema_faults(path: Path, name: str) -> list[Violation]:
    """Feed the document line by line: libxml2 does not say by itself at which line a stream is not valid."""
    found: list[Violation] = []
    maps = 0
    with ONE_SCHEMA_AT_A_TIME, path.open("rb") as file:
        root_of(file)
        parser = etree.XMLPullParser(
            ("end",),
            tag=[f"{{{METS}}}structMap", f"{{{METS}}}div"],
            schema=combined_schema(areas_name_files=False),
            resolve_entities=False,
            no_network=True,
            huge_tree=True,
        )
        sections = Sections(file)
        line, told = 1, 0
        while part := sections.readline(_CHUNK_BYTES):
            parser.feed(part)
            log: Any = parser.feed_error_log
            for entry in itertools.islice(log, told, None):
                told += 1
                found.append(_not_valid(f"{name}:{line}", entry.message))
            if len(found) >= LIMIT:
                break
            line += part.endswith(b"\n")
            events: Any = parser.read_events()
            for _, element in events:
                maps += element.tag.endswith("}structMap")
                forget(element)
                sections.forgotten()
    if not found and maps != 1:
        found.append(Violation(path=name, rule="structMap", expected="one structMap", actual=str(maps)))
    return found


def _not_valid(place: str, message: str) -> Violation:
    return Violation(path=place, rule="mets.xsd", expected="valid METS", actual=message[:1000])


class _Cutter:
    def __init__(self, name: str, identifiers: Identifiers, owners: Owners) -> None:
        self._owners = owners
        self._section = ""
        self._owning: Sequence[str] = ()
        self._name = name
        self._identifiers = identifiers
        self._pieces: list[Piece] = []
        self._depth = 0
        self._pointing: list[tuple[bool, str]] = []
        self._open = False
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.ordered_attributes = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    def taken(self) -> Sequence[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _start(self, name: str, attributes: list[str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if not self._depth and (namespace, local) != (METS, "structMap"):
            self._before(local, dict(zip(attributes[::2], attributes[1::2], strict=True)))
            return
        self._depth += 1
        if self._depth > _DEPTH:
            raise expat.ExpatError("elements within one another too deeply")
        if namespace != METS:
            self._fault("element", "elements of METS alone", name)
        values = dict(zip(attributes[::2], attributes[1::2], strict=True))
        if local == "structMap":
            values.setdefault("ID", CUSTOM_ID)
        self._close_tag()
        self._pieces.append(f"{'  ' * self._depth}<mets:{local}")
        for key, value in values.items():
            self._attribute(key, value)
        if local in {"fptr", "area"}:
            self._point(local, values)
        self._open = True

    def _before(self, local: str, values: dict[str, str]) -> None:
        """Note whose the administrative sections are."""
        if local == "amdSec":
            self._section = values.get("ID", "")
        elif local in _PARTS:
            self._owners.add_part(values.get("ID", ""), self._section)
        elif local == "file":
            self._owning = values.get("ADMID", "").split()
        elif local == "FLocat":
            for section in self._owning:
                self._owners.add_owner(section, values.get(_HREF, ""))

    def _attribute(self, key: str, value: str) -> None:
        namespace, _, local = key.rpartition(" ")
        if not namespace and local == "FILEID":
            return
        if not namespace and local == "ADMID":
            self._pieces.append(Administered(owned=list(self._owned(value.split()))))
            return
        if not namespace and local == "DMDID":
            value = " ".join(self._carried(value.split()))
            if not value:
                return
        if not namespace and local == "ID":
            value = self._identifier(value)
        if namespace and namespace not in _PREFIXES:
            self._pieces.append(f' xmlns:own="{attribute(namespace)}" own:{local}="{attribute(value)}"')
            return
        prefix = f"{_PREFIXES[namespace]}:" if namespace else ""
        self._pieces.append(f' {prefix}{local}="{attribute(value)}"')

    def _carried(self, names: Sequence[str]) -> Iterator[str]:
        """Those of the descriptive sections referred to that come along."""
        for name in names:
            if self._identifiers.known(Kind.DESCRIPTIVE, own_identifier(name)):
                yield own_identifier(name)
            else:
                self._pieces.append(Left(attribute="DMDID", name=name, line=self.parser.CurrentLineNumber))

    def _owned(self, names: Sequence[str]) -> Iterator[Owned]:
        """Those of the administrative sections referred to that are one file's."""
        for name in names:
            left = Left(attribute="ADMID", name=name, line=self.parser.CurrentLineNumber)
            href = self._owners.of(name)
            if href:
                yield Owned(left=left, names=[href, unquote(href)])
            else:
                self._pieces.append(left)

    def _identifier(self, value: str) -> str:
        name = own_identifier(value)
        if not self._identifiers.add(Kind.OTHER, name):
            self._fault("id", "each ID once", value)
        return name

    def _point(self, local: str, values: dict[str, str]) -> None:
        """An `fptr` points at a file itself, or by the `area`s within it."""
        name = values.get("CONTENTIDS", "").strip()
        if local == "area" and self._pointing:
            self._pointing[-1] = (True, "")
        if local == "fptr":
            self._pointing.append((bool(name), self._place()))
        if name:
            line, column = self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1
            self._pieces += [' FILEID="file-', Pointer(name=name, line=line, column=column), '"']
        elif local == "area":
            self._fault("CONTENTIDS", _EXAMPLE, f"no CONTENTIDS on {local}")

    def _end(self, name: str) -> None:
        if not self._depth:
            return
        local = name.rpartition(" ")[2]
        if local == "fptr" and self._pointing:
            points, place = self._pointing.pop()
            if not points:
                self._fault("CONTENTIDS", _EXAMPLE, "no CONTENTIDS on fptr", place)
        self._pieces.append("/>\n" if self._open else f"{'  ' * self._depth}</mets:{local}>\n")
        self._open = False
        self._depth -= 1

    def _close_tag(self) -> None:
        if self._open:
            self._pieces.append(">\n")

    def _fault(self, rule: str, expected: str, actual: str, place: str = "") -> None:
        self._pieces.append(Violation(path=place or self._place(), rule=rule, expected=expected, actual=actual))

    def _place(self) -> str:
        return f"{self._name}:{self.parser.CurrentLineNumber}:{self.parser.CurrentColumnNumber + 1}"
