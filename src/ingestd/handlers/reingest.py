"""Reingest: a stored AIP is proved, taken apart and read into the records; the usual links make its next version.

What the AIP was is the package's fact `oais.KEPT`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path, PurePosixPath
from typing import Any

from ingestd import aip
from ingestd.aip.reading import Reading, opened, uuid_in
from ingestd.aip.restoring import METS_BEFORE
from ingestd.bag import DECLARED, described, info_of
from ingestd.errors import Code, ContentError, StorageError, Violation
from ingestd.job import Outcome, Services, Task
from ingestd.messages import RequestSource, stored_aip
from ingestd.oais import (
    KEPT,
    VERSIONS,
    Directory,
    Facts,
    File,
    FileUse,
    Warning_,
    escape_name,
)
from ingestd.premis import now, time_in
from ingestd.sources import Received, Source, receive, source_of
from ingestd.storage import Held, find_stored

_RECEIVED = "aip-received"
_OBJECTS, _METADATA = "objects", "metadata"
_DOCUMENTATION = "metadata/submissionDocumentation"
_NOT_OF_A_VERSION = frozenset({"transfers", "versions"})


async def receive_aip(task: Task, services: Services) -> Outcome:
    """Bring the AIP out of archival storage, or from wherever it is, into a folder of its own, unpacked."""
    into = task.folder / _RECEIVED
    await asyncio.to_thread(shutil.rmtree, into, ignore_errors=True)
    settings = services.settings.sources
    identifier = stored_aip(task.source.location)
    kept: dict[str, Any] = {}
    if identifier is None:
        source = source_of(task.source, services.settings.credentials)
    else:
        fetched, held = await _fetch(task, services, identifier)
        source = Source(location=str(fetched))
        settings = settings.model_copy(update={"roots": (), "max_bytes": max(settings.max_bytes, _size(fetched))})
        kept = {"asked": str(identifier), "digest": held.digest}
    windows = receive(
        source,
        into,
        settings=settings,
        unpack=services.settings.unpack,
        algorithm=services.settings.digest_algorithm,
        pool=services.pool,
        trusted=task.trusted or identifier is not None,
        known=_nothing,
        scratch=task.folder / "scratch",
    )
    async with aclosing(windows):
        async for _ in windows:
            pass
    await asyncio.to_thread(shutil.rmtree, task.folder / "fetched", ignore_errors=True)
    return Outcome(facts=Facts(package={"reingest_source": json.dumps(kept)}))


async def _nothing(paths: Sequence[str]) -> frozenset[str]:
    """Everything is received anew."""
    del paths
    return frozenset()


async def _fetch(task: Task, services: Services, identifier: uuid.UUID) -> tuple[Path, Held]:
    target = services.locations.get(task.target, trusted=task.trusted)
    archive, held = await find_stored(services.locations, identifier, target)
    folder = task.folder / "fetched"
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return await archive.fetch(held, folder), held


def _size(path: Path) -> int:
    return path.stat().st_size


async def verify_received_aip(task: Task, services: Services) -> Outcome:
    """Prove the AIP before anything is done with it; every finding is told (`content.aip_invalid`).

    Raises `StorageError` (`storage.conflict`) where archival storage has the AIP and it was not taken from there.
    """
    received = task.folder / _RECEIVED
    source = json.loads((await task.history.facts())["reingest_source"])
    found = await aip.verify(received, scratch=task.folder / "scratch")
    if not found.valid:
        raise ContentError(
            f"the AIP is not what it says: {found.found} finding(s)",
            code=Code.CONTENT_AIP_INVALID,
            violations=tuple(found.findings),
        )
    async with opened(received, scratch=task.folder / "scratch") as reading:
        kept = await _kept(reading, source)
        maps = reading.summary.more_struct_maps if reading.summary else 0
    if "digest" not in source:
        await _must_not_be_stored(task, services, uuid.UUID(kept["id"]))
    elif source["asked"] != kept["id"]:
        raise _other(source["asked"], kept["id"])
    detail = f"{maps} structMap(s) that came with the transfer are in the METS of the version before alone"
    left = [Warning_(code="content.struct_map_left", detail=detail, path=kept["mets"])] if maps else []
    return Outcome(facts=Facts(package={KEPT: json.dumps({**kept, "digest": source.get("digest", "")})}, warnings=left))


async def _kept(reading: Reading, source: Mapping[str, Any]) -> dict[str, Any]:
    """What a reingest must know of the AIP. Raises `ContentError` where it has no METS or no UUID."""
    identifier, summary = uuid_in(reading.identifier), reading.summary
    if reading.mets is None or summary is None or not identifier:
        wanted = "a METS, and a UUID in its name or its METS"
        violation = Violation(path=reading.name, rule="aip.identified", expected=wanted)
        raise ContentError("the AIP cannot be told by a UUID", code=Code.CONTENT_AIP_INVALID, violations=(violation,))
    names = [name for name in (reading.name, summary.label) if name.lower().endswith(f"-{identifier}")]
    payload = b"/".join(part for part in (reading.root, reading.payload) if part)
    at = reading.folder / os.fsdecode(reading.payload)
    return {
        "id": identifier,
        "name": names[0][: -len(identifier) - 1] if names else "aip",
        "created_at": created.isoformat() if (created := time_in(summary.created_at)) else "",
        "at": now().isoformat(),
        "bag": os.fsdecode(reading.root),
        "payload": os.fsdecode(payload),
        "mets": os.fsdecode(reading.mets[len(reading.payload) :].lstrip(b"/")),
        "external": await asyncio.to_thread(_external_identifier, reading.folder, identifier),
        "version": 1 + await asyncio.to_thread(_count, at / VERSIONS),
    }


def _external_identifier(bag: Path, identifier: str) -> str:
    """The submitter's own identifier, which the bag's description alone has."""
    said = described(bag).get("External-Identifier", ())
    return next((value for value in said if value != identifier), "")


def _count(folder: Path) -> int:
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _other(asked: str, found: str) -> ContentError:
    violation = Violation(path="source.location", rule="aip.identified", expected=asked, actual=found)
    return ContentError("another AIP was stored by this UUID", code=Code.CONTENT_AIP_INVALID, violations=(violation,))


async def _must_not_be_stored(task: Task, services: Services, identifier: uuid.UUID) -> None:
    held = await services.locations.get(task.target, trusted=task.trusted).find(identifier)
    if held is not None:
        raise StorageError(
            f"archival storage holds the AIP {identifier} already",
            code=Code.STORAGE_CONFLICT,
            remediation=f"Reingest what is stored: give urn:uuid:{identifier} as the source.",
        )


async def take_aip_apart(task: Task, services: Services) -> Outcome:
    """Make the AIP's payload the transfer, by one rename. Its METS is set aside; its logs and the bag's description of
    itself become those of a version.
    """
    kept = json.loads((await task.history.facts())[KEPT])
    await asyncio.to_thread(_take_apart, task, kept)
    return Outcome(facts=Facts(directories=[Directory(path=path, original=path) for path in (_OBJECTS, "logs")]))


def _take_apart(task: Task, kept: Mapping[str, Any]) -> None:
    payload = task.folder / _RECEIVED / kept["payload"]
    if payload.is_dir() and (payload / _OBJECTS).is_dir():
        if task.root.is_dir():
            task.root.rmdir()
        payload.rename(task.root)
    mets, logs = task.at(kept["mets"]), task.at("logs")
    if mets.exists():
        mets.replace(task.folder / METS_BEFORE)
    logs.mkdir(exist_ok=True)
    place = task.at(f"{VERSIONS}/{kept['version']}")
    for entry in sorted(logs.iterdir()):
        if entry.name not in _NOT_OF_A_VERSION:
            place.mkdir(parents=True, exist_ok=True)
            entry.rename(place / entry.name)
    _keep_tags(task.folder / _RECEIVED / kept["bag"], place)
    shutil.rmtree(task.folder / _RECEIVED, ignore_errors=True)


def _keep_tags(bag: Path, place: Path) -> None:
    for name in (DECLARED, info_of(bag)):
        if name and (bag / name).is_file():
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bag / name, place / name)


# --- what the request adds -------------------------------------------------------------------------------------------


async def receive_added_metadata(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Bring what the request adds into `metadata/`, where the links that read metadata look.

    Raises `ContentError` (`content.structure_invalid`) for a bag or a transfer: nothing would read what is in it.
    """
    if task.added is not None:
        async for outcome in _receive_added(task, services, task.added):
            yield outcome
        await asyncio.to_thread(_refuse_transfers, task.at(_METADATA))
    await asyncio.to_thread(task.at(_DOCUMENTATION).mkdir, parents=True, exist_ok=True)
    folders = [Directory(path=path, original=path) for path in (_METADATA, _DOCUMENTATION)]
    yield Outcome(facts=Facts(directories=folders))


def _refuse_transfers(root: Path) -> None:
    for place in ("data/metadata", "metadata"):
        if (root / place).is_dir() and (place == "metadata" or (root / "bagit.txt").is_file()):
            raise ContentError(
                "what is to be added is a bag or a transfer, and not what stands in its folder metadata",
                violations=(Violation(path=place, rule="added", expected="metadata.csv and its like at the top"),),
                remediation=f"Give its folder {place} instead.",
            )


async def _receive_added(task: Task, services: Services, added: RequestSource) -> AsyncIterator[Outcome]:
    settings = services.settings
    windows = receive(
        source_of(added, settings.credentials),
        task.at(_METADATA),
        settings=settings.sources,
        unpack=settings.unpack,
        algorithm=settings.digest_algorithm,
        pool=services.pool,
        trusted=task.trusted,
        known=lambda paths: _known(task, paths),
        scratch=task.folder / "scratch",
    )
    async with aclosing(windows):
        async for window in windows:
            yield Outcome(facts=_added(task, [one for one in window if not one.left_out]))


async def _known(task: Task, paths: Sequence[str]) -> frozenset[str]:
    taken = await task.history.taken([f"{_METADATA}/{path}" for path in paths])
    return frozenset(path.removeprefix(f"{_METADATA}/") for path in taken)


def _added(task: Task, window: Sequence[Received]) -> Facts:
    places = [(one, str(PurePosixPath(_METADATA, one.path))) for one in window]
    return Facts(
        directories=[Directory(path=place, original=place) for one, place in places if one.directory],
        files=[
            File(
                id=uuid.uuid5(task.package.request_id or task.package.id, f"file:{escape_name(place)}"),
                path=place,
                original=place,
                use=_use(place),
                size_bytes=one.size_bytes,
                digest=one.digest,
                modified_at=one.modified_at,
            )
            for one, place in places
            if not one.directory
        ],
    )


def _use(place: str) -> FileUse:
    return FileUse.SUBMISSION_DOCUMENTATION if place.startswith(f"{_DOCUMENTATION}/") else FileUse.METADATA
