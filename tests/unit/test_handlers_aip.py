from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ingestd import bag
from ingestd.errors import Code, StorageError, SystemFault
from ingestd.handlers.aip import (
    bag_folder,
    compress_aip,
    keep_failed_package,
    prepare_aip,
    store_aip,
    verify_aip,
)
from ingestd.oais import Facts
from ingestd.walking import walk
from tests.steps import AT, Bench, a_file, a_package

Damage = Callable[[Path], object]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    package = a_package(name="Les <b>é</b>", processing={"aip_compression_algorithm": "uncompressed"})
    bench = await Bench.open(tmp_path, package=package)
    await bench.receive({"objects/a": b"1", "objects/d/b": b"22"}, folders=["logs", "metadata"])
    (bench.root / "METS.xml").write_bytes(b"<mets/>")
    await bench.journal.record(Facts(package={"mets_created_at": AT.isoformat(), "mets_digest": "0" * 64}))
    yield bench
    await bench.journal.close()


async def packed(bench: Bench) -> Path:
    await bench.run(prepare_aip)
    await bench.run(compress_aip)
    return bag_folder(bench.task())


async def test_the_transfer_becomes_a_valid_bag_with_all_that_is_in_it(bench: Bench) -> None:
    folder = await packed(bench)

    bag.validate(folder)
    facts = await bench.journal.facts()
    assert ("3", "10") == (facts["payload_files"], facts["payload_bytes"])
    assert f"Bagging-Date: {AT.date()}" in (folder / "bag-info.txt").read_text()
    assert str(bench.package.id) in (folder / "bag-info.txt").read_text()


async def test_made_twice_the_bag_is_the_same(bench: Bench) -> None:
    folder = await packed(bench)
    first = {path: (folder / path).read_bytes() for path in walk(folder)}
    bench.root.mkdir()  # as a resumed package has it

    await bench.run(prepare_aip)

    assert first == {path: (folder / path).read_bytes() for path in walk(folder)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "objects/strange").write_bytes(b"x"),
        lambda root: (root / "objects/a").unlink(),
        lambda root: (root / "objects/a").write_bytes(b"longer"),
        lambda root: (root / "objects/link").symlink_to("a"),
    ],
    ids=["strange", "missing", "other size", "link"],
)
async def test_what_is_on_disk_and_what_is_recorded_must_be_the_same(bench: Bench, damage: Damage) -> None:
    damage(bench.root)

    with pytest.raises(SystemFault):
        await bench.run(prepare_aip)


async def test_an_aip_as_it_was_made_is_verified(bench: Bench) -> None:
    await packed(bench)

    (outcome,) = await bench.run(verify_aip)

    assert outcome.facts.package["verified_files"] == "7"


async def test_what_was_set_aside_before_the_bag_was_made_is_not_missed(bench: Bench) -> None:
    folder = await packed(bench)
    await bench.journal.record(Facts(files=[a_file("DIP/objects/a.jpg")]))

    await bench.run(verify_aip)

    assert not (folder / "data/DIP").exists()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda f: (f / "data/objects/a").write_bytes(b"2"), ("data/objects/a", "digest")),
        (lambda f: (f / "data/METS.xml").write_bytes(b"<METS/>"), ("data/METS.xml", "digest")),
        (lambda f: (f / "bag-info.txt").write_bytes(b""), ("bag-info.txt", "digest")),
        (lambda f: (f / "data/objects/d/b").unlink(), ("data/objects/d/b", "missing")),
        (lambda f: (f / "data/METS.xml").unlink(), ("data/METS.xml", "missing")),
        (lambda f: (f / "data/objects/c\n").write_bytes(b""), ("data/objects/c%0A", "manifest")),
        (lambda f: (f / "fetch.txt").write_bytes(b""), ("fetch.txt", "manifest")),
        (lambda f: (f / "data/objects/d/b").rename(f / "data/objects/d/c"), ("data/objects/d/c", "manifest")),
    ],
    ids=["byte", "METS", "tag", "missing", "METS missing", "extra", "extra tag", "renamed"],
)
async def test_every_difference_is_found_and_named(bench: Bench, damage: Damage, found: tuple[str, str]) -> None:
    damage(await packed(bench))

    with pytest.raises(StorageError) as caught:
        await bench.run(verify_aip)

    assert caught.value.code is Code.STORAGE_VERIFY_MISMATCH
    assert found in {(violation.path, violation.rule) for violation in caught.value.violations}


async def test_a_stored_aip_is_gone_from_the_working_folder_and_can_be_stored_again_after_a_crash(bench: Bench) -> None:
    await packed(bench)
    first = await bench.run(store_aip)
    again = await bench.run(store_aip)

    assert not bag_folder(bench.task()).exists()
    url = first[0].facts.package["stored_url"]
    assert url == again[0].facts.package["stored_url"]
    bag.validate(Path(url.removeprefix("file://")))


async def test_a_failed_package_is_kept_but_for_its_scratch(bench: Bench) -> None:
    (bench.folder / "scratch").mkdir()

    await bench.run(keep_failed_package)

    assert not (bench.folder / "scratch").exists()
    assert b"1" == (bench.root / "objects/a").read_bytes()
