from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingestd.errors import Code, ContentError
from ingestd.handlers.dataverse import DERIVATION, MISSING, read_dataverse_dataset
from ingestd.metadata.dataverse import AGENTS_FILE, FILE
from ingestd.mets import unfit
from ingestd.oais import File, FileUse, TransferType
from ingestd.premis import AgentLink, EventOutcome, EventType
from tests.steps import Bench, a_package

DATAVERSE = a_package(type=TransferType.DATAVERSE)
CSV = b"a,b\n1,2\n"
BUNDLE = {
    "objects/survey/survey.csv": CSV,
    "objects/survey/survey.tab": b"a\tb\n1\t2\n",
    "objects/survey/survey.RData": b"R",
    "objects/survey/survey-ddi.xml": b"<codeBook/>",
    "objects/survey/surveycitation-ris.ris": b"TY  - DATA",
}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def a_file(label: str, content: bytes, folder: str = "", **more: Any) -> dict[str, Any]:
    held = {"filename": label, "checksum": {"type": "MD5", "value": md5(content)}, **more.pop("data", {})}
    return {"label": label, "directoryLabel": folder, "dataFile": held, **more}


def a_table() -> dict[str, Any]:
    return a_file("survey.tab", CSV, data={"originalFormatLabel": "Comma Separated Values"})


def a_dataset(*files: Any) -> bytes:
    fields = [
        {"typeName": "title", "value": "Light & <dark>"},
        {"typeName": "author", "value": [{"authorName": {"value": "Keeper, Ann"}}]},
        {"typeName": "dsDescription", "value": [{"dsDescriptionValue": {"value": "On\x01 light"}}]},
        {"typeName": "subject", "value": ["Physics"]},
    ]
    version = {
        "datasetPersistentId": "doi:10.5072/FK2/ABC",
        "versionNumber": 1,
        "versionMinorNumber": 0,
        "versionState": "RELEASED",
        "releaseTime": "2020-01-02T03:04:05Z",
        "license": {"name": "CC0", "uri": "https://creativecommons.org/publicdomain/zero/1.0"},
        "metadataBlocks": {"citation": {"fields": fields}},
        "files": files,
    }
    data = {
        "persistentUrl": "https://doi.org/10.5072/FK2/ABC",
        "publisher": "Demo Dataverse",
        "publicationDate": "2020-01-02",
        "latestVersion": version,
    }
    return json.dumps({"status": "OK", "data": data}).encode()


def a_transfer(*more: Any) -> dict[str, bytes]:
    dataset = a_dataset(a_file("read me.txt", b"read", "docs"), a_table(), *more)
    return {FILE: dataset, "objects/docs/read me.txt": b"read", **BUNDLE}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench.open(tmp_path, package=DATAVERSE)
    yield bench
    await bench.journal.close()


async def file_at(bench: Bench, path: str) -> File:
    file = await bench.journal.file_at(path)
    assert file is not None
    return file


async def refused(bench: Bench) -> ContentError:
    with pytest.raises(ContentError) as raised:
        await bench.run(read_dataverse_dataset)
    return raised.value


async def test_every_file_is_proved_and_a_table_by_what_was_submitted(bench: Bench) -> None:
    await bench.receive(a_transfer())

    await bench.run(read_dataverse_dataset, stop_after=2)
    await bench.run(read_dataverse_dataset, cursor=0)

    for path in ("objects/docs/read me.txt", "objects/survey/survey.csv"):
        file = await file_at(bench, path)
        checks = [
            event for event in (await bench.journal.events([file.id]))[file.id] if event.type == EventType.FIXITY_CHECK
        ]
        assert [EventOutcome.PASS] == [event.outcome for event in checks]


async def test_what_dataverse_made_of_a_table_is_derived_from_it(bench: Bench) -> None:
    await bench.receive(a_transfer())

    await bench.run(read_dataverse_dataset)

    source = await file_at(bench, "objects/survey/survey.csv")
    for name in ("survey.tab", "survey.RData"):
        made = await file_at(bench, f"objects/survey/{name}")
        assert (FileUse.DERIVATIVE, source.id) == (made.use, made.derived_from)
    events = [one for one in (await bench.journal.events([source.id]))[source.id] if one.type == DERIVATION]
    assert {"%transferDirectory%objects/survey/survey.tab", "%transferDirectory%objects/survey/survey.RData"} == {
        event.note for event in events
    }
    (link,) = events[0].agents
    (agent,) = (await bench.journal.linked_agents([link])).values()
    assert "Demo Dataverse" == agent.name
    said = [one for _, one in (await bench.journal.descriptions([source.id]))[source.id]]
    assert {"DDI": "survey-ddi.xml", "citation": "surveycitation-ris.ris"} == {
        one.kind: (await bench.journal.files_by_id([one.reference]))[one.reference].path.rpartition("/")[2]
        for one in said
        if one.reference
    }


async def test_agents_are_those_of_agents_json(bench: Bench) -> None:
    agent = {"IdentifierType": "URI", "IdentifierValue": "https://d.example", "Name": "D", "Type": "organization"}
    agents = {"agents": [{f"agent{key}": value for key, value in agent.items()}]}
    await bench.receive({**a_transfer(), AGENTS_FILE: json.dumps(agents).encode()})

    await bench.run(read_dataverse_dataset)

    (found,) = (await bench.journal.linked_agents([AgentLink("URI", "https://d.example")])).values()
    assert "D" == found.name


async def test_the_package_is_described_as_dublin_core_and_ddi(bench: Bench) -> None:
    await bench.receive(a_transfer())

    await bench.run(read_dataverse_dataset)

    package = bench.package.id
    dc, ddi, reference = (one for _, one in (await bench.journal.descriptions([package]))[package])
    assert {
        ("dc.title", "Light & <dark>"),
        ("dc.creator", "Keeper, Ann"),
        ("dc.identifier", "doi:10.5072/FK2/ABC"),
    } < set(dc.pairs)
    assert ("DDI", True) == (ddi.kind, ddi.standard)
    assert '<ddi:IDNo agency="DOI">10.5072/FK2/ABC</ddi:IDNo>' in ddi.xml
    assert not await unfit(ddi.xml)
    assert (await file_at(bench, FILE)).id == reference.reference
    (identifier,) = (await bench.journal.identifiers([package]))[package]
    assert ("DOI", "10.5072/FK2/ABC") == (identifier.type, identifier.value)


async def test_damaged_and_missing_files_are_told_at_once_and_restricted_ones_are_warnings(bench: Bench) -> None:
    received = a_transfer(
        a_file("gone.txt", b"gone"), a_file("secret.txt", b"s", restricted=True), a_file("passwd", b"x", "../../../etc")
    )
    received["objects/docs/read me.txt"] = b"damaged"
    await bench.receive(received)

    error = await refused(bench)

    assert error.code is Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH
    assert {("objects/docs/read me.txt", "md5"), ("gone.txt", "present"), ("../../../etc/passwd", "present")} == {
        (violation.path, violation.rule) for violation in error.violations
    }
    warnings = [(one.code, one.path) async for window in bench.journal.warnings() for one in window]
    assert [(MISSING, "secret.txt")] == warnings


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "line 1, column 2"),
        (b"[]", "no object"),
        (b'{"files": []}', "latestVersion"),
        (b"[" * 100_000, "no JSON"),
        (b'{"metadataBlocks": {}, "files": [{}]}', "file 1 has neither"),
        (b"\xff", "UTF-8"),
    ],
)
async def test_a_dataset_that_cannot_be_read_is_told_with_its_place(bench: Bench, content: bytes, said: str) -> None:
    await bench.receive({FILE: content, "objects/a": b"a"})

    error = await refused(bench)

    assert error.code is Code.CONTENT_METADATA_INVALID
    assert said in error.violations[0].actual


async def test_a_transfer_without_dataset_json_is_refused_and_others_are_left_alone(bench: Bench) -> None:
    await bench.receive({"objects/dataset.json": b"[1]"})

    await bench.run(read_dataverse_dataset, package=a_package())

    (tmp,) = await bench.files()
    assert FileUse.ORIGINAL is tmp.use
    await bench.run(read_dataverse_dataset, package=a_package(type=TransferType.STANDARD))
    assert (await refused(bench)).code is Code.CONTENT_METADATA_INVALID


async def test_a_dataset_is_known_without_being_asked(bench: Bench) -> None:
    await bench.receive(a_transfer())

    await bench.run(read_dataverse_dataset, package=a_package())

    assert FileUse.DERIVATIVE is (await file_at(bench, "objects/survey/survey.tab")).use
