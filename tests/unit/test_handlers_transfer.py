from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestd.errors import Code, ContentError, SourceError
from ingestd.handlers.transfer import (
    check_transfer_directory_for_objects,
    remove_hidden_files_and_directories,
    remove_unneeded_files,
    restructure_for_compliance,
    save_directory_tree,
    verify_transfer_compliance,
)
from ingestd.oais import FileUse
from ingestd.premis import EventType
from tests.steps import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    yield bench
    await bench.journal.close()


# --- hidden and unneeded


async def test_hidden_files_and_folders_are_removed_with_a_trace(bench: Bench) -> None:
    await bench.receive(
        {"a": b"1", ".b": b"2", "c~": b"3", ".git/x/y": b"4", "d/.e/f": b"5", "d/g": b"6", "d~/h": b"7"},
        folders=[".git/empty"],
    )

    await bench.run(remove_hidden_files_and_directories)

    assert ["a", "d/g"] == bench.on_disk() == await bench.paths()
    assert {"a", "d"} == {path.name for path in bench.root.iterdir()}
    assert ["d"] == [d.path async for some in bench.journal.directories() for d in some]
    removed = await bench.files(removed=True)
    assert len(removed) == 5
    events = await bench.journal.events([file.id for file in removed])
    assert {EventType.FILE_REMOVED} == {event.type for told in events.values() for event in told}
    assert len(events) == 5


async def test_hidden_folders_beyond_one_window_are_all_removed(bench: Bench) -> None:
    await bench.receive({"a": b"1", **{f".h/{n:04}/x": b"2" for n in range(300)}})

    await bench.run(remove_hidden_files_and_directories)

    assert ["a"] == [path.name for path in bench.root.iterdir()]


@pytest.mark.parametrize("stop_after", range(3))
async def test_removing_is_gone_on_with_after_a_kill(bench: Bench, stop_after: int) -> None:
    await bench.receive({"a": b"1", ".b": b"2", ".d/c": b"3"})
    await bench.run(remove_hidden_files_and_directories, stop_after=stop_after)

    await bench.run(remove_hidden_files_and_directories)

    assert ["a"] == bench.on_disk() == await bench.paths()
    assert ["a"] == [path.name for path in bench.root.iterdir()]
    removed = await bench.files(removed=True)
    events = await bench.journal.events([file.id for file in removed])
    assert {1} == {len(told) for told in events.values()}


async def test_what_systems_leave_behind_is_removed_by_name(bench: Bench) -> None:
    await bench.receive({"Thumbs.db": b"1", "d/Icon\r": b"2", "d/thumbs.db.txt": b"3", "desktop.ini/x": b"4"})

    await bench.run_files(remove_unneeded_files)

    assert ["d/thumbs.db.txt", "desktop.ini/x"] == bench.on_disk() == await bench.paths()


# --- layout


async def test_everything_goes_into_objects_but_logs_and_metadata(bench: Bench) -> None:
    name = os.fsdecode(b"\xff n\n")
    await bench.receive(
        {
            "README": b"1",
            "objects/a": b"2",
            "metadata/metadata.csv": b"3",
            "metadata/submissionDocumentation/d": b"4",
            "logs/l": b"5",
            f"{name}/b": b"6",
        }
    )

    await bench.run(restructure_for_compliance)

    assert {"logs", "metadata", "objects"} == {path.name for path in bench.root.iterdir()}
    assert bench.on_disk() == await bench.paths()
    files = {file.path: file for file in await bench.files()}
    assert {"objects/README", f"objects/{name}/b", "objects/a"} <= set(files)
    assert all(file.path == file.original for file in files.values())
    assert files["metadata/metadata.csv"].use is FileUse.METADATA
    assert files["metadata/submissionDocumentation/d"].use is FileUse.SUBMISSION_DOCUMENTATION
    assert files["objects/a"].use is FileUse.ORIGINAL


async def test_a_flat_folder_of_many_files_is_moved_whole(bench: Bench) -> None:
    await bench.receive({f"{number:04}": b"x" for number in range(600)})

    await bench.run(restructure_for_compliance)

    assert [f"objects/{number:04}" for number in range(600)] == bench.on_disk() == await bench.paths()


@pytest.mark.parametrize("stop_after", range(4))
async def test_the_layout_is_gone_on_with_after_a_kill(bench: Bench, stop_after: int) -> None:
    await bench.receive({"a": b"1", "d/b": b"2", "metadata/m": b"3", **{f"x{n:03}": b"4" for n in range(300)}})
    await bench.run(restructure_for_compliance, stop_after=stop_after)

    await bench.run(restructure_for_compliance)

    assert bench.on_disk() == await bench.paths()
    assert {"objects/a", "objects/d/b", "metadata/m"} <= set(bench.on_disk())
    await bench.run(verify_transfer_compliance)


async def test_a_layout_that_was_recorded_and_not_made_is_made(bench: Bench) -> None:
    """Killed between the record of a window and its moves."""
    await bench.receive({"a": b"1", "b": b"2"})
    first = await anext(aiter(bench.outcomes(restructure_for_compliance)))
    await bench.journal.record(first.facts)
    assert ["a", "b"] == bench.on_disk()

    await bench.run(restructure_for_compliance)

    assert ["objects/a", "objects/b"] == bench.on_disk() == await bench.paths()


@pytest.mark.parametrize(
    ("contents", "place"),
    [
        ({"objects": b"1", "a": b"2"}, "objects"),
        ({"metadata": b"1", "a": b"2"}, "metadata"),
        ({"a": b"1", "objects/a": b"2"}, "a"),
        ({"objects/metadata": b"1"}, "objects/metadata"),
        ({"objects/submissionDocumentation": b"1"}, "objects/submissionDocumentation"),
        ({"submissionDocumentation": b"1"}, "submissionDocumentation"),
    ],
)
async def test_what_would_have_no_place_of_its_own_is_refused_before_anything_moves(
    bench: Bench, contents: dict[str, bytes], place: str
) -> None:
    await bench.receive(contents)

    with pytest.raises(ContentError) as caught:
        await bench.run(restructure_for_compliance)

    assert caught.value.code is Code.CONTENT_NAME_COLLISION
    assert [place] == [violation.path for violation in caught.value.violations]
    assert contents == bench.contents()


# --- verification


async def laid_out(bench: Bench) -> None:
    await bench.receive({"objects/a": b"1", "objects/b": b"2"}, folders=["logs", "metadata"])


async def test_a_folder_that_is_as_recorded_passes(bench: Bench) -> None:
    await laid_out(bench)

    assert [0] == [outcome.exit_code for outcome in await bench.run(verify_transfer_compliance)]


async def test_every_difference_is_listed_both_ways(bench: Bench) -> None:
    await laid_out(bench)
    await bench.receive({"objects/e": b"5"})
    (bench.root / "objects/a").unlink()
    (bench.root / "objects/e").unlink()
    (bench.root / "objects" / os.fsdecode(b"c\xff")).write_bytes(b"3")
    (bench.root / "stray").mkdir()

    with pytest.raises(SourceError) as caught:
        await bench.run(verify_transfer_compliance)

    assert [
        ("objects/a", "present"),
        ("objects/c%FF", "recorded"),
        ("objects/e", "present"),
        ("stray", "top_level"),
    ] == sorted((violation.path, violation.rule) for violation in caught.value.violations)


async def test_very_many_differences_are_not_all_listed(bench: Bench) -> None:
    await laid_out(bench)
    for number in range(400):
        (bench.root / f"objects/x{number}").write_bytes(b"")

    with pytest.raises(SourceError) as caught:
        await bench.run(verify_transfer_compliance)

    assert len(caught.value.violations) == 100


@pytest.mark.parametrize("step", [verify_transfer_compliance, check_transfer_directory_for_objects])
async def test_a_transfer_without_objects_is_empty(bench: Bench, step: object) -> None:
    await bench.receive({"metadata/a": b"1"}, folders=["objects", "logs"])

    with pytest.raises(ContentError) as caught:
        await bench.run(step)  # type: ignore[arg-type]

    assert caught.value.code is Code.CONTENT_EMPTY


# --- listing


async def test_the_listing_shows_folders_and_files_by_depth_and_is_a_file_of_the_package(bench: Bench) -> None:
    await bench.receive({"objects/a": b"", "objects/d/b": b"", "objects/d/e/c": b"", "objects/f/g": b""}, ["metadata"])

    await bench.run(save_directory_tree)

    listed = (bench.root / "metadata/directory_tree.txt").read_text()
    assert listed == "objects/\n    a\n    d/\n        b\n        e/\n            c\n    f/\n        g\n"
    (file,) = await bench.files(under="metadata")
    assert (FileUse.METADATA, len(listed)) == (file.use, file.size_bytes)
    await bench.run(save_directory_tree)
    assert ["metadata/directory_tree.txt"] == await bench.paths(under="metadata")


async def test_the_listing_never_overwrites_a_file_of_the_same_name(bench: Bench) -> None:
    await bench.receive({"objects/a": b"", "metadata/directory_tree.txt": b"theirs"})

    await bench.run(save_directory_tree)
    await bench.run(save_directory_tree)

    assert b"theirs" == (bench.root / "metadata/directory_tree.txt").read_bytes()
    assert ["metadata/directory_tree.txt", "metadata/directory_tree_1.txt"] == await bench.paths(under="metadata")


async def test_steps_do_not_hold_the_event_loop(bench: Bench) -> None:
    await bench.receive({f"objects/{number:04}": b"x" for number in range(500)}, ["metadata", "logs"])
    longest, last, done = 0.0, asyncio.get_running_loop().time(), False

    async def beat() -> None:
        nonlocal longest, last
        while not done:
            await asyncio.sleep(0.001)
            at = asyncio.get_running_loop().time()
            longest, last = max(longest, at - last), at

    async with asyncio.TaskGroup() as group:
        group.create_task(beat())
        await bench.run(verify_transfer_compliance)
        await bench.run(save_directory_tree)
        done = True

    assert longest < 1
