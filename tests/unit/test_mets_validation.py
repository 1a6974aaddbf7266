from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from ingestd.errors import Violation
from ingestd.mets import validate, write
from ingestd.mets.identifiers import Identifiers, Kind
from ingestd.mets.schematron import Schematron
from ingestd.mets.validation import LIMIT, combined_schema
from ingestd.premis import EventType
from tests.mets_samples import AGENTS, AT, a_package, a_rich_history

NS = {"m": "http://www.loc.gov/METS/", "p": "http://www.loc.gov/premis/v3"}
BESIDE = Path(__file__).parents[3] / "shared" / "xsd"


@pytest.fixture
async def mets(tmp_path: Path) -> Path:
    path = tmp_path / "METS.xml"
    await write(a_rich_history(), a_package(), path, created_at=AT, document_empty_directories=True)
    return path


async def violations_after(mets: Path, change: Callable[[Any], None]) -> list[Violation]:
    tree = etree.parse(str(mets))
    change(tree)
    tree.write(str(mets))
    return list(await validate(mets))


def first(tree: Any, xpath: str) -> Any:
    return tree.xpath(xpath, namespaces=NS)[0]


def rules(violations: list[Violation]) -> set[str]:
    return {violation.rule for violation in violations}


async def test_a_valid_document_has_no_violations(mets: Path) -> None:
    assert [] == list(await validate(mets))


async def test_many_documents_can_be_validated_at_once(mets: Path) -> None:
    found = await asyncio.gather(*(validate(mets) for _ in range(16)))

    assert [[]] * 16 == [list(violations) for violations in found]


async def test_a_document_tree_is_valid_against_the_published_schemas_too(mets: Path) -> None:
    schema = combined_schema()
    if BESIDE.is_dir():
        wrapper = "".join(
            f'<xs:import namespace="{namespace}" schemaLocation="{BESIDE / name}"/>'
            for namespace, name in (
                ("http://www.w3.org/1999/xlink", "xlink.xsd"),
                (NS["m"], "mets.xsd"),
                (NS["p"], "premis.xsd"),
            )
        )
        text = f'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">{wrapper}</xs:schema>'
        schema = etree.XMLSchema(etree.fromstring(text, etree.XMLParser(no_network=True)))

    assert schema.validate(etree.parse(str(mets))), schema.error_log


async def test_archivematicas_schematron_judges_the_whole_document_as_its_shapes(mets: Path) -> None:
    """Applied to the tree at once it finds what it cannot know: event types, programs as agents beside the three, several
    DMDIDs, Items of the normative map.
    """
    known = Schematron()._failures(etree.parse(str(mets)).getroot())
    excused = (
        "recognized eventType",
        "3 digiprovMD elements",
        "must refer to the ID of a dmdSec",
        "MUST have 1 fptr element",
    )

    assert [] == [failure for failure in known if not any(words.lower() in failure.lower() for words in excused)]


class TestWhatIsFound:
    async def test_a_duplicate_identifier(self, mets: Path) -> None:
        def change(tree: Any) -> None:
            first(tree, "//m:techMD[@ID='techMD_2']").set("ID", "techMD_1")

        assert [("#techMD_1", "mets.id.duplicate")] == [(v.path, v.rule) for v in await violations_after(mets, change)]

    async def test_a_duplicate_file(self, mets: Path) -> None:
        def change(tree: Any) -> None:
            file = first(tree, "//m:file")
            file.addnext(copy.deepcopy(file))

        assert {"mets.id.duplicate"} == rules(await violations_after(mets, change))

    @pytest.mark.parametrize(
        ("element", "attribute"), [("m:fptr", "FILEID"), ("m:file", "ADMID"), ("m:div[@DMDID]", "DMDID")]
    )
    async def test_a_dangling_reference(self, mets: Path, element: str, attribute: str) -> None:
        def change(tree: Any) -> None:
            first(tree, f"//{element}").set(attribute, "nothing_here")

        found = await violations_after(mets, change)

        assert {"mets.id.dangling"} == rules(found)
        assert "nothing_here" in found[0].actual

    async def test_a_reference_to_a_section_of_another_kind(self, mets: Path) -> None:
        def change(tree: Any) -> None:
            first(tree, "//m:file").set("ADMID", "dmdSec_1")

        assert {"mets.id.dangling"} == rules(await violations_after(mets, change))

    async def test_one_of_several_references_that_dangles(self, mets: Path) -> None:
        def change(tree: Any) -> None:
            first(tree, "//m:div[@DMDID]").set("DMDID", "dmdSec_1 dmdSec_999")

        assert {"mets.id.dangling"} == rules(await violations_after(mets, change))

    async def test_an_event_type_that_nobody_knows(self, mets: Path) -> None:
        def change(tree: Any) -> None:
            first(tree, "//p:eventType").text = "gift wrapping"

        found = await violations_after(mets, change)

        assert [("#amdSec_1", "mets.schematron")] == [(v.path, v.rule) for v in found]
        assert "gift wrapping" in found[0].actual

    @pytest.mark.parametrize("kind", list(EventType))
    async def test_no_event_type_of_ours(self, mets: Path, kind: EventType) -> None:
        def change(tree: Any) -> None:
            first(tree, "//p:eventType").text = str(kind)

        assert [] == await violations_after(mets, change)

    async def test_a_broken_premis_event(self, mets: Path) -> None:
        def change(tree: Any) -> None:
            time = first(tree, "//p:eventDateTime")
            time.getparent().remove(time)

        assert {"mets.xsd"} == rules(await violations_after(mets, change))

    async def test_a_premis_size_that_is_no_number(self, mets: Path) -> None:
        def change(tree: Any) -> None:
            first(tree, "//p:size").text = "large"

        assert {"mets.xsd"} == rules(await violations_after(mets, change))

    async def test_every_mistake_and_not_only_the_first(self, mets: Path) -> None:
        def change(tree: Any) -> None:
            first(tree, "//p:size").text = "large"
            first(tree, "//m:FLocat").set("LOCTYPE", "WRONG")
            first(tree, "//p:eventType").text = "gift wrapping"
            first(tree, "//m:fptr").set("FILEID", "nothing")

        assert {"mets.xsd", "mets.schematron", "mets.id.dangling"} == rules(await violations_after(mets, change))

    @pytest.mark.parametrize(
        ("xpath", "words"),
        [
            ("//m:amdSec[2]/m:digiprovMD[last()]", "3 digiprovMD"),
            ("//m:amdSec[1]/m:techMD", "techMD element"),
            ("//m:metsHdr", "metsHdr"),
            ("//m:file/@GROUPID", "GROUPID"),
            ("//m:div/@LABEL", "LABEL"),
            ("//m:structMap/@LABEL", "LABEL"),
            ("//m:fileGrp/@USE", "USE"),
            ("//m:metsHdr/@CREATEDATE", "CREATEDATE"),
            ("//m:structMap[@TYPE='physical']//m:fptr", "fptr"),
            ("//m:structMap", "structMap"),
            ("//p:event/@*[local-name()='schemaLocation']", "schema location"),
        ],
    )
    async def test_what_the_schematron_asks_for(self, mets: Path, xpath: str, words: str) -> None:
        def change(tree: Any) -> None:
            for found in tree.xpath(xpath, namespaces=NS)[: None if xpath == "//m:structMap" else 1]:
                parent = found.getparent()
                if hasattr(found, "attrname"):
                    del parent.attrib[found.attrname]
                else:
                    parent.remove(found)

        found = [v for v in await violations_after(mets, change) if v.rule == "mets.schematron"]

        assert any(words in violation.actual for violation in found)

    async def test_no_more_than_a_bounded_number(self, mets: Path) -> None:
        def change(tree: Any) -> None:
            fptr = first(tree, "//m:fptr")
            for _ in range(3 * LIMIT):
                again = copy.deepcopy(fptr)
                again.set("FILEID", "nothing")
                fptr.addnext(again)

        assert 0 < len(await violations_after(mets, change)) <= 2 * LIMIT + 1


class TestHostileDocuments:
    @pytest.mark.parametrize(
        "text",
        [
            '<!DOCTYPE m [<!ENTITY a "xxxxxxxxxx"><!ENTITY b "&a;&a;&a;">]><m>&b;</m>',
            '<!DOCTYPE m SYSTEM "http://127.0.0.1:9/evil.dtd"><m/>',
            '<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]><m>&x;</m>',
            f'<?xml version="1.0"?><!-- {"x" * 10_000} --><!DOCTYPE m><m/>',
        ],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    async def test_a_document_type_is_refused(self, tmp_path: Path, text: str, encoding: str) -> None:
        (tmp_path / "METS.xml").write_text(text, encoding=encoding)

        found = await validate(tmp_path / "METS.xml")

        assert ["mets.xml"] == [violation.rule for violation in found]
        assert "document type" in found[0].actual

    @pytest.mark.parametrize("text", ["", "nothing", "<a>", "<a></b>", "<a>&x;</a>"])
    async def test_what_is_not_well_formed_is_told(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "METS.xml").write_text(text)

        assert rules(list(await validate(tmp_path / "METS.xml"))) & {"mets.xml", "mets.xsd"}

    @pytest.mark.parametrize("end", [b"</mets:amdSec>", b"</mets:fileSec>", b"<mets:structMap", b"</mets:mets>"])
    async def test_a_document_that_ends_too_early_is_told(self, mets: Path, end: bytes) -> None:
        content = mets.read_bytes()
        mets.write_bytes(content[: content.index(end)])
        inside = rules(list(await validate(mets)))
        mets.write_bytes(content[: content.index(end) + len(end) - 1])

        assert "mets.xml" in inside
        assert "mets.xml" in rules(list(await validate(mets)))

    @pytest.mark.parametrize("junk", ["junk", "<a/>", " " * 100_000 + "<a/>"])
    async def test_a_document_with_something_behind_it_is_told(self, mets: Path, junk: str) -> None:
        mets.write_text(mets.read_text() + junk)

        assert ["mets.xml"] == [violation.rule for violation in await validate(mets)]

    @pytest.mark.parametrize("section", ["dmdSec", "amdSec", "fileSec", "structMap"])
    @pytest.mark.parametrize("ill", ["<a>", "</mets:div>", "\x01", "&unknown;", "<a b=1/>"])
    async def test_what_is_ill_formed_anywhere_is_told(self, mets: Path, section: str, ill: str) -> None:
        before, found, after = mets.read_text().rpartition(f"</mets:{section}>")
        mets.write_text(f"{before}{ill}{found}{after}")

        assert "mets.xml" in rules(list(await validate(mets)))

    async def test_another_document_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "METS.xml").write_text("<html/>")

        assert "mets.xsd" in rules(list(await validate(tmp_path / "METS.xml")))

    async def test_deeply_nested_elements_do_not_end_the_reader(self, mets: Path) -> None:
        deep = '<m:div xmlns:m="http://www.loc.gov/METS/">' * 1500 + "</m:div>" * 1500
        mets.write_text(
            mets.read_text().replace(
                "</premis:objectCharacteristicsExtension>", f"{deep}</premis:objectCharacteristicsExtension>", 1
            )
        )

        assert list(await validate(mets))


def test_the_document_around_a_shape_is_valid_itself() -> None:
    assert () == Schematron().outline(headers=1, amd_secs=1, file_secs=1, struct_maps=1)


def test_three_agents_is_what_the_schematron_wants() -> None:
    assert 3 == len(AGENTS)


class TestIdentifiers:
    @given(st.lists(st.tuples(st.sampled_from(["amdSec_", "techMD_", "x"]), st.integers(1, 12)), max_size=40))
    def test_a_duplicate_is_what_was_there_before(self, names: list[tuple[str, int]]) -> None:
        seen: set[str] = set()
        with Identifiers() as identifiers:
            for prefix, number in names:
                name = f"{prefix}{number}"
                assert (name not in seen) == identifiers.add(Kind.ADMINISTRATIVE, name)
                seen.add(name)

    @given(st.sets(st.integers(1, 20)), st.lists(st.integers(1, 20)), st.booleans())
    def test_dangling_is_what_never_came(self, there: set[int], wanted: list[int], before: bool) -> None:
        with Identifiers() as identifiers:
            for number in wanted if before else ():
                identifiers.refer(Kind.ADMINISTRATIVE, f"amdSec_{number}", "here")
            for number in there:
                identifiers.add(Kind.ADMINISTRATIVE, f"amdSec_{number}")
            for number in () if before else wanted:
                identifiers.refer(Kind.ADMINISTRATIVE, f"amdSec_{number}", "here")

            dangling = [name for _, name, _ in identifiers.dangling()]

        assert [f"amdSec_{number}" for number in wanted if number not in there] == dangling

    def test_the_same_name_of_another_kind_is_a_duplicate(self) -> None:
        with Identifiers() as identifiers:
            assert identifiers.add(Kind.DESCRIPTIVE, "dmdSec_1")
            assert not identifiers.add(Kind.OTHER, "dmdSec_1")
