from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from ingestd import __version__, monitor
from ingestd.errors import ContentError, DependencyError, IngestError
from ingestd.messages import ErrorData, Event, EventData, EventType, LinkData, Outcome, RequestState
from ingestd.monitor import Monitor

if TYPE_CHECKING:
    from ingestd.ingest import Ingest


class Idle:
    def in_hand(self) -> list[object]:
        return [object(), object()]


@dataclass
class Part:
    is_ready: bool = True
    failure: IngestError | None = None

    def ready(self) -> bool:
        return self.is_ready


def made(*parts: Part) -> Monitor:
    return Monitor(cast("Ingest", Idle()), *parts)


@asynccontextmanager
async def serving(one: Monitor) -> AsyncIterator[int]:
    listener = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    async with one.serving("127.0.0.1", port) as given:
        assert given == port
        yield port


async def talk(port: int, said: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def get(port: int, path: str) -> tuple[int, str]:
    head, _, body = (await talk(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())).partition(b"\r\n\r\n")
    length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")).split()[1])
    assert length == len(body)
    return int(head.split()[1]), body.decode()


async def test_it_is_healthy_while_the_loop_answers() -> None:
    async with serving(made()) as port:
        assert (200, "ok\n") == await get(port, "/healthz")
        assert (200, "ok\n") == await get(port, "/healthz?verbose=1")


async def test_it_is_ready_when_all_its_parts_are_and_else_says_which_is_not() -> None:
    parts = [Part(), Part(is_ready=False), Part(is_ready=False, failure=DependencyError("RabbitMQ is away"))]
    async with serving(made(*parts)) as port:
        assert (503, "not connected yet; RabbitMQ is away\n") == await get(port, "/readyz")
        for part in parts:
            part.is_ready = True
        assert (200, "ok\n") == await get(port, "/readyz")


def event(kind: EventType, **more: Any) -> Event:
    data = EventData(
        request_id="secret-name", sequence=1, state=RequestState.RUNNING, package_name="secret-name", **more
    )
    return Event(type=kind.full, subject="r", data=data)


async def test_metrics_count_results_errors_and_links_and_name_no_package() -> None:
    one = made()
    link = LinkData(id="i", name="n", group="g", execute="pack", seconds=2.5)
    one.observe(event(EventType.LINK_COMPLETED, link=link))
    one.observe(event(EventType.LINK_FAILED, link=link, error=ErrorData.of(ContentError("no"))))
    one.observe(event(EventType.LINK_FAILED, link=link))
    one.observe(event(EventType.REQUEST_FAILED, outcome=Outcome.FAILED))
    one.observe(event(EventType.AIP_STORED, outcome=Outcome.SUCCEEDED))

    async with serving(one) as port:
        status, text = await get(port, "/metrics")

    assert status == 200
    for line in (
        f'ingestd_info{{version="{__version__}"}} 1.0',
        'ingestd_requests_total{outcome="failed"} 1.0',
        'ingestd_requests_total{outcome="succeeded"} 1.0',
        'ingestd_errors_total{code="content.structure_invalid"} 1.0',
        'ingestd_link_seconds_count{execute="pack"} 3.0',
        "ingestd_packages_in_hand 2.0",
    ):
        assert line in text.splitlines()
    assert "secret-name" not in text


@pytest.mark.parametrize(
    "said",
    [
        b"\r\n\r\n",
        b"\x00\xff\xfe garbage\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /%00 HTTP/1.1\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\n\r\n",
        b"GET //healthz HTTP/1.1\r\n\r\n",
    ],
)
async def test_nonsense_is_answered_with_what_there_is(said: bytes) -> None:
    async with serving(made()) as port:
        assert (await talk(port, said)).startswith(b"HTTP/1.1 404")
        assert (200, "ok\n") == await get(port, "/healthz")


async def test_a_head_without_end_is_cut_off() -> None:
    async with serving(made()) as port:
        assert await talk(port, b"GET / HTTP/1.1\r\n" + b"x" * 100_000) == b""
        assert (200, "ok\n") == await get(port, "/healthz")


async def test_a_client_that_hangs_up_or_is_slow_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_READ_SECONDS", 0.2)
    async with serving(made()) as port:
        _, gone = await asyncio.open_connection("127.0.0.1", port)
        gone.write(b"GET /he")
        gone.close()
        slow_reader, slow = await asyncio.open_connection("127.0.0.1", port)
        slow.write(b"GET /he")
        assert (200, "ok\n") == await get(port, "/healthz")
        assert await asyncio.wait_for(slow_reader.read(), 5) == b""
        slow.close()


async def test_port_zero_answers_nowhere() -> None:
    async with made().serving("127.0.0.1", 0) as port:
        assert port == 0
