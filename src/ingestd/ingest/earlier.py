"""An earlier run of the same, in this data folder and without a broker, that nobody has heard the end of.

It was interrupted, or came to its result and could not tell it: whoever asks for the same again is given what
becomes of that, and not another AIP.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ingestd.config import Settings
from ingestd.ingest.running import Running
from ingestd.journal import RequestRecord, ServiceJournal
from ingestd.messages import PreservationRequest
from ingestd.premis import rfc3339
from ingestd.sources import written_since
from ingestd.workfolder import is_busy


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is to be given or gone on with, if it is anything, and what is to be said about it."""

    record: RequestRecord | None = None
    remark: str = ""


async def earlier(
    request: PreservationRequest, settings: Settings, journal: ServiceJournal, running: Running
) -> Earlier:
    """Look for an earlier run that asked for the same, and that neither this process nor another has in hand.

    One that was interrupted is gone on with as it was begun. A result is given only for what the source is now: where
    something local was written since, it is not what is asked for.
    """
    for record in await journal.unanswered(request.content_digest()):
        if running.has(record.package) or is_busy(settings.work_dir / str(record.package)):
            continue
        newer = await asyncio.to_thread(
            written_since, request.source.location, settings.sources, record.created_at.timestamp()
        )
        if record.finished_at is None:
            return Earlier(record, _gone_on(record, newer))
        if not newer:
            return Earlier(record, _told_again(record))
        await journal.told(record.package)
        return Earlier(remark=f"{_ended(record)}. Since then {newer} was written in the source: this begins anew.")
    return Earlier()


def _gone_on(record: RequestRecord, newer: str) -> str:
    if not newer:
        return ""
    return (
        f"This goes on with package {record.package}, which was interrupted. Since it was begun {newer} was written in"
        " the source: what was received before that stays as it was; --again receives all anew."
    )


def _told_again(record: RequestRecord) -> str:
    return f"{_ended(record)}. This is its result, and nothing was done now: asked for once more, it begins anew."


def _ended(record: RequestRecord) -> str:
    at = f" at {rfc3339(record.finished_at)}" if record.finished_at else ""
    return f"An earlier run of this ended{at} as {record.state} (package {record.package}), and could not say so"
