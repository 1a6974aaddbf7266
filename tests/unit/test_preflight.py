from __future__ import annotations

import asyncio
import hashlib
import os
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingestd.errors import Code
from tests.preflights import codes, look, rules, write

GOOD = {
    "objects/letter.txt": "Dear all",
    "photo.txt": "seen",
    "metadata/metadata.csv": "filename,dc.title\nobjects/letter.txt,A letter\n",
    "metadata/rights.csv": "file,basis,status,jurisdiction\nobjects/photo.txt,copyright,copyrighted,ch\n",
    "metadata/checksum.md5": f"{hashlib.md5(b'Dear all').hexdigest()}  letter.txt\n"
    f"{hashlib.md5(b'seen').hexdigest()}  photo.txt\n",
    "metadata/source-metadata.csv": "filename,metadata,type\nobjects/letter.txt,mods.xml,mods\n",
    "metadata/mods.xml": "<mods/>",
    "metadata/identifiers.json": '[{"file": "objects", "identifiers": [{"identifier": "1", "identifierType": "DOI"}]}]',
    ".hidden": "",
}


async def test_a_good_transfer_passes_with_its_counts(tmp_path: Path) -> None:
    report = await look(write(tmp_path / "good", GOOD))

    assert [] == report.errors
    assert [] == report.warnings
    assert [] == report.limits
    assert ("good", len(GOOD)) == (report.name, report.files)
    assert report.size_bytes == sum(len(text) for text in GOOD.values())


async def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    source = write(
        tmp_path / "bad",
        {
            "objects/a": "1",
            "a": "2",
            "metadata/metadata.csv": "filename;dc.title\n",
            "metadata/checksum.sha256": "zz  a\n",
            "metadata/identifiers.json": "[{",
            "metadata/dublincore.xml": "<dublincore>&out;</dublincore>",
            "metadata/source-metadata.csv": "filename,metadata,type\nobjects/a,none.xml,mods\n",
            "metadata/rights.csv": "file,basis\nobjects/a,guess\n",
            "metadata/mets_structmap.xml": "<mets/>",
            "processingMCP.xml": "<other/>",
        },
    )
    (source / "out").symlink_to("/etc/passwd")
    report = await look(source, processing={"normalise": True}, target={"location": "moon"})
    error = report.error()

    assert [
        Code.REQUEST_UNKNOWN_OPTION,
        Code.REQUEST_UNKNOWN_LOCATION,
        Code.CONTENT_PATH_TRAVERSAL,
        Code.CONTENT_NAME_COLLISION,
        Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH,
    ] == codes(report)[:5]
    assert {
        "identifiers.json",
        "metadata.csv",
        "dublincore.xml",
        "source-metadata.csv",
        "rights.csv",
        "mets_structmap.xml",
        "processingMCP.xml",
    } == {one.detail.partition(" ")[0].removeprefix("metadata/") for one in report.errors[5:]}
    assert error is not None
    assert error.code is Code.REQUEST_UNKNOWN_OPTION
    assert sum(len(one.violations) or 1 for one in report.errors) == len(error.violations)
    assert all(one.remediation in error.remediation for one in report.errors)


async def test_what_the_workflow_walks_past_is_a_warning(tmp_path: Path) -> None:
    report = await look(write(tmp_path / "t", {"a": "1", "metadata/premis.xml": "no XML"}))

    assert [] == report.errors
    assert [Code.CONTENT_PREMIS_INVALID] == [warning.code for warning in report.warnings]


async def test_a_zip_is_looked_into_as_what_it_unpacks_to(tmp_path: Path) -> None:
    bad = write(tmp_path / "one", {"x/objects/a": "1", "x/a": "2", "x/metadata/metadata.csv": "filename;b\n"})
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for path in sorted(bad.rglob("*")):
            archive.write(path, path.relative_to(bad))
        archive.writestr("x/../../out", "1")
    report = await look(tmp_path / "t.zip")

    assert [Code.CONTENT_PATH_TRAVERSAL, Code.CONTENT_NAME_COLLISION, Code.CONTENT_METADATA_INVALID] == codes(report)
    assert "t" == report.name


A = hashlib.md5(b"a").hexdigest()
BAG = {
    "bagit.txt": "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n",
    "data/a": "a",
    "manifest-md5.txt": f"{hashlib.md5(b'a').hexdigest()}  data/a\n",
    "bag-info.txt": "Payload-Oxum: 1.1\n",
}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, set()),
        ({"data/b": "not named"}, {("data/b", "listed"), ("bag-info.txt", "Payload-Oxum")}),
        ({"manifest-md5.txt": f"{A}  data/a\n{'0' * 32}  data/c\n"}, {("data/c", "present")}),
        ({"manifest-md5.txt": f"{'0' * 32}  data/a\n"}, {("data/a", "md5")}),
        (
            {"manifest-md5.txt": f"{'0' * 32}  ../a\n"},
            {("manifest-md5.txt:1", "content.path_traversal"), ("data/a", "listed")},
        ),
        ({"manifest-md5.txt": "half\n"}, {("manifest-md5.txt:1", "line"), ("data/a", "listed")}),
        ({"bagit.txt": "BagIt-Version: 7\n"}, {("bagit.txt", "version"), ("bagit.txt", "encoding")}),
        ({"fetch.txt": "http://x/b 1 data/b\n"}, {("data/b", "fetch")}),
        ({"tagmanifest-md5.txt": f"{'0' * 32}  none.txt\n"}, {("none.txt", "present")}),
    ],
)
async def test_a_bag_is_complete_and_what_its_manifests_say(
    tmp_path: Path, changed: dict[str, str], found: set[tuple[str, str]]
) -> None:
    report = await look(write(tmp_path / "bag", {**BAG, **changed}))

    assert found == rules(report)
    assert codes(report) == ([Code.CONTENT_BAG_INVALID] if found else [])


async def test_what_is_no_bag_is_told_where_a_bag_was_promised(tmp_path: Path) -> None:
    report = await look(write(tmp_path / "t", {"a": "1"}), type="bag")

    assert [Code.CONTENT_BAG_INVALID] == codes(report)


async def test_a_checksum_is_compared_where_that_is_cheap(tmp_path: Path) -> None:
    file = write(tmp_path, {"a.txt": "a"}) / "a.txt"
    wrong = {"algorithm": "sha256", "value": "0" * 64}
    now = await look(file, checksum=wrong)
    later = await look(file, {"preflight": {"max_checksum_bytes": 0}}, checksum=wrong)

    assert [Code.SOURCE_CHECKSUM_MISMATCH] == codes(now)
    assert [] == codes(later)
    assert "checksum" in later.limits[0]


async def test_files_are_held_against_their_checksums_up_to_a_limit(tmp_path: Path) -> None:
    files = {"objects/a": "a", "objects/b": "bbb", "metadata/checksum.md5": f"{A}  a\n{'0' * 32}  b\n"}
    source = write(tmp_path / "t", files)
    report = await look(source)
    later = await look(source, {"preflight": {"max_checksum_bytes": 3}})

    assert {("b", "md5")} == rules(report)
    assert ([], 1) == (later.errors, len(later.limits))
    assert "checksum" in later.limits[0]


async def test_a_huge_source_is_looked_at_in_part_and_the_report_says_so(tmp_path: Path) -> None:
    source = write(tmp_path / "t", {f"objects/{number:04}": "" for number in range(600)})
    write(source, {"metadata/checksum.md5": "half\n"})
    few = await look(source, {"preflight": {"max_entries": 10}})
    short = await look(source, {"preflight": {"max_seconds": 1e-9}})
    small = await look(source, {"preflight": {"max_metadata_bytes": 1}})

    assert "only the first 10" in few.limits[0]
    assert any("preflight.max_seconds" in limit for limit in short.limits)
    assert ["metadata/checksum.md5 is longer than 1 bytes (preflight.max_metadata_bytes)"] == small.limits
    assert {("metadata/checksum.md5:1", "line")} == rules(few)


async def test_no_file_outside_the_source_is_read_through_a_link(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("password\n")
    source = write(tmp_path / "t", {"objects/a": "1", "metadata/x": ""})
    (source / "metadata/metadata.csv").symlink_to(secret)
    report = await look(source)

    assert [Code.CONTENT_PATH_TRAVERSAL] == codes(report)
    assert "password" not in str([error.violations for error in report.errors])


async def test_names_are_bytes(tmp_path: Path) -> None:
    source = tmp_path / "t"
    source.mkdir()
    for name in (b"caf\xe9", b"new\nline"):
        (Path(os.fsdecode(os.fsencode(source) + b"/" + name))).write_text("1")
    report = await look(source)

    assert [] == report.errors
    assert 2 == report.files


@asynccontextmanager
async def answering(status: str, headers: str) -> AsyncIterator[tuple[str, list[str]]]:
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().partition(" ")[0])
        writer.write(f"HTTP/1.1 {status}\r\n{headers}Connection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.zip", asked


@pytest.mark.parametrize(
    ("status", "headers", "found"),
    [
        ("200 OK", "Content-Length: 12\r\n", []),
        ("404 Not Found", "", [Code.SOURCE_NOT_FOUND]),
        ("403 Forbidden", "", []),
        ("503 Away", "", []),
        ("200 OK", "Content-Length: 9999\r\n", [Code.POLICY_SIZE_OVER_LIMIT]),
        ("302 There", "Location: ftp://x/\r\n", [Code.REQUEST_UNSUPPORTED_SOURCE]),
    ],
)
async def test_a_url_is_asked_for_its_head_alone(status: str, headers: str, found: list[Code]) -> None:
    async with answering(status, headers) as (url, asked):
        report = await look(url, {"sources": {"max_bytes": 1000}})

    assert found == codes(report)
    assert ["HEAD"] == asked
    assert (12 if "12" in headers else None) == report.source_bytes


async def test_a_server_that_is_away_now_rejects_nothing() -> None:
    report = await look("http://127.0.0.1:1/a.zip")

    assert [] == report.errors
    assert any("did not say" in limit for limit in report.limits)
