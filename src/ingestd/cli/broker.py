"""`serve`, `submit`, `watch` and `topology`: the commands that speak with RabbitMQ."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import uuid
from pathlib import Path

from ingestd import app
from ingestd.cli.embedded import exit_code, location_of, request_fields
from ingestd.cli.main import OK
from ingestd.cli.progress import Progress
from ingestd.cli.report import print_result
from ingestd.config import Settings
from ingestd.messages import Event, EventData, ProcessingConfig, RequestEnvelope, parse_request
from ingestd.premis import now, rfc3339
from ingestd.transport.amqp import client


async def serve(options: argparse.Namespace, settings: Settings) -> int:
    await app.serve(settings)
    return OK


async def submit(options: argparse.Namespace, settings: Settings) -> int:
    envelope = _envelope(options)
    ProcessingConfig.resolve(envelope.data.processing)
    if not options.wait:
        await client.submit(settings.amqp, envelope, envelope.data.tenant)
        print(envelope.id if not options.json else envelope.model_dump_json(exclude_defaults=True))
        return OK
    data = await _follow(options, settings, envelope)
    if not options.json:
        print_result(data, as_json=False)
    return exit_code(data)


async def watch(options: argparse.Namespace, settings: Settings) -> int:
    async with contextlib.aclosing(client.watch(settings.amqp, options.bindings)) as events:
        async for event in events:
            _print(event, as_json=options.json)
    return OK


async def topology(options: argparse.Namespace, settings: Settings) -> int:
    await client.declare(settings.amqp)
    names = settings.amqp
    print(
        f"declared: {names.requests} (.high, .low), {names.inflight}, {names.control}, {names.events}, "
        f"{names.results}, {names.unrouted}, {names.dead_letter_exchange}, {names.dead}"
    )
    return OK


async def _follow(options: argparse.Namespace, settings: Settings, envelope: RequestEnvelope) -> EventData:
    """Submit once no event can be missed, and give the result."""
    ready = asyncio.Event()
    last: EventData | None = None
    with Progress(sys.stderr) as progress:
        async with asyncio.TaskGroup() as group:
            group.create_task(_submit_when(ready, settings, envelope))
            events = client.follow(settings.amqp, envelope.id, ready, tenant=envelope.data.tenant)
            async with contextlib.aclosing(events):
                async for event in events:
                    last = event.data
                    if options.json:
                        _print(event, as_json=True)
                    else:
                        progress.show(event)
    assert last is not None  # noqa: S101  following ends with a result or an error
    return last


async def _submit_when(ready: asyncio.Event, settings: Settings, envelope: RequestEnvelope) -> None:
    await ready.wait()
    await client.submit(settings.amqp, envelope, envelope.data.tenant)


def _envelope(options: argparse.Namespace) -> RequestEnvelope:
    fields = request_fields(options)
    given = {name: fields.pop(name, None) for name in ("checksum", "credentials")}
    source = {"location": _location(options), **given}
    data = {**fields, "source": source, "tenant": options.tenant, "collection": options.collection}
    if options.location:
        data["target"] = {"location": options.location}
    data["priority"] = options.priority
    if options.expires_at:
        data["expires_at"] = options.expires_at
    if options.batch:
        identity, _, rest = options.batch.partition(":")
        size, _, stop = rest.partition(":")
        data["batch"] = {"id": identity, "size": size, "stop_on_failure": stop == "stop"}
    if options.key:
        data["idempotency_key"] = options.key
    identity = str(uuid.uuid4())
    return parse_request({"id": identity, "source": options.requester, "time": rfc3339(now()), "data": data})


def _location(options: argparse.Namespace) -> str:
    """A path is made absolute when it is here; else it is the service's to understand."""
    source: str = options.source
    found = location_of(options)
    return found if found.startswith("urn:") or Path(source).exists() else source


def _print(event: Event, *, as_json: bool) -> None:
    if as_json:
        print(event.model_dump_json(exclude_none=True), flush=True)
        return
    data = event.data
    words = [rfc3339(event.time), event.routing_key(), data.package_name or data.request_id]
    if data.link is not None:
        words.append(data.link.name)
    if data.error is not None:
        words.append(f"{data.error.code}: {data.error.detail}")
    if data.aip is not None:
        words += [stored.url for stored in data.aip.stored]
    print("  ".join(words), flush=True)
