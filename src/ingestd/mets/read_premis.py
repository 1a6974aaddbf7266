"""PREMIS in an amdSec as records, of PREMIS 2 and 3 alike, by the elements' local names.

Archivematica 1.x wraps each object, event and agent by itself; Archivematica 0.x wraps one whole `premis` with all of
them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lxml import etree

from ingestd.mets.read_descriptions import read_description
from ingestd.mets.records import ReadAgent, ReadDescription, ReadEvent, ReadFile
from ingestd.mets.vocabulary import METS, PREMIS, PREMIS_2, XSI
from ingestd.oais import DescriptionStatus, Section
from ingestd.premis import AgentLink, Format

_M = f"{{{METS}}}"
_TYPE, _LOCATION = f"{{{XSI}}}type", f"{{{XSI}}}schemaLocation"
_SCHEMAS = {
    PREMIS: "http://www.loc.gov/standards/premis/v3/premis.xsd",
    PREMIS_2: "http://www.loc.gov/standards/premis/v2/premis-v2-2.xsd",
}
_SIZE_DIGITS = 18
"""No size has more: SQLite takes no more of them, nor Python thousands."""
_WRAPPERS = frozenset({"premis", "rights"})


@dataclass(kw_only=True, slots=True)
class Premis:
    """The PREMIS elements of an amdSec, or of some of its parts. `object` is the one that no later one supersedes, in
    the part `holder`; `superseded` are parts that later ones took the place of.
    """

    object: etree._Element | None = None
    holder: etree._Element | None = None
    events: list[etree._Element] = field(default_factory=list)
    agents: list[etree._Element] = field(default_factory=list)
    rights: list[etree._Element] = field(default_factory=list)
    superseded: list[etree._Element] = field(default_factory=list)


def premis_of(parts: Iterable[etree._Element]) -> Premis:
    """Gather what stands in the parts of an amdSec."""
    found = Premis()
    for part in parts:
        holds = part.get("STATUS") != "superseded"
        if not holds and part.tag in (f"{_M}techMD", f"{_M}rightsMD"):
            found.superseded.append(part)
        for element in _unwrapped(part.iterfind(f"{_M}mdWrap/{_M}xmlData/*")):
            match etree.QName(element).localname:
                case "object" if holds:
                    found.object, found.holder = element, part
                case "rightsStatement" if holds:
                    found.rights.append(element)
                case "event":
                    found.events.append(element)
                case "agent":
                    found.agents.append(element)
    return found


def _unwrapped(elements: Iterable[etree._Element]) -> Iterator[etree._Element]:
    for element in elements:
        if etree.QName(element).localname in _WRAPPERS:
            yield from _unwrapped(element.iterchildren(tag=etree.Element))
        else:
            yield element


def described_file(found: Premis, described: etree._Element, file: ReadFile) -> ReadFile:
    """A file of the fileSec with what its object says of it, its events and its rights.

    Of a file whose object does not name its source, it is the one that its group names.
    """
    characteristics = described.find("{*}objectCharacteristics")
    identifier = object_uuid(described) or file.identifier
    size = text_at(characteristics, "{*}size")
    sources = _related(described, "has source")
    return replace(
        file,
        identifier=identifier,
        original_name=text_at(described, "{*}originalName"),
        size_bytes=int(size) if size.isascii() and size.isdigit() and len(size) <= _SIZE_DIGITS else None,
        digests=_digests(characteristics),
        format=_format(characteristics),
        modified_at=text_at(characteristics, "{*}creatingApplication/{*}dateCreatedByApplication"),
        derived_from=sources[0] if sources else (file.derived_from if file.derived_from != identifier else ""),
        source_of=_related(described, "is source of"),
        events=tuple(map(_event, found.events)),
        identifiers=more_identifiers(described),
        rights=tuple(map(_text_of, found.rights)),
    )


def with_provenance(found: Premis, file: ReadFile) -> ReadFile:
    """Add what a METS that is read whole gives: agents, also of events, and what stands in PREMIS as it is."""
    extension = "{*}objectCharacteristics/{*}objectCharacteristicsExtension"
    described, holder = found.object, found.holder
    holders = () if described is None else described.iterfind(extension)
    return replace(
        file,
        events=tuple(
            replace(said, agents=_linked_agents(event)) for said, event in zip(file.events, found.events, strict=True)
        ),
        agents=tuple(AgentLink(*pair) for agent in found.agents for pair in _pairs(agent, "agentIdentifier")),
        extensions=tuple(_text_of(element) for holder in holders for element in holder.iterchildren(tag=etree.Element)),
        object=None if described is None or holder is None else _object_as_written(holder, described, file.path),
        superseded=tuple(said for part in found.superseded if (said := _superseded_as_written(part, file.path))),
    )


def read_agent(agent: etree._Element) -> ReadAgent:
    return ReadAgent(
        identifier_type=text_at(agent, "{*}agentIdentifier/{*}agentIdentifierType"),
        identifier=text_at(agent, "{*}agentIdentifier/{*}agentIdentifierValue"),
        name=text_at(agent, "{*}agentName"),
        type=text_at(agent, "{*}agentType"),
        version=text_at(agent, "{*}agentVersion"),
    )


def object_uuid(described: etree._Element) -> str:
    for kind, value in _pairs(described, "objectIdentifier"):
        if kind == "UUID":
            return value
    return ""


def more_identifiers(described: etree._Element) -> tuple[tuple[str, str], ...]:
    """An object's identifiers without its UUID, which is the first of that type."""
    pairs = list(_pairs(described, "objectIdentifier"))
    own = next((pair for pair in pairs if pair[0] == "UUID"), None)
    if own is not None:
        pairs.remove(own)
    return tuple(pairs)


def text_at(element: etree._Element | None, path: str) -> str:
    return "" if element is None else (element.findtext(path) or "")


def _event(found: etree._Element) -> ReadEvent:
    outcome = "{*}eventOutcomeInformation"
    return ReadEvent(
        identifier=text_at(found, "{*}eventIdentifier/{*}eventIdentifierValue"),
        type=text_at(found, "{*}eventType"),
        at=text_at(found, "{*}eventDateTime"),
        detail=text_at(found, "{*}eventDetailInformation/{*}eventDetail") or text_at(found, "{*}eventDetail"),
        outcome=text_at(found, f"{outcome}/{{*}}eventOutcome"),
        note=text_at(found, f"{outcome}/{{*}}eventOutcomeDetail/{{*}}eventOutcomeDetailNote"),
    )


def _linked_agents(event: etree._Element) -> Sequence[AgentLink]:
    """The agents that an event is linked to, once for each role that they have in it."""
    return tuple(
        AgentLink(*_pair(link, "linkingAgentIdentifier"), role.text or "")
        for link in event.iterfind("{*}linkingAgentIdentifier")
        for role in link.findall("{*}linkingAgentRole") or [etree.Element("none")]
    )


def _digests(characteristics: etree._Element | None) -> Mapping[str, str]:
    if characteristics is None:
        return {}
    return {
        text_at(fixity, "{*}messageDigestAlgorithm"): text_at(fixity, "{*}messageDigest")
        for fixity in characteristics.iterfind("{*}fixity")
    }


def _format(characteristics: etree._Element | None) -> Format | None:
    found = None if characteristics is None else characteristics.find("{*}format")
    if found is None:
        return None
    return Format(
        name=text_at(found, "{*}formatDesignation/{*}formatName"),
        version=text_at(found, "{*}formatDesignation/{*}formatVersion"),
        puid=text_at(found, "{*}formatRegistry/{*}formatRegistryKey"),
    )


def _related(described: etree._Element, subtype: str) -> tuple[str, ...]:
    return tuple(
        value.text or ""
        for relationship in described.iterfind("{*}relationship")
        if text_at(relationship, "{*}relationshipSubType") == subtype
        for value in relationship.iterfind("*/*")
        if value.tag.rpartition("}")[2] in ("relatedObjectIdentifierValue", "relatedObjectIdentificationValue")
    )


def _object_as_written(holder: etree._Element, described: etree._Element, path: str) -> ReadDescription:
    return ReadDescription(
        kind="PREMIS:OBJECT",
        path=path,
        pairs=(),
        section=Section.TECHNICAL,
        xml=_as_written(described),
        status=holder.get("STATUS") or DescriptionStatus.ORIGINAL,
        created_at=holder.get("CREATED", ""),
        standard=True,
    )


def _superseded_as_written(part: etree._Element, path: str) -> ReadDescription | None:
    said, element = read_description(part, path), part.find(f"{_M}mdWrap/{_M}xmlData/*")
    return said if said is None or element is None else replace(said, xml=_as_written(element), standard=True)


def _as_written(element: etree._Element) -> str:
    """An element of PREMIS as it is written. Only what Archivematica's schematron wants of it is added: where its
    schema is, and a prefix in `xsi:type`, which early versions went without.
    """
    namespace, kind = etree.QName(element).namespace or "", element.get(_TYPE, "")
    if element.get(_LOCATION) and (":" in kind or not kind):
        return _text_of(element)
    alone = etree.Element(element.tag, nsmap={"premis": namespace, "xsi": XSI})
    alone.attrib.update(element.attrib)
    alone.extend(copy.deepcopy(element))
    if kind:
        alone.set(_TYPE, f"premis:{kind.rpartition(':')[2]}")
    alone.set(_LOCATION, element.get(_LOCATION) or f"{namespace} {_SCHEMAS.get(namespace, namespace)}")
    return _text_of(alone)


def _text_of(element: etree._Element) -> str:
    alone = copy.deepcopy(element)
    etree.cleanup_namespaces(alone)
    return etree.tostring(alone, encoding="unicode", with_tail=False)


def _pairs(element: etree._Element, name: str) -> Iterator[tuple[str, str]]:
    return (_pair(one, name) for one in element.iterfind(f"{{*}}{name}"))


def _pair(identifier: etree._Element, name: str) -> tuple[str, str]:
    return identifier.findtext(f"{{*}}{name}Type") or "", identifier.findtext(f"{{*}}{name}Value") or ""
