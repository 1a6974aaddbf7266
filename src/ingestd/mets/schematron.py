"""Archivematica's schematron for METS, applied in flat memory and little time.

Applied to a whole document it needs the document's tree, and twelve milliseconds for each file. But its rules look at
little: at METS elements and their attributes, at the element in `xmlData`, at `eventType`. So of each section only that
is kept, its *shape*: with placeholders for identifiers, labels and locations, and equal events once. A shape that was
not met before is put into a small valid document and judged there; sections have few different shapes.

References between sections are placeholders too. `identifiers` holds the real ones against each other.
"""

from __future__ import annotations

import copy
import importlib.resources
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lxml import (  # type: ignore[attr-defined]
    etree,
    isoschematron,
)

from ingestd.mets.vocabulary import METS, PREMIS, PREMIS_2, XLINK, XSI
from ingestd.premis import SYSTEM_AGENT, EventType

M = f"{{{METS}}}"
_TYPE = f"{{{XSI}}}type"
_TEXT_CHARACTERS = 100
_SHAPES = 4096
_AGENTS = 3
_DEPTH = 8
"""Levels of METS elements that are looked at; no rule looks deeper than four."""

_PLACEHOLDERS: Mapping[str, str] = {
    "ID": "id",
    "ADMID": "stub-amd",
    "DMDID": "stub-dmd",
    "FILEID": "stub-file",
    "GROUPID": "group",
    "LABEL": "label",
    "CREATED": "created",
    "CREATEDATE": "created",
    "STATUS": "status",
    "OTHERMDTYPE": "other",
    f"{{{XLINK}}}href": "href",
    f"{{{XSI}}}schemaLocation": "location",
}
_TOLERATED = frozenset(str(kind) for kind in EventType)
"""PREMIS event types that the schematron, which is older than the vocabulary, must let pass."""
_STAND_IN = str(EventType.CREATION)

_DOCUMENT = f"""<m:mets xmlns:m="{METS}" xmlns:premis="{PREMIS}" xmlns:xsi="{XSI}" xmlns:xlink="{XLINK}">
<m:metsHdr CREATEDATE="created"/>
<m:dmdSec ID="stub-dmd"><m:mdWrap MDTYPE="OTHER"><m:xmlData/></m:mdWrap></m:dmdSec>
<m:amdSec ID="stub-amd">
<m:techMD ID="t"><m:mdWrap MDTYPE="PREMIS:OBJECT"><m:xmlData>
<premis:object xsi:type="premis:file" xsi:schemaLocation="location"/></m:xmlData></m:mdWrap></m:techMD>
{'<m:digiprovMD ID="a"><m:mdWrap MDTYPE="PREMIS:AGENT"><m:xmlData/></m:mdWrap></m:digiprovMD>' * 3}
</m:amdSec>
<m:fileSec><m:fileGrp USE="original"><m:file ID="stub-file" GROUPID="g" ADMID="stub-amd">
<m:FLocat xlink:href="href" LOCTYPE="URL"/></m:file></m:fileGrp></m:fileSec>
<m:structMap ID="s" TYPE="physical" LABEL="label"><m:div TYPE="Directory" LABEL="label"/></m:structMap>
</m:mets>"""


class Shape(NamedTuple):
    """What the schematron looks at in one section: an element, its attributes, its text, what is in it."""

    tag: str
    attributes: tuple[tuple[str, str], ...]
    text: str
    children: tuple[Shape, ...]


class Schematron:
    """Judges sections one at a time. Not safe for use in two threads at once."""

    def __init__(self) -> None:
        rules = importlib.resources.files("metsrw") / "resources" / "archivematica_mets_schematron.xml"
        self._rules = isoschematron.Schematron(etree.fromstring(rules.read_bytes()), store_report=True)
        self._judged: OrderedDict[Shape, Sequence[str]] = OrderedDict()

    def judge(self, shape: Shape) -> Sequence[str]:
        """Say what is wrong with a section, as the schematron words it; nothing if it is valid."""
        found = self._judged.get(shape)
        if found is None:
            found = self._judge(shape)
            self._judged[shape] = found
            if len(self._judged) > _SHAPES:
                self._judged.popitem(last=False)
        return found

    def outline(self, *, headers: int, amd_secs: int, file_secs: int, struct_maps: int) -> Sequence[str]:
        """Say what is wrong with how many sections of each kind a document has."""
        document = etree.fromstring(_DOCUMENT)
        counts = {"metsHdr": headers, "amdSec": amd_secs, "fileSec": file_secs, "structMap": struct_maps}
        for name, count in counts.items():
            section = document.find(f"{M}{name}")
            if section is None:
                continue
            for _ in range(min(count, 2) - 1):
                section.addnext(copy.deepcopy(section))
            if not count:
                document.remove(section)
        return self._failures(document)

    def _judge(self, shape: Shape) -> Sequence[str]:
        document = etree.fromstring(_DOCUMENT)
        _put(document, _element(shape))
        return self._failures(document)

    def _failures(self, document: etree._Element) -> Sequence[str]:
        self._rules.validate(document)
        failed = self._rules.validation_report.iter("{http://purl.oclc.org/dsdl/svrl}text")
        return tuple(dict.fromkeys(" ".join("".join(text.itertext()).split()) for text in failed))


_PARENTS = {"fileGrp": "fileSec", "file": "fileSec/{m}fileGrp", "div": "structMap"}


def _put(document: etree._Element, section: etree._Element) -> None:
    """Put a section where it belongs; one that may be there only once takes the place of the stub."""
    name = etree.QName(section).localname
    if name in ("metsHdr", "fileSec"):
        stub = document.find(f"{M}{name}")
        if stub is not None:
            document.replace(stub, section)
        return
    parent = document.find(M + _PARENTS[name].format(m=M)) if name in _PARENTS else document
    if parent is not None:
        parent.append(section)


# Shapes


def section_shape(section: etree._Element, event_types: frozenset[str] = _TOLERATED) -> Shape:
    """The shape of a dmdSec, an amdSec, a metsHdr or a file: equal parts once, but every agent, up to three.

    Three is how many the schematron wants; the agents of imported events come on top of these. An amdSec of the package
    as a whole has no object and no events, by Archivematica's own convention; the schematron knows only those of files.
    `event_types` are valid besides those that it knows.
    """
    parts: dict[tuple[Shape, int], None] = {}
    agents = 0
    for part in section.iterchildren(f"{M}*"):
        shape = _reduced(part, event_types | _TOLERATED)
        agents += _is_agent(shape)
        parts[shape, min(agents, _AGENTS) if _is_agent(shape) else 0] = None
    shapes = tuple(shape for shape, _ in parts)
    if section.tag == f"{M}amdSec" and shapes and all(shape.tag in _NOT_OF_A_FILE for shape in shapes):
        shapes = (*_FILE_PARTS, *shapes)
    return _shape(section, shapes)


def div_shape(div: etree._Element, *, normative: bool) -> Shape:
    """The shape of a div without the divs in it.

    An Item of a normative map has no `fptr`, by Archivematica's own convention: its schematron must not ask for one.
    """
    pointers = dict.fromkeys(_shape(pointer) for pointer in div.iterchildren(f"{M}fptr"))
    if normative and not pointers:
        return _shape(div, (_STUB_POINTER,))
    return _shape(div, tuple(pointers))


def frame_shape(frame: etree._Element, content: str | None) -> Shape:
    """The shape of a fileGrp, a fileSec or a structMap; `content` is the METS element it has, if it has any."""
    return _shape(frame, (_STUBS[content],) if content else ())


def _reduced(part: etree._Element, event_types: frozenset[str] = frozenset(), depth: int = 0) -> Shape:
    """METS elements as they are, of what is in `xmlData` only the outermost element, of an event its type too."""
    if depth == _DEPTH:
        return _shape(part)
    if part.tag == f"{M}mdRef" and part.get(f"{{{XLINK}}}href"):
        # The schematron asks mdRef for an attribute `xlink`, which there is not: it is given its namespace's for that.
        return _shape(part)._replace(attributes=(*_shape(part).attributes, ("xlink", "")))
    children = [
        _reduced(child, event_types, depth + 1)
        if child.tag.startswith(M)
        else _shape(child, _event_types(child, event_types))
        for child in part.iterchildren(tag=etree.Element)
    ]
    return _shape(part, tuple(children))


def _event_types(event: etree._Element, valid: frozenset[str]) -> tuple[Shape, ...]:
    """The type of an event; one that no preservation system recorded was imported, and its type is its author's."""
    if not event.tag.endswith("}event"):
        return ()
    links = {
        (link.text or "").strip() for link in event.iterfind("{*}linkingAgentIdentifier/{*}linkingAgentIdentifierType")
    }
    if links and SYSTEM_AGENT not in links:
        return tuple(Shape(kind.tag, (), _STAND_IN, ()) for kind in event.iterchildren("{*}eventType"))
    found = event.iterchildren(f"{{{PREMIS}}}eventType", f"{{{PREMIS_2}}}eventType")
    return tuple(Shape(kind.tag, (), _event_type(" ".join((kind.text or "").split()), valid), ()) for kind in found)


def _event_type(value: str, valid: frozenset[str]) -> str:
    return _STAND_IN if value in valid else value[:_TEXT_CHARACTERS]


def _is_agent(shape: Shape) -> bool:
    return any(("MDTYPE", "PREMIS:AGENT") in child.attributes for child in shape.children)


def _shape(element: etree._Element, children: tuple[Shape, ...] = ()) -> Shape:
    items: Any = element.items()  # the stubs would have bytes among the names
    attributes = tuple([(name, _PLACEHOLDERS.get(name) or _value(element, name, value)) for name, value in items])
    return Shape(element.tag, attributes, "", children)


def _value(element: etree._Element, name: str, value: str) -> str:
    """An attribute's value; a type's prefix, which may be any that stands for its namespace, is made ours."""
    if name == _TYPE and element.nsmap.get(value.partition(":")[0]) in (PREMIS, PREMIS_2):
        return f"premis:{value.partition(':')[2]}"
    return value[:_TEXT_CHARACTERS]


def _element(shape: Shape) -> etree._Element:
    element = etree.Element(shape.tag, dict(shape.attributes))
    element.text = shape.text
    element.extend([_element(child) for child in shape.children])
    return element


_NOT_OF_A_FILE = (f"{M}sourceMD", f"{M}rightsMD")
_FILE_PARTS = section_shape(next(etree.fromstring(_DOCUMENT).iter(f"{M}amdSec"))).children
_STUB_POINTER = Shape(f"{M}fptr", (("FILEID", "stub-file"),), "", ())
_STUBS = {
    "file": _reduced(next(etree.fromstring(_DOCUMENT).iter(f"{M}file"))),
    "fileGrp": _reduced(next(etree.fromstring(_DOCUMENT).iter(f"{M}fileGrp"))),
    "div": _reduced(next(etree.fromstring(_DOCUMENT).iter(f"{M}div"))),
}
