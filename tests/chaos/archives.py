"""Archival storage that the workers of a fleet share, and what a test asks of it in the end."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingestd import aip
from ingestd.keeping import CredentialSettings, LocationSettings
from ingestd.storage import Archive, open_archive
from tests.objectstores import Server


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A place for AIPs: `locations` and `settings` are for the workers."""

    locations: Mapping[str, str | Mapping[str, str]]
    archive: Archive
    settings: Mapping[str, str] = field(default_factory=dict)


def folder_shelf(folder: Path) -> Shelf:
    return Shelf(locations={"primary": folder.as_uri()}, archive=open_archive(folder.as_uri()))


def bucket_shelf(server: Server, prefix: str) -> Shelf:
    account: dict[str, Any] = {
        "endpoint": server.endpoint,
        "region": "us-east-1",
        "access_key_id": server.credentials.access_key_id.get_secret_value(),
        "secret_access_key": server.credentials.secret_access_key.get_secret_value(),
    }
    place = {"url": server.url(prefix), "credentials": "store"}
    return Shelf(
        locations={"primary": place},
        archive=open_archive(LocationSettings(**place), {"store": CredentialSettings(**account)}),
        settings={"CREDENTIALS": json.dumps({"store": account})},
    )


async def hold_archive(shelf: Shelf, packages: set[str], scratch: Path) -> int:
    """There are exactly these AIPs, and each is whole: fetched, and verified as a stranger's. Gives how many bytes."""
    held = [one async for one in shelf.archive.held()]
    found = [str(one.package) for one in held]
    assert sorted(found) == sorted(packages)
    size = 0
    for one in held:
        into = scratch / uuid.uuid4().hex
        path = await shelf.archive.fetch(one, into)
        size += path.stat().st_size
        told = await aip.verify(path, scratch=into)
        assert told.valid, (one.url, told.findings)
    return size
