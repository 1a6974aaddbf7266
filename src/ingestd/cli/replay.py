"""`replay`: messages that are kept because they found no way on."""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import Any

from ingestd.cli.main import FAILED, OK
from ingestd.config import Settings
from ingestd.errors import Code, RequestError
from ingestd.transport.amqp import kept
from ingestd.transport.amqp.kept import Kept

SHOWN_CHARACTERS = 64 * 1024


async def replay(options: argparse.Namespace, settings: Settings) -> int:
    queue = settings.amqp.dead if options.queue == "dead" else settings.amqp.unrouted
    if options.action in {"show", "one"} and not options.id:
        raise RequestError(
            f"replay {options.action} needs the id of a message",
            code=Code.REQUEST_IDENTIFIER_INVALID,
            remediation="`ingestd replay list` shows the ids.",
        )
    if options.action in {"list", "show"}:
        return await _look(options, settings, queue)
    return await _replay(options, settings, queue)


async def _look(options: argparse.Namespace, settings: Settings, queue: str) -> int:
    found = 0
    async with contextlib.aclosing(kept.look(settings.amqp, queue)) as messages:
        async for one in messages:
            if options.action == "show" and one.id != options.id:
                continue
            if options.code and one.code != options.code:
                continue
            found += 1
            _print(one, whole=options.action == "show", as_json=options.json)
    return _said(options, found, "nothing is kept")


async def _replay(options: argparse.Namespace, settings: Settings, queue: str) -> int:
    found = 0
    chosen = options.id if options.action == "one" else None
    async with contextlib.aclosing(kept.replay(settings.amqp, queue, identity=chosen, code=options.code)) as messages:
        async for one in messages:
            found += 1
            _print(one, whole=False, as_json=options.json)
    return _said(options, found, "there was nothing to replay")


def _said(options: argparse.Namespace, found: int, nothing: str) -> int:
    if options.id and not found:
        print(f"there is no message {options.id}")
        return FAILED
    if not found and not options.json:
        print(nothing)
    return OK


def _print(one: Kept, *, whole: bool, as_json: bool) -> None:
    body = one.delivery.body.decode(errors="backslashreplace")[:SHOWN_CHARACTERS]
    if as_json:
        said: dict[str, Any] = {
            "id": one.id,
            "code": one.code,
            "reason": one.reason,
            "exchange": one.exchange,
            "routing_key": one.routing_key,
        }
        print(json.dumps(said | ({"body": body} if whole else {}), ensure_ascii=False), flush=True)
        return
    print("  ".join(word for word in (one.id, one.code, one.reason, f"from {one.exchange} {one.routing_key}") if word))
    if whole:
        print(body)
