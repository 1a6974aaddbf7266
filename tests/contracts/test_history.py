"""What holds for every `oais.History`: the journal of a package, and the fake that other tests use."""

from __future__ import annotations

import inspect
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingestd.journal import PackageJournal
from ingestd.oais import (
    Description,
    DescriptionStatus,
    Directory,
    Extension,
    Facts,
    File,
    FileUse,
    Rename,
    Section,
    Totals,
    Warning_,
)
from ingestd.premis import Event, EventOutcome, EventType, Format
from tests.fakes import FakeHistory
from tests.steps import AT, a_file

ODD = [os.fsdecode(raw) for raw in (b"a", b"a-b", b"a0", b"a/b", b"a.", b"\xff", b"\xff\xfe", b"%", b"'", b"a\n", b"_")]


class Recorded:
    """A history and how facts get into it."""

    def __init__(self, history: PackageJournal | FakeHistory) -> None:
        self.history = history

    async def record(self, **facts: object) -> None:
        done = self.history.record(Facts(**facts))  # type: ignore[arg-type]
        if inspect.isawaitable(done):
            await done

    async def files(self, **more: object) -> list[File]:
        return [file async for window in self.history.files(**more) for file in window]  # type: ignore[arg-type]

    async def paths(self, **more: object) -> list[str]:
        return [file.path for file in await self.files(**more)]

    async def directories(self, **more: object) -> list[Directory]:
        return [one async for window in self.history.directories(**more) for one in window]  # type: ignore[arg-type]


@pytest.fixture(params=["journal", "fake"])
async def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Recorded]:
    if request.param == "fake":
        yield Recorded(FakeHistory())
        return
    journal = await PackageJournal.open(tmp_path / "journal.db")
    yield Recorded(journal)
    await journal.close()


async def test_a_file_comes_back_as_it_was_recorded(recorded: Recorded) -> None:
    file = a_file(
        os.fsdecode(b"objects/caf\xe9"),
        original="objects/other",
        use=FileUse.PRESERVATION,
        format=Format(name="PNG", version="1.2", puid="fmt/13", mime="image/png"),
        derived_from=uuid.uuid4(),
        label="l",
    )
    await recorded.record(files=[file, a_file("b", digest=None, modified_at=None)])

    found = await recorded.files()

    assert [
        replace(file, row=found[0].row),
        replace(a_file("b", digest=None, modified_at=None), row=found[1].row),
    ] == found
    assert 0 < found[0].row < found[1].row


async def test_a_known_file_is_replaced_and_keeps_its_row(recorded: Recorded) -> None:
    await recorded.record(files=[a_file("a"), a_file("b")])
    before = await recorded.files()

    await recorded.record(files=[replace(a_file("a"), path="z", size_bytes=9)])

    assert [("z", "a", 9, before[0].row), ("b", "b", 1, before[1].row)] == [
        (file.path, file.original, file.size_bytes, file.row) for file in await recorded.files()
    ]


async def test_a_directory_is_known_by_its_path_and_an_identifier_once_given_stays(recorded: Recorded) -> None:
    id_ = uuid.uuid4()
    await recorded.record(
        directories=[Directory(path="d", original="d"), Directory(path="d/e", original="d/e", id=id_)]
    )
    await recorded.record(directories=[Directory(path="d/e", original="x"), Directory(path="d", original="d", id=id_)])

    assert [("d", "d", id_), ("d/e", "x", id_)] == [(d.path, d.original, d.id) for d in await recorded.directories()]


async def test_a_directory_that_was_read_is_replaced_by_its_row(recorded: Recorded) -> None:
    await recorded.record(directories=[Directory(path="d", original="d"), Directory(path="e", original="e")])
    first = (await recorded.directories())[0]

    await recorded.record(directories=[replace(first, path="f")])
    assert ["f", "e"] == [d.path for d in await recorded.directories()]

    await recorded.record(directories=[replace(first, path="f", removed=True)])
    assert ["e"] == [d.path for d in await recorded.directories()]
    await recorded.record(directories=[Directory(path="f", original="new")])
    assert {"e": "e", "f": "new"} == {d.path: d.original for d in await recorded.directories()}


@pytest.mark.parametrize("as_received", [False, True])
async def test_a_rename_moves_what_is_at_and_below_it_and_nothing_beside(recorded: Recorded, as_received: bool) -> None:
    below = [name for name in ODD if "/" not in name]
    await recorded.record(
        files=[a_file(f"a/{name}") for name in below] + [a_file(name) for name in ("a-b", "a0", "a.", "b", "ab/a")],
        directories=[Directory(path=p, original=p) for p in ("a", "a/d", "a-d", "a0d")],
    )

    await recorded.record(renames=[Rename(old="a", new=os.fsdecode(b"n\xfe"), as_received=as_received)])

    new = os.fsdecode(b"n\xfe")
    moved = {f"{new}/{name}" for name in below}
    assert moved | {"a-b", "a0", "a.", "b", "ab/a"} == set(await recorded.paths())
    assert moved == set(await recorded.paths(under=new))
    assert {new, f"{new}/d", "a-d", "a0d"} == {d.path for d in await recorded.directories()}
    originals = {file.path: file.original for file in await recorded.files()}
    assert originals[f"{new}/_"] == (f"{new}/_" if as_received else "a/_")
    assert await recorded.history.files_at([f"{new}/_"])


async def test_a_rename_of_one_file_moves_it_alone(recorded: Recorded) -> None:
    await recorded.record(files=[a_file("a"), a_file("aa")])
    await recorded.record(renames=[Rename(old="a", new="objects/a")])

    assert ["objects/a", "aa"] == await recorded.paths()


async def test_a_removed_file_stays_where_it_was_and_leaves_its_place_free(recorded: Recorded) -> None:
    gone = a_file("a/x", removed=True)
    await recorded.record(files=[gone, replace(a_file("a/x"), id=uuid.uuid4())])
    await recorded.record(renames=[Rename(old="a", new="b")])

    assert ["b/x"] == await recorded.paths()
    assert ["a/x"] == await recorded.paths(removed=True)
    assert await recorded.history.taken(["a/x", "b/x"]) == {"b/x"}
    assert await recorded.history.file_at("a/x") is None


async def test_renames_come_before_directories_and_those_before_files(recorded: Recorded) -> None:
    await recorded.record(files=[a_file("a")])
    await recorded.record(
        renames=[Rename(old="a", new="d/a")],
        directories=[Directory(path="d", original="d")],
        files=[replace(a_file("a"), path="d/b")],
    )

    assert ["d/b"] == await recorded.paths()


@pytest.mark.parametrize("window", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("by_path", [False, True])
async def test_every_file_comes_once_in_windows_and_in_order(recorded: Recorded, window: int, by_path: bool) -> None:
    names = [f"objects/{name}" for name in ODD]
    await recorded.record(files=[a_file(name) for name in names])

    windows = [[file.path for file in files] async for files in recorded.history.files(window=window, by_path=by_path)]

    assert (sorted(names, key=os.fsencode) if by_path else names) == [path for some in windows for path in some]
    assert all(0 < len(some) <= window for some in windows)


@pytest.mark.parametrize("by_path", [False, True])
async def test_under_limits_to_one_folder(recorded: Recorded, by_path: bool) -> None:
    await recorded.record(files=[a_file(name) for name in ("a", "a-b/x", "a/x", "a/y/z", "a0/x", "aa/x")])

    assert ["a/x", "a/y/z"] == await recorded.paths(under="a", by_path=by_path, window=1)
    assert [] == await recorded.paths(under="nowhere", by_path=by_path)
    assert 2 == (await recorded.history.totals(under="a")).files


async def test_reading_goes_on_after_a_row_and_chooses_by_use(recorded: Recorded) -> None:
    await recorded.record(files=[a_file("a"), a_file("b", use=FileUse.METADATA), a_file("c")])
    rows = [file.row for file in await recorded.files()]

    assert ["b", "c"] == await recorded.paths(after_row=rows[0], window=1)
    assert [] == await recorded.paths(after_row=rows[2])
    assert ["a", "c"] == await recorded.paths(uses=[FileUse.ORIGINAL])
    assert ["a", "b", "c"] == await recorded.paths(uses=[FileUse.METADATA, FileUse.ORIGINAL], window=1)


async def test_what_is_recorded_while_one_reads_by_row_does_not_disturb(recorded: Recorded) -> None:
    await recorded.record(files=[a_file(f"a/{number}") for number in range(6)])
    seen = []
    async for window in recorded.history.files(under="a", window=2):
        seen += [file.original for file in window]
        await recorded.record(files=[replace(file, path=f"a/n-{file.path[2:]}") for file in window])

    assert [f"a/{number}" for number in range(6)] == seen


async def test_files_are_found_by_where_they_are_and_by_where_they_were_received(recorded: Recorded) -> None:
    await recorded.record(
        files=[a_file("now", original="then"), a_file("gone", removed=True)],
        directories=[Directory(path="d", original="received")],
    )
    history = recorded.history

    assert set(await history.files_at(["now", "then", "gone"])) == {"now"}
    assert set(await history.files_received_as(["now", "then", "gone"])) == {"then"}
    assert await history.files_at([]) == {}
    found = await history.file_at("now")
    assert found is not None
    assert found.original == "then"
    directory = await history.directory_received_as("received")
    assert directory is not None
    assert directory.path == "d"
    assert await history.directory_received_as("d") is None
    assert await history.taken(["now", "d", "then", "received", "gone"]) == {"now", "d"}
    assert await history.taken([]) == frozenset()


async def test_events_extensions_and_descriptions_are_found_by_what_they_are_about(recorded: Recorded) -> None:
    one, other = uuid.uuid4(), uuid.uuid4()
    events = [
        Event(object=id_, type=EventType.FIXITY_CHECK, at=AT, detail="d", outcome=EventOutcome.PASS, note=str(number))
        for number, id_ in enumerate([one, other, one])
    ]
    extensions = [Extension(file=one, tool=tool, xml=f"<a>{tool} é</a>") for tool in ("b", "a")]
    descriptions = [Description(target=other, kind="DC", pairs=[("dc.title", "é"), ("dc.title", "f")])] * 2
    await recorded.record(events=events, extensions=extensions, descriptions=descriptions)
    history = recorded.history

    assert [events[0], events[2]] == list((await history.events([one]))[one])
    assert set(await history.events([one, other, uuid.uuid4()])) == {one, other}
    assert extensions == list((await history.extensions([one, other]))[one])
    told = (await history.descriptions([one, other]))[other]
    assert [list(descriptions[0].pairs)] * 2 == [list(description.pairs) for _, description in told]
    assert told[0][0] < told[1][0]


async def test_derivatives_are_found_by_their_source_unless_they_are_removed(recorded: Recorded) -> None:
    source = a_file("a")
    made = [a_file(name, derived_from=source.id, use=FileUse.PRESERVATION) for name in ("c", "b")]
    gone = a_file("d", derived_from=source.id, removed=True)
    await recorded.record(files=[source, *made, gone])

    found = await recorded.history.derivatives([source.id, made[0].id])

    assert {source.id: ["c", "b"]} == {id_: [file.path for file in files] for id_, files in found.items()}


async def test_totals_count_what_is_there_and_apart_what_is_removed(recorded: Recorded) -> None:
    await recorded.record(
        files=[
            a_file("o/a", b"123"),
            a_file("o/b", b"1", use=FileUse.METADATA),
            a_file("o/c", removed=True),
            a_file("p"),
        ],
        directories=[Directory(path="o", original="o"), Directory(path="o/d", original="o/d")],
    )

    assert Totals(files=3, bytes=5, directories=2, removed=1, by_use={"original": 2, "metadata": 1}) == (
        await recorded.history.totals()
    )
    assert Totals(files=2, bytes=4, directories=1, removed=1, by_use={"original": 1, "metadata": 1}) == (
        await recorded.history.totals(under="o")
    )
    assert Totals() == await recorded.history.totals(under="none")


async def test_of_facts_of_the_package_the_later_word_wins(recorded: Recorded) -> None:
    await recorded.record(package={"a": "1", "b": "1"})
    await recorded.record(package={"a": "2"})

    assert {"a": "2", "b": "1"} == dict(await recorded.history.facts())


async def test_the_same_warning_is_kept_once(recorded: Recorded) -> None:
    warning = Warning_(code="c", detail="d", path=os.fsdecode(b"\xff"), link="l")
    await recorded.record(warnings=[warning, warning])
    await recorded.record(warnings=[warning, replace(warning, link="m")])

    assert [warning, replace(warning, link="m")] == [w async for some in recorded.history.warnings() for w in some]


async def test_what_is_made_for_a_dip_is_no_part_of_the_totals_of_the_aip(recorded: Recorded) -> None:
    received = a_file("DIP/a.txt")
    made = a_file("DIP/objects/a.jpg", use=FileUse.ACCESS)
    await recorded.record(files=[received, made, a_file("objects/access/b.jpg", use=FileUse.ACCESS)])

    assert 2 == (await recorded.history.totals()).files
    assert 2 == (await recorded.history.totals(under="DIP")).files


async def test_a_description_comes_back_whole(recorded: Recorded) -> None:
    said = Description(
        target=uuid.uuid4(),
        kind="mods",
        section=Section.SOURCE,
        xml="<é/>",
        reference=uuid.uuid4(),
        status=DescriptionStatus.UPDATE_SUPERSEDED,
        created_at=datetime(2020, 1, 2, tzinfo=UTC),
        group="g",
    )
    await recorded.record(descriptions=[said])

    ((_, back),) = (await recorded.history.descriptions([said.target]))[said.target]
    assert replace(back, pairs=tuple(back.pairs)) == said


async def test_files_are_found_by_their_ids_unless_they_were_removed(recorded: Recorded) -> None:
    here, gone = a_file("objects/a"), a_file("objects/b", removed=True)
    await recorded.record(files=[here, gone])

    assert [here.id] == list(await recorded.history.files_by_id([here.id, gone.id, uuid.uuid4()]))
