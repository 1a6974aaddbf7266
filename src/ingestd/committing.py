"""The moment an AIP is stored: what is written down before it, and how a worker that takes over finds it done."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from ingestd.journal import PackageJournal
from ingestd.leases import Storing
from ingestd.messages import EventData, RequestState
from ingestd.oais import Package
from ingestd.premis import DigestAlgorithm
from ingestd.results import record_with_pointer, result_data, stored_data
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
        data=data.model_dump(mode="json", include=set(said)),
    )


async def found_stored(storing: Storing, package: Package, target: str, locations: Locations) -> dict[str, Any] | None:
    """The result of an attempt whose worker died while it stored the AIP, if the AIP is there whole; else None.

    It is read and proved anew. Raises `StorageError` when something else is there under its name.
    """
    said = EventData.model_validate({"request_id": "", "sequence": 0, "state": RequestState.STORING, **storing.data})
    assert said.aip is not None  # noqa: S101  it was packed
    store = locations.get(target)
    held = await store.find(said.aip.id)
    if held is None or (package.reingest and held.digest != storing.digest):  # what is there is the version before
        return None
    copies = await store.store(
        Path(os.devnull) / "gone",  # nothing can be brought: what is there is proved
        Deposit(
            package=said.aip.id,
            name=storing.name,
            size_bytes=storing.size_bytes,
            algorithm=DigestAlgorithm(storing.algorithm),
            digest=storing.digest,
        ),
    )
    stored = [stored_data(await record_with_pointer(store, one, said.aip.id)) for one in copies.stored]
    told = {name: getattr(said, name) for name in storing.data}
    return told | {"aip": said.aip.model_copy(update={"stored": stored})}
