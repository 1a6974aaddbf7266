"""The moment an AIP is stored: what is written down before it, and how a worker that takes over finds it done."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ingestd.errors import Code, IngestError
from ingestd.journal import PackageJournal
from ingestd.leases import Storing
from ingestd.messages import EventData, RequestState, WarningData
from ingestd.mets import pointer_name
from ingestd.oais import Package
from ingestd.premis import DigestAlgorithm
from ingestd.results import of_replica, record_with_pointer, result_data, stored_data
from ingestd.storage import Deposit, Locations
from ingestd.tools.packing import stored_name
from ingestd.workflow import Workflow


async def about_to_store(
    journal: PackageJournal, package: Package, workflow: Workflow, algorithm: DigestAlgorithm, *, started_at: datetime
) -> Storing:
    """What the store is about to be given, and everything that the result will say but where it is."""
    said = await result_data(journal, package, workflow, algorithm, started_at)
    data = EventData(request_id="", sequence=0, state=RequestState.STORING, **said)
    facts = await journal.facts()
    return Storing(
        name=stored_name(package.as_told(facts)),
        size_bytes=int(facts["aip_size"]),
        algorithm=algorithm,
        digest=facts["aip_digest"],
        has_dip="dip_id" in facts,
        data=data.model_dump(mode="json", include=set(said)),
    )


async def found_stored(
    storing: Storing, package: Package, target: str, locations: Locations, scratch: Path
) -> dict[str, Any] | None:
    """The result of an attempt whose worker died while it stored the AIP, if the AIP is there whole; else None.

    It is read and proved anew; copies that are missing on other places of the target are made from it, by way of
    `scratch`. Raises `StorageError` when something else is there under its name.
    """
    said = EventData.model_validate({"request_id": "", "sequence": 0, "state": RequestState.STORING, **storing.data})
    assert said.aip is not None  # noqa: S101  it was packed
    store = locations.get(target)
    held = {name: await archive.find(said.aip.id) for name, archive in store.places.items()}
    # Of a reingest, what is there may be the version before.
    good = [name for name, one in held.items() if one and not (package.reingest and one.digest != storing.digest)]
    if not good:
        return None
    before = [one.digest for name, one in held.items() if one and name not in good]
    deposit = Deposit(
        package=said.aip.id,
        name=storing.name,
        size_bytes=storing.size_bytes,
        algorithm=DigestAlgorithm(storing.algorithm),
        digest=storing.digest,
        supersedes=before[0] if before else "",
    )
    source = Path(os.devnull) / "gone"  # nothing need be brought: what is there is proved
    first = held[good[0]]
    if len(good) < len(held) and first is not None and first.digest == storing.digest:
        archive, name = store.places[good[0]], pointer_name(said.aip.id)
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)  # another death left it, perhaps
        source = await archive.fetch(first, scratch)
        pointer = await archive.companion(first, name)
        deposit = replace(deposit, companions={name: pointer} if pointer else {})
    copies = await store.store(source, deposit, of_copy=partial(of_replica, said.aip.id))
    stored = [stored_data(await record_with_pointer(store, one, said.aip.id)) for one in copies.stored]
    told = {name: getattr(said, name) for name in storing.data}
    warnings = [*said.warnings, *(_not_stored(place, error) for place, error in copies.failed)]
    if storing.has_dip:
        warnings.append(_NO_DIP)
    return told | {"aip": said.aip.model_copy(update={"stored": stored}), "warnings": warnings}


_NO_DIP = WarningData(
    code=Code.STORAGE_DIP_FAILED,
    count=1,
    samples=["the machine that had made a DIP was lost before it told of it: a reingest makes one again"],
)


def _not_stored(place: str, error: IngestError) -> WarningData:
    return WarningData(code=error.code, count=1, samples=[f"not stored on {place}: {error.detail}"])
