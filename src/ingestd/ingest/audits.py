"""The audit of archival storage while the service runs: on a schedule, each copy an event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from ingestd.config import Settings
from ingestd.errors import IngestError
from ingestd.messages import Event, EventData, EventType, FixityData, RequestState
from ingestd.storage import Locations
from ingestd.storage.audit import Finding, audit

log = structlog.get_logger(__name__)

_AWAY_SECONDS = 300.0


async def keep_auditing(locations: Locations, settings: Settings, announce: Callable[[Event], Awaitable[None]]) -> None:
    """Audit again and again, until cancelled. What was stopped goes on; a store that is away is waited for."""
    while True:
        began = time.monotonic()
        try:
            async for finding in audit(
                locations,
                progress=settings.data_dir / "audit.json",
                bytes_per_second=settings.audit_bytes_per_second,
            ):
                if not finding.good:
                    log.error("fixity_failed", url=finding.held.url, found=finding.found, error=finding.error)
                await announce(fixity_event(finding))
        except IngestError as error:
            log.warning("audit_waits", code=error.code.value, detail=error.detail)
            await asyncio.sleep(_AWAY_SECONDS)
            continue
        except (OSError, ValueError):  # what it remembers on disk cannot be read, or written
            log.exception("audit_failed")
            await asyncio.sleep(_AWAY_SECONDS)
            continue
        await asyncio.sleep(max(0.0, settings.audit_every_seconds - (time.monotonic() - began)))


def fixity_event(finding: Finding) -> Event:
    """The event of one copy: `fixity.failed` also when it could not be read."""
    kind = EventType.FIXITY_CHECKED if finding.good else EventType.FIXITY_FAILED
    package = str(finding.held.package)
    data = EventData(
        request_id=package,
        package_id=finding.held.package,
        package_name=finding.held.name,
        sequence=1,
        state=RequestState.SUCCEEDED,
        fixity=FixityData(**finding.record()),
    )
    return Event(type=kind.full, subject=package, data=data)
