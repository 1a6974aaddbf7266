from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestd.errors import Code, ContentError
from ingestd.handlers.metadata import load_metadata_csv
from ingestd.metadata.descriptions import FILE
from tests.steps import PACKAGE_ID, Bench, file_id


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    yield bench
    await bench.journal.close()


async def load(bench: Bench, csv: bytes) -> dict[str, list[tuple[str, list[tuple[str, str]]]]]:
    """Give per path (`objects`: the package) its descriptions as (kind, pairs)."""
    await bench.receive({"objects/a.txt": b"1", "objects/d/é b.txt": b"2", FILE: csv}, folders=["objects/empty"])
    await bench.run(load_metadata_csv)
    targets = {"objects/a.txt": file_id("objects/a.txt"), "objects/d/é b.txt": file_id("objects/d/é b.txt")}
    targets["objects"] = PACKAGE_ID
    targets |= {d.path: d.id async for some in bench.journal.directories() for d in some if d.id}
    told = await bench.journal.descriptions(list(targets.values()))
    return {path: [(one.kind, list(one.pairs)) for _, one in told[id_]] for path, id_ in targets.items() if id_ in told}


async def faults(bench: Bench, csv: bytes) -> list[tuple[str, str]]:
    with pytest.raises(ContentError) as caught:
        await load(bench, csv)
    assert caught.value.code is Code.CONTENT_METADATA_INVALID
    return [(violation.path.removeprefix(FILE), violation.rule) for violation in caught.value.violations]


async def test_without_the_file_there_is_nothing_to_do(bench: Bench) -> None:
    await bench.receive({"objects/a": b"1"})

    assert await bench.run(load_metadata_csv) == []


async def test_names_of_a_bags_payload_are_those_of_the_transfer_that_it_became(bench: Bench) -> None:
    csv = "filename,dc.title\ndata/objects/a.txt,A\ndata/d/é b.txt,B\ndata/objects/d,D\ndata/objects,All\n"

    told = await load(bench, csv.encode())

    assert {"objects/a.txt", "objects/d/é b.txt", "objects/d", "objects"} == set(told)


async def test_dublin_core_and_other_columns_describe_files_folders_and_the_package(bench: Bench) -> None:
    csv = (
        "filename,dc.title,dc.creator,dcterms.created,Shelf mark\n"
        "objects/a.txt,A letter,Ann,1901,X 1\n"
        "objects/d/é b.txt,,,,Y\n"
        "objects/d/,A folder,,,\n"
        "./objects/empty,Nothing,,,\n"
        "objects,All of it,,,\n"
        ",,,,\n"
    )

    assert {
        "objects/a.txt": [
            ("DC", [("dc.title", "A letter"), ("dc.creator", "Ann"), ("dcterms.created", "1901")]),
            ("CUSTOM", [("shelf_mark", "X 1")]),
        ],
        "objects/d/é b.txt": [("CUSTOM", [("shelf_mark", "Y")])],
        "objects/d": [("DC", [("dc.title", "A folder")])],
        "objects/empty": [("DC", [("dc.title", "Nothing")])],
        "objects": [("DC", [("dc.title", "All of it")])],
    } == await load(bench, csv.encode())


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
async def test_a_byte_order_mark_and_any_line_end_are_read(bench: Bench, prefix: bytes, end: bytes) -> None:
    told = await load(bench, prefix + end.join([b"filename,dc.title", b'objects/a.txt,"two', b'lines, one cell"', b""]))

    (kind, ((element, value),)) = told["objects/a.txt"][0]
    assert (kind, element) == ("DC", "dc.title")
    assert value.split() == ["two", "lines,", "one", "cell"]


async def test_repeated_columns_and_rows_are_all_kept_in_their_order(bench: Bench) -> None:
    told = await load(bench, b"filename,dc.subject,dc.subject\nobjects/a.txt,1,2\nobjects/a.txt,3,\n")

    assert [("DC", [("dc.subject", "1"), ("dc.subject", "2")]), ("DC", [("dc.subject", "3")])] == told["objects/a.txt"]


async def test_a_refined_element_is_its_last_part(bench: Bench) -> None:
    told = await load(bench, b"filename,dc.date.created,dcterms.spatial,dc.\nobjects/a.txt,1,2,3\n")

    assert [("DC", [("dc.created", "1"), ("dcterms.spatial", "2")]), ("CUSTOM", [("dc_", "3")])] == told[
        "objects/a.txt"
    ]


async def test_a_custom_column_becomes_a_name_that_xml_can_hold(bench: Bench) -> None:
    told = await load(bench, "filename,1 名,<x>\nobjects/a.txt,a,b\n".encode())

    assert [("CUSTOM", [("_1_", "a"), ("_x_", "b")])] == told["objects/a.txt"]


async def test_a_row_for_something_that_is_not_there_is_a_warning(bench: Bench) -> None:
    assert await load(bench, b"filename,dc.title\nobjects/none,1\nobjects/a.txt,2\n")
    (warning,) = [w async for some in bench.journal.warnings() for w in some]

    assert ("content.metadata_unmatched", "objects/none") == (warning.code, warning.path)
    assert "line 2" in warning.detail


@pytest.mark.parametrize(
    ("csv", "found"),
    [
        (b"", [(":1:1", "header")]),
        (b"title,filename\nx,y\n", [(":1:1", "header")]),
        (b"filename,,dc.title,\n", [(":1:2", "header")]),
        (
            b"filename,dc.title\nobjects/a.txt,1,2\n,3\nobjects/a.txt,4,5\n",
            [(":2:3", "ragged_row"), (":3:1", "filename"), (":4:3", "ragged_row")],
        ),
        (b"\xef\xbb\xbffilename,dc.title\nobjects/a.txt,caf\xe9\n", [(":2", "encoding")]),
        (b'filename,dc.title\nobjects/a.txt,"open\n', [(":2", "csv")]),
        (b"filename,dc.title\nobjects/a.txt," + b"x" * 2_000_000 + b"\n", [(":2", "csv")]),
        (b"\xff\xfef\0i\0l\0e\0", [(":1:1", "header")]),
    ],
)
async def test_every_fault_is_named_with_its_line_and_column(
    bench: Bench, csv: bytes, found: list[tuple[str, str]]
) -> None:
    assert found == await faults(bench, csv)


async def test_very_many_faults_are_not_all_listed(bench: Bench) -> None:
    assert len(await faults(bench, b"filename,dc.title\n" + b"objects/a.txt,1,2\n" * 1000)) == 100


async def test_nothing_is_recorded_when_a_line_is_wrong(bench: Bench) -> None:
    await faults(bench, b"filename,dc.title\nobjects/a.txt,1\nobjects/a.txt,1,2\n")

    assert await bench.journal.descriptions([file_id("objects/a.txt")]) == {}


async def test_killed_after_a_window_it_goes_on_after_the_line_it_reached(bench: Bench) -> None:
    rows = b"".join(b"objects/a.txt,%d\n" % number for number in range(600))
    await bench.receive({"objects/a.txt": b"1", FILE: b"filename,dc.title\n" + rows})
    done = await bench.run(load_metadata_csv, stop_after=2)

    await bench.run(load_metadata_csv, cursor=done[-1].cursor)

    told = await bench.journal.descriptions([file_id("objects/a.txt")])
    assert [str(number) for number in range(600)] == [d.pairs[0][1] for _, d in told[file_id("objects/a.txt")]]
