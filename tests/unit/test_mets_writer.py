from __future__ import annotations

import asyncio
import hashlib
import importlib.resources
import re
import subprocess
import sys
import textwrap
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import (  # type: ignore[attr-defined]
    etree,
    isoschematron,
)

from ingestd.errors import SystemFault
from ingestd.mets import ReadDescription, ReadFile, Written, read, validate, write
from ingestd.mets.vocabulary import COMPACT
from ingestd.oais import Description, Directory, Extension, Facts, File, FileUse, Package, unescape_name
from ingestd.premis import DigestAlgorithm, EventType
from tests.fakes import FakeHistory
from tests.mets_samples import AGENTS, AT, MAGICK, SIEGFRIED, a_file, a_package, a_rich_history, events_of, identifier

NS = {
    "m": "http://www.loc.gov/METS/",
    "p": "http://www.loc.gov/premis/v3",
    "xlink": "http://www.w3.org/1999/xlink",
    "dc": "http://purl.org/dc/elements/1.1/",
    "dcterms": "http://purl.org/dc/terms/",
}
ROOT = Path(__file__).parents[2]


async def written(
    path: Path,
    history: FakeHistory,
    package: Package | None = None,
    *,
    empty_directories: bool = True,
    compact: bool = False,
) -> Written:
    return await write(
        history,
        package or a_package(),
        path,
        created_at=AT,
        document_empty_directories=empty_directories,
        compact=compact,
    )


async def document(path: Path, history: FakeHistory, package: Package | None = None) -> etree._ElementTree:
    await written(path, history, package)
    return etree.parse(str(path))


def found(tree: Any, xpath: str) -> list[Any]:
    return list(tree.xpath(xpath, namespaces=NS))


def a_history(*files: File, **facts: Any) -> FakeHistory:
    history = FakeHistory(agents=AGENTS)
    events = [event for file in files for event in events_of(file, EventType.INGESTION)]
    history.record(Facts(files=files, events=events, **facts))
    return history


def raw_schematron(tree: etree._ElementTree) -> list[str]:
    """What Archivematica's schematron says of the whole document, each once, with nothing tolerated."""
    rules = importlib.resources.files("metsrw") / "resources" / "archivematica_mets_schematron.xml"
    schematron = isoschematron.Schematron(etree.fromstring(rules.read_bytes()), store_report=True)
    schematron.validate(tree)
    said = schematron.validation_report.iter("{http://purl.oclc.org/dsdl/svrl}failed-assert")
    return [" ".join("".join(one.itertext()).split()) for one in said]


def metsrw_document(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "datetime.datetime.utcnow", DeprecationWarning)
        import metsrw

        return metsrw.METSDocument.fromfile(str(path))


class TestWhatIsWritten:
    async def test_it_is_valid(self, tmp_path: Path) -> None:
        package = a_package(metadata={"title": ["Papers"], "dcterms.issued": ["1999", "2000"]})

        await written(tmp_path / "METS.xml", a_rich_history(), package)

        assert [] == list(await validate(tmp_path / "METS.xml"))

    async def test_terms_of_dublin_core_that_are_no_elements_have_their_own_namespace(self, tmp_path: Path) -> None:
        package = a_package(metadata={"title": ["Papers"], "isPartOf": ["Fonds 7"]})

        await written(tmp_path / "METS.xml", a_rich_history(), package)

        mets = (tmp_path / "METS.xml").read_text()
        assert "<dc:title>Papers</dc:title>" in mets
        assert "<dcterms:isPartOf>Fonds 7</dcterms:isPartOf>" in mets

    async def test_the_result_names_digest_and_size_of_the_file(self, tmp_path: Path) -> None:
        result = await write(
            a_rich_history(),
            a_package(),
            tmp_path / "METS.xml",
            created_at=AT,
            document_empty_directories=False,
            algorithm=DigestAlgorithm.SHA512,
        )
        content = (tmp_path / "METS.xml").read_bytes()

        assert hashlib.sha512(content).hexdigest() == result.digest.value
        assert (DigestAlgorithm.SHA512, len(content), 7) == (result.digest.algorithm, result.size_bytes, result.files)

    async def test_the_same_history_gives_the_same_bytes(self, tmp_path: Path) -> None:
        first = await written(tmp_path / "1.xml", a_rich_history())
        second = await written(tmp_path / "2.xml", a_rich_history())

        assert first.digest.value == second.digest.value

    async def test_sections_stand_in_the_order_of_archivematica(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())
        names = [etree.QName(child).localname for child in tree.getroot()]

        assert ["metsHdr", "dmdSec", "amdSec", "fileSec", "structMap"] == list(dict.fromkeys(names))
        assert ["2026-11-20T18:57:41"] == found(tree, "m:metsHdr/@CREATEDATE")

    async def test_the_root_and_the_entity_of_the_aip_have_the_label_of_the_package(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())
        label = a_package().label
        names = found(tree, "//p:originalName/text()")

        assert [label, label] == found(tree, "m:structMap/m:div/@LABEL")
        assert [label] == [name for name in names if not name.startswith(("%transferDirectory%", "%SIPDirectory%"))]
        assert [label] == found(tree, "m:dmdSec[@ID = //m:structMap[1]/m:div/@DMDID]//p:originalName/text()")

    async def test_original_names_say_where_a_file_was_received(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())
        names = found(tree, "m:amdSec//p:originalName/text()")

        assert "%transferDirectory%objects/art/phötö.jpg" in names
        assert "%SIPDirectory%objects/metadata/transfers/t/metadata.csv" in names
        assert "%SIPDirectory%objects/submissionDocumentation/transfer-t/deed.pdf" in names

    async def test_file_groups_follow_the_order_of_uses(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())

        assert ["original", "submissionDocumentation", "preservation", "text/ocr", "metadata"] == found(
            tree, "m:fileSec/m:fileGrp/@USE"
        )

    async def test_derivatives_share_the_group_of_their_source_and_name_the_event(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())
        photo, tiff = identifier("objects/art/photo.jpg"), identifier("objects/art/photo-1.tif")
        relations = "//p:object[p:objectIdentifier/p:objectIdentifierValue='%s']/p:relationship"
        source = found(tree, relations % photo)
        derivative = found(tree, relations % tiff)

        assert [f"Group-{photo}"] * 2 == found(tree, f"//m:file[@ID='file-{photo}' or @ID='file-{tiff}']/@GROUPID")
        assert ["is source of"] * 2 == [r.findtext("p:relationshipSubType", namespaces=NS) for r in source]
        assert ["has source"] == [r.findtext("p:relationshipSubType", namespaces=NS) for r in derivative]
        assert str(photo) == derivative[0].findtext(".//p:relatedObjectIdentifierValue", namespaces=NS)
        assert [str(identifier("normalization")), str(identifier("transcription"))] == [
            r.findtext(".//p:relatedEventIdentifierValue", namespaces=NS) for r in source
        ]
        assert str(identifier("normalization")) == derivative[0].findtext(
            ".//p:relatedEventIdentifierValue", namespaces=NS
        )

    async def test_an_extracted_file_is_in_its_own_group(self, tmp_path: Path) -> None:
        archive = a_file("objects/x.zip")
        inner = a_file("objects/x/a.txt", derived_from=archive.id)
        tree = await document(tmp_path / "METS.xml", a_history(archive, inner))

        assert [f"Group-{inner.id}"] == found(tree, f"//m:file[@ID='file-{inner.id}']/@GROUPID")
        assert [] == found(tree, "//p:relationship")

    async def test_an_unidentified_file_is_unknown_and_has_no_registry(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_history(a_file("objects/a")))

        assert ["Unknown"] == found(tree, "//p:formatName/text()")
        assert [] == found(tree, "//p:formatRegistry")

    async def test_events_have_their_parts_even_when_empty(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())
        events = found(tree, "//p:event")

        assert len(events) == len(found(tree, "//p:event/p:eventOutcomeInformation/p:eventOutcomeDetail"))
        own = found(tree, "//p:linkingAgentIdentifier[p:linkingAgentIdentifierType != 'program']")
        assert 3 * len(events) == len(own)
        assert "2026-11-20T18:57:41.123456+00:00" == found(tree, "//p:eventDateTime/text()")[0]

    async def test_whole_package_metadata_hangs_on_the_objects_div(self, tmp_path: Path) -> None:
        package = a_package(metadata={"title": ["Papers"]})
        tree = await document(tmp_path / "METS.xml", a_rich_history(), package)
        ids = found(tree, "m:structMap[@ID='structMap_1']/m:div/m:div[@LABEL='objects']/@DMDID")[0].split()
        titles = [t for i in ids for t in found(tree, f"m:dmdSec[@ID='{i}']//dcterms:dublincore/dc:title/text()")]

        assert ["Papers", "All of it"] == titles

    async def test_metadata_of_a_file_hangs_on_its_div(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())
        ids = found(tree, "m:structMap[1]//m:div[@LABEL='photo.jpg']/@DMDID")[0].split()
        kinds = [found(tree, f"string(m:dmdSec[@ID='{i}']/m:mdWrap/@MDTYPE)") for i in ids]

        assert 2 == len(kinds)
        assert ["3 & 4"] == found(tree, "m:dmdSec/m:mdWrap[@OTHERMDTYPE='CUSTOM']/m:xmlData/Reading_Room/text()")

    async def test_only_the_normative_map_has_empty_directories(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())
        empty = "//m:div[@TYPE='Directory'][@LABEL='art-notes']"

        assert [] == found(tree, f"m:structMap[@ID='structMap_1']{empty}")
        assert 1 == len(found(tree, f"m:structMap[@LABEL='Normative Directory Structure']{empty}[@DMDID]"))
        assert [] == found(tree, "m:structMap[@TYPE='logical']//m:fptr")

    async def test_without_the_option_there_is_no_normative_map(self, tmp_path: Path) -> None:
        await written(tmp_path / "METS.xml", a_rich_history(), empty_directories=False)

        assert ["physical"] == found(etree.parse(str(tmp_path / "METS.xml")), "m:structMap/@TYPE")

    async def test_every_directory_is_one_div(self, tmp_path: Path) -> None:
        names = ["a", "a-b", "a.txt", "a b", "a!", "a-"]
        directories = [Directory(path=f"objects/{n}", original=f"objects/{n}") for n in names if n != "a.txt"]
        files = [a_file(f"objects/{d.path[8:]}/x.txt") for d in directories] + [a_file("objects/a.txt")]
        tree = await document(tmp_path / "METS.xml", a_history(*files, directories=directories))

        for number in (1, 2):
            labels = found(tree, f"m:structMap[{number}]/m:div/m:div/m:div/@LABEL")
            assert sorted(names) == sorted(labels)

    async def test_removed_files_and_files_outside_objects_are_not_in_it(self, tmp_path: Path) -> None:
        history = a_history(a_file("objects/a"), a_file("objects/b", removed=True), a_file("logs/c"))
        tree = await document(tmp_path / "METS.xml", history)

        assert ["objects/a"] == found(tree, "//m:FLocat/@xlink:href")

    async def test_what_was_removed_keeps_its_object_and_its_events(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())
        trace = "m:amdSec[.//p:originalName = '%transferDirectory%objects/Thumbs.db']"

        assert ["file removed"] == found(tree, f"{trace}//p:eventType/text()")
        assert 3 == len(found(tree, f"{trace}//p:agentName"))
        assert [] == found(tree, f"//m:file[@ADMID = //{trace}/@ID]")

    async def test_a_package_without_files_is_still_a_document(self, tmp_path: Path) -> None:
        result = await written(tmp_path / "METS.xml", FakeHistory(agents=AGENTS))

        assert 0 == result.files
        assert [] == found(etree.parse(str(tmp_path / "METS.xml")), "m:fileSec")


class TestPrograms:
    """Programs that acted: agents of their events, each once in the document."""

    async def test_an_event_names_the_program_that_acted_and_its_role(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())
        links = found(tree, "//p:event[p:eventType='normalization']/p:linkingAgentIdentifier")
        names = ("IdentifierType", "IdentifierValue", "Role")
        words = [[link.findtext(f"p:linkingAgent{name}", "", NS) for name in names] for link in links]

        assert [[agent.identifier_type, agent.identifier, ""] for agent in AGENTS] == words[:-1]
        assert ["program", "ImageMagick-6.9.11-60", "executing program"] == words[-1]

    async def test_each_program_stands_once_in_the_first_amd_sec_that_needs_it(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())
        programs = "//p:agent[p:agentIdentifier/p:agentIdentifierType='program']"

        assert ["Siegfried", "ImageMagick"] == found(tree, f"{programs}/p:agentName/text()")
        assert ["1.11", "6.9.11-60"] == found(tree, f"{programs}/p:agentVersion/text()")
        assert ["software"] * 2 == found(tree, f"{programs}/p:agentType/text()")
        assert ["amdSec_1"] == found(tree, "//m:amdSec[.//p:agentIdentifierType='program']/@ID")

    async def test_the_schematron_as_it_is_finds_one_agent_too_many_and_nothing_else(self, tmp_path: Path) -> None:
        """What decision 7 tolerates of programs is exactly one assertion, where they stand."""
        files = [a_file(f"objects/{name}") for name in "abc"]
        history = a_history(*files)
        identified = [event for file in files for event in events_of(file, EventType.FORMAT_IDENTIFICATION)]
        history.record(Facts(events=identified))
        await written(tmp_path / "METS.xml", history, empty_directories=False)
        tree = etree.parse(str(tmp_path / "METS.xml"))

        (assertion,) = raw_schematron(tree)

        assert "Each amdSec MUST contain 3 digiprovMD elements" in assertion
        (only,) = found(tree, "//m:digiprovMD[.//p:agentIdentifierType='program']")
        only.getparent().remove(only)
        assert [] == raw_schematron(tree)
        assert () == await validate(tmp_path / "METS.xml")


class TestCompact:
    async def test_says_the_same_in_less(self, tmp_path: Path) -> None:
        full, small = tmp_path / "full.xml", tmp_path / "small.xml"
        await written(full, a_rich_history())
        await written(small, a_rich_history(), compact=True)

        records = [[record async for window in read(path) for record in window] for path in (full, small)]
        tree = etree.parse(str(small))
        assert records[0] == records[1]
        assert len(AGENTS) + len([SIEGFRIED, MAGICK]) == len(found(tree, "//p:agent"))
        assert [] == found(tree, "//p:event//*[not(node())]")
        assert small.stat().st_size < 0.8 * full.stat().st_size

    async def test_is_valid_by_the_schemas_and_names_its_profile(self, tmp_path: Path) -> None:
        await written(tmp_path / "METS.xml", a_rich_history(), compact=True)

        assert () == await validate(tmp_path / "METS.xml")
        assert [COMPACT] == found(etree.parse(str(tmp_path / "METS.xml")), "/m:mets/@PROFILE")

    async def test_metsrw_finds_the_events_of_every_file(self, tmp_path: Path) -> None:
        await written(tmp_path / "full.xml", a_rich_history())
        await written(tmp_path / "small.xml", a_rich_history(), compact=True)

        full, small = (
            {entry.path: [event.type for event in entry.get_premis_events()] for entry in it.all_files() if entry.path}
            for it in (metsrw_document(tmp_path / "full.xml"), metsrw_document(tmp_path / "small.xml"))
        )
        assert full == small
        assert any(full.values())


class TestToolOutput:
    @pytest.mark.parametrize(
        "xml",
        [
            "<a><b></a>",
            "<a/><b/>",
            "text",
            "",
            '<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>',
            "<a>&undefined;</a>",
            "<a>\x01</a>",
            "<a>\udc80</a>",
            "<u:a/>",
            '<a xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="b"/>',
            '<p:event xmlns:p="http://www.loc.gov/premis/v3"/>',
            '<a><m:mets xmlns:m="http://www.loc.gov/METS/"/></a>',
            "<a>" * 250 + "</a>" * 250,
            f"<a>{'x' * 10_000_001}</a>",
        ],
    )
    async def test_what_cannot_stand_in_the_mets_is_left_out_and_told(self, tmp_path: Path, xml: str) -> None:
        file = a_file("objects/a.txt")
        history = a_history(
            file,
            extensions=[
                Extension(file=file.id, tool="bad", xml=xml),
                Extension(file=file.id, tool="good", xml="<ok/>"),
            ],
        )

        result = await written(tmp_path / "METS.xml", history)

        assert [("objects/a.txt", "mets.extension.bad")] == [(p.path, p.rule) for p in result.problems]
        assert 1 == result.left_out
        assert 1 == len(found(etree.parse(str(tmp_path / "METS.xml")), "//p:objectCharacteristicsExtension/ok"))
        assert [] == list(await validate(tmp_path / "METS.xml"))

    async def test_what_is_well_formed_stands_there_as_it_is(self, tmp_path: Path) -> None:
        tree = await document(tmp_path / "METS.xml", a_rich_history())
        roots = found(tree, "//p:objectCharacteristicsExtension/*")

        assert ["{https://mediaarea.net/mediainfo}MediaInfo", "ffprobe"] == [root.tag for root in roots]


class TestTheFile:
    async def test_nothing_is_left_when_the_history_fails(self, tmp_path: Path) -> None:
        class Failing(FakeHistory):
            async def extensions(self, files: Any) -> Mapping[uuid.UUID, Any]:
                raise OSError("the journal is gone")

        history = Failing(agents=AGENTS)
        history.record(Facts(files=[a_file("objects/a")]))

        with pytest.raises(OSError, match="journal"):
            await written(tmp_path / "METS.xml", history)

        assert [] == list(tmp_path.iterdir())

    async def test_an_older_mets_stays_until_the_new_one_is_whole(self, tmp_path: Path) -> None:
        (tmp_path / "METS.xml").write_text("old")

        await written(tmp_path / "METS.xml", a_rich_history())

        assert ["METS.xml"] == [path.name for path in tmp_path.iterdir()]
        assert (tmp_path / "METS.xml").read_bytes().startswith(b"<?xml")

    async def test_paths_out_of_order_are_a_fault_and_not_a_wrong_tree(self, tmp_path: Path) -> None:
        class Disordered(FakeHistory):
            async def files(self, **asked: Any) -> Any:
                asked.pop("by_path", None)
                async for window in super().files(**asked):
                    yield list(reversed(window))

        history = Disordered(agents=AGENTS)
        history.record(Facts(files=[a_file("objects/a"), a_file("objects/b")]))

        with pytest.raises(SystemFault, match="out of order"):
            await written(tmp_path / "METS.xml", history)


class TestMetsrwReadsIt:
    async def test_every_file_event_agent_and_description_is_found_again(self, tmp_path: Path) -> None:
        await written(tmp_path / "METS.xml", a_rich_history(), a_package(metadata={"title": ["Papers"]}))
        mets = metsrw_document(tmp_path / "METS.xml")
        items = {entry.path: entry for entry in mets.all_files() if entry.type == "Item"}
        photo = items["objects/art/photo.jpg"]

        assert 7 == len(items)
        assert str(identifier("objects/art/photo.jpg")) == photo.file_uuid
        assert photo is items["objects/art/photo-1.tif"].derived_from
        assert 6 == len(photo.get_premis_events())
        assert {"Siegfried", "ImageMagick"} < {agent.name for agent in photo.get_premis_agents()}
        assert 3 == len(items["objects/art/notes/a.txt"].get_premis_agents())
        assert "fmt/43" == photo.get_premis_objects()[0].format_registry_key
        assert ["DC", "OTHER"] == [section.contents.mdtype for section in photo.dmdsecs]
        assert {"original", "preservation", "text/ocr", "metadata", "submissionDocumentation"} == {
            entry.use for entry in items.values()
        }
        labels = {entry.label: entry for entry in mets.all_files() if entry.type == "Directory"}
        assert 3 == len([s for s in labels["objects"].dmdsecs if s.contents.mdtype == "DC"]) + 1
        assert "art-notes" in labels


NAMES = st.binary(min_size=1, max_size=12).filter(lambda raw: b"/" not in raw and b"\0" not in raw)
TEXTS = st.text(alphabet=st.characters(), max_size=20) | st.sampled_from(
    ["]]>", "<![CDATA[", "&amp;", "\ud800", "\udc80"]
)


@given(
    names=st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=4, unique=True),
    text=TEXTS,
    key=TEXTS,
    use=st.sampled_from(list(FileUse)),
)
@settings(max_examples=60, deadline=None)
def test_any_name_and_any_text_come_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[tuple[bytes, bytes]], text: str, key: str, use: FileUse
) -> None:
    path = tmp_path_factory.mktemp("any") / "METS.xml"
    originals = {
        f"objects/{a.decode(errors='surrogateescape')}!/{b.decode(errors='surrogateescape')}" for a, b in names
    }
    # Original names are anything; working names, which become addresses, were made safe before.
    files = [
        replace(a_file(name, id=uuid.UUID(int=number), use=use), path=f"objects/{number}.bin")
        for number, name in enumerate(sorted(originals), start=1)
    ]
    history = FakeHistory(agents=[replace(agent, name=text, identifier=text) for agent in AGENTS])
    events = [replace(e, note=text, detail=text) for file in files for e in events_of(file, EventType.INGESTION)]
    described = [
        Description(target=files[0].id, kind="DC", pairs=[("dc.title", text)]),
        Description(target=files[0].id, kind="CUSTOM", pairs=[(key, text)]),
    ]
    history.record(Facts(files=files, events=events, descriptions=described))

    async def round_trip() -> tuple[list[Any], list[Any]]:
        await written(path, history, a_package(metadata={key: [text]}))
        records = [record async for window in read(path) for record in window]
        return list(await validate(path)), records

    violations, records = asyncio.run(round_trip())
    back = [record for record in records if isinstance(record, ReadFile)]
    titles = [r.pairs[0][1] for r in records if isinstance(r, ReadDescription) and r.path == files[0].path]

    assert [] == violations
    assert {file.path for file in files} == {file.path for file in back}
    assert originals == {unescape_name(file.original_name.partition("Directory%")[2]) for file in back}
    assert 2 == len(titles)
    assert titles[0] == titles[1] == back[0].events[0].note == back[0].events[0].detail
    if not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", text):
        assert text == titles[0]


MEASURE = """
    import asyncio, resource, sys, time
    from pathlib import Path
    from ingestd.mets import read, validate, write
    from tests.mets_samples import AT, LongHistory, a_package

    async def main(what, count, path):
        before = time.process_time()
        if what == "write":
            await write(LongHistory(count), a_package(), path, created_at=AT, document_empty_directories=True)
        elif what == "validate":
            assert not await validate(path)
        else:
            async for window in read(path):
                pass
        print(time.process_time() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
"""


def measured(what: str, count: int, path: Path) -> tuple[float, int]:
    """Seconds of processor time, and peak resident memory in KiB, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), what, str(count), str(path)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin"},
    )
    seconds, memory = run.stdout.split()
    return float(seconds), int(memory)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_is_flat_and_time_is_linear_for_ten_times_the_files(tmp_path: Path) -> None:
    for what in ("write", "validate", "read"):
        few_seconds, few_memory = measured(what, 800, tmp_path / "few.xml")
        many_seconds, many_memory = measured(what, 8_000, tmp_path / "many.xml")

        assert many_memory < 1.3 * few_memory, what
        assert many_seconds < 15 * few_seconds, what
