"""What an amdSec says of a file besides what most readers ask for: agents, identifiers, rights, what tools wrote."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

from lxml import etree

from ingestd.mets.records import ReadFile
from ingestd.mets.vocabulary import METS
from ingestd.premis import AgentLink

_M = f"{{{METS}}}"
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
    """Add what a METS that is read whole gives: `agents`, also of events, `rights`, `extensions`, `superseded`."""
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
        extensions=tuple(
            _text_of(element)
            for holder in described.iterfind("{*}objectCharacteristics/{*}objectCharacteristicsExtension")
            for element in holder.iterchildren(tag=etree.Element)
        ),
        superseded=len(_superseded(section)),
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


def _superseded(section: etree._Element) -> list[etree._Element]:
    parts = (part for name in ("techMD", "rightsMD") for part in section.iterchildren(f"{_M}{name}"))
    return [part for part in parts if part.get("STATUS") == "superseded"]


def _text_of(element: etree._Element) -> str:
    alone = copy.deepcopy(element)
    etree.cleanup_namespaces(alone)
    return etree.tostring(alone, encoding="unicode", with_tail=False)


def _pairs(element: etree._Element, name: str) -> Iterator[tuple[str, str]]:
    return (_pair(one, name) for one in element.iterfind(f"{{*}}{name}"))


def _pair(identifier: etree._Element, name: str) -> tuple[str, str]:
    return identifier.findtext(f"{{*}}{name}Type") or "", identifier.findtext(f"{{*}}{name}Value") or ""
