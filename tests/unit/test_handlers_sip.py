from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestd.errors import SystemFault
from ingestd.handlers.identifiers import assign_file_uuids, assign_uuids_to_directories
from ingestd.handlers.sip import move_metadata, move_submission_documentation
from ingestd.oais import FileUse
from ingestd.premis import EventType
from tests.steps import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    await bench.receive(
        {
            "objects/a": b"1",
            "metadata/metadata.csv": b"2",
            "metadata/submissionDocumentation/contract.pdf": b"3",
            "logs/l/x": b"4",
        },
        folders=["metadata/empty", "logs/empty"],
    )
    yield bench
    await bench.journal.close()


def expected(bench: Bench) -> dict[str, bytes]:
    label = bench.package.transfer_label
    return {
        "objects/a": b"1",
        f"objects/metadata/transfers/{label}/metadata.csv": b"2",
        f"objects/submissionDocumentation/transfer-{label}/contract.pdf": b"3",
        f"logs/transfers/{label}/logs/l/x": b"4",
    }


async def move(bench: Bench) -> None:
    await bench.run(move_submission_documentation)
    await bench.run(move_metadata)


async def test_documentation_metadata_and_logs_take_their_places(bench: Bench) -> None:
    await move(bench)

    assert expected(bench) == bench.contents()
    files = await bench.files()
    assert sorted(expected(bench)) == sorted(file.path for file in files) == sorted(file.original for file in files)
    directories = [d.path for some in [some async for some in bench.journal.directories()] for d in some]
    assert all((bench.root / path).is_dir() for path in directories)
    label = bench.package.transfer_label
    assert {"logs", f"logs/transfers/{label}/logs/l", f"logs/transfers/{label}/logs/empty"} <= set(directories)
    assert ["transfers"] == [path.name for path in (bench.root / "logs").iterdir()]


async def test_moved_twice_it_is_moved_once(bench: Bench) -> None:
    await move(bench)
    await move(bench)

    assert expected(bench) == bench.contents()
    assert sorted(expected(bench)) == await bench.paths()


@pytest.mark.parametrize("step", [move_submission_documentation, move_metadata])
@pytest.mark.parametrize("stop_after", range(3))
async def test_killed_in_the_middle_it_ends_the_same(bench: Bench, step: object, stop_after: int) -> None:
    if step is move_metadata:
        await bench.run(move_submission_documentation)
    await bench.run(step, stop_after=stop_after)  # type: ignore[arg-type]

    await move(bench)

    assert expected(bench) == bench.contents()
    assert sorted(expected(bench)) == await bench.paths()


async def test_two_folders_at_both_places_are_a_fault_and_neither_is_touched(bench: Bench) -> None:
    (bench.root / f"objects/metadata/transfers/{bench.package.transfer_label}").mkdir(parents=True)
    before = bench.contents()

    with pytest.raises(SystemFault):
        await bench.run(move_metadata)

    assert before == bench.contents()


async def test_every_directory_among_the_objects_gets_the_same_identifier_each_time(bench: Bench) -> None:
    await bench.receive({"objects/d/e/f": b"5"})
    await bench.run(assign_uuids_to_directories)
    first = {d.path: d.id async for some in bench.journal.directories() for d in some}

    assert await bench.run(assign_uuids_to_directories) == []

    assert {path for path, id_ in first.items() if id_} == {"objects/d", "objects/d/e"}
    assert len({id_ for id_ in first.values() if id_}) == 2


@pytest.mark.parametrize("accession", ["", "2026.1"])
async def test_every_file_came_in_and_originals_are_registered_under_their_accession(
    tmp_path: Path, accession: str
) -> None:
    from ingestd.oais import Facts
    from tests.steps import a_file, a_package

    bench = await Bench.open(tmp_path, package=a_package(accession=accession))
    files = [a_file("objects/a"), a_file("metadata/b", use=FileUse.METADATA)]
    await bench.journal.record(Facts(files=files))

    await bench.run_files(assign_file_uuids)

    told = await bench.journal.events([file.id for file in files])
    kinds = {id_: [event.type for event in events] for id_, events in told.items()}
    assert kinds[files[1].id] == [EventType.INGESTION]
    assert kinds[files[0].id] == [EventType.INGESTION, *([EventType.REGISTRATION] if accession else [])]
    if accession:
        assert told[files[0].id][1].note == "accession#2026.1"
    await bench.journal.close()
