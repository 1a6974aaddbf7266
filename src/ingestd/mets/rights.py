"""PREMIS rights statements (semantic unit 4.1) as text for a METS rightsMD, in the order of PREMIS 3's schema."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from ingestd.mets.markup import text
from ingestd.mets.vocabulary import PREMIS_LOCATION
from ingestd.premis import AgentLink, DocumentationIdentifier, Restriction, RightsBasis, RightsGranted, RightsStatement

_OWN = frozenset({RightsBasis.COPYRIGHT, RightsBasis.LICENSE, RightsBasis.STATUTE})
"""Bases that PREMIS has a container for; all others are its `Other`."""


def rights_statement(said: RightsStatement) -> str:
    """Write a statement. What PREMIS wants and nobody said stands there empty, as Archivematica writes it."""
    own = said.basis in _OWN
    return (
        f'<premis:rightsStatement xsi:schemaLocation="{PREMIS_LOCATION}">\n'
        "<premis:rightsStatementIdentifier>\n"
        f"{_element('rightsStatementIdentifierType', said.identifier_type or 'UUID')}"
        f"{_element('rightsStatementIdentifierValue', said.identifier or str(said.id))}"
        "</premis:rightsStatementIdentifier>\n"
        f"{_element('rightsBasis', said.basis if own else RightsBasis.OTHER)}"
        f"{_BASES.get(said.basis, _other)(said)}"
        f"{''.join(map(_granted, said.granted))}"
        f"{_linking_object(said.object)}"
        f"{linking_agents(said.agents)}"
        "</premis:rightsStatement>\n"
    )


def linking_agents(links: Sequence[AgentLink]) -> str:
    return "".join(
        "<premis:linkingAgentIdentifier>\n"
        f"{_element('linkingAgentIdentifierType', link.type)}"
        f"{_element('linkingAgentIdentifierValue', link.identifier)}"
        f"{_unless_empty('linkingAgentRole', link.role)}"
        "</premis:linkingAgentIdentifier>\n"
        for link in links
    )


def _copyright(said: RightsStatement) -> str:
    return _container(
        "copyrightInformation",
        _element("copyrightStatus", said.status),
        _element("copyrightJurisdiction", said.jurisdiction),
        _unless_empty("copyrightStatusDeterminationDate", said.determination_date),
        *_notes("copyrightNote", said.notes),
        *_documentation("copyright", said.documentation),
        _term("copyrightApplicableDates", said.start, said.end),
    )


def _license(said: RightsStatement) -> str:
    """PREMIS wants one of documentation, terms, note or dates; where there is none, the terms are empty."""
    some = said.documentation or said.notes or said.start or said.end
    terms = _unless_empty("licenseTerms", said.terms) if some else _element("licenseTerms", said.terms)
    return _container(
        "licenseInformation",
        *_documentation("license", said.documentation),
        terms,
        *_notes("licenseNote", said.notes),
        _term("licenseApplicableDates", said.start, said.end),
    )


def _statute(said: RightsStatement) -> str:
    return _container(
        "statuteInformation",
        _element("statuteJurisdiction", said.jurisdiction),
        _element("statuteCitation", said.citation),
        _unless_empty("statuteInformationDeterminationDate", said.determination_date),
        *_notes("statuteNote", said.notes),
        *_documentation("statute", said.documentation),
        _term("statuteApplicableDates", said.start, said.end),
    )


def _other(said: RightsStatement) -> str:
    return _container(
        "otherRightsInformation",
        *_documentation("otherRights", said.documentation),
        _element("otherRightsBasis", said.other_basis or said.basis),
        _term("otherRightsApplicableDates", said.start, said.end),
        *_notes("otherRightsNote", said.notes),
    )


_BASES = {RightsBasis.COPYRIGHT: _copyright, RightsBasis.LICENSE: _license, RightsBasis.STATUTE: _statute}


def _granted(act: RightsGranted) -> str:
    """Dates are those of a grant only where something is allowed, and nothing restricted."""
    allowed = bool(act.restrictions) and all(word.lower() == Restriction.ALLOW.lower() for word in act.restrictions)
    return _container(
        "rightsGranted",
        _element("act", act.act),
        *(_element("restriction", word) for word in act.restrictions),
        _term("termOfGrant" if allowed else "termOfRestriction", act.start, act.end),
        *_notes("rightsGrantedNote", act.notes),
    )


def _term(name: str, start: str, end: str) -> str:
    if not (start or end):
        return ""
    return _container(name, _element("startDate", start), _unless_empty("endDate", end))


def _documentation(prefix: str, identifiers: Sequence[DocumentationIdentifier]) -> Iterator[str]:
    for one in identifiers:
        yield _container(
            f"{prefix}DocumentationIdentifier",
            _element(f"{prefix}DocumentationIdentifierType", one.type),
            _element(f"{prefix}DocumentationIdentifierValue", one.value),
            _unless_empty(f"{prefix}DocumentationRole", one.role),
        )


def _linking_object(identifier: uuid.UUID) -> str:
    return _container(
        "linkingObjectIdentifier",
        _element("linkingObjectIdentifierType", "UUID"),
        _element("linkingObjectIdentifierValue", str(identifier)),
    )


def _notes(name: str, notes: Sequence[str]) -> Iterator[str]:
    return (_element(name, note) for note in notes)


def _container(name: str, *parts: str) -> str:
    return f"<premis:{name}>\n{''.join(parts)}</premis:{name}>\n"


def _unless_empty(name: str, value: str) -> str:
    return _element(name, value) if value else ""


def _element(name: str, value: str) -> str:
    return f"<premis:{name}>{text(value)}</premis:{name}>\n"
