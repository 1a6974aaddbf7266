"""What becomes of rights and identifiers: of the request, of files, folders and the package."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ingestd.errors import Code, ContentError
from ingestd.handlers.identifiers import load_identifiers
from ingestd.handlers.rights import rights_from_csv
from ingestd.messages import parse_request
from ingestd.oais import Facts
from tests.steps import PACKAGE_ID, Bench, a_package, file_id, services

FILES = {"objects/a.txt": b"1", "objects/d/b.txt": b"2", "objects/d/e/c.txt": b"3"}
HEADER = "file,basis,status,jurisdiction,grant_act,grant_restriction\n"
CSV, JSON = "metadata/rights.csv", "metadata/identifiers.json"
POLICY: Mapping[str, Any] = {"basis": "policy", "acts": [{"act": "use", "restriction": "allow"}]}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    yield bench
    await bench.journal.close()


def asked(**metadata: Any) -> dict[str, Any]:
    """The request's metadata, as a package has them."""
    request = parse_request(
        {"id": "1", "source": "urn:x", "data": {"source": {"location": "/x"}, "metadata": metadata}}
    )
    return request.data.metadata.as_records()


async def rights(bench: Bench) -> dict[str, list[tuple[str, list[str]]]]:
    """Per path its statements, as basis and acts."""
    ids = {"objects": PACKAGE_ID, **{path: file_id(path) for path in FILES}}
    told = await bench.journal.rights(list(ids.values()))
    return {
        path: [(said.basis.lower(), [act.act for act in said.granted]) for said in told[id_]]
        for path, id_ in ids.items()
        if id_ in told
    }


async def load(bench: Bench, rows: str, **more: Any) -> dict[str, list[tuple[str, list[str]]]]:
    await bench.receive({**FILES, CSV: (HEADER + rows).encode()}, folders=["objects/empty"])
    await bench.run(rights_from_csv, **more)
    return await rights(bench)


async def codes(bench: Bench) -> list[str]:
    return [warning.code async for some in bench.journal.warnings() for warning in some]


async def test_rights_of_files_folders_and_the_package(bench: Bench) -> None:
    rows = (
        "objects/a.txt,copyright,copyrighted,gb,use,allow\n"
        "objects/d/,policy,,,disseminate,disallow\n"
        "objects/a.txt,copyright,copyrighted,gb,copy,allow\n"
        "objects,license,,,,\n"
        "data/d/b.txt,donor,,,copy,allow\n"
    )

    assert {
        "objects": [("license", [])],
        "objects/a.txt": [("copyright", ["use", "copy"])],
        "objects/d/b.txt": [("donor", ["copy"]), ("policy", ["disseminate"])],
        "objects/d/e/c.txt": [("policy", ["disseminate"])],
    } == {path: sorted(said) for path, said in (await load(bench, rows)).items()}
    assert [] == await codes(bench)


async def test_every_wrong_row_is_said_at_once_and_nothing_is_recorded(bench: Bench) -> None:
    rows = "objects/none.txt,policy,,,,\nobjects/a.txt,nothing,,,,\nobjects/a.txt,policy,,,,\n,policy,,,,\n"
    with pytest.raises(ContentError) as caught:
        await load(bench, rows)

    assert caught.value.code is Code.CONTENT_METADATA_INVALID
    assert [f"{CSV}:2:1", f"{CSV}:3:2", f"{CSV}:5:1"] == [violation.path for violation in caught.value.violations]
    assert all(violation.expected for violation in caught.value.violations)
    assert {} == await rights(bench)


async def test_doubts_are_warnings_or_errors_by_setting(bench: Bench, tmp_path: Path) -> None:
    rows = "objects/a.txt,copyright,,gb,use,allow\nobjects/empty,policy,,,use,allow\n"
    await load(bench, rows)

    assert ["content.rights_incomplete", "content.rights_without_files"] == sorted(await codes(bench))

    bench.services = services(tmp_path, metadata={"rights_rules": "strict"})
    with pytest.raises(ContentError) as caught:
        await bench.run(rights_from_csv)
    assert [f"{CSV}:2:3"] == [violation.path for violation in caught.value.violations]


async def test_the_request_says_what_is_right_where_both_say_something(bench: Bench) -> None:
    more = asked(rights=[POLICY, {**POLICY, "file": "objects/a.txt"}])
    bench.package = a_package(**more)
    rows = "objects/a.txt,policy,,,copy,allow\nobjects/a.txt,donor,,,copy,allow\nobjects/,policy,,,copy,allow\n"

    assert {
        "objects": [("policy", ["use"])],
        "objects/a.txt": [("policy", ["use"]), ("donor", ["copy"])],
    } == await load(bench, rows)
    assert ["content.rights_overridden"] * 2 == await codes(bench)


async def test_rights_of_the_request_need_no_file_and_must_be_of_something_that_is_there(bench: Bench) -> None:
    await bench.receive(FILES)
    bench.package = a_package(**asked(rights=[{**POLICY, "file": "objects/d"}]))
    await bench.run(rights_from_csv)

    assert {"objects/d/b.txt", "objects/d/e/c.txt"} == set(await rights(bench))

    bench.package = a_package(**asked(rights=[POLICY, {**POLICY, "file": "objects/none"}]))
    with pytest.raises(ContentError) as caught:
        await bench.run(rights_from_csv)
    assert ["metadata.rights.1.file"] == [violation.path for violation in caught.value.violations]


async def test_rights_of_a_file_that_was_removed_since_are_no_mistake(bench: Bench) -> None:
    await bench.receive({**FILES, "objects/Thumbs.db": b"", CSV: (HEADER + "objects/Thumbs.db,policy,,,,\n").encode()})
    (file,) = [one for one in await bench.files() if one.path == "objects/Thumbs.db"]
    from dataclasses import replace

    await bench.journal.record(Facts(files=[replace(file, removed=True)]))

    assert 1 == len([o for o in await bench.run(rights_from_csv) if o.facts.rights])


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3, 4])
async def test_run_again_half_done_it_ends_the_same(bench: Bench, stop_after: int) -> None:
    rows = "objects/a.txt,copyright,copyrighted,gb,use,allow\nobjects/d,policy,,,use,allow\nobjects,donor,,,use,allow\n"
    await bench.receive({**FILES, CSV: (HEADER + rows).encode()})
    done = await bench.run(rights_from_csv, stop_after=stop_after)
    await bench.run(rights_from_csv, cursor=max((outcome.cursor for outcome in done), default=0))

    assert {
        "objects": [("donor", ["use"])],
        "objects/a.txt": [("copyright", ["use"])],
        "objects/d/b.txt": [("policy", ["use"])],
        "objects/d/e/c.txt": [("policy", ["use"])],
    } == await rights(bench)


async def test_a_mended_file_is_recorded_as_it_is_now(bench: Bench) -> None:
    await bench.receive({**FILES, CSV: (HEADER + "objects/a.txt,policie,,,,\n").encode()})
    (bench.root / CSV).write_text(HEADER + "objects/a.txt,policy,,,,\n")
    await bench.run(rights_from_csv)

    assert {"objects/a.txt": [("policy", [])]} == await rights(bench)
    assert ["content.metadata_changed"] == await codes(bench)


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({"basis": "nothing"}, "basis"),
        ({"basis": "copyright"}, "needs status and jurisdiction"),
        ({**POLICY, "start_date": "spring"}, "start_date"),
        ({"basis": "policy", "acts": [{"act": "use"}]}, "restriction"),
    ],
)
def test_a_request_with_wrong_rights_is_refused(said: Mapping[str, Any], place: str) -> None:
    with pytest.raises(Exception, match="not valid") as caught:
        asked(rights=[said])
    assert any(place in f"{v.path} {v.expected} {v.rule} {v.actual}" for v in caught.value.violations)  # type: ignore[attr-defined]


async def identifiers(bench: Bench) -> dict[str, list[tuple[str, str]]]:
    folder = await bench.journal.directory_received_as("objects/d")
    ids = {"objects": PACKAGE_ID, "objects/a.txt": file_id("objects/a.txt")}
    if folder is not None and folder.id is not None:
        ids["objects/d"] = folder.id
    told = await bench.journal.identifiers(list(ids.values()))
    return {path: [(one.type, one.value) for one in told[id_]] for path, id_ in ids.items() if id_ in told}


def an_item(file: str, kind: str, value: str) -> dict[str, Any]:
    return {"file": file, "identifiers": [{"identifier": value, "identifierType": kind}]}


async def test_identifiers_of_files_folders_and_the_package(bench: Bench) -> None:
    bench.package = a_package(**asked(identifiers=[{"type": "ARK", "value": "ark:/1/a"}]))
    said = [
        an_item("objects/a.txt", "DOI", "10.1/a"),
        an_item("objects/d/", "box", "7"),
        an_item("", "ARK", "ark:/1/b"),
        an_item("objects", "shelf", "X"),
        an_item("objects/none", "DOI", "10.1/b"),
    ]
    await bench.receive({**FILES, JSON: json.dumps(said).encode()})
    await bench.run(load_identifiers)

    assert {
        "objects": [("ARK", "ark:/1/a"), ("shelf", "X")],
        "objects/a.txt": [("DOI", "10.1/a")],
        "objects/d": [("box", "7")],
    } == await identifiers(bench)
    assert ["content.identifiers_overridden", "content.metadata_unmatched"] == await codes(bench)


async def test_identifiers_that_cannot_be_read_are_all_said(bench: Bench) -> None:
    await bench.receive({**FILES, JSON: b'[{"file": 1},\n{"identifiers": [1]}]'})
    with pytest.raises(ContentError) as caught:
        await bench.run(load_identifiers)

    assert caught.value.code is Code.CONTENT_METADATA_INVALID
    assert {f"{JSON}:1", f"{JSON}:2"} == {violation.path for violation in caught.value.violations}
