from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestd.config import MetadataXmlSettings
from ingestd.errors import Code, ContentError, SystemFault
from ingestd.handlers.metadata import load_dublin_core, load_metadata_json
from ingestd.handlers.source_metadata import describe_disk_image, load_source_metadata, load_transfer_metadata
from ingestd.messages import PreservationRequest
from ingestd.metadata.source_documents import FILE
from ingestd.oais import Section, TransferType
from tests.steps import PACKAGE_ID, Bench, a_package, file_id, services

XSD = """<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="card">
<xs:complexType><xs:sequence><xs:element name="n" type="xs:integer"/></xs:sequence></xs:complexType>
</xs:element></xs:schema>"""
RNG = """<element name="leaf" xmlns="http://relaxng.org/ns/structure/1.0"><empty/></element>"""
DTD = "<!ELEMENT note (#PCDATA)>"
BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    yield bench
    await bench.journal.close()


def with_schemas(bench: Bench, tmp_path: Path, *, strict: bool = False, **schemas: str) -> None:
    """Set schemas by key; the kind of each is the ending of its key's name."""
    paths = {}
    for key, text in schemas.items():
        name, _, kind = key.rpartition("_")
        paths[name] = tmp_path / f"{name}.{kind}" if text else ""
        if text:
            (tmp_path / f"{name}.{kind}").write_text(text)
    bench.services = services(
        tmp_path,
        metadata_xml=MetadataXmlSettings(schemas=paths, fail_on_error=strict),
    )


async def load(bench: Bench, csv: str, **documents: str) -> list[tuple[str, str, bool]]:
    """Give what the package and `a.txt` are described by: type, XML, whether it is referred to."""
    files = {f"metadata/{name}.xml": text.encode() for name, text in documents.items()}
    await bench.receive({"objects/a.txt": b"1", FILE: csv.encode(), **files})
    await bench.run(load_source_metadata)
    told = await bench.journal.descriptions([PACKAGE_ID, file_id("objects/a.txt")])
    return sorted((d.kind, d.xml, d.reference is not None) for several in told.values() for _, d in several)


async def events(bench: Bench, name: str) -> list[tuple[str, str, str]]:
    target = file_id(f"metadata/{name}.xml")
    return [(e.detail, e.outcome, e.note) for e in (await bench.journal.events([target])).get(target, [])]


async def warnings(bench: Bench) -> list[tuple[str, str, str]]:
    return [(w.code, w.path, w.detail) async for some in bench.journal.warnings() for w in some]


async def test_documents_describe_files_and_the_package_by_their_type(bench: Bench) -> None:
    found = await load(
        bench,
        "filename,metadata,type\nobjects/a.txt,m.xml,mods\nobjects,m.xml,other\n",
        m='<?xml version="1.0" encoding="UTF-8"?>\n<m xmlns="urn:m"><x/>é</m>\n',
    )

    assert [("mods", '<m xmlns="urn:m"><x/>é</m>', False), ("other", '<m xmlns="urn:m"><x/>é</m>', False)] == found
    assert [] == await warnings(bench)
    assert [] == await events(bench, "m")


async def test_every_row_that_cannot_be_used_is_named(bench: Bench) -> None:
    csv = "filename,metadata,type\n,m.xml,a\nobjects/a.txt,m.xml,\nobjects,none.xml,a\nobjects,m.xml,CUSTOM\nobjects,../objects/a.txt,a\n"
    with pytest.raises(ContentError) as caught:
        await load(bench, csv, m="<m/>")

    assert caught.value.code is Code.CONTENT_METADATA_INVALID
    assert [":2:1", ":3:3", ":4:2", ":5:3", ":6:2"] == [v.path.removeprefix(FILE) for v in caught.value.violations]


async def test_a_row_about_nothing_here_and_one_that_removes_are_warnings(bench: Bench) -> None:
    assert [] == await load(bench, "filename,metadata,type\nobjects/none,m.xml,a\nobjects,,a\n", m="<m/>")

    assert [("content.metadata_unmatched", "objects/none"), ("content.metadata_unmatched", "objects")] == [
        told[:2] for told in await warnings(bench)
    ]


@pytest.mark.parametrize("text", ["<a>", BOMB, OUTSIDE, "", "\0"])
async def test_what_cannot_be_read_is_referred_to(bench: Bench, text: str) -> None:
    assert [("x", "", True)] == await load(bench, "filename,metadata,type\nobjects,m.xml,x\n", m=text)
    assert [("content.metadata_not_embedded", "metadata/m.xml")] == [told[:2] for told in await warnings(bench)]


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ('<a xmlns:x="http://www.w3.org/1999/xlink" x:type="simple" x:href="u"/>', True),
        ('<a xmlns:x="http://www.w3.org/1999/xlink" x:type="strange"/>', True),
        ('<a xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:type="unknown"/>', False),
        ('<m:mets xmlns:m="http://www.loc.gov/METS/"/>', False),
        ('<p:event xmlns:p="http://www.loc.gov/premis/v3"/>', False),
    ],
)
async def test_what_is_not_valid_within_a_mets_is_referred_to(bench: Bench, text: str, stands: bool) -> None:
    ((_, _, referred),) = await load(bench, "filename,metadata,type\nobjects,m.xml,x\n", m=text)

    assert referred is not stands


async def test_documents_are_held_against_schemas_of_every_kind_with_an_event(bench: Bench, tmp_path: Path) -> None:
    with_schemas(bench, tmp_path, card_xsd=XSD, leaf_rng=RNG, note_dtd=DTD, free_xsd="")
    csv = "filename,metadata,type\nobjects,c.xml,c\nobjects,l.xml,l\nobjects,n.xml,n\nobjects,f.xml,f\n"
    found = await load(bench, csv, c="<card><n>1</n></card>", l="<leaf/>", n="<note>x</note>", f="<free/>")

    assert [False] * 4 == [referred for _, _, referred in found]
    for name, schema in (("c", "card.xsd"), ("l", "leaf.rng"), ("n", "note.dtd")):
        ((detail, outcome, note),) = await events(bench, name)
        kind = schema.rpartition(".")[2]
        assert detail.startswith(f'type="metadata"; validation-source-type="{kind}"; validation-source="{schema}"; ')
        assert ("pass", "") == (outcome, note)
    assert [] == await events(bench, "f")


async def test_what_is_not_valid_has_an_event_that_says_why_and_is_referred_to(bench: Bench, tmp_path: Path) -> None:
    with_schemas(bench, tmp_path, card_xsd=XSD)
    found = await load(bench, "filename,metadata,type\nobjects,c.xml,c\n", c="<card>\n<n>x</n></card>")
    ((_, outcome, note),) = await events(bench, "c")

    assert [("c", "", True)] == found
    assert "fail" == outcome
    assert note.startswith("line 2: Element 'n'")


async def test_where_schemas_are_set_a_document_of_no_known_kind_is_told(bench: Bench, tmp_path: Path) -> None:
    with_schemas(bench, tmp_path, card_xsd=XSD)

    assert [("c", "", True)] == await load(bench, "filename,metadata,type\nobjects,c.xml,c\n", c='<x xmlns="urn:x"/>')
    assert "no schema is set for any of c, urn:x, x" == (await warnings(bench))[0][2]


async def test_the_type_comes_before_the_namespace_and_the_root(bench: Bench, tmp_path: Path) -> None:
    with_schemas(bench, tmp_path, c_xsd="", card_xsd=XSD)

    assert [("c", "<card/>", False)] == await load(bench, "filename,metadata,type\nobjects,c.xml,c\n", c="<card/>")


async def test_it_can_be_set_to_fail(bench: Bench, tmp_path: Path) -> None:
    with_schemas(bench, tmp_path, strict=True, card_xsd=XSD)
    with pytest.raises(ContentError) as caught:
        await load(bench, "filename,metadata,type\nobjects,c.xml,c\n", c="<card/>")

    assert [f"{FILE}:2:2"] == [violation.path for violation in caught.value.violations]


async def test_a_schema_that_cannot_be_read_is_a_fault_of_the_settings(bench: Bench, tmp_path: Path) -> None:
    with_schemas(bench, tmp_path, card_xsd="<x/>")
    with pytest.raises(SystemFault) as caught:
        await load(bench, "filename,metadata,type\nobjects,c.xml,c\n", c="<card/>")

    assert caught.value.code is Code.SYSTEM_CONFIGURATION


async def test_transfer_metadata_is_in_the_mets_and_source_md_is_referred_to(bench: Bench) -> None:
    files = {"metadata/transfer_metadata.xml": b"<t><n>1</n></t>", "metadata/sourceMD/a.xml": b"not XML"}
    await bench.receive({"objects/a.txt": b"1", **files})
    await bench.run(load_transfer_metadata)
    told = [said for _, said in (await bench.journal.descriptions([PACKAGE_ID]))[PACKAGE_ID]]

    assert {Section.SOURCE} == {said.section for said in told}
    assert [("transfer_metadata", "<t><n>1</n></t>", None), ("sourceMD", "", file_id("metadata/sourceMD/a.xml"))] == [
        (said.kind, said.xml, said.reference) for said in told
    ]


async def test_what_the_request_says_of_disk_images_is_source_metadata(bench: Bench) -> None:
    said = {"source": {"location": "/x"}, "type": "disk image", "metadata": {"disk_image": {"examiner": "A"}}}
    request = PreservationRequest.model_validate(said)
    await bench.run(describe_disk_image, package=a_package(**request.metadata.as_records()))
    ((_, one),) = (await bench.journal.descriptions([PACKAGE_ID]))[PACKAGE_ID]

    assert TransferType.DISK_IMAGE is request.type
    assert (Section.SOURCE, "transfer_metadata", [("examiner", "A")]) == (one.section, one.kind, list(one.pairs))


async def test_dublin_core_of_the_package_is_read_and_what_is_lost_is_told(bench: Bench) -> None:
    document = (
        '<dcterms:dublincore xmlns:dcterms="http://purl.org/dc/terms/" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        '<dc:title>A <i>b</i></dc:title><dcterms:issued>1999</dcterms:issued><x xmlns="urn:x">y</x><dc:date/>'
        "</dcterms:dublincore>"
    )
    await bench.receive({"objects/a.txt": b"1", "metadata/dublincore.xml": document.encode()})
    await bench.run(load_dublin_core)
    ((_, said),) = (await bench.journal.descriptions([PACKAGE_ID]))[PACKAGE_ID]

    assert ("DC", [("dc.title", "A b"), ("dcterms.issued", "1999")]) == (said.kind, list(said.pairs))
    assert ["content.metadata_reduced"] == [code for code, _, _ in await warnings(bench)]


async def test_metadata_json_says_what_columns_say(bench: Bench) -> None:
    json = '[{"filename": "objects/a.txt", "dc.title": ["A", "B"], "Shelf": 3}, {"parts": "data/", "dc.type": true}, {"filename": "x"}]'
    await bench.receive({"objects/a.txt": b"1", "metadata/metadata.json": json.encode()})
    await bench.run(load_metadata_json)
    told = await bench.journal.descriptions([PACKAGE_ID, file_id("objects/a.txt")])

    assert [("DC", [("dc.title", "A"), ("dc.title", "B")]), ("CUSTOM", [("shelf", "3")])] == [
        (said.kind, list(said.pairs)) for _, said in told[file_id("objects/a.txt")]
    ]
    assert [[("dc.type", "true")]] == [list(said.pairs) for _, said in told[PACKAGE_ID]]
    assert ["content.metadata_unmatched"] == [code for code, _, _ in await warnings(bench)]


async def test_faults_of_metadata_json_are_listed(bench: Bench) -> None:
    json = '[{"dc.title": "A"},\n{"filename": "objects/a.txt", "dc.title": {"x": 1}}]'
    await bench.receive({"objects/a.txt": b"1", "metadata/metadata.json": json.encode()})
    with pytest.raises(ContentError) as caught:
        await bench.run(load_metadata_json)

    assert ["metadata/metadata.json:1", "metadata/metadata.json:2"] == [v.path for v in caught.value.violations]
