"""Validation of a METS file in flat memory: schemas, Archivematica's schematron, identifiers and references.

The schemas are METS, PREMIS 3 and XLink combined: against METS alone a broken PREMIS event passes, and a valid PREMIS
object does not. A document type declaration is refused before anything else is read.
"""

from __future__ import annotations

import asyncio
import importlib.resources
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from lxml import etree

from ingestd.errors import Violation
from ingestd.mets.identifiers import Identifiers, Kind
from ingestd.mets.schematron import M, Schematron, Shape, div_shape, frame_shape, section_shape
from ingestd.mets.vocabulary import COMPACT, METS, PREMIS, PREMIS_2
from ingestd.tools.xml import ONE_SCHEMA_AT_A_TIME, RefusedXmlError, Sections, root_of

LIMIT = 200
"""How many violations are told, at most about; reading stops there."""

_REFERENCES = {"ADMID": Kind.ADMINISTRATIVE, "DMDID": Kind.DESCRIPTIVE, "FILEID": Kind.FILE}
_SECTIONS = ("metsHdr", "dmdSec", "amdSec")
_PARTS = ("techMD", "rightsMD", "sourceMD", "digiprovMD")
_FRAMES = {"fileGrp": "file", "fileSec": "fileGrp", "structMap": "div"}
_OUR_MAPS = ("structMap_1", "structMap_2", None)
_WRAPPER = f"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
<xs:import namespace="{METS}" schemaLocation="schema:/mets.xsd"/>
<xs:import namespace="{PREMIS}" schemaLocation="schema:/premis.xsd"/>
<xs:import namespace="{PREMIS_2}" schemaLocation="schema:/premis-2.xsd"/>
</xs:schema>"""
_PREMIS_2_SCHEMA = f"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="{PREMIS_2}">
{{types}}</xs:schema>"""
_PREMIS_2_TYPE = """<xs:complexType name="{name}"><xs:sequence>
<xs:any minOccurs="0" maxOccurs="unbounded" processContents="skip"/></xs:sequence>
<xs:anyAttribute processContents="skip"/></xs:complexType>
"""
"""PREMIS 2 as far as METS must know it: the types that `xsi:type` names. What is in them is not looked at."""
_NAMES_FILE = b'name="FILEID" type="xsd:IDREF" use="required"'
_SCHEMAS = {"mets.xsd": ("metsrw", "resources"), "premis.xsd": (__package__, "xsd"), "xlink.xsd": (__package__, "xsd")}


async def validate(path: Path, *, schematron: bool = True, event_types: Collection[str] = ()) -> Sequence[Violation]:
    """Find what is wrong with a METS: nothing, if it is valid. What is PREMIS 2 in it is not looked into.

    Without `schematron`, Archivematica's own rules, which became stricter over the years, are not applied; nor are they
    to a METS of the profile `vocabulary.COMPACT`.

    `Violation.path` is `#` and the identifier of the section, where there is one; `rule` is `mets.xml` (not well
    formed, or a document type declaration), `mets.xsd`, `mets.schematron`, `mets.id.duplicate` or `mets.id.dangling`.
    Event types that `premis.EventType` names are valid, though the schematron does not know all of them; so are those
    of `event_types`, and those of events that no preservation system recorded.
    Raises `OSError` if the file cannot be read.
    """
    return await asyncio.to_thread(_validate, path, schematron=schematron, event_types=frozenset(event_types))


def _validate(path: Path, *, schematron: bool, event_types: frozenset[str]) -> Sequence[Violation]:
    with ONE_SCHEMA_AT_A_TIME, Identifiers() as identifiers:
        check = _Check(identifiers, Schematron() if schematron else None, event_types)
        try:
            with path.open("rb") as file:
                root_of(file)
                check.read(file)
        except (RefusedXmlError, etree.XMLSyntaxError) as error:
            check.report("", "mets.xml", str(error))
        return tuple(check.violations)


def combined_schema(*, areas_name_files: bool = True) -> etree.XMLSchema:
    """METS, PREMIS 3 and XLink as one schema, read from the packages that ship them and never from the network.

    Without `areas_name_files`, an `area` needs no FILEID.
    """
    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(_Shipped(areas_name_files=areas_name_files))
    return etree.XMLSchema(etree.fromstring(_WRAPPER, parser))


class _Shipped(etree.Resolver):
    """Gives a schema by the last part of its location; one that is not shipped is empty, and the import fails."""

    def __init__(self, *, areas_name_files: bool) -> None:
        super().__init__()
        self._areas_name_files = areas_name_files

    def resolve(self, system_url: str, public_id: str, context: Any) -> Any:  # type: ignore[override]  # noqa: ARG002
        name = system_url.rpartition("/")[2]
        if name == "premis-2.xsd":
            types = "".join(_PREMIS_2_TYPE.format(name=kind) for kind in ("file", "bitstream", "representation"))
            text = _PREMIS_2_SCHEMA.format(types=types).encode()
            return self.resolve_string(text, context, base_url=f"schema:/{name}")
        if name not in _SCHEMAS:
            return self.resolve_empty(context)  # type: ignore[attr-defined]
        package, folder = _SCHEMAS[name]
        source = (importlib.resources.files(package) / folder / name).read_bytes()
        if not self._areas_name_files:
            source = source.replace(_NAMES_FILE, _NAMES_FILE.replace(b"required", b"optional"))
        return self.resolve_string(source, context, base_url=f"schema:/{name}")


class _Check:
    """One pass over one document."""

    def __init__(self, identifiers: Identifiers, schematron: Schematron | None, event_types: frozenset[str]) -> None:
        self.violations: list[Violation] = []
        self._identifiers = identifiers
        self._schematron = schematron
        self._event_types = event_types
        self._counts = dict.fromkeys(("metsHdr", "amdSec", "fileSec", "structMap"), 0)
        self._filled: list[bool] = []
        self._normative = False
        self._custom = False
        self._ended = False

    def report(self, identifier: str, rule: str, actual: str, expected: str = "") -> None:
        path = f"#{identifier}" if identifier else ""
        self.violations.append(Violation(path=path, rule=rule, expected=expected, actual=actual[:1000]))

    def read(self, file: BinaryIO) -> None:
        """Read the document section by section, throwing each away. Raises `etree.XMLSyntaxError`."""
        sections = Sections(file)
        events = etree.iterparse(
            cast("Any", sections),
            events=("start", "end"),
            tag=[f"{M}{name}" for name in ("mets", "file", "div", *_SECTIONS, *_PARTS, *_FRAMES)],
            schema=combined_schema(),
            huge_tree=True,
            resolve_entities=False,
            no_network=True,
            remove_comments=True,
            remove_pis=True,
        )
        try:
            for event, element in events:
                if self._step(event, element):
                    sections.forgotten()
                if len(self.violations) + len(events.error_log) >= LIMIT:
                    break
            else:
                self._finish(events.root)
        except etree.XMLSyntaxError:
            if not events.error_log or events.error_log.last_error.domain_name != "SCHEMASV":
                raise
            self._finish(events.root)
        for entry in list(events.error_log)[:LIMIT]:
            self.report("", "mets.xsd" if entry.domain_name == "SCHEMASV" else "mets.xml", entry.message)

    def _step(self, event: str, element: etree._Element) -> bool:
        """Look at an element; say whether it was forgotten then."""
        name = element.tag.removeprefix(M)
        if event == "start":
            self._start(name, element)
            return False
        if name == "mets":
            self._ended = True
            return True
        if name in _PARTS:
            return self._part(element)
        _JUDGES.get(name, _Check._frame)(self, name, element)
        if name in self._counts:
            self._counts[name] += 1
        forget(element)
        return True

    def _part(self, element: etree._Element) -> bool:
        """The schematron looks at whole amdSecs; without it, one may be as large as the document."""
        if self._schematron is not None:
            return False
        self._note(Kind.ADMINISTRATIVE, element, element.get("ID", ""))
        forget(element)
        return True

    def _start(self, name: str, element: etree._Element) -> None:
        if name == "mets" and element.get("PROFILE") == COMPACT:
            self._schematron = None
        elif name in _FRAMES:
            if self._filled:
                self._filled[-1] = True
            self._filled.append(False)
        elif self._filled:
            self._filled[-1] = True
        if name == "structMap":
            self._normative = element.get("TYPE") == "logical"
            self._custom = element.get("ID") not in _OUR_MAPS

    def _section(self, name: str, element: etree._Element) -> None:
        kind = Kind.DESCRIPTIVE if name == "dmdSec" else Kind.ADMINISTRATIVE if name == "amdSec" else Kind.OTHER
        identifier = element.get("ID", "")
        self._note(kind, element, identifier)
        self._judge(section_shape(element, self._event_types), identifier)

    def _file(self, _name: str, element: etree._Element) -> None:
        identifier = element.get("ID", "")
        self._note(Kind.FILE, element, identifier)
        self._judge(section_shape(element, self._event_types), identifier)

    def _div(self, _name: str, element: etree._Element) -> None:
        identifier = element.get("ID", "")
        self._note(Kind.OTHER, element, identifier)
        if self._custom:
            return  # the schematron knows directories and items; those of others may be of any type
        self._judge(div_shape(element, normative=self._normative), identifier)

    def _frame(self, name: str, element: etree._Element) -> None:
        identifier = element.get("ID", "")
        self._note(Kind.OTHER, element, identifier)
        filled = self._filled.pop()
        if name != "structMap" or not self._custom:
            self._judge(frame_shape(element, _FRAMES[name] if filled else None), identifier)

    def _note(self, kind: Kind, element: etree._Element, place: str) -> None:
        for identifier in _IDS(element):
            if not self._identifiers.add(kind, identifier):
                self.report(identifier, "mets.id.duplicate", f"the identifier {identifier} is used twice")
        for holder in _REFERRING(element):
            for attribute, target in _REFERENCES.items():
                for name in holder.get(attribute, "").split():
                    self._identifiers.refer(target, name, place or element.get("LABEL", ""))

    def _judge(self, shape: Shape, identifier: str) -> None:
        for failure in self._schematron.judge(shape) if self._schematron else ():
            self.report(identifier, "mets.schematron", failure)

    def _finish(self, root: etree._Element | None) -> None:
        """Judge what can be judged when all is read.

        A parser that applies a schema is silent about a document that ends too early; so the root must have ended.
        """
        if not self._ended:
            self.report("", "mets.xml", "the METS ends before its end, or is no METS")
        if root is not None and root.tag != f"{M}mets":
            self.report("", "mets.xsd", f"the document is a {root.tag}", expected=f"{M}mets")
            return
        if self._schematron:
            self._outline(self._schematron)
        for kind, name, place in self._some_dangling():
            self.report(
                place, "mets.id.dangling", f"{place or 'an element'} refers to the {kind} {name}, which is not there"
            )

    def _outline(self, schematron: Schematron) -> None:
        for failure in schematron.outline(
            headers=self._counts["metsHdr"],
            amd_secs=self._counts["amdSec"],
            file_secs=self._counts["fileSec"],
            struct_maps=self._counts["structMap"],
        ):
            self.report("", "mets.schematron", failure)

    def _some_dangling(self) -> Iterator[tuple[Kind, str, str]]:
        for number, found in enumerate(self._identifiers.dangling()):
            if number >= LIMIT:
                return
            yield found


_NAMESPACES = {"m": METS}
_IDS: Any = etree.XPath("descendant-or-self::m:*/@ID", namespaces=_NAMESPACES, smart_strings=False)
_REFERRING: Any = etree.XPath("descendant-or-self::m:*[@ADMID or @DMDID or @FILEID]", namespaces=_NAMESPACES)
_JUDGES: dict[str, Callable[[_Check, str, etree._Element], None]] = {
    **dict.fromkeys(_SECTIONS, _Check._section),  # noqa: SLF001  this module's own table
    "file": _Check._file,  # noqa: SLF001
    "div": _Check._div,  # noqa: SLF001
}


def forget(element: etree._Element) -> None:
    """Free what was read; the element itself goes when its successor is read."""
    element.clear()
    parent = element.getparent()
    while parent is not None and parent[0] is not element:
        del parent[0]
