"""Looks at a source before it is received, as tests of pre-flight need them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from ingestd.app import load_workflow
from ingestd.config import Settings
from ingestd.errors import Code
from ingestd.fpr.commands import Commands
from ingestd.messages import PreservationRequest
from ingestd.preflight import Preflight, Report
from ingestd.tools.pool import Pool
from tests.small_service import registry
from tests.steps import services


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


async def look(
    source: Path | str, settings: dict[str, Any] | None = None, *, pool: Pool | None = None, **request: Any
) -> Report:
    where = {"location": str(source), "checksum": request.pop("checksum", None)}
    asked = PreservationRequest.model_validate({"source": where, **request})
    made = services(Path("/nowhere"), **(settings or {}))
    cast("Any", made).pool = pool or SimpleNamespace(spawned=0)
    cast("Any", made).registry = registry()
    cast("Any", made).commands = Commands(registry(), cast("Any", made).pool)
    return await Preflight(made, load_workflow(Settings())).look(asked, trusted=True)


def codes(report: Report) -> list[Code]:
    return [error.code for error in report.errors]


def rules(report: Report) -> set[tuple[str, str]]:
    return {(violation.path, violation.rule) for error in report.errors for violation in error.violations}
