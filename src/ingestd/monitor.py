"""Health and metrics on a small local port: `/healthz`, `/readyz`, `/metrics`.

Healthy means that the event loop answers; ready means that requests can be taken. Metrics carry no secret and no name
of a package.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ingestd import __version__
from ingestd.admission import Admission, Room
from ingestd.errors import IngestError
from ingestd.ingest import Ingest
from ingestd.messages import Event, EventType

log = structlog.get_logger(__name__)
_REQUEST_LIMIT_BYTES = 8192
_READ_SECONDS = 5


class Ready(Protocol):
    """Something that knows whether it is ready, and if not, why."""

    @property
    def failure(self) -> IngestError | None: ...

    def ready(self) -> bool: ...


class Monitor:
    """Counts events and answers the three questions."""

    def __init__(self, ingest: Ingest, *parts: Ready) -> None:
        self._ingest = ingest
        self._parts = parts
        self.registry = CollectorRegistry()
        info = Gauge("ingestd_info", "The version that runs.", ["version"], registry=self.registry)
        info.labels(__version__).set(1)
        self._results = Counter(
            "ingestd_requests_total", "Requests with a result, by outcome.", ["outcome"], registry=self.registry
        )
        self._errors = Counter("ingestd_errors_total", "Failed links, by error code.", ["code"], registry=self.registry)
        self._links = Histogram(
            "ingestd_link_seconds",
            "How long the jobs of a link took.",
            ["execute"],
            registry=self.registry,
            buckets=(0.01, 0.1, 1, 10, 60, 600, 3600, 36000),
        )
        in_hand = Gauge("ingestd_packages_in_hand", "Packages that are worked on now.", registry=self.registry)
        in_hand.set_function(lambda: len(self._ingest.in_hand()))
        self._bytes = Counter("ingestd_aip_bytes_total", "Bytes of AIPs stored.", registry=self.registry)

    def show(self, admission: Admission) -> None:
        """Show what room there was when it was last looked, and what is promised to packages in hand."""

        def gauge(name: str, text: str, of: Callable[[Room], float]) -> None:
            made = Gauge(name, text, registry=self.registry)
            made.set_function(lambda: of(admission.room) if admission.room else 0)

        gauge("ingestd_disk_free_bytes", "Bytes free on the working disk.", lambda room: room.free_bytes)
        gauge("ingestd_disk_promised_bytes", "Bytes that packages in hand may need.", lambda room: room.promised_bytes)
        gauge("ingestd_disk_free_files", "Files that the working disk can hold yet.", lambda room: room.free_files or 0)
        gauge("ingestd_memory_free_bytes", "Bytes of memory that are free.", lambda room: room.memory_bytes)
        waiting = Gauge("ingestd_packages_waiting", "Packages in hand that wait for room.", registry=self.registry)
        waiting.set_function(lambda: admission.waiting)

    def observe(self, event: Event) -> None:
        """Count what an event says."""
        data = event.data
        if event.kind.terminal and data.outcome is not None:
            self._results.labels(data.outcome).inc()
        if event.kind is EventType.AIP_STORED and data.aip is not None:
            self._bytes.inc(data.aip.size_bytes)
        if event.kind is EventType.LINK_FAILED and data.error is not None:
            self._errors.labels(data.error.code).inc()
        if event.kind in {EventType.LINK_COMPLETED, EventType.LINK_FAILED} and data.link and data.link.seconds:
            self._links.labels(data.link.execute).observe(data.link.seconds)

    @contextlib.asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncIterator[int]:
        """Answer on `host:port`; 0 answers nowhere. Gives the port."""
        if not port:
            yield 0
            return
        server = await asyncio.start_server(self._answer, host, port, limit=_REQUEST_LIMIT_BYTES)
        async with server:
            yield server.sockets[0].getsockname()[1]

    def not_ready(self) -> str:
        return "; ".join(_reason(part) for part in self._parts if not part.ready())

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            words = head.split(b"\r\n", 1)[0].decode("latin-1").split()
            status, kind, body = self._page(words[1].partition("?")[0] if len(words) > 1 else "")
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode("latin-1")
                + body
            )
            await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            log.debug("monitor request was cut")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _page(self, path: str) -> tuple[str, str, bytes]:
        plain = "text/plain; charset=utf-8"
        if path == "/healthz":
            return "200 OK", plain, b"ok\n"
        if path == "/readyz":
            reason = self.not_ready()
            return ("503 Service Unavailable", plain, f"{reason}\n".encode()) if reason else ("200 OK", plain, b"ok\n")
        if path == "/metrics":
            return "200 OK", "text/plain; version=0.0.4; charset=utf-8", generate_latest(self.registry)
        return "404 Not Found", plain, b"/healthz, /readyz, /metrics\n"


def _reason(part: Ready) -> str:
    return part.failure.detail if part.failure else "not connected yet"
