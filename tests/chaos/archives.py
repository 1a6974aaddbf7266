"""Archival storage that the workers of a fleet share, and what a test asks of it in the end."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ingestd import aip
from ingestd.keeping import LocationSettings
from ingestd.storage import Archive, open_archive
from tests.objectstores import Server
from tests.sftp_server import sshd


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A place for AIPs: `locations` and `settings` are for the workers."""

    locations: Mapping[str, str | Mapping[str, Any]]
    archives: Sequence[Archive]
    """Each holds every AIP."""
    settings: Mapping[str, str] = field(default_factory=dict)


def folder_shelf(folder: Path) -> Shelf:
    return Shelf(locations={"primary": folder.as_uri()}, archives=[open_archive(folder.as_uri())])


def two_shelves(folder: Path) -> Shelf:
    """A copy in Archivematica's layout, and one in an OCFL storage root."""
    pairtree, ocfl = {"url": (folder / "pairtree").as_uri()}, {"url": (folder / "ocfl").as_uri(), "layout": "ocfl"}
    return Shelf(
        locations={"primary": {"locations": ["first", "second"]}, "first": pairtree, "second": ocfl},
        archives=[open_archive(LocationSettings.model_validate(place)) for place in (pairtree, ocfl)],
    )


@contextlib.contextmanager
def sftp_shelf(folder: Path) -> Iterator[Shelf]:
    """A copy in a folder, where workers keep their leases, and one on an SFTP server of its own."""
    with sshd(folder / "sshd") as server:
        near, far = (folder / "near").as_uri(), {"url": server.url(folder / "far"), "credentials": "vault"}
        account = server.credentials
        settings = {"private_key": str(account.private_key), "host_keys": list(account.host_keys)}
        yield Shelf(
            locations={"primary": {"locations": ["near", "far"]}, "near": near, "far": far},
            archives=[open_archive(near), open_archive(LocationSettings.model_validate(far), {"vault": account})],
            settings={"CREDENTIALS": json.dumps({"vault": settings})},
        )


def bucket_shelf(server: Server, prefix: str) -> Shelf:
    given = server.credentials.model_dump(exclude_unset=True)
    account = {name: it.get_secret_value() if isinstance(it, SecretStr) else it for name, it in given.items()}
    place = {"url": server.url(prefix), "credentials": "store"}
    return Shelf(
        locations={"primary": place},
        archives=[open_archive(LocationSettings(**place), {"store": server.credentials})],
        settings={"CREDENTIALS": json.dumps({"store": account})},
    )


async def hold_archive(shelf: Shelf, packages: set[str], scratch: Path) -> int:
    """There are exactly these AIPs, and each is whole: fetched, and verified as a stranger's. Gives how many bytes."""
    size = 0
    for archive in shelf.archives:
        held = [one async for one in archive.held()]
        found = [str(one.package) for one in held]
        assert sorted(found) == sorted(packages)
        for one in held:
            into = scratch / uuid.uuid4().hex
            path = await archive.fetch(one, into)
            size += path.stat().st_size
            told = await aip.verify(path, scratch=into)
            assert told.valid, (one.url, told.findings)
        await archive.medium.aclose()
    return size
