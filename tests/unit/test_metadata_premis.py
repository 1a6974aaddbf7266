"""`metadata/premis.xml`: what others recorded comes in whole, or not at all, and says why."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lxml import etree

from ingestd.errors import Code, ContentError
from ingestd.handlers.premis_events import load_premis_events_from_xml
from ingestd.mets import validate, write
from ingestd.premis import AgentLink, Event
from tests.steps import AT, Bench, file_id

FILE = "metadata/premis.xml"
FILES = {"objects/a.txt": b"1", "objects/d/é.txt": b"2"}
HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<premis:premis xmlns:premis="http://www.loc.gov/premis/v3"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="3.0">\n'
)
NS = {"m": "http://www.loc.gov/METS/", "p": "http://www.loc.gov/premis/v3"}


def tag(name: str, *content: str) -> str:
    return f"<premis:{name}>{''.join(content)}</premis:{name}>"


def pair(name: str, value: str, kind: str = "local") -> str:
    return tag(name, tag(f"{name}Type", kind), tag(f"{name}Value", value))


def an_object(identifier: str, name: str, *more: str, kind: str = "file") -> str:
    characteristics = tag("objectCharacteristics", tag("format", tag("formatDesignation", tag("formatName", "text"))))
    inner = (pair("objectIdentifier", identifier), characteristics if kind == "file" else "", tag("originalName", name))
    return f'<premis:object xsi:type="premis:{kind}">{"".join((*inner, *more))}</premis:object>\n'


def an_event(identifier: str, *links: str, kind: str = "digitisation", at: str = "1999-05-06T07:08:09+02:00") -> str:
    outcome = tag(
        "eventOutcomeInformation",
        tag("eventOutcome", "fine"),
        tag("eventOutcomeDetail", tag("eventOutcomeDetailNote", "600 dpi")),
    )
    detail = tag("eventDetailInformation", tag("eventDetail", "scanned"))
    inner = (pair("eventIdentifier", identifier), tag("eventType", kind), tag("eventDateTime", at), detail, outcome)
    return tag("event", *inner, *links) + "\n"


def an_agent(identifier: str, *more: str, kind: str = "local") -> str:
    name = (tag("agentName", f"Agent {identifier}"), tag("agentType", "person"))
    return tag("agent", pair("agentIdentifier", identifier, kind), *name, *more) + "\n"


def rights(identifier: str, *links: str) -> str:
    statute = tag("statuteInformation", tag("statuteJurisdiction", "gb"), tag("statuteCitation", "Act {}"))
    license_ = tag("licenseInformation", tag("licenseTerms", "CC-BY"))
    act = tag("rightsGranted", tag("act", "use"), tag("restriction", "Allow"))
    statement = tag(
        "rightsStatement",
        pair("rightsStatementIdentifier", identifier),
        tag("rightsBasis", "Statute"),
        license_,
        statute.format(1),
        statute.format(2),
        act,
        *links,
    )
    return tag("rights", statement) + "\n"


def to_object(value: str) -> str:
    return pair("linkingObjectIdentifier", value)


def to_agent(value: str) -> str:
    return pair("linkingAgentIdentifier", value)


def to_event(value: str) -> str:
    return pair("linkingEventIdentifier", value)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    yield bench
    await bench.journal.close()


async def load(bench: Bench, *parts: str, whole: str = "") -> None:
    text = whole or HEAD + "".join(parts) + "</premis:premis>\n"
    await bench.receive({**FILES, FILE: text.encode()})
    await bench.run(load_premis_events_from_xml)


async def faults(bench: Bench, *parts: str, whole: str = "") -> list[tuple[str, str]]:
    with pytest.raises(ContentError) as caught:
        await load(bench, *parts, whole=whole)
    assert caught.value.code is Code.CONTENT_PREMIS_INVALID
    assert {} == await events(bench)
    return [(violation.path.removeprefix(FILE), violation.rule) for violation in caught.value.violations]


async def events(bench: Bench) -> dict[str, list[Event]]:
    told = await bench.journal.events([file_id(path) for path in FILES])
    return {path: list(told[file_id(path)]) for path in FILES if file_id(path) in told}


async def test_without_the_file_there_is_nothing_to_do(bench: Bench) -> None:
    await bench.receive(FILES)

    assert [] == await bench.run(load_premis_events_from_xml)


async def test_events_keep_their_words_their_time_their_identifier_and_their_agents(bench: Bench) -> None:
    id_ = uuid.uuid4()
    await load(
        bench,
        an_object("1", "objects/a.txt"),
        an_event(str(id_), to_agent("A"), to_object("1")),
        an_agent("A"),
    )
    (event,) = (await events(bench))["objects/a.txt"]

    assert (id_, "digitisation", "scanned", "fine", "600 dpi") == (
        event.id,
        event.type,
        event.detail,
        event.outcome,
        event.note,
    )
    assert ("1999-05-06T07:08:09+02:00", "1999-05-06T05:08:09+00:00") == (event.said_at, event.at.isoformat())
    assert [AgentLink("local", "A")] == list(event.agents)
    agents = await bench.journal.linked_agents(event.agents)
    assert "Agent A" == agents[AgentLink("local", "A")].name


async def test_agents_keep_their_roles(bench: Bench) -> None:
    roles = tag("linkingAgentRole", "validator"), tag("linkingAgentRole", "implementer")
    link = to_agent("A").replace(
        "</premis:linkingAgentIdentifier>", f"{''.join(roles)}</premis:linkingAgentIdentifier>"
    )

    await load(
        bench,
        an_object("1", "objects/a.txt"),
        an_event("E", link, to_object("1")),
        an_agent("A", to_event("E")),
    )
    (event,) = (await events(bench))["objects/a.txt"]

    assert [AgentLink("local", "A", "implementer"), AgentLink("local", "A", "validator")] == list(event.agents)


async def test_links_count_from_either_side_and_an_event_may_be_of_several_files(bench: Bench) -> None:
    await load(
        bench,
        an_object("1", "%transferDirectory%objects/a.txt", to_event("E")),
        an_object("2", "objects/d/é.txt", to_event("E")),
        an_object("3", "objects/not-sent.txt", to_event("E")),
        an_event("E", at="spring 1999"),
        an_agent("A", to_event("E")),
    )
    told = await events(bench)

    assert {"objects/a.txt", "objects/d/é.txt"} == set(told)
    assert 1 == len({event.id for some in told.values() for event in some})
    assert ["spring 1999", AT] == [told["objects/a.txt"][0].said_at, told["objects/a.txt"][0].at]


async def test_rights_come_with_each_of_their_grounds_and_those_of_an_entity_are_the_packages(bench: Bench) -> None:
    entity = an_object("W", "everything", kind="intellectualEntity")
    await load(
        bench,
        an_object("1", "objects/a.txt"),
        entity,
        an_agent("H"),
        rights("R", to_object("1"), to_object("W"), to_agent("H")),
        rights("Q", to_object("nothing")),
    )
    told = await bench.journal.rights([file_id("objects/a.txt"), bench.package.id])

    assert [["License", "Statute", "Statute"]] * 2 == [[str(said.basis) for said in some] for some in told.values()]
    first = next(iter(told.values()))
    assert {("local", "R", "use")} == {(s.identifier_type, s.identifier, s.granted[0].act) for s in first}
    assert ["", "Act 1", "Act 2"] == [said.citation for said in first]
    assert [AgentLink("local", "H")] == list(first[0].agents)
    assert ["content.premis_rights_unmatched"] == [w.code async for some in bench.journal.warnings() for w in some]


async def test_what_belongs_to_nothing_is_said_with_its_line_and_nothing_is_read(bench: Bench) -> None:
    assert [
        (":10", "premis.unrelated"),
        (":3", "premis.unrelated"),
        (":6", "premis.event"),
        (":6", "premis.link"),
        (":7", "premis.event"),
        (":8", "premis.event"),
    ] == sorted(
        await faults(
            bench,
            an_object("1", "objects/a.txt"),
            an_object("2", "objects/d/é.txt"),
            an_object("3", "objects/not-sent.txt"),
            an_event("E1", to_agent("A"), to_object("nowhere")),
            an_event("E2", to_object("2")),
            an_event("E3", to_agent("A"), to_object("3")),
            an_agent("A"),
            an_agent("B"),
        )
    )


async def test_what_the_schema_refuses_is_said_with_its_line(bench: Bench) -> None:
    broken = tag("event", tag("eventType", "x")) + "\n"

    parts = [broken, tag("agent"), "\n", an_object("1", "objects/a.txt"), tag("gift"), "\n"]

    assert [":3", ":4", ":5", ":6"] == [place for place, rule in await faults(bench, *parts) if rule == "premis.xsd"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (HEAD + "<premis:object>", (":3", "premis.xml")),
        ("", (":1", "premis.xml")),
        ("<premis/>", (":1", "premis.xml")),
        (HEAD.replace("3.0", "2.2") + "</premis:premis>", (":2", "premis.xml")),
        ('<premis xmlns="info:lc/xmlns/premis-v2"/>', (":1", "premis.xml")),
        ('<!DOCTYPE a [<!ENTITY b "c">]>\n<a>&b;</a>', (":1", "premis.xml")),
    ],
)
async def test_what_is_no_premis_3_is_refused(bench: Bench, text: str, place: tuple[str, str]) -> None:
    assert [place] == await faults(bench, whole=text or " ")


async def test_run_again_half_done_each_event_is_there_once(bench: Bench) -> None:
    parts = [an_event(f"E{number}", to_agent("A"), to_object("1")) for number in range(600)]
    text = HEAD + "".join([an_object("1", "objects/a.txt"), *parts, an_agent("A")]) + "</premis:premis>"
    await bench.receive({**FILES, FILE: text.encode()})
    done = await bench.run(load_premis_events_from_xml, stop_after=3)
    assert 0 < done[-1].cursor < 600
    await bench.run(load_premis_events_from_xml, cursor=done[-1].cursor)

    assert 600 == len((await events(bench))["objects/a.txt"])


async def test_what_an_earlier_version_has_is_not_said_twice(bench: Bench) -> None:
    events_of_a = [
        an_event("E1", to_agent("A"), to_object("1")),
        an_event(str(uuid.uuid4()), to_agent("A"), to_object("1")),
    ]
    parts = [an_object("1", "objects/a.txt"), *events_of_a, an_agent("A")]
    await load(bench, *parts)

    await bench.run(load_premis_events_from_xml)

    assert 2 == len((await events(bench))["objects/a.txt"])


async def test_a_mets_with_what_was_read_is_valid_whatever_the_events_are_called(bench: Bench, tmp_path: Path) -> None:
    await load(
        bench,
        an_object("1", "objects/a.txt"),
        an_event("E1", to_agent("A"), to_object("1"), kind="gift wrapping", at="1999"),
        an_event("E2", pair("linkingAgentIdentifier", "B", "preservation system"), to_object("1"), kind="&lt;odd&gt;"),
        an_agent("A"),
        an_agent("B", kind="preservation system"),
        rights("R", to_object("1")),
    )
    path = tmp_path / "METS.xml"
    await write(bench.journal, bench.package, path, created_at=AT, document_empty_directories=True)
    types = await bench.journal.imported_event_types()
    tree = etree.parse(str(path))

    assert ["<odd>", "gift wrapping"] == list(types)
    assert [] == [v.actual for v in await validate(path, event_types=types) if "digiprovMD" not in v.actual]
    assert ["1999"] == tree.xpath("//p:event[p:eventType='gift wrapping']/p:eventDateTime/text()", namespaces=NS)
    assert 3.0 == tree.xpath("count(//m:rightsMD)", namespaces=NS)
