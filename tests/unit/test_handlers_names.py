from __future__ import annotations

import os
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestd.errors import SystemFault
from ingestd.handlers.names import change_object_names
from ingestd.oais import Facts, escape_name
from ingestd.premis import EventType
from tests.steps import Bench

CASES: dict[str, list[bytes]] = {
    "collisions": [b"fname-^~", b"fname-~^", b"fname-__", b"a b.txt", b"a_b.txt", b"a&b.txt"],
    "normal forms": [unicodedata.normalize(form, "é.txt").encode() for form in ("NFC", "NFD")],
    "long": [b"x" * 255, b"x" * 251 + b".txt", "好".encode() * 85, b"x" * 240],
    "not UTF-8": [b"caf\xe9.txt", b"caf\xe8.txt", b"\xff", b"\xfe\xfd"],
    "nothing left": ["😀".encode(), "😁".encode(), b"^", b"~", b" ", "．".encode(), "‥".encode(), "…".encode()],
    "line ends": [b"a\nb", b"a\rb", b"a\tb", b"100%", b"100%25"],
    "safe": [b"a.txt", b"B-c_(1).tar.gz"],
}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path, options={"under": "objects"})
    yield bench
    await bench.journal.close()


async def fill(bench: Bench, names: list[bytes]) -> dict[str, bytes]:
    contents = {f"objects/{os.fsdecode(name)}": name for name in names}
    await bench.receive(contents)
    return contents


async def hold(bench: Bench, contents: dict[str, bytes]) -> None:
    """Every content is there once, where the records say, under a safe name, and its original name is known."""
    files = await bench.files()
    assert {file.original: (bench.root / file.path).read_bytes() for file in files} == contents
    assert sorted(file.path for file in files) == bench.on_disk()
    for file in files:
        assert file.path.isascii()
        assert all(part.strip(".") and len(part) <= 250 for part in file.path.split("/"))
        assert not set(file.path) & set(" \n\r\t%^~&'\"")


@pytest.mark.parametrize("case", CASES)
async def test_every_file_gets_a_safe_name_of_its_own_and_keeps_its_content(bench: Bench, case: str) -> None:
    contents = await fill(bench, CASES[case])

    await bench.run(change_object_names)

    await hold(bench, contents)


@pytest.mark.parametrize("case", CASES)
async def test_a_second_run_changes_nothing(bench: Bench, case: str) -> None:
    await fill(bench, CASES[case])
    await bench.run(change_object_names)
    once = bench.contents()

    await bench.run(change_object_names)

    assert once == bench.contents()


@pytest.mark.parametrize("stop_after", range(5))
async def test_killed_between_disk_and_journal_it_ends_the_same(tmp_path: Path, stop_after: int) -> None:
    names = [*CASES["collisions"], *CASES["not UTF-8"]]
    contents = {
        f"objects/{os.fsdecode(b'd ' + folder)}/{os.fsdecode(n)}": n for folder in (b"1", b"\xff") for n in names
    }
    ends = []
    for stop in (None, stop_after):
        bench = await Bench.open(tmp_path / f"{stop}", options={"under": "objects"})
        await bench.receive(contents)
        if stop is not None:
            await bench.run(change_object_names, stop_after=stop)
        await bench.run(change_object_names)
        await hold(bench, contents)
        ends.append(bench.contents())
        await bench.journal.close()

    assert ends[0] == ends[1]


async def test_folders_within_folders_are_renamed_with_all_that_is_in_them(bench: Bench) -> None:
    contents = {"objects/ä b/ç d/é f.txt": b"1", "objects/a b/c d/e f.txt": b"2", "objects/ä b/g": b"3"}
    await bench.receive(contents, folders=["objects/ä b/empty é"])

    await bench.run(change_object_names)

    await hold(bench, contents)
    found = {d.original: d.path async for some in bench.journal.directories(under="objects") for d in some}
    assert set(found) == {"objects/ä b", "objects/ä b/ç d", "objects/a b", "objects/a b/c d", "objects/ä b/empty é"}
    assert all((bench.root / path).is_dir() for path in found.values())


async def test_each_change_is_an_event_with_both_names(bench: Bench) -> None:
    await fill(bench, [b"caf\xe9 1.txt", b"plain.txt"])

    await bench.run(change_object_names)

    files = {file.original: file for file in await bench.files()}
    changed = files[os.fsdecode(b"objects/caf\xe9 1.txt")]
    events = await bench.journal.events([file.id for file in files.values()])
    assert set(events) == {changed.id}
    (event,) = events[changed.id]
    assert event.type is EventType.FILENAME_CHANGE
    assert escape_name(changed.original) in event.note
    assert changed.path in event.note
    event.note.encode()


async def test_what_is_on_disk_and_in_no_record_is_never_overwritten(bench: Bench) -> None:
    await fill(bench, [b"a b"])
    (bench.root / "objects/a_b").write_bytes(b"stranger")

    with pytest.raises(SystemFault):
        await bench.run(change_object_names)

    assert bench.contents() == {"objects/a b": b"a b", "objects/a_b": b"stranger"}


async def test_a_file_that_vanished_is_a_fault(bench: Bench) -> None:
    await fill(bench, [b"a b"])
    (bench.root / "objects/a b").unlink()

    with pytest.raises(SystemFault, match="not on disk"):
        await bench.run(change_object_names)


async def test_only_what_lies_under_the_option_is_changed(bench: Bench) -> None:
    await bench.receive({"objects/a b": b"1", "metadata/a b": b"2"})

    await bench.run(change_object_names)

    assert ["metadata/a b", "objects/a_b"] == bench.on_disk()


async def test_names_that_all_become_one_are_counted_up_without_asking_for_each(bench: Bench) -> None:
    contents = await fill(
        bench, [b"%d" % n if n == 0 else b"^" * n for n in range(1, 120)] + [b"^~" * n for n in range(1, 60)]
    )
    await bench.journal.record(Facts())

    await bench.run(change_object_names)

    await hold(bench, contents)
