"""A store that goes away in the very moment of the commit: the outcome is unknown, and is settled later."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ingestd.app import open_ingest
from ingestd.config import Settings
from ingestd.errors import Code, DependencyError
from ingestd.messages import EventType, Outcome, RequestState
from ingestd.storage import open_archive
from ingestd.storage.local import LocalStore
from tests import storing
from tests.storing import PACKAGE, store


def away() -> DependencyError:
    return DependencyError("nobody answers", code=Code.DEPENDENCY_STORAGE_UNAVAILABLE)


@pytest.mark.tool
async def test_an_unknown_outcome_is_told_and_reconciled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("a letter")
    settings = Settings(data_dir=tmp_path / "data", processing={"aip_compression_algorithm": "tar"})
    write_, read_ = LocalStore.write, LocalStore.read

    async def write(self: LocalStore, key: str, content: bytes) -> None:
        await write_(self, key, content)
        if key.endswith(".sha256"):
            monkeypatch.setattr(LocalStore, "read", read)
            raise away()

    async def read(self: LocalStore, key: str) -> bytes | None:
        raise away()

    monkeypatch.setattr(LocalStore, "write", write)
    async with open_ingest(settings) as ingest:
        ended = await ingest.preserve(tmp_path / "source")
        assert Outcome.OUTCOME_UNKNOWN is ended.outcome
        assert ended.error is not None
        assert Code.STORAGE_OUTCOME_UNKNOWN is ended.error.code
        monkeypatch.setattr(LocalStore, "write", write_)
        monkeypatch.setattr(LocalStore, "read", read_)

        (record,) = await ingest.ended_as(RequestState.OUTCOME_UNKNOWN)
        settled = await (await ingest.retry(str(record.package)))

    assert settled.outcome in {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}
    assert settled.aip is not None
    assert 1 == len(settled.aip.stored)


async def test_the_service_audits_on_its_schedule_and_publishes_what_it_finds(tmp_path: Path) -> None:
    archive = open_archive(str(tmp_path / "aips"))
    await store(archive, storing.write(tmp_path), b"an AIP")
    settings = Settings(
        data_dir=tmp_path / "data", locations={"primary": str(tmp_path / "aips")}, audit_every_seconds=0.2
    )
    async with open_ingest(settings) as ingest, asyncio.timeout(20), asyncio.TaskGroup() as group:
        audits = group.create_task(ingest.keep_auditing())
        while not (good := await ingest.outbox()):
            await asyncio.sleep(0.01)
        held = await archive.find(PACKAGE)
        assert held is not None
        await archive.medium.write(held.key, b"an A1P")
        kinds: set[EventType] = set()
        while EventType.FIXITY_FAILED not in kinds:
            await asyncio.sleep(0.05)
            kinds = {item.event.kind for item in await ingest.outbox(1000)}
        audits.cancel()

    assert EventType.FIXITY_CHECKED is good[0].event.kind
    assert "default.fixity.checked" == good[0].event.routing_key()
    fixity = json.loads(good[0].event.model_dump_json())["data"]["fixity"]
    assert (str(PACKAGE), True) == (fixity["package"], fixity["good"])
