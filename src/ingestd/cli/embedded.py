"""`ingest` and `resume`: one package in this process, with no broker."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import signal
import socket
import sys
import tomllib
from pathlib import Path
from typing import Any

from ingestd.app import open_ingest
from ingestd.cli.main import FAILED, INTERRUPTED, OK, REFUSED
from ingestd.cli.progress import Progress
from ingestd.cli.report import print_result
from ingestd.config import Settings
from ingestd.errors import Code, RequestError, ResourceError, Violation
from ingestd.ingest import Preservation
from ingestd.messages import EventData, Outcome, stored_aip
from ingestd.oais import TransferType
from ingestd.results import package_id_of


async def ingest(options: argparse.Namespace, settings: Settings) -> int:
    fields = request_fields(options)
    if options.output is not None:
        fields["target"] = {"location": options.output.absolute().as_uri()}
    async with open_ingest(settings) as service:
        preservation = await service.begin(location_of(options), again=options.again, requester=_requester(), **fields)
        return await see_through(preservation, as_json=options.json)


async def resume(options: argparse.Namespace, settings: Settings) -> int:
    package = package_id_of(Path(options.package.rstrip("/")).name)
    if package is None:
        raise RequestError(
            f"{options.package!r} is neither a package's id nor its working folder",
            code=Code.REQUEST_IDENTIFIER_INVALID,
        )
    async with open_ingest(settings) as service:
        return await see_through(await service.resume(package), as_json=options.json)


def request_fields(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a preservation request that `ingest` and `submit` share."""
    fields: dict[str, Any] = {
        "name": options.name,
        "type": str(options.type),
        "credentials": options.credentials,
        "processing": dict(_pair(text, "--set") for text in options.set),
        "accession": options.accession,
        "external_identifier": options.identifier,
    }
    if options.dc:
        dc: dict[str, list[str]] = {}
        for element, value in (_pair(text, "--dc") for text in options.dc):
            dc.setdefault(element, []).append(value)
        fields["metadata"] = {"dc": dc}
    again = {"type": options.reingest and str(options.reingest), "metadata": _added(options)}
    fields["reingest"] = {name: value for name, value in again.items() if value}
    if options.fpr:
        fields["fpr"] = _read_policy(options.fpr)
    if options.checksum:
        algorithm, _, value = options.checksum.partition(":")
        fields["checksum"] = {"algorithm": algorithm.lower(), "value": value.lower()}
    return {name: value for name, value in fields.items() if value}


def _read_policy(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"--fpr {path} cannot be read: {said}", remediation="Name a TOML file.") from error


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise RequestError(
            f"{option} takes NAME=VALUE",
            violations=(Violation(path=option, rule="name_value", expected="NAME=VALUE", actual=text),),
        )
    return name, value


def location_of(options: argparse.Namespace) -> str:
    """A path is made absolute; a URL is as it is; an AIP to reingest may be given by its UUID alone."""
    source: str = options.source
    stored = f"urn:uuid:{source}"
    if stored_aip(source) or (options.type == TransferType.REINGEST and stored_aip(stored)):
        return source if stored_aip(source) else stored
    return source if "://" in source else str(Path(source).absolute())


def _added(options: argparse.Namespace) -> dict[str, str]:
    return {"location": _absolute(options.metadata)} if options.metadata else {}


def _absolute(source: str) -> str:
    """What is not here is the service's to understand."""
    return str(Path(source).absolute()) if Path(source).exists() else source


def _requester() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"urn:ingestd:cli:{user}@{socket.gethostname()}"


async def see_through(preservation: Preservation, *, as_json: bool) -> int:
    """Show progress to the end; SIGTERM and Ctrl-C stop so that the same command goes on later."""
    loop = asyncio.get_running_loop()
    current = asyncio.current_task()
    assert current is not None  # noqa: S101  we run in one
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, current.cancel)
    printed: EventData | None = None
    try:
        with Progress(sys.stderr) as progress:
            if preservation.remark:
                progress.remark(preservation.remark)
            async for event in preservation:
                progress.show(event)
                if event.kind.terminal:  # within the loop: it has been told once it is printed, and not before
                    _print(event.data, as_json=as_json)
                    printed = event.data
        return exit_code(await preservation)
    except asyncio.CancelledError:
        if printed is not None:
            return exit_code(printed)
        print(f"interrupted; run the same command again, or: ingestd resume {preservation.package}", file=sys.stderr)
        return INTERRUPTED


def _print(data: EventData, *, as_json: bool) -> None:
    try:
        print_result(data, as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with Path(os.devnull).open("wb") as nowhere:  # or what is still to be written fails once more at the very end
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise ResourceError(
            f"the result could not be written to standard output: {error.strerror or error}",
            remediation="Make room for it; the same command prints it again, and does nothing else.",
        ) from error


def exit_code(data: EventData) -> int:
    """0 for success, 2 for what was refused before any work, 1 for everything else."""
    if data.outcome in {Outcome.SUCCEEDED, Outcome.SUCCEEDED_WITH_WARNINGS}:
        return OK
    return REFUSED if data.outcome is Outcome.REJECTED else FAILED
