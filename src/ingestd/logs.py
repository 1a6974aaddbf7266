"""Logs for the operator: one event per job, keys rather than prose, JSON lines or a readable console.

PREMIS is the record, logs are for whoever runs the service. Context (package, link) is bound once, where it begins, by
`bound`; every line below carries it. Nothing secret reaches a line: settings hold secrets as `SecretStr`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import TextIO

import structlog

_QUIET = ("aiormq", "asyncssh", "aio_pika", "asyncio", "aiosqlite", "bagit", "metsrw", "botocore", "urllib3")


def configure(*, level: str = "info", style: str = "auto", stream: TextIO | None = None) -> None:
    """Set logging up for this process. `style` is `json`, `console` or `auto` (console on a terminal)."""
    out = stream or sys.stderr
    console = style == "console" or (style == "auto" and out.isatty())
    numeric = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [_tracebacks(), structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _configure_standard(numeric, out, [*shared], renderer)


def configure_embedded() -> None:
    """Leave logging to the program that ingest is part of: to its own structlog, or else to `logging`.

    There our lines have the names of our modules, so a program that configures neither sees warnings alone, on stderr.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _tracebacks() -> structlog.typing.Processor:
    """Tracebacks as data, without local variables: those hold addresses with passwords."""
    return structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def _configure_standard(
    level: int,
    out: TextIO,
    shared: list[structlog.typing.Processor],
    renderer: list[structlog.typing.Processor],
) -> None:
    """Give the lines of libraries the same form; those that repeat what we say ourselves only when it is serious."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def bound(**context: object) -> Iterator[None]:
    """Bind context to every line that is logged within, in this task and those it starts."""
    with structlog.contextvars.bound_contextvars(**context):
        yield
