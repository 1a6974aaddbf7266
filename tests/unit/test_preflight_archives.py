"""Archives are looked into before they are received, by the rules by which they will be unpacked."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import libarchive
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from ingestd.config import ToolSettings
from ingestd.errors import Code, ContentError
from ingestd.sources.lister import Lister, Order
from ingestd.sources.writer import Writer
from ingestd.tools.pool import Pool
from tests.preflights import codes, look, rules, write
from tests.unit.test_preflight import BAG
from tests.unit.test_sources_archives import ENTRIES, limits, rar4, rar5, take

BAD = {
    "x/objects/a": b"1",
    "x/a": b"2",
    "x/metadata/metadata.csv": b"filename;b\n",
    "x/metadata/checksum.md5": b"half\n",
}
"""One folder around a transfer with three things that are wrong."""


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    async with Pool(ToolSettings(), scratch=tmp_path) as pool:
        yield pool


def tarred(path: Path, files: Mapping[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zstd(path: Path, files: Mapping[str, bytes]) -> Path:
    plain = tarred(path.with_suffix(".plain"), files).read_bytes()
    with libarchive.file_writer(str(path), "raw", "zstd") as archive:
        archive.add_file_from_memory("data", len(plain), plain)
    return path


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


async def seven_zipped(pool: Pool, path: Path, files: Mapping[str, bytes], *options: str) -> Path:
    tree = write(path.with_suffix(".tree"), files)
    (await pool.run(["7z", "a", *options, str(path), "."], cwd=tree, writes=[path.parent])).check()
    return path


FORMS: Mapping[str, Callable[[Path, Mapping[str, bytes]], Path]] = {
    "zip": zipped,
    "tar": tarred,
    "tar.gz": lambda path, files: tarred(path, files, "w:gz"),
    "tar.xz": lambda path, files: tarred(path, files, "w:xz"),
    "tar.zst": zstd,
    "rar4": lambda path, files: written(path, rar4(files)),
    "rar5": lambda path, files: written(path, rar5(files)),
}


@pytest.mark.parametrize("form", [*FORMS, "7z"])
async def test_an_archive_is_looked_into_as_what_it_unpacks_to(form: str, tmp_path: Path, pool: Pool) -> None:
    path = tmp_path / f"t.{form}"
    source = await seven_zipped(pool, path, BAD) if form == "7z" else FORMS[form](path, BAD)
    report = await look(source, pool=pool)

    assert {
        Code.CONTENT_NAME_COLLISION,
        Code.CONTENT_METADATA_INVALID,
        Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH,
    } == set(codes(report))
    assert {("a", "unique"), ("metadata/metadata.csv:1:1", "header"), ("metadata/checksum.md5:1", "line")} <= rules(
        report
    )
    assert (len(BAD), sum(map(len, BAD.values()))) == (report.files, report.size_bytes)
    assert [] == report.limits


@pytest.mark.parametrize("form", ["tar.gz", "7z"])
async def test_a_bag_in_an_archive_is_complete_or_refused(form: str, tmp_path: Path, pool: Pool) -> None:
    bags = [{f"b/{name}": text.encode() for name, text in {**BAG, **more}.items()} for more in ({}, {"data/b": "more"})]
    made = []
    for number, bag in enumerate(bags):
        path = tmp_path / f"{number}.{form}"
        made.append(await seven_zipped(pool, path, bag) if form == "7z" else FORMS[form](path, bag))
    good, bad = [await look(path, pool=pool) for path in made]

    assert [] == good.errors
    assert ["not every file was held against its checksum: that is done when it is received"] == good.limits
    assert [Code.CONTENT_BAG_INVALID] == codes(bad)
    assert ("data/b", "listed") in rules(bad)


async def test_what_cannot_be_unpacked_is_refused_beforehand(tmp_path: Path, pool: Pool) -> None:
    cut = FORMS["tar.gz"](tmp_path / "cut.tar.gz", {"a": os.urandom(100_000)})
    cut.write_bytes(cut.read_bytes()[:-1000])
    locked = await seven_zipped(pool, tmp_path / "locked.7z", {"a": b"1"}, "-psecret")
    hidden = await seven_zipped(pool, tmp_path / "hidden.7z", {"a": b"1"}, "-psecret", "-mhe=on")
    out = tarred(tmp_path / "out.tar", {"../out": b"1", "a": b"2"})
    reports = [await look(path, pool=pool) for path in (cut, locked, hidden, out)]

    encrypted = [Code.CONTENT_ARCHIVE_ENCRYPTED]
    expected = [[Code.CONTENT_ARCHIVE_CORRUPT], encrypted, encrypted, [Code.CONTENT_PATH_TRAVERSAL]]
    assert expected == [codes(one) for one in reports]


async def test_a_bomb_is_told_before_it_is_unpacked(tmp_path: Path, pool: Pool) -> None:
    bomb = FORMS["tar.gz"](tmp_path / "a.tar.gz", {"a": bytes(3_000_000)})
    report = await look(bomb, {"unpack": {"max_ratio": 10, "ratio_from_bytes": 1_000_000}}, pool=pool)

    assert [Code.CONTENT_ARCHIVE_BOMB] == codes(report)


async def test_the_look_into_an_archive_is_limited_and_the_report_says_so(tmp_path: Path, pool: Pool) -> None:
    many = {**{f"objects/{number:03}": b"" for number in range(300)}, "metadata/checksum.md5": b"half\n"}
    paths = [FORMS["tar.gz"](tmp_path / "a.tar.gz", many), await seven_zipped(pool, tmp_path / "a.7z", many)]
    for path in paths:
        few = await look(path, {"preflight": {"max_entries": 10}}, pool=pool)
        late = await look(path, {"preflight": {"max_seconds": 1e-9}}, pool=pool)
        small = await look(path, {"preflight": {"max_metadata_bytes": 1}}, pool=pool)

        assert any("only the first 10" in limit for limit in few.limits)
        assert (None, None) == (few.files, few.size_bytes)
        assert any("preflight.max_seconds" in limit for limit in late.limits)
        assert any("preflight.max_metadata_bytes" in limit for limit in small.limits)
        assert [] == few.errors + late.errors + small.errors


async def test_links_in_an_archive_are_what_they_lead_to(tmp_path: Path, pool: Pool) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in ((name, text.encode()) for name, text in BAG.items() if name != "data/a"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("kept")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"a"))
        link = tarfile.TarInfo("data/a")
        link.type, link.linkname = tarfile.SYMTYPE, "../kept"
        archive.addfile(link)
    report = await look(tmp_path / "a.tar", pool=pool)

    assert [] == report.errors
    assert len(BAG) + 1 == report.files


@given(entries=ENTRIES)
@hypothesis_settings(max_examples=200, deadline=None)
def test_the_look_and_the_unpacking_judge_alike(
    entries: list[tuple[str, bytes, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    into = tmp_path_factory.mktemp("writer")
    bounds = {name: getattr(limits(), name) for name in limits().__slots__}
    order = Order(
        path="",
        form="tar",
        filter_name="none",
        certain=True,
        into="",
        limits=bounds,
        entries=10**6,
        seconds=1,
        file_bytes=0,
        bytes=0,
        wanted=(),
    )
    writer, lister = Writer(os.fsencode(into), limits=limits(), algorithm="sha256"), Lister(order, lambda: None)
    for taker in (writer, lister):
        take(taker, entries)
    listing = lister.finish()
    if listing.error is not None:
        with pytest.raises(ContentError) as caught:
            writer.finish(unwrap=False)
        assert caught.value.code == listing.error.code
    else:
        writer.finish(unwrap=False)
        there = {
            str(path.relative_to(into)): path.stat().st_size if path.is_file() else None for path in into.rglob("*")
        }
        assert there == listing.entries
