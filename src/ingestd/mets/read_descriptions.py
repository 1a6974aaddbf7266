"""Metadata sections of a METS read as records: dmdSecs that are not PREMIS, and sourceMDs."""

from __future__ import annotations

import copy

from lxml import etree

from ingestd.mets.records import ReadDescription
from ingestd.mets.vocabulary import METS, XLINK, XSI
from ingestd.oais import DescriptionStatus, Section, unescape_name

_M = f"{{{METS}}}"
_LOCATION = f"{{{XSI}}}schemaLocation"
"""Archivematica's schematron wants it of everything that is of an MDTYPE of METS' own."""


def read_description(section: etree._Element, path: str) -> ReadDescription | None:
    """What a section says of what is at `path`; None for one that says nothing."""
    wrap = section.find(f"{_M}mdWrap")
    data = None if wrap is None else wrap.find(f"{_M}xmlData")
    pointer = section.find(f"{_M}mdRef")
    holder = pointer if data is None else wrap
    if holder is None:
        return None
    xml = "" if data is None else _xml(data)
    other = holder.get("OTHERMDTYPE")
    return ReadDescription(
        kind=other or holder.get("MDTYPE") or "",
        path=path,
        pairs=() if xml or data is None else _pairs(data),
        section=Section(etree.QName(section).localname),
        xml=xml,
        reference="" if data is not None else unescape_name(holder.get(f"{{{XLINK}}}href", "")),
        status=section.get("STATUS") or DescriptionStatus.ORIGINAL,
        created_at=section.get("CREATED", ""),
        group=section.get("GROUPID", ""),
        standard=bool(xml) and not other and bool(data is not None and data[0].get(_LOCATION)),
    )


def _xml(data: etree._Element) -> str:
    """The one element that is there, if it has more than a text in it and is not Dublin Core."""
    elements = list(data.iterchildren(tag=etree.Element))
    if len(elements) != 1 or etree.QName(elements[0]).localname == "dublincore":
        return ""
    if not (len(elements[0]) or elements[0].attrib or etree.QName(elements[0]).namespace):
        return ""
    element = copy.deepcopy(elements[0])
    etree.cleanup_namespaces(element)
    return etree.tostring(element, encoding="unicode", with_tail=False)


def _pairs(data: etree._Element) -> tuple[tuple[str, str], ...]:
    """Elements and values: those of a `dublincore` wrapper with their prefixes, any others by their names."""
    wrapper = data.find("{*}dublincore")
    holder = data if wrapper is None else wrapper
    pairs = []
    for element in holder.iterchildren(tag=etree.Element):
        namespace, _, name = element.tag.rpartition("}")
        prefix = "" if wrapper is None else ("dcterms." if namespace.endswith("/terms/") else "dc.")
        pairs.append((f"{prefix}{name}", element.text or ""))
    return tuple(pairs)
