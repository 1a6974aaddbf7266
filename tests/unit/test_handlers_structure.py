from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestd.errors import Code, ContentError
from ingestd.handlers.structure import STRUCT_MAP, load_file_labels, load_struct_map, mark_license_files
from ingestd.metadata.labels import LABELS
from ingestd.mets import ReadDescription, read, structmap, validate, write
from ingestd.oais import FileUse
from tests.mets_samples import AGENTS, AT
from tests.steps import Bench, file_id

METS = (
    '<mets xmlns="http://www.loc.gov/METS/" xmlns:xlink="http://www.w3.org/1999/xlink">\n'
    '<structMap TYPE="logical"%s>\n<div>\n<div LABEL="1 &amp; 2" TYPE="letter" DMDID="d" ID="dmdSec_1">%s</div>\n'
    "</div></structMap>%s</mets>"
)
GOOD = '<fptr CONTENTIDS="objects/a.txt"/><fptr FILEID="x"><area CONTENTIDS="objects/%20b" FILEID="x"/></fptr>'


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    yield bench
    await bench.journal.close()


async def load(bench: Bench, text: str) -> str:
    await bench.receive({"objects/a.txt": b"1", "objects/ b": b"2", STRUCT_MAP: text.encode()})
    await bench.run(load_struct_map)
    return (bench.folder / structmap.KEPT).read_text()


def a_mets(pointers: str = GOOD, attributes: str = "", more: str = "") -> str:
    return (METS % (attributes, pointers, more)).replace(' DMDID="d"', "")


async def test_labels_are_put_on_files_by_their_path_within_objects(bench: Bench) -> None:
    csv = "a.txt,A label\nobjects/ b,\nnone,x\nobjects,y\n"
    await bench.receive({"objects/a.txt": b"1", "objects/ b": b"2", LABELS: csv.encode()})
    await bench.run(load_file_labels)

    assert {"objects/a.txt": "A label", "objects/ b": ""} == {
        file.path: file.label for file in await bench.files(under="objects")
    }
    warned = [(w.path, w.detail) async for some in bench.journal.warnings() for w in some]
    assert [("objects/ b", "line 2 has no label"), ("none", "line 3 labels what is no file of the transfer")] == warned[
        :2
    ]
    assert "objects" == warned[2][0]


async def test_a_row_of_labels_with_too_many_cells_is_named(bench: Bench) -> None:
    await bench.receive({"objects/a.txt": b"1", LABELS: b"a.txt,A label\na.txt,one, two\n"})
    with pytest.raises(ContentError) as caught:
        await bench.run(load_file_labels)

    assert [f"{LABELS}:2:3"] == [violation.path for violation in caught.value.violations]


async def test_a_struct_map_points_at_the_files_that_it_names(bench: Bench, tmp_path: Path) -> None:
    text = await load(bench, a_mets())

    assert f'<mets:fptr CONTENTIDS="objects/a.txt" FILEID="file-{file_id("objects/a.txt")}"/>' in text
    assert f'FILEID="file-{file_id("objects/ b")}"/>' in text
    assert '<mets:structMap TYPE="logical" ID="structMap_3">' in text
    assert 'LABEL="1 &amp; 2" TYPE="letter" ID="custom-dmdSec_1"' in text
    await bench.journal.add_agents(AGENTS)
    written = tmp_path / "METS.xml"
    kept = bench.folder / structmap.KEPT
    await write(bench.journal, bench.package, written, created_at=AT, document_empty_directories=True, struct_map=kept)
    assert [] == list(await validate(written))
    assert text in written.read_text()


MODS = '<mods xmlns="http://www.loc.gov/mods/v3"><titleInfo><title>One &amp; all</title></titleInfo></mods>'
SECTIONS = (
    '<dmdSec ID="letter"><mdWrap MDTYPE="MODS"><xmlData>' + MODS + "</xmlData></mdWrap></dmdSec>\n"
    '<dmdSec ID="dmdSec_1" CREATED="1999-01-02T03:04:05"><mdWrap MDTYPE="DC"><xmlData>'
    '<dublincore xmlns="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Two</dc:title></dublincore>'
    "</xmlData></mdWrap></dmdSec>\n"
    '<dmdSec ID="away"><mdRef LOCTYPE="URL" MDTYPE="MODS" xlink:href="http://a.example/b.xml"/></dmdSec>\n'
    '<amdSec ID="a"><sourceMD ID="s"><mdWrap MDTYPE="OTHER"><xmlData><x xmlns=""/></xmlData></mdWrap></sourceMD>'
    "</amdSec>\n"
)


async def test_a_struct_map_brings_the_descriptions_that_it_refers_to(bench: Bench, tmp_path: Path) -> None:
    divs = a_mets().replace('ID="dmdSec_1"', 'ID="x" DMDID="letter dmdSec_1 away" ADMID="s"')
    text = await load(bench, divs.replace("<structMap", f"{SECTIONS}<structMap"))

    assert 'DMDID="letter custom-dmdSec_1"' in text
    assert "ADMID" not in text
    told = [(w.code, w.path, w.detail.split(" was ")[0]) async for some in bench.journal.warnings() for w in some]
    code, place = "content.struct_map_unmatched", f"{STRUCT_MAP}:8"
    assert [(code, place, "DMDID away"), (code, place, "ADMID s")] == told
    await bench.journal.add_agents(AGENTS)
    written = tmp_path / "METS.xml"
    kept = bench.folder / structmap.KEPT
    await write(bench.journal, bench.package, written, created_at=AT, document_empty_directories=True, struct_map=kept)
    assert [] == list(await validate(written))
    said = [one async for window in read(written) for one in window if isinstance(one, ReadDescription)]
    assert [("MODS", MODS, ()), ("DC", "", (("dc.title", "Two"),))] == [(one.kind, one.xml, one.pairs) for one in said]
    assert "1999-01-02T03:04:05" == said[1].created_at


PART = '<rightsMD ID="%s"><mdWrap MDTYPE="OTHER"><xmlData><x xmlns=""/></xmlData></mdWrap></rightsMD>'
ENTRY = '<file ID="%s" ADMID="%s"><FLocat LOCTYPE="URL" xlink:href="%s"/></file>'
OWNERS = (
    f'<amdSec ID="one">{PART % "r1"}{PART % "r2"}</amdSec><amdSec ID="both">{PART % "r3"}{PART % "r4"}</amdSec>'
    f'<amdSec ID="gone">{PART % "r5"}</amdSec><amdSec ID="work">{PART % "r6"}</amdSec><fileSec><fileGrp>'
    f"{ENTRY % ('f1', 'one r3', 'objects/a.txt')}{ENTRY % ('f2', 'r4', 'objects/%20b')}"
    f"{ENTRY % ('f3', 'gone', 'objects/gone')}</fileGrp></fileSec>"
)


@pytest.mark.parametrize(
    ("names", "files", "left"),
    [
        ("one", ["objects/a.txt"], []),
        ("r1 r2", ["objects/a.txt"], []),
        ("r3 r4", ["objects/a.txt", "objects/ b"], []),
        ("both r5 work none r2", ["objects/a.txt"], ["both", "r5", "work", "none"]),
        ("work", [], ["work"]),
    ],
)
async def test_an_admid_names_our_section_of_the_file_whose_section_it_named(
    bench: Bench, tmp_path: Path, names: str, files: list[str], left: list[str]
) -> None:
    divs = a_mets().replace('TYPE="letter" ID="dmdSec_1"', f'TYPE="letter" ADMID="{names}"')
    text = await load(bench, divs.replace("<structMap", f"{OWNERS}<structMap"))

    amds = [
        f"amdSec_{file.row}"
        for path in files
        async for some in bench.journal.files()
        for file in some
        if file.path == path
    ]
    assert (f'ADMID="{" ".join(amds)}"' if amds else 'TYPE="letter">') in text
    assert text.count("ADMID") == bool(amds)
    told = [w.detail.split()[1] async for some in bench.journal.warnings() for w in some]
    assert sorted(left) == sorted(told)
    await bench.journal.add_agents(AGENTS)
    written = tmp_path / "METS.xml"
    kept = bench.folder / structmap.KEPT
    await write(bench.journal, bench.package, written, created_at=AT, document_empty_directories=True, struct_map=kept)
    assert [] == list(await validate(written))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (a_mets('<fptr CONTENTIDS="objects/none"/>'), [(":4:52", "CONTENTIDS")]),
        (a_mets("<fptr/>"), [(":4:52", "CONTENTIDS")]),
        (a_mets('<fptr CONTENTIDS=""/>'), [(":4:52", "CONTENTIDS")]),
        (a_mets('<fptr FILEID="x"/>'), [(":4:52", "CONTENTIDS")]),
        (a_mets("<fptr><area/></fptr>"), [(":4:58", "CONTENTIDS")]),
        (a_mets(attributes=' STRANGE="x"'), [(":2", "mets.xsd")]),
        (a_mets(more="<structMap><div/></structMap>"), [("", "structMap")]),
        ("<a/>", [("", "structMap")]),
        ("<!DOCTYPE a><a/>", [("", "xml")]),
        ("<a>", [("", "structMap")]),
        (a_mets().removesuffix("</mets>"), [(":5:19", "xml")]),
    ],
)
async def test_what_is_wrong_with_a_struct_map_is_named(bench: Bench, text: str, found: list[tuple[str, str]]) -> None:
    with pytest.raises(ContentError) as caught:
        await load(bench, text)

    assert caught.value.code is Code.CONTENT_METADATA_INVALID
    assert [(v.path.removeprefix(STRUCT_MAP), v.rule) for v in caught.value.violations] == found


async def test_without_the_files_there_is_nothing_to_do(bench: Bench) -> None:
    await bench.receive({"objects/a.txt": b"1"})

    assert [] == await bench.run(load_file_labels)
    assert [{}] == [outcome.facts.package for outcome in await bench.run(load_struct_map)]


async def test_files_in_the_folder_license_are_licences(bench: Bench) -> None:
    await bench.receive({"objects/license/l.txt": b"1", "objects/a.txt": b"2"})
    await bench.run_files(mark_license_files, under="objects/license")

    assert {"objects/license/l.txt": FileUse.LICENSE, "objects/a.txt": FileUse.ORIGINAL} == {
        file.path: file.use for file in await bench.files()
    }


async def test_a_file_that_was_mended_after_it_failed_is_recorded_as_it_is_now(bench: Bench) -> None:
    files = {LABELS: b"a.txt,one, two\n", STRUCT_MAP: b"<a/>", "objects/a.txt": b"1", "objects/ b": b"2"}
    await bench.receive(files)
    for step, name, mended in (
        (load_file_labels, LABELS, b"a.txt,one"),
        (load_struct_map, STRUCT_MAP, a_mets().encode()),
    ):
        with pytest.raises(ContentError):
            await bench.run(step)
        (bench.root / name).write_bytes(mended)
        await bench.run(step)

        file = await bench.journal.file_at(name)
        assert file is not None
        assert file.size_bytes == len(mended)
