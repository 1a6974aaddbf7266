"""Reingests as their tests ask for them, and what they look at in the AIPs that come of it."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ingestd import aip
from ingestd.config import Settings
from ingestd.ingest import Ingest
from ingestd.keeping import LocationSettings
from ingestd.messages import EventData, Outcome
from ingestd.mets import ReadDescription, ReadFile, Record, read
from tests.acceptance.aips import open_aip, stored_path
from tests.acceptance.program import NO_DERIVATIVES

QUICK = {**NO_DERIVATIVES, "validate_formats": False}
SUPERSEDED = "original-superseded"


def settings_in(folder: Path, layout: str = "pairtree") -> Settings:
    place = LocationSettings.model_validate({"url": (folder / "stored").as_uri(), "layout": layout})
    return Settings.model_validate(
        {
            "data_dir": folder / "data",
            "locations": {"here": place},
            "default_location": "here",
            "processing": QUICK,
            "clamav": {"scanner": "off"},
        }
    )


def described(folder: Path, rows: Sequence[Sequence[str]]) -> Path:
    folder.mkdir()
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(rows)
    return folder


async def reingest(ingest: Ingest, source: str | Path, **more: Any) -> EventData:
    return await ingest.preserve(source, type="reingest", **more)


def adding(folder: Path) -> dict[str, Any]:
    return {"metadata": {"location": str(folder)}}


def path_of(result: EventData) -> Path:
    assert result.outcome in {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}, result.error
    return stored_path(result.model_dump(mode="json"))


async def records(package: Path, into: Path) -> list[Record]:
    """What the METS says; first it is proved by bagit, by metsrw and by `aip verify`."""
    found = await aip.verify(package)
    assert found.findings == []
    opened = await asyncio.to_thread(open_aip, package, into)
    (mets,) = (opened.folder / "data").glob("METS.*.xml")
    return [record async for window in read(mets, whole=True) for record in window]


def files(said: Sequence[Record]) -> dict[str, ReadFile]:
    return {record.identifier: record for record in said if isinstance(record, ReadFile)}


def descriptions(said: Sequence[Record], path: str, kind: str = "DC") -> list[tuple[str, str]]:
    """Status and title (or first value) of each, in the order of the METS."""
    found = [r for r in said if isinstance(r, ReadDescription) and (r.path, r.kind) == (path, kind)]
    return [(str(one.status), one.pairs[0][1]) for one in found]


async def theirs(into: Path) -> list[Record]:
    (mets,) = into.rglob("METS.*.xml")
    return [record async for window in read(mets, whole=True) for record in window]
