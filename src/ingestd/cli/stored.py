"""What archival storage holds: `aip list|locate|fetch|verify UUID|replicate|delete`, `audit`, `reconcile`.

Exit codes: 0 good, 1 something is damaged, missing or could not be done, 2 what was asked for cannot be asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import getpass
import json
import shutil
import sys
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from ingestd.app import open_ingest
from ingestd.cli.embedded import see_through
from ingestd.cli.main import FAILED, OK
from ingestd.config import Settings
from ingestd.errors import Code, RequestError
from ingestd.messages import RequestState
from ingestd.mets import pointer_name, replicated
from ingestd.storage import Archive, Deposit, Held, Locations, PackageKind
from ingestd.storage.audit import Finding, audit

Copy = tuple[str, Archive, Held]


Command = Callable[[argparse.Namespace, Settings, Locations], Awaitable[int]]


def _opened(command: Command) -> Callable[[argparse.Namespace, Settings], Coroutine[Any, Any, int]]:
    """Give the command the locations of the settings, and close them after it."""

    @functools.wraps(command)
    async def run(options: argparse.Namespace, settings: Settings) -> int:
        locations = Locations.open(settings.all_locations, settings.default_location, settings.credentials)
        async with contextlib.aclosing(locations):
            return await command(options, settings, locations)

    return run


@_opened
async def stored_list(options: argparse.Namespace, settings: Settings, locations: Locations) -> int:
    for name in [options.location] if options.location else list(locations.places):
        async for held in _place(locations, name).held():
            if options.json:
                print(json.dumps(_record(name, held), ensure_ascii=False))
            else:
                version = held.version or "v1"
                print(f"{held.package}  {held.kind}  {version}  {name}  {held.stored_at:%Y-%m-%d}  {held.name}")
    return OK


@_opened
async def locate(options: argparse.Namespace, settings: Settings, locations: Locations) -> int:
    copies = await _copies(locations, options)
    if options.json:
        print(json.dumps([_record(name, held) for name, _, held in copies], ensure_ascii=False, indent=2))
    else:
        for name, _, held in copies:
            print(f"{name}  {held.url}  {held.algorithm} {held.digest}")
    return OK


@_opened
async def fetch(options: argparse.Namespace, settings: Settings, locations: Locations) -> int:
    name, archive, held = (await _copies(locations, options))[0]
    path = await archive.fetch(held, options.output or Path.cwd())
    _say(options, {**_record(name, held), "path": str(path)}, f"{path}  {held.algorithm} {held.digest}, as stored")
    return OK


@_opened
async def verify(options: argparse.Namespace, settings: Settings, locations: Locations) -> int:
    """Read every copy of one package, and look whether its pointer file lies beside it."""
    worst = OK
    for name, archive, held in await _copies(locations, options):
        found, missing = await archive.read_back(held), await _missing(archive, held)
        whole = found == held.digest
        worst = worst if whole and not missing else FAILED
        words = f"{held.algorithm} read back from the store" if whole else f"DAMAGED: {found}, expected {held.digest}"
        said = {**_record(name, held), "found": found, "good": whole and not missing, "missing": missing}
        _say(options, said, "  ".join([name, held.url, words, *(f"MISSING: {file}" for file in missing)]))
    return worst


async def _missing(archive: Archive, held: Held) -> list[str]:
    """The name of the pointer file, where a packed AIP has none beside it."""
    if held.kind is not PackageKind.AIP or await archive.medium.head(held.key) is None:
        return []
    name = pointer_name(held.package)
    return [] if await archive.companion(held, name) is not None else [name]


@_opened
async def replicate(options: argparse.Namespace, settings: Settings, locations: Locations) -> int:
    """Store a package on another location, from a copy that is good; its pointer file says that it is one."""
    target = _place(locations, options.to)
    name, archive, held = (await _copies(locations, options))[0]
    scratch = settings.scratch_dir / f"replicate-{uuid.uuid4()}"
    try:
        path = await archive.fetch(held, scratch)
        pointer = await archive.companion(held, pointer_name(held.package))
        say = functools.partial(replicated, pointer or b"", held.package, source=name, target=options.to)
        stored = await target.store(
            path,
            Deposit(
                package=held.package,
                name=held.name,
                size_bytes=await asyncio.to_thread(_size, path),
                algorithm=held.algorithm,
                digest=held.digest,
                kind=held.kind,
                companions={pointer_name(held.package): await asyncio.to_thread(say)} if pointer else {},
            ),
        )
    finally:
        await asyncio.to_thread(_clear, scratch)
    _say(options, {"from": name, "to": options.to, "url": stored.url}, f"{options.to}  {stored.url}  from {name}")
    return OK


@_opened
async def delete(options: argparse.Namespace, settings: Settings, locations: Locations) -> int:
    copies = await _copies(locations, options)
    for name, archive, held in copies:
        await archive.delete(held, reason=options.reason, who=_who())
        _say(options, _record(name, held), f"{name}  {held.url}  deleted: {options.reason}")
    return OK


@_opened
async def audit_storage(options: argparse.Namespace, settings: Settings, locations: Locations) -> int:
    """Audit once, or again and again, and say what was found."""
    for name in options.location:
        _place(locations, name)
    while True:
        bad = await _round(options, settings, locations)
        if not options.every:
            return FAILED if bad else OK
        await asyncio.sleep(options.every)


async def _round(options: argparse.Namespace, settings: Settings, locations: Locations) -> int:
    bad = checked = 0
    scratch = settings.scratch_dir / "audit"
    findings = audit(
        locations,
        names=tuple(options.location),
        progress=settings.data_dir / "audit.json",
        bytes_per_second=options.rate,
        repair=scratch if options.repair else None,
    )
    async for finding in findings:
        checked += 1
        bad += not (finding.good or finding.repaired_from)
        _tell(options, finding)
    await asyncio.to_thread(_clear, scratch)
    if not options.json:
        print(f"{checked} copies read, {bad} not good")
    return bad


def _tell(options: argparse.Namespace, finding: Finding) -> None:
    if options.json:
        print(json.dumps(finding.record(), ensure_ascii=False), flush=True)
    elif not finding.told:
        print(f"NOT READ  {finding.location}  {finding.held.url}  {finding.error}", file=sys.stderr)
    elif not finding.good:
        mended = f"; repaired from {finding.repaired_from}" if finding.repaired_from else ""
        print(f"DAMAGED  {finding.location}  {finding.held.url}  {finding.found}{mended}", file=sys.stderr)


async def reconcile(options: argparse.Namespace, settings: Settings) -> int:
    """Settle what could not be told: look whether the AIP is stored, and store it where it is not."""
    worst = OK
    async with open_ingest(settings) as service:
        unknown = await service.ended_as(RequestState.OUTCOME_UNKNOWN)
        for record in unknown:
            code = await see_through(await service.retry(str(record.package)), as_json=options.json)
            worst = worst or code
    if not unknown:
        print("no request has an unknown outcome", file=sys.stderr)
    return worst


def is_id(path: Path) -> bool:
    """Whether what was given for a path is the id of a package in archival storage."""
    try:
        uuid.UUID(str(path))
    except ValueError:
        return False
    return not path.exists()


async def _copies(locations: Locations, options: argparse.Namespace) -> Sequence[Copy]:
    """Every copy of a package, or that on one location. Raises `StorageError` when there is none."""
    try:
        package = uuid.UUID(options.package)
    except ValueError:
        raise RequestError(f"{options.package!r} is not a UUID", code=Code.REQUEST_IDENTIFIER_INVALID) from None
    if options.location:
        _place(locations, options.location)
    kind = PackageKind.DIP if options.dip else PackageKind.AIP
    copies = [copy async for copy in locations.find(package, kind) if options.location in {None, copy[0]}]
    if not copies:
        where = options.location or ", ".join(locations.places)
        raise RequestError(
            f"no {kind.upper()} {package} is stored on: {where}",
            code=Code.REQUEST_IDENTIFIER_INVALID,
            remediation="`ingestd aip list` shows what is stored.",
        )
    return copies


def _place(locations: Locations, name: str) -> Archive:
    if name not in locations.places:
        raise RequestError(
            f"there is no place {name!r}; there are: {', '.join(sorted(locations.places))}",
            code=Code.REQUEST_UNKNOWN_LOCATION,
        )
    return locations.places[name]


def _record(location: str, held: Held) -> dict[str, Any]:
    return {
        "package": str(held.package),
        "kind": held.kind,
        "name": held.name,
        "location": location,
        "url": held.url,
        "algorithm": held.algorithm,
        "digest": held.digest,
        "stored_at": held.stored_at.isoformat(),
        "version": held.version,
    }


def _say(options: argparse.Namespace, record: dict[str, Any], words: str) -> None:
    print(json.dumps(record, ensure_ascii=False) if options.json else words)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
