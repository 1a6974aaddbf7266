"""Rights, further identifiers and the agents of imported events: what others read in the METS."""

from __future__ import annotations

import uuid
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from metsrw.plugins import premisrw

from ingestd.mets import validate, write
from ingestd.oais import Directory, Facts
from ingestd.premis import (
    Agent,
    DocumentationIdentifier,
    Event,
    EventType,
    Identifier,
    RightsBasis,
    RightsGranted,
    RightsStatement,
    with_all_acts,
)
from tests.fakes import FakeHistory
from tests.mets_samples import AGENTS, AT, a_file, a_package, events_of, identifier

NS = {"m": "http://www.loc.gov/METS/", "p": "http://www.loc.gov/premis/v3"}
FIRST, SECOND = a_file("objects/a.txt"), a_file("objects/d/b.txt")
FOLDER = Directory(path="objects/d", original="objects/d", id=identifier("d"))


def statement(basis: RightsBasis, **more: Any) -> RightsStatement:
    """A statement with everything that its basis can say."""
    fields: dict[str, Any] = {
        "object": FIRST.id,
        "basis": basis,
        "status": "copyrighted",
        "jurisdiction": "ca",
        "determination_date": "2011-01-01",
        "citation": "An Act & more",
        "terms": "Terms <of> use",
        "start": "2011-01-01",
        "end": "OPEN",
        "notes": ["one", "two"],
        "documentation": [DocumentationIdentifier(type="URL", value="https://example.org/1", role="source")],
        "granted": [
            RightsGranted(act="use", restrictions=["Allow"], start="2011", end="OPEN", notes=["in the room"]),
            RightsGranted(act="disseminate", restrictions=["Disallow"], start="2011", end="2030-12-31"),
            RightsGranted(act="replicate"),
        ],
    }
    return RightsStatement(**{**fields, **more})


async def document(path: Path, **facts: Any) -> etree._ElementTree:
    history = FakeHistory(agents=AGENTS)
    ours = [event for file in (FIRST, SECOND) for event in events_of(file, EventType.INGESTION)]
    events = [*ours, *facts.pop("events", ())]
    history.record(Facts(files=[FIRST, SECOND], directories=[FOLDER], events=events, **facts))
    await write(history, a_package(), path / "METS.xml", created_at=AT, document_empty_directories=True)
    assert [] == list(await validate(path / "METS.xml"))
    return etree.parse(str(path / "METS.xml"))


def found(tree: Any, xpath: str) -> list[Any]:
    return list(tree.xpath(xpath, namespaces=NS))


def with_metsrw(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "datetime.datetime.utcnow", DeprecationWarning)
        import metsrw

        return metsrw.METSDocument.fromfile(str(path / "METS.xml"))


@pytest.mark.parametrize("basis", list(RightsBasis))
async def test_every_basis_is_valid_with_all_it_can_say_and_with_nothing(tmp_path: Path, basis: RightsBasis) -> None:
    bare = RightsStatement(object=SECOND.id, basis=basis)
    tree = await document(tmp_path, rights=[statement(basis), bare])
    written = "Other" if basis in {RightsBasis.DONOR, RightsBasis.POLICY} else str(basis)

    assert [written, written] == found(tree, "//m:rightsMD//p:rightsBasis/text()")
    assert 3 == len(found(tree, "//p:rightsGranted"))


async def test_a_basis_that_premis_does_not_have_is_named(tmp_path: Path) -> None:
    own = statement(RightsBasis.OTHER, other_basis="Cultural protocol")
    tree = await document(tmp_path, rights=[statement(RightsBasis.DONOR), own])

    assert ["Donor", "Cultural protocol"] == found(tree, "//p:otherRightsBasis/text()")


async def test_dates_are_those_of_a_grant_or_of_a_restriction(tmp_path: Path) -> None:
    tree = await document(tmp_path, rights=[statement(RightsBasis.POLICY)])

    assert ["use"] == found(tree, "//p:rightsGranted[p:termOfGrant/p:endDate='OPEN']/p:act/text()")
    assert ["disseminate"] == found(tree, "//p:rightsGranted[p:termOfRestriction/p:endDate='2030-12-31']/p:act/text()")


async def test_rights_stand_with_the_file_they_govern_and_those_of_the_package_with_the_first(tmp_path: Path) -> None:
    whole = statement(RightsBasis.POLICY, object=a_package().id)
    tree = await document(tmp_path, rights=[statement(RightsBasis.COPYRIGHT, object=SECOND.id), whole])
    linked = "m:amdSec[@ID='amdSec_%d']/m:rightsMD//p:linkingObjectIdentifierValue/text()"

    assert [str(a_package().id)] == found(tree, linked % 1)
    assert [str(SECOND.id)] == found(tree, linked % 2)
    assert ["rightsMD_1", "rightsMD_2"] == found(tree, "//m:rightsMD/@ID")
    assert ["techMD", "rightsMD", "digiprovMD"] == list(
        dict.fromkeys(etree.QName(part).localname for part in found(tree, "m:amdSec[1]/m:*"))
    )


async def test_metsrw_reads_rights_with_their_basis_and_acts(tmp_path: Path) -> None:
    tree = await document(tmp_path, rights=[statement(RightsBasis.LICENSE)])
    assert 1 == len(with_metsrw(tmp_path).get_file(file_uuid=str(FIRST.id)).get_premis_rights())
    (element,) = found(tree, "//p:rightsStatement")
    element.set("version", "3.0")  # PREMIS 3 has no such attribute here; without it metsrw takes it for PREMIS 2
    rights = premisrw.PREMISRights(data=premisrw.premis_to_data(element))

    assert "License" == rights.findtext("rights_basis")
    assert ["use", "disseminate", "replicate"] == [
        granted.findtext("act") for granted in rights.findall("rights_granted")
    ]
    assert "Terms <of> use" == rights.findtext("license_information/license_terms")


async def test_files_directories_and_the_package_keep_their_other_identifiers(tmp_path: Path) -> None:
    whole = a_package().id
    more = [
        Identifier(object=FIRST.id, type="hdl", value="1234/5"),
        Identifier(object=FOLDER.id or uuid.UUID(int=0), type="local", value="box <7>"),
        Identifier(object=whole, type="ark", value="ark:/1/a"),
        Identifier(object=whole, type="ark", value="ark:/1/a"),
    ]
    tree = await document(tmp_path, identifiers=more)

    def of(id_: object) -> list[tuple[str, str]]:
        own = found(tree, f"//p:object[p:objectIdentifier/p:objectIdentifierValue='{id_}']/p:objectIdentifier")
        return [(one.findtext("p:*", None, NS), one[1].text) for one in own[1:]]

    assert [("hdl", "1234/5")] == of(FIRST.id)
    assert [("local", "box <7>")] == of(FOLDER.id)
    assert [("ark", "ark:/1/a")] == of(whole)
    file = with_metsrw(tmp_path).get_file(file_uuid=str(FIRST.id))
    assert 2 == len(file.get_premis_objects()[0].findall("object_identifier"))


async def test_an_imported_event_keeps_type_time_and_agents_beside_ours(tmp_path: Path) -> None:
    scanner = Agent(identifier_type="staff", identifier="42", name="Ann", type="person")
    holder = Agent(identifier_type="staff", identifier="43", name="Bob", type="person")
    long_ago = datetime(1999, 1, 2, 3, 4, 5, tzinfo=UTC)
    event = Event(object=FIRST.id, type="digitisation", at=long_ago, outcome="fine", agents=[scanner.link])
    said = statement(RightsBasis.OTHER, agents=[holder.link])
    tree = await document(tmp_path, events=[event], agents=[scanner, holder], rights=[said])
    own = "m:amdSec[1]//p:event[p:eventType='digitisation']"

    assert ["1999-01-02T03:04:05.000000+00:00"] == found(tree, f"{own}/p:eventDateTime/text()")
    assert ["42"] == found(tree, f"{own}//p:linkingAgentIdentifierValue/text()")
    assert ["ingestd", "An Archive", "urn:test", "Bob", "Ann"] == found(tree, "m:amdSec[1]//p:agentName/text()")
    assert ["ingestd", "An Archive", "urn:test"] == found(tree, "m:amdSec[2]//p:agentName/text()")
    (read,) = [
        e
        for e in with_metsrw(tmp_path).get_file(file_uuid=str(FIRST.id)).get_premis_events()
        if e.event_type == "digitisation"
    ]
    assert [("staff", "42")] == [
        (link.linking_agent_identifier_type, link.linking_agent_identifier_value)
        for link in read.findall("linking_agent_identifier")
    ]


async def test_the_software_says_its_version(tmp_path: Path) -> None:
    tree = await document(tmp_path)

    assert ["0.1.0", "0.1.0"] == found(tree, "//p:agent[p:agentType='software']/p:agentVersion/text()")


def test_acts_of_the_same_statement_come_together_each_once() -> None:
    one, two = RightsGranted(act="use"), RightsGranted(act="copy")
    same = [statement(RightsBasis.DONOR, granted=[act]) for act in (one, two, one)]
    other = statement(RightsBasis.DONOR, notes=["another"], granted=[one])

    assert [[one, two], [one]] == [list(said.granted) for said in with_all_acts([*same, other])]
    assert same[0].id == replace(same[0], granted=[two]).id != other.id
