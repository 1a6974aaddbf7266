"""What an amdSec says of a file besides what most readers ask for: agents, identifiers, rights, what tools wrote."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

from lxml import etree

from ingestd.mets.read_descriptions import read_description
from ingestd.mets.records import ReadDescription, ReadFile
from ingestd.mets.vocabulary import METS, PREMIS, PREMIS_2, XSI
from ingestd.premis import AgentLink

_M = f"{{{METS}}}"
_TYPE, _LOCATION = f"{{{XSI}}}type", f"{{{XSI}}}schemaLocation"
_SCHEMAS = {
    PREMIS: "http://www.loc.gov/standards/premis/v3/premis.xsd",
    PREMIS_2: "http://www.loc.gov/standards/premis/v2/premis-v2-2.xsd",
}
_DATA = f"{_M}mdWrap/{_M}xmlData"


def linked_agents(event: etree._Element) -> tuple[AgentLink, ...]:
    """The agents that a PREMIS event is linked to."""
    return tuple(
        AgentLink(*_pair(link, "linkingAgentIdentifier"), role.text or "")
        for link in event.iterfind("{*}linkingAgentIdentifier")
        for role in link.findall("{*}linkingAgentRole") or [etree.Element("none")]
    )


def more_identifiers(described: etree._Element) -> tuple[tuple[str, str], ...]:
    """An object's identifiers without its UUID, which is the first of that type."""
    pairs = list(_pairs(described, "objectIdentifier"))
    own = next((pair for pair in pairs if pair[0] == "UUID"), None)
    if own is not None:
        pairs.remove(own)
    return tuple(pairs)


def with_provenance(file: ReadFile, section: etree._Element, described: etree._Element) -> ReadFile:
    """Add what a METS that is read whole gives: agents, also of events, and what stands in PREMIS as it is."""
    events = section.iterfind(f"{_M}digiprovMD/{_DATA}/{{*}}event")
    return replace(
        file,
        events=tuple(
            replace(said, agents=linked_agents(event)) for said, event in zip(file.events, events, strict=True)
        ),
        agents=tuple(
            link for agent in section.iterfind(f"{_M}digiprovMD/{_DATA}/{{*}}agent") for link in _agent_links(agent)
        ),
        rights=tuple(map(_text_of, _rights(section))),
        object=next((_premis(part, file.path) for part in described.iterancestors(f"{_M}techMD")), None),
        extensions=tuple(
            _text_of(element)
            for holder in described.iterfind("{*}objectCharacteristics/{*}objectCharacteristicsExtension")
            for element in holder.iterchildren(tag=etree.Element)
        ),
        superseded=tuple(_superseded(section, file.path)),
    )


def removed_file(file: ReadFile, section: etree._Element, described: etree._Element) -> ReadFile:
    """A file that is not in the package any more: its amdSec tells what it was, and no file refers to it."""
    return replace(with_provenance(file, section, described), removed=True)


def _agent_links(agent: etree._Element) -> Iterator[AgentLink]:
    yield from (AgentLink(*pair) for pair in _pairs(agent, "agentIdentifier"))


def _rights(section: etree._Element) -> Iterator[etree._Element]:
    """The rights statements that hold, whether they stand alone or within `rights`."""
    for rights in section.iterchildren(f"{_M}rightsMD"):
        if rights.get("STATUS") != "superseded":
            for name in ("rightsStatement", "rights/{*}rightsStatement"):
                yield from rights.iterfind(f"{_DATA}/{{*}}{name}")


def _superseded(section: etree._Element, path: str) -> Iterator[ReadDescription]:
    for part in section.iterchildren(f"{_M}techMD", f"{_M}rightsMD"):
        said = _premis(part, path) if part.get("STATUS") == "superseded" else None
        if said is not None:
            yield said


def _premis(section: etree._Element, path: str) -> ReadDescription | None:
    """What a section says in PREMIS, as it is written. Only what Archivematica's schematron wants of it is added: where
    its schema is, and a prefix in `xsi:type`, which early versions went without.
    """
    said, element = read_description(section, path), section.find(f"{_DATA}/*")
    if said is None or element is None:
        return said
    namespace, kind = etree.QName(element).namespace or "", element.get(_TYPE, "")
    if element.get(_LOCATION) and (":" in kind or not kind):
        return replace(said, xml=_text_of(element), standard=True)
    alone = etree.Element(element.tag, nsmap={"premis": namespace, "xsi": XSI})
    alone.attrib.update(element.attrib)
    alone.extend(copy.deepcopy(element))
    if kind:
        alone.set(_TYPE, f"premis:{kind.rpartition(':')[2]}")
    alone.set(_LOCATION, element.get(_LOCATION) or f"{namespace} {_SCHEMAS.get(namespace, namespace)}")
    return replace(said, xml=_text_of(alone), standard=True)


def _text_of(element: etree._Element) -> str:
    alone = copy.deepcopy(element)
    etree.cleanup_namespaces(alone)
    return etree.tostring(alone, encoding="unicode", with_tail=False)


def _pairs(element: etree._Element, name: str) -> Iterator[tuple[str, str]]:
    return (_pair(one, name) for one in element.iterfind(f"{{*}}{name}"))


def _pair(identifier: etree._Element, name: str) -> tuple[str, str]:
    return identifier.findtext(f"{{*}}{name}Type") or "", identifier.findtext(f"{{*}}{name}Value") or ""
