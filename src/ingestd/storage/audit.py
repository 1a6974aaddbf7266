"""The audit of archival storage: every stored package is read again, all of it, and held against its digest.

It goes location by location, package by package, and remembers in a small file where it is: a run that was stopped
goes on there. It reads at a limited rate. A damaged copy can be mended from a good one on another location.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ingestd.errors import IngestError
from ingestd.premis import now
from ingestd.storage import Locations
from ingestd.storage.archive import Archive
from ingestd.storage.holding import Held


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one reading of one copy found. `found` is a digest, or in words what differs; `error` when it could not be
    read at all, which says nothing about the copy.
    """

    location: str
    held: Held
    found: str
    checked_at: datetime
    seconds: float
    repaired_from: str = ""
    error: str = ""

    @property
    def good(self) -> bool:
        return self.found == self.held.digest

    @property
    def told(self) -> bool:
        """Whether the copy was read: only then something is known of it."""
        return not self.error

    def record(self) -> dict[str, Any]:
        """Say it in JSON."""
        held = self.held
        return {
            "location": self.location,
            "package": str(held.package),
            "kind": held.kind,
            "name": held.name,
            "url": held.url,
            "algorithm": held.algorithm,
            "expected": held.digest,
            "found": self.found,
            "good": self.good,
            "checked_at": self.checked_at.isoformat(),
            "seconds": round(self.seconds, 3),
            "repaired_from": self.repaired_from,
            "error": self.error,
        }


async def audit(
    locations: Locations,
    *,
    names: tuple[str, ...] = (),
    progress: Path | None = None,
    bytes_per_second: float = 0,
    repair: Path | None = None,
) -> AsyncIterator[Finding]:
    """Read every copy on these locations (all, when none is named), and tell what was found of each.

    `progress` is the file that remembers; it is removed when the last package is done. `bytes_per_second` limits the
    reading on average, over whole packages. `repair` is a working folder: with it, a damaged copy is mended.
    """
    reached = _reached(progress)
    for name in names or tuple(locations.places):
        archive = locations.places[name]
        if reached.get(name) == "":
            continue  # done in this round
        async for held in archive.held(reached.get(name, "")):
            finding = await _check(locations, name, archive, held, repair)
            yield finding
            reached[name] = held.cursor
            await asyncio.to_thread(_remember, progress, reached)
            await _slow_down(archive, held, finding.seconds, bytes_per_second)
        reached[name] = ""
        await asyncio.to_thread(_remember, progress, reached)
    if progress is not None:
        await asyncio.to_thread(progress.unlink, missing_ok=True)


async def _check(locations: Locations, name: str, archive: Archive, held: Held, repair: Path | None) -> Finding:
    began = time.monotonic()
    error = ""
    try:
        found = await archive.read_back(held)
    except IngestError as problem:
        found, error = "", f"{problem.code}: {problem.detail}"
    mended = ""
    if repair is not None and not error and found != held.digest:
        mended = await mend(locations, name, archive, held, repair)
    return Finding(
        location=name,
        held=held,
        found=found,
        checked_at=now(),
        seconds=time.monotonic() - began,
        repaired_from=mended,
        error=error,
    )


async def mend(locations: Locations, name: str, archive: Archive, held: Held, folder: Path) -> str:
    """Replace a damaged copy by a good one; give the location that had it, or nothing when none has."""
    async for other, there, copy in locations.find(held.package, held.kind):
        if other == name or copy.digest != held.digest:
            continue
        try:
            good = await there.fetch(copy, folder / f"{held.package}-{held.kind}")
            await archive.mend(held, good)
        except IngestError:
            continue
        return other
    return ""


async def _slow_down(archive: Archive, held: Held, seconds: float, bytes_per_second: float) -> None:
    """Wait until the package took as long as the rate allows."""
    if not bytes_per_second:
        return
    entry = await archive.medium.head(held.key)
    size = entry.size_bytes if entry else 0
    if entry is None:
        async for inner in archive.medium.list(held.key):
            size += inner.size_bytes
    await asyncio.sleep(max(0.0, size / bytes_per_second - seconds))


def _reached(progress: Path | None) -> dict[str, str]:
    if progress is None or not progress.exists():
        return {}
    try:
        found = json.loads(progress.read_text(encoding="utf-8"))
    except ValueError:
        return {}  # half written when the power went: the round begins anew
    return dict(found) if isinstance(found, dict) else {}


def _remember(progress: Path | None, reached: Mapping[str, str]) -> None:
    if progress is None:
        return
    progress.parent.mkdir(parents=True, exist_ok=True)
    part = progress.with_suffix(".part")
    part.write_text(json.dumps(reached), encoding="utf-8")
    part.replace(progress)
