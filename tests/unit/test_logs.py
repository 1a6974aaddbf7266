from __future__ import annotations

import io
import json

import pytest
import structlog

from ingestd import logs


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


def test_a_program_that_embeds_ingest_reads_warnings_alone_and_nothing_on_its_output(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    logs.configure_embedded()
    with caplog.at_level("WARNING"):
        structlog.get_logger("ingestd.engine").info("job done")
        structlog.get_logger("ingestd.engine").warning("lease lost", package="p")

    assert capsys.readouterr().out == ""
    assert [(line.name, line.getMessage()) for line in caplog.records] == [
        ("ingestd.engine", "event='lease lost' package='p'")
    ]


def test_the_logging_of_a_program_that_embeds_ingest_is_left_as_it_is() -> None:
    out = io.StringIO()
    logs.configure(style="json", stream=out)
    logs.configure_embedded()
    structlog.get_logger("x").info("in")

    assert json.loads(out.getvalue())["event"] == "in"
