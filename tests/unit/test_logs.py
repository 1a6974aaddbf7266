from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from ingestd import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def _fail() -> None:
    password = "s3" + "cret"
    raise ValueError(len(password))


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_shows_no_local_variable(style: str) -> None:
    out = io.StringIO()
    logs.configure(style=style, stream=out)
    try:
        _fail()
    except ValueError:
        structlog.get_logger("x").exception("failed")

    assert "_fail" in out.getvalue()
    assert "s3cret" not in out.getvalue()


def test_context_is_bound_to_every_line_within_and_to_none_after() -> None:
    out = io.StringIO()
    logs.configure(style="json", stream=out)
    with logs.bound(package="p"):
        structlog.get_logger("x").info("in", name="caf\udce9")
    structlog.get_logger("x").info("after")
    structlog.get_logger("x").debug("quiet")

    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [("in", "p"), ("after", None)] == [(line["event"], line.get("package")) for line in lines]
