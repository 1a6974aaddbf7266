"""`cancel` and `retry`: of a package of this data folder, or of a request that workers have from the broker."""

from __future__ import annotations

import argparse
import asyncio
import uuid
from typing import Any

from ingestd.app import open_ingest
from ingestd.cli.embedded import exit_code, see_through
from ingestd.cli.main import FAILED, OK
from ingestd.cli.report import print_result
from ingestd.config import Settings
from ingestd.journal import RequestRecord, ServiceJournal
from ingestd.journal.service import EMBEDDED
from ingestd.messages import Cancel, CancelData, Event, Outcome, Retry, RetryData
from ingestd.premis import now
from ingestd.transport.amqp import client

STOP_SECONDS = 60.0
LOOK_SECONDS = 0.2


async def cancel(options: argparse.Namespace, settings: Settings) -> int:
    record = await _here(options, settings)
    if record is None:
        data = CancelData(request=options.request, tenant=options.tenant, reason=options.reason)
        await client.command(settings.amqp, Cancel(**_envelope(), data=data))
        print(f"the workers are told to stop {options.request}; its result says what came of it")
        return OK
    if record.result is not None:
        print(f"{record.request} (package {record.package}) is {record.state}: there is nothing to cancel")
        return FAILED
    async with open_ingest(settings) as service:
        await service.cancel(str(record.package), reason=options.reason)
        if not service.is_busy(record.package):
            await (await service.resume(record.package))
    return await _wait_for_end(record, settings, as_json=options.json)


async def retry(options: argparse.Namespace, settings: Settings) -> int:
    record = await _here(options, settings)
    if record is None:
        data = RetryData.model_validate({"request": options.request, "tenant": options.tenant, "from": options.start})
        await client.command(settings.amqp, Retry(**_envelope(), data=data))
        print(f"the workers are told to attempt {options.request} once more; its events say what comes of it")
        return OK
    async with open_ingest(settings) as service:
        preservation = await service.retry(str(record.package), start=options.start)
        return await see_through(preservation, as_json=options.json)


async def _here(options: argparse.Namespace, settings: Settings) -> RequestRecord | None:
    """The request, if it was begun in this data folder and with no broker."""
    if not await asyncio.to_thread(settings.journal_path.exists):
        return None
    journal = await ServiceJournal.open(settings.journal_path)
    try:
        found = await journal.find(options.request)
    finally:
        await journal.close()
    mine = [one for one in found if one.origin == EMBEDDED]
    return next((one for one in mine if options.tenant in {None, one.envelope.data.tenant}), None)


async def _wait_for_end(record: RequestRecord, settings: Settings, *, as_json: bool) -> int:
    """Wait until the process that is at work on it has stopped, and show how it ended."""
    journal = await ServiceJournal.open(settings.journal_path)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            while (result := await _result(journal, record)) is None:  # noqa: ASYNC110  another process ends it
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        print(f"package {record.package} is being stored, or its process does not answer: it goes on")
        return FAILED
    finally:
        await journal.close()
    data = result.data
    print_result(data, as_json=as_json)
    return OK if data.outcome is Outcome.CANCELLED else exit_code(data)


async def _result(journal: ServiceJournal, record: RequestRecord) -> Event | None:
    found = await journal.get(record.package)
    return found.result if found else None


def _envelope() -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "source": "urn:ingestd:cli", "time": now()}
