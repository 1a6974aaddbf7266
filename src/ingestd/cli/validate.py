"""`validate`: the pre-flight of a source or a request, by hand."""

from __future__ import annotations

import argparse
import asyncio
import json
import uuid
from typing import Any

from ingestd.app import load_workflow, open_services
from ingestd.cli.embedded import location_of, request_fields
from ingestd.cli.main import OK, REFUSED
from ingestd.cli.report import print_error_data, size
from ingestd.config import Settings
from ingestd.errors import RequestError
from ingestd.messages import ErrorData, RequestEnvelope, parse_request, read_request
from ingestd.preflight import Preflight, Report


async def validate(options: argparse.Namespace, settings: Settings) -> int:
    envelope = await asyncio.to_thread(_envelope, options)
    async with open_services(settings) as services:
        preflight = Preflight(services, load_workflow(settings))
        report = await preflight.look(envelope.data, trusted=options.request is None)
    if options.json:
        print(json.dumps(_as_data(report), indent=2, ensure_ascii=False))
    else:
        _print(report)
    return REFUSED if report.errors else OK


def _envelope(options: argparse.Namespace) -> RequestEnvelope:
    if (options.source is None) == (options.request is None):
        raise RequestError("validate takes either a SOURCE or --request FILE")
    if options.request is not None:
        try:
            return read_request(options.request.read_bytes())
        except OSError as error:
            raise RequestError(f"--request {options.request} cannot be read: {error.strerror}") from error
    fields = request_fields(options)
    given = {name: fields.pop(name, None) for name in ("checksum", "credentials")}
    data = {**fields, "source": {"location": location_of(options), **given}}
    return parse_request({"id": str(uuid.uuid4()), "source": "urn:ingestd:cli", "data": data})


def _as_data(report: Report) -> dict[str, Any]:
    return {
        "valid": not report.errors,
        "name": report.name or None,
        "files": report.files,
        "size_bytes": report.size_bytes,
        "errors": [ErrorData.of(error).model_dump(mode="json", exclude_none=True) for error in report.errors],
        "warnings": [
            {"code": warning.code, "path": warning.path, "detail": warning.detail} for warning in report.warnings
        ],
        "not_looked_at": report.limits,
    }


def _print(report: Report) -> None:
    what = report.checked.kind.value if report.checked else "nothing that can be looked at"
    files = f", {report.files} file{'s' if report.files != 1 else ''}" if report.files is not None else ""
    total = report.size_bytes if report.size_bytes is not None else report.source_bytes
    print(f"{report.name or '(no name)'}: {what}{files}{f', {size(total)}' if total is not None else ''}")
    for warning in report.warnings:
        place = f"{warning.path}: " if warning.path else ""
        print(f"  warning: {place}{warning.detail} ({warning.code})")
    for limit in report.limits:
        print(f"  not looked at: {limit}")
    for error in report.errors:
        print_error_data(ErrorData.of(error))
    if not report.errors:
        print("nothing was found that would reject it")
