from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingestd.errors import Code, ContentError
from ingestd.handlers.processing import read_processing_configuration
from ingestd.messages import ProcessingConfig
from ingestd.metadata.processing import decisions
from ingestd.oais import TRANSFER_OPTIONS
from tests.steps import Bench, a_package, services

NO_THUMBNAILS = ("498f7a6d-1b8c-431a-aa5d-83f14f3c5e65", "972fce6c-52c8-4c00-99b9-d6814e377974")
LEVEL_9 = ("01c651cb-c174-4ba4-b985-1d87a44d6754", "6d52fd24-8c06-4c8e-997a-e427ba0acc36")
NO_SCAN = ("856d2d65-cd25-49fa-8da9-cabb78292894", "63767e4b-9ce8-4fe2-8724-65cc1f763de0")
SCAN = ("1dad74a2-95df-4825-bbba-dca8b91d2371", "1ac7d792-b63f-46e0-9945-d48d9e5c02c9")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path)
    yield bench
    await bench.journal.close()


def a_file(*choices: tuple[str, str]) -> bytes:
    said = "".join(
        f"<preconfiguredChoice>\n<!-- one -->\n<appliesTo>{link}</appliesTo><goToChain> {answer}\n</goToChain>"
        "</preconfiguredChoice>"
        for link, answer in choices
    )
    return f"<processingMCP><preconfiguredChoices>{said}</preconfiguredChoices></processingMCP>".encode()


async def read(bench: Bench, content: bytes) -> dict[str, object]:
    await bench.receive({"a.txt": b"1", "processingMCP.xml": content})
    await bench.run(read_processing_configuration)
    return dict(json.loads((await bench.journal.facts()).get(TRANSFER_OPTIONS, "{}")))


async def warnings(bench: Bench) -> list[str]:
    return [w.detail async for some in bench.journal.warnings() for w in some]


def test_every_answer_is_options_that_there_are() -> None:
    for decision in decisions().values():
        for options in decision["answers"].values():
            assert options.items() <= ProcessingConfig.resolve(options).as_options().items()


async def test_choices_become_options_and_the_file_is_kept_among_the_metadata(bench: Bench) -> None:
    assert {"generate_thumbnails": False, "aip_compression_level": 9} == await read(
        bench, a_file(NO_THUMBNAILS, LEVEL_9)
    )
    assert ["a.txt", "metadata/processingMCP.xml"] == await bench.paths() == bench.on_disk()
    assert [] == await warnings(bench)
    told = bench.package.as_told(await bench.journal.facts())
    assert (9, bench.package.processing["normalize"]) == (
        told.processing["aip_compression_level"],
        told.processing["normalize"],
    )


async def test_what_the_request_says_is_right(bench: Bench) -> None:
    bench.package = a_package(processing={"aip_compression_level": 3}, asked=frozenset({"aip_compression_level"}))

    assert {"generate_thumbnails": False} == await read(bench, a_file(NO_THUMBNAILS, LEVEL_9))
    (warning,) = await warnings(bench)
    assert "the request says aip_compression_level=3" in warning


async def test_of_yes_and_no_yes_is_right(bench: Bench) -> None:
    assert {"scan_for_viruses": True} == await read(bench, a_file(SCAN, NO_SCAN))


async def test_a_choice_that_is_not_known_is_a_warning(bench: Bench) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    handle = "a2ba5278-459a-4638-92d9-38eb1588717d"

    assert {} == await read(bench, a_file((unknown, unknown), (handle, unknown)))
    first, second = await warnings(bench)
    assert f"the decision {unknown} is not known here" in first
    assert second.endswith("is not done here, or not known: give identifiers in metadata/identifiers.json")


@pytest.mark.parametrize(
    "content", [b"", b"<processingMCP>", b"<other/>", b"<!DOCTYPE p [<!ENTITY a 'b'>]><processingMCP/>"]
)
async def test_a_file_that_cannot_be_read_fails_the_package(bench: Bench, content: bytes) -> None:
    with pytest.raises(ContentError) as caught:
        await read(bench, content)

    assert caught.value.code is Code.CONTENT_METADATA_INVALID
    assert ["processingMCP.xml"] == [violation.path for violation in caught.value.violations]


async def test_it_can_be_set_to_be_kept_only(bench: Bench, tmp_path: Path) -> None:
    bench.services = services(tmp_path, processing_from_transfer=False)

    assert {} == await read(bench, a_file(LEVEL_9))
    assert "metadata/processingMCP.xml" in bench.on_disk()


async def test_killed_between_record_and_move_it_is_moved_the_next_time(bench: Bench) -> None:
    await bench.receive({"a.txt": b"1", "processingMCP.xml": a_file(LEVEL_9)})
    await bench.run(read_processing_configuration, stop_after=0)
    (first,) = [outcome async for outcome in bench.outcomes(read_processing_configuration)][:1]
    await bench.journal.record(first.facts)
    (bench.root / "metadata/processingMCP.xml").unlink(missing_ok=True)
    (bench.root / "processingMCP.xml").write_bytes(a_file(LEVEL_9))

    await bench.run(read_processing_configuration)

    assert await bench.paths() == bench.on_disk() == ["a.txt", "metadata/processingMCP.xml"]


async def test_one_that_came_among_the_metadata_is_not_followed(bench: Bench) -> None:
    await bench.receive({"metadata/processingMCP.xml": a_file(LEVEL_9)})
    await bench.run(read_processing_configuration)

    assert TRANSFER_OPTIONS not in await bench.journal.facts()
