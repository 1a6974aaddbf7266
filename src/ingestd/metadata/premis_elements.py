"""Elements of a PREMIS 3 document, as words that can be kept: identifiers, links, events, rights."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lxml import etree

from ingestd.premis import (
    AgentLink,
    DocumentationIdentifier,
    RightsBasis,
    RightsGranted,
    RightsStatement,
)

PREMIS = "http://www.loc.gov/premis/v3"
PREMIS_2 = "info:lc/xmlns/premis-v2"
_P = f"{{{PREMIS}}}"
_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_BASES = {basis.lower(): basis for basis in RightsBasis}
_INFORMATION = {
    "copyrightInformation": "copyright",
    "licenseInformation": "license",
    "statuteInformation": "statute",
    "otherRightsInformation": "otherRights",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Identified:
    """An agent, an event or a rights statement: its identifier, and what is said of it, as JSON."""

    type: str
    value: str
    words: str

    def read(self) -> Any:
        return json.loads(self.words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Linked:
    """An event or a rights statement about one object of the transfer (its UUID's bytes), and its agents."""

    number: int
    object: bytes
    said: Identified
    agents: Sequence[AgentLink]


def identified(element: etree._Element, kind: str) -> list[tuple[str, str]]:
    """An element's own identifiers, as (type, value)."""
    name = "rightsStatementIdentifier" if kind == "rights" else f"{kind}Identifier"
    return _pairs(element, name)


def links(element: etree._Element, kind: str) -> list[tuple[str, str]]:
    """The identifiers of objects, agents, events or rights that an element links to."""
    return _pairs(element, f"linking{ {'rights': 'RightsStatement'}.get(kind, kind.capitalize()) }Identifier")


def agent_links(element: etree._Element) -> list[AgentLink]:
    """The agents that an element links to, once for each role that they have in it."""
    name = "linkingAgentIdentifier"
    found = zip(element.iterfind(f"{_P}{name}"), _pairs(element, name), strict=True)
    return [AgentLink(*pair, role) for one, pair in found for role in texts(one, "linkingAgentRole") or [""]]


def is_whole(element: etree._Element) -> bool:
    """Say whether an object is no file, but an intellectual entity or a representation."""
    return element.get(_TYPE, "").rpartition(":")[2] in {"intellectualEntity", "representation"}


def texts(element: etree._Element, path: str) -> list[str]:
    """The texts of the elements at a path below, `a/b`."""
    found = element.iterfind("/".join(f"{_P}{name}" for name in path.split("/")))
    return [text for one in found if (text := (one.text or "").strip())]


def event_words(element: etree._Element) -> str:
    """An event's type, time as it is written, detail, outcome and note."""
    outcome = "eventOutcomeInformation"
    return json.dumps(
        {
            "type": _first(element, "eventType"),
            "at": _first(element, "eventDateTime"),
            "detail": " ".join(texts(element, "eventDetailInformation/eventDetail")),
            "outcome": " ".join(texts(element, f"{outcome}/eventOutcome")),
            "note": " ".join(texts(element, f"{outcome}/eventOutcomeDetail/eventOutcomeDetailNote")),
        }
    )


def rights_words(element: etree._Element) -> str:
    """A rights statement: what each of its bases says, and its acts."""
    basis = _first(element, "rightsBasis")
    grounds = [
        _ground(basis, prefix, one) for name, prefix in _INFORMATION.items() for one in element.iterfind(f"{_P}{name}")
    ]
    acts = [_act(granted) for granted in element.iterfind(f"{_P}rightsGranted")]
    return json.dumps({"grounds": grounds or [_bare(basis)], "acts": acts})


def statements(linked: Linked, object_: Any) -> Iterator[RightsStatement]:
    """The statements that kept words are, one for each of its bases (PREMIS lets one cite several statutes)."""
    kept = linked.said.read()
    for ground in kept["grounds"]:
        documentation = [DocumentationIdentifier(**one) for one in ground.pop("documentation")]
        yield RightsStatement(
            object=object_,
            identifier_type=linked.said.type,
            identifier=linked.said.value,
            documentation=documentation,
            granted=[RightsGranted(**act) for act in kept["acts"]],
            agents=linked.agents,
            **{**ground, "basis": RightsBasis(ground["basis"])},
        )


def read_rights(xml: str, object_: uuid.UUID, package: uuid.UUID) -> list[RightsStatement]:
    """The statements of one `rightsStatement` element of PREMIS 2 or 3, as our METS and Archivematica's have it: about
    an object, in whose amdSec it stands, or about the package that it is linked to.

    An identifier that we gave for want of one goes: it is made of the words again. Raises `ValueError`.
    """
    try:
        element = etree.fromstring(xml.replace(PREMIS_2, PREMIS), etree.XMLParser(resolve_entities=False))
    except etree.XMLSyntaxError as error:
        raise ValueError(str(error)) from error
    if ("UUID", str(package)) in links(element, "object"):
        object_ = package
    type_, value = next(iter(identified(element, "rights")), ("", ""))
    said = Identified(type=type_, value=value, words=rights_words(element))
    linked = Linked(number=0, object=object_.bytes, said=said, agents=agent_links(element))
    return [_as_first_said(statement) for statement in statements(linked, object_)]


def _as_first_said(statement: RightsStatement) -> RightsStatement:
    bare = replace(statement, identifier_type="", identifier="")
    return bare if statement.identifier == str(bare.id) else statement


def _bare(basis: str) -> dict[str, Any]:
    known = _BASES.get(basis.lower(), RightsBasis.OTHER)
    other = basis if known is RightsBasis.OTHER and basis.lower() != RightsBasis.OTHER.lower() else ""
    return {"basis": known, "other_basis": other, "notes": [], "documentation": []}


def _ground(basis: str, prefix: str, element: etree._Element) -> dict[str, Any]:
    """What one container says. `copyright`, `license`, `statute` or `otherRights` begins the names within."""
    bases = {"copyright": RightsBasis.COPYRIGHT, "license": RightsBasis.LICENSE, "statute": RightsBasis.STATUTE}
    known = bases.get(prefix, RightsBasis.OTHER)
    other = _first(element, "otherRightsBasis") or (basis if known is RightsBasis.OTHER else "")
    if other.lower() in _BASES:
        known, other = _BASES[other.lower()], ""
    return {
        "basis": known,
        "other_basis": other,
        "status": _first(element, "copyrightStatus"),
        "jurisdiction": _first(element, f"{prefix}Jurisdiction"),
        "determination_date": _first(element, "copyrightStatusDeterminationDate")
        or _first(element, "statuteInformationDeterminationDate"),
        "citation": _first(element, "statuteCitation"),
        "terms": _first(element, "licenseTerms"),
        "start": _first(element, f"{prefix}ApplicableDates/startDate"),
        "end": _first(element, f"{prefix}ApplicableDates/endDate"),
        "notes": texts(element, f"{prefix}Note"),
        "documentation": [
            {
                "type": _first(one, f"{prefix}DocumentationIdentifierType"),
                "value": _first(one, f"{prefix}DocumentationIdentifierValue"),
                "role": _first(one, f"{prefix}DocumentationRole"),
            }
            for one in element.iterfind(f"{_P}{prefix}DocumentationIdentifier")
        ],
    }


def _act(granted: etree._Element) -> dict[str, Any]:
    terms = ("termOfGrant", "termOfRestriction")
    return {
        "act": _first(granted, "act"),
        "restrictions": texts(granted, "restriction"),
        "start": next((text for term in terms for text in texts(granted, f"{term}/startDate")), ""),
        "end": next((text for term in terms for text in texts(granted, f"{term}/endDate")), ""),
        "notes": texts(granted, "rightsGrantedNote"),
    }


def _pairs(element: etree._Element, name: str) -> list[tuple[str, str]]:
    return [(_first(one, f"{name}Type"), _first(one, f"{name}Value")) for one in element.iterfind(f"{_P}{name}")]


def _first(element: etree._Element, path: str) -> str:
    return next(iter(texts(element, path)), "")
