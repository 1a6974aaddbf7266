"""What a result says of a package: built from its journal, for the terminal event and for people."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from ingestd import __version__
from ingestd.config import OrganizationSettings
from ingestd.journal import PackageJournal
from ingestd.messages import (
    AipData,
    Checksum,
    CompressionAlgorithm,
    CountsData,
    DipData,
    EncryptionData,
    LinkData,
    NormalizationData,
    PointerData,
    StoredData,
    TimingData,
    ToolData,
    VirusScanData,
    WarningData,
)
from ingestd.mets import pointer_name, replicated
from ingestd.oais import FileUse, Package
from ingestd.premis import SYSTEM_AGENT, Agent, AgentType, DigestAlgorithm, now
from ingestd.storage import Stored, Target
from ingestd.workflow import Workflow

_SAMPLE_CHARACTERS = 300


def agents(organization: OrganizationSettings, package: Package) -> Sequence[Agent]:
    """The three agents of every AIP: this software, the organization, and who asked."""
    return [
        Agent(
            identifier_type=SYSTEM_AGENT,
            identifier=f"ingestd-{__version__}",
            name="ingestd",
            type=AgentType.SOFTWARE,
            version=__version__,
        ),
        Agent(
            identifier_type="repository code",
            identifier=organization.identifier,
            name=organization.name,
            type=AgentType.ORGANIZATION,
        ),
        Agent(
            identifier_type="requester",
            identifier=package.requester or "unknown",
            name=package.requester or "unknown",
            type=AgentType.REQUESTER,
        ),
    ]


async def result_data(
    journal: PackageJournal, package: Package, workflow: Workflow, algorithm: DigestAlgorithm, started_at: datetime
) -> dict[str, Any]:
    """What every terminal event of a package says, whether it succeeded or not."""
    jobs = await journal.jobs()
    links = [
        LinkData(
            id=job.link,
            name=job.name,
            group=workflow.links[job.link].group_name if job.link in workflow.links else "",
            execute=job.execute,
            exit_code=job.exit_code,
            seconds=round(job.seconds, 3),
            files_done=job.files_done,
        )
        for job in jobs
    ]
    finished = now()
    return {
        "aip": await aip_data(journal, package, algorithm),
        "dip": dip_data(await journal.facts(), package, algorithm),
        "counts": await _counts(journal),
        "virus_scan": _virus_scan(await journal.facts()),
        "normalization": _normalization(await journal.facts()),
        "warnings": await _warnings(journal),
        "tools": [ToolData(name=n, version=v, used_for=u) for n, v, u in await journal.tools()],
        "workflow_digest": workflow.digest,
        "timing": TimingData(
            accepted_at=package.created_at,
            started_at=started_at,
            finished_at=finished,
            seconds=round((finished - started_at).total_seconds(), 3),
            links=links,
        ),
    }


async def aip_data(journal: PackageJournal, package: Package, algorithm: DigestAlgorithm) -> AipData | None:
    """The AIP, once it is packed, with where it is stored."""
    facts = await journal.facts()
    if "aip_digest" not in facts:
        return None
    package = package.as_told(facts)
    format_ = CompressionAlgorithm(str(package.processing["aip_compression_algorithm"]))
    checksum = Checksum(algorithm=algorithm, value=facts["aip_digest"])
    size = int(facts["aip_size"])
    mets = f"{package.label}/data/METS.{package.id}.xml"
    return AipData(
        id=package.id,
        name=package.label,
        size_bytes=size,
        checksum=None if format_ is CompressionAlgorithm.UNCOMPRESSED else checksum,
        format=format_,
        mets_path=mets,
        mets_checksum=Checksum(algorithm=algorithm, value=facts["mets_digest"]),
        verified_at=datetime.fromisoformat(facts["verified_at"]) if "verified_at" in facts else None,
        verified_by=facts.get("verified_by", ""),
        encryption=EncryptionData(**json.loads(facts["encryption"])) if "encryption" in facts else None,
        stored=[stored_data(copy) for copy in json.loads(facts.get("stored", "[]"))],
    )


def dip_data(facts: Mapping[str, str], package: Package, algorithm: DigestAlgorithm) -> DipData | None:
    """The DIP, once it is stored."""
    if "dip_stored" not in facts:
        return None
    package = package.as_told(facts)
    checksum = Checksum(algorithm=algorithm, value=facts["dip_digest"])
    return DipData(
        id=uuid.UUID(facts["dip_id"]),
        name=package.label,
        size_bytes=int(facts["dip_size"]),
        checksum=checksum,
        mets_path=f"{package.label}/METS.{package.id}.xml",
        mets_checksum=Checksum(algorithm=algorithm, value=facts["dip_mets_digest"]),
        access_copies=int(facts["dip_access"]),
        thumbnails=int(facts["dip_thumbnails"]),
        texts=int(facts["dip_texts"]),
        stored=[stored_data(copy) for copy in json.loads(facts["dip_stored"])],
    )


async def of_replica(
    package: uuid.UUID, place: str, before: Sequence[Stored], companions: Mapping[str, bytes]
) -> Mapping[str, bytes]:
    """Say in the pointer file of another copy of an AIP that it is one, and of which; for `Target.store`."""
    name = pointer_name(package)
    if not before or name not in companions:
        return companions
    say = partial(replicated, companions[name], package, source=before[0].location, target=place)
    return {**companions, name: await asyncio.to_thread(say)}


async def record_with_pointer(target: Target, copy: Stored, package: uuid.UUID) -> dict[str, Any]:
    """Say in JSON of a stored copy where it is, and where its pointer file is, read back from the store."""
    name = pointer_name(package)
    content = await target.companion(copy, package, name)
    if content is None:
        return dict(copy.record())
    digest = hashlib.new(copy.algorithm, content, usedforsecurity=False).hexdigest()
    pointer = {"url": copy.beside(name), "algorithm": copy.algorithm, "digest": digest}
    return {**copy.record(), "pointer": pointer}


def stored_data(copy: Mapping[str, Any]) -> StoredData:
    """A stored copy, from its record (`Stored.record`)."""
    return StoredData(
        location=copy["location"],
        url=copy["url"],
        size_bytes=copy["size_bytes"],
        checksum=Checksum(algorithm=copy["algorithm"], value=copy["digest"]),
        stored_at=datetime.fromisoformat(copy["stored_at"]),
        verified_at=datetime.fromisoformat(copy["verified_at"]),
        verified_by=copy["verified_by"],
        version=copy["version"],
        store_checksum=copy["store_checksum"],
        pointer=_pointer(copy.get("pointer")),
    )


def _pointer(said: Mapping[str, Any] | None) -> PointerData | None:
    if said is None:
        return None
    return PointerData(url=said["url"], checksum=Checksum(algorithm=said["algorithm"], value=said["digest"]))


def _virus_scan(facts: Mapping[str, str]) -> VirusScanData | None:
    """What the step that decides counted."""
    if "virus_scan_clean" not in facts:
        return None
    return VirusScanData(
        clean=int(facts["virus_scan_clean"]),
        infected=int(facts["virus_scan_infected"]),
        not_scanned=int(facts["virus_scan_not_scanned"]),
        scanner=facts.get("virus_scanner", ""),
    )


def _normalization(facts: Mapping[str, str]) -> list[NormalizationData]:
    """What the normalization report counted."""
    data = []
    made = json.loads(facts.get("normalized", "{}"))
    for purpose in ("preservation", "access", "thumbnail"):
        prefix = f"normalization_{purpose}_"
        counts = {name.removeprefix(prefix): int(count) for name, count in facts.items() if name.startswith(prefix)}
        outcomes = {name.replace("_", " "): count for name, count in sorted(counts.items())}
        if outcomes:
            data.append(NormalizationData(purpose=purpose, outcomes=outcomes, made=made.get(purpose, [])))
    return data


async def _counts(journal: PackageJournal) -> CountsData:
    totals = await journal.totals()
    uses = totals.by_use
    derivatives = (FileUse.PRESERVATION, FileUse.ACCESS, FileUse.TEXT_OCR, FileUse.DERIVATIVE)
    return CountsData(
        files=totals.files,
        originals=uses.get(FileUse.ORIGINAL, 0),
        derivatives=sum(uses.get(use, 0) for use in derivatives),
        submission_documentation=uses.get(FileUse.SUBMISSION_DOCUMENTATION, 0),
        metadata=uses.get(FileUse.METADATA, 0),
        removed=totals.removed,
        directories=totals.directories,
        size_bytes=totals.bytes,
        identified=await journal.count_identified(),
    )


async def _warnings(journal: PackageJournal) -> list[WarningData]:
    return [
        WarningData(code=code, count=count, samples=[words[:_SAMPLE_CHARACTERS] for words in samples])
        for code, count, samples in await journal.count_warnings()
    ]


def package_id_of(folder_name: str) -> uuid.UUID | None:
    """Read a package's id from the name of its working folder, or from the id itself."""
    try:
        return uuid.UUID(folder_name)
    except ValueError:
        return None
