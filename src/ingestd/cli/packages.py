"""`packages`: the working folders that this data folder keeps, listed, fetched and removed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ingestd.cli.main import OK
from ingestd.cli.report import size
from ingestd.config import Settings
from ingestd.errors import Code, RequestError
from ingestd.janitor import Janitor, Kept
from ingestd.journal import ServiceJournal
from ingestd.premis import now, rfc3339
from ingestd.results import package_id_of
from ingestd.walking import used


async def packages(options: argparse.Namespace, settings: Settings) -> int:
    async with _janitor(settings) as janitor:
        if janitor is None:
            _print([], as_json=options.json)
            return OK
        match options.action:
            case "fetch":
                print(await janitor.fetch(_package(options), options.folder))
            case "remove":
                print(f"removed {(await janitor.remove(_package(options))).package}")
            case "clean":
                removed = await janitor.sweep(dry_run=options.dry_run)
                _print_removed(await _measured(removed), dry_run=options.dry_run, as_json=options.json)
            case _:
                _print(await _measured(await janitor.packages()), as_json=options.json)
    return OK


@contextlib.asynccontextmanager
async def _janitor(settings: Settings) -> AsyncIterator[Janitor | None]:
    """The janitor of the data folder; None where nothing was ever done in it."""
    if not await asyncio.to_thread(settings.journal_path.exists):
        yield None
        return
    journal = await ServiceJournal.open(settings.journal_path)
    try:
        yield Janitor(settings, journal)
    finally:
        await journal.close()


def _package(options: argparse.Namespace) -> Any:
    package = package_id_of(Path(options.package.rstrip("/")).name)
    if package is None:
        raise RequestError(
            f"{options.package!r} is neither a package's id nor its working folder",
            code=Code.REQUEST_IDENTIFIER_INVALID,
            remediation="`ingestd packages` lists the packages by their ids.",
        )
    return package


async def _measured(found: Sequence[Kept]) -> Sequence[tuple[Kept, int]]:
    return [(kept, (await asyncio.to_thread(used, kept.folder))[0]) for kept in found]


def _print(found: Sequence[tuple[Kept, int]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_data(kept, size_bytes) for kept, size_bytes in found], indent=2))
        return
    for kept, size_bytes in found:
        words = [str(kept.package), f"{_state(kept):24}", f"{size(size_bytes):>10}", f"{_age(kept):>8}", kept.name]
        print("  ".join([*words, f"({kept.code})" if kept.code else ""]).rstrip())
    if not found:
        print("no package is kept")


def _print_removed(found: Sequence[tuple[Kept, int]], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps([{**_data(kept, bytes_), "why": kept.why} for kept, bytes_ in found], indent=2))
        return
    for kept, size_bytes in found:
        measured = f" ({size(size_bytes)})" if dry_run else ""
        print(f"{'would remove' if dry_run else 'removed'} {kept.package}{measured}: {kept.why}")
    if not found:
        print("there is nothing to remove")


def _data(kept: Kept, size_bytes: int) -> dict[str, Any]:
    return {
        "package": str(kept.package),
        "name": kept.name or None,
        "state": kept.state,
        "at_work": kept.at_work,
        "error": kept.code or None,
        "size_bytes": size_bytes,
        "since": rfc3339(kept.since),
    }


def _state(kept: Kept) -> str:
    return f"{kept.state}, at work" if kept.at_work else kept.state


def _age(kept: Kept) -> str:
    """How long ago it ended, or was last touched."""
    age = max(now() - kept.since, timedelta())
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "min")):
        if age.total_seconds() >= unit:
            return f"{age.total_seconds() // unit:.0f} {name}"
    return f"{age.total_seconds():.0f} s"
