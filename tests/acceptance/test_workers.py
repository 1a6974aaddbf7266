"""Several `ingestd serve` that share the broker and archival storage, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.acceptance.aips import stored_below, stored_path
from tests.acceptance.corpora import many_files
from tests.acceptance.test_serve import (
    DONE,
    SHUTDOWN_SECONDS,
    Service,
    asking,
    begins,
    finished,
    following,
    fresh,
)
from tests.acceptance.upstream import Message, Upstream
from tests.rabbit import RabbitNode

pytestmark = [pytest.mark.broker, pytest.mark.tool, pytest.mark.slow]

LEASE_SECONDS = 2
PARK_SECONDS = 1
TELL_SECONDS = 2


@pytest.fixture(scope="module")
def url(rabbit: RabbitNode) -> str:
    rabbit.start()
    rabbit.control("add_vhost", "workers")
    rabbit.control("set_permissions", "-p", "workers", "guest", ".*", ".*", ".*")
    return rabbit.url_for(rabbit.port, "workers")


class Workers:
    """Two workers with a data folder each; `at_work` is the one that has the package."""

    def __init__(self, folder: Path, url: str) -> None:
        topology = fresh()
        self.services = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            service = Service(
                folder / name,
                url,
                topology=topology,
                AMQP__PARK_SECONDS=PARK_SECONDS,
                LEASE_SECONDS=LEASE_SECONDS,
            )
            service.aips, service.sources = folder / "aips", folder / "sources"
            service.program.settings = {
                **service.program.settings,
                "LOCATIONS": json.dumps({"primary": service.aips.as_uri()}),
                "SOURCES__ROOTS": json.dumps([str(service.sources)]),
            }
            self.services.append(service)
        self.processes: list[subprocess.Popen[bytes]] = []

    @contextlib.contextmanager
    def small_disk(self, options: str) -> Iterator[Path]:
        """Give the first worker a disk of its own, which takes packages as long as there is a byte for each."""
        service = self.services[0]
        disk = service.program.data_dir
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=False).returncode:
            pytest.skip("a disk can be mounted by root alone")
        admission = {"reserve_bytes": 0, "reserve_files": 0, "look_seconds": 0.2, "tell_seconds": TELL_SECONDS}
        service.program.settings = {**service.program.settings, "ADMISSION": json.dumps(admission)}
        try:
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)

    @property
    def any(self) -> Service:
        return self.services[0]

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            self.processes = [stack.enter_context(service.serving()) for service in self.services]
            yield

    def at_work(self) -> tuple[Service, subprocess.Popen[bytes]]:
        (index,) = [index for index, service in enumerate(self.services) if service.program.work_folders]
        return self.services[index], self.processes[index]


@pytest.fixture
def workers(tmp_path: Path, url: str) -> Workers:
    made = Workers(tmp_path, url)
    many_files(made.any.sources / "long", 60, heavy_bytes=20_000_000)
    return made


def work(workers: Workers) -> dict[str, object]:
    return asking(workers.any.sources / "long", processing={"aip_compression_algorithm": "s7_bzip2"})


@pytest.mark.parametrize("execute", ["identify_file_format", "compress_aip"])
async def test_a_lost_machine_s_request_is_taken_over_and_told_once(
    execute: str, workers: Workers, tmp_path: Path
) -> None:
    with workers.serving():
        async with following(workers.any) as acme:
            await acme.request(work(workers), identity="lost")
            await acme.until(begins(execute, "lost"), execute)
            service, process = workers.at_work()
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait, 5)
            shutil.rmtree(service.program.data_dir)
            killed_at = time.monotonic()
            await acme.until(
                lambda message: message.kind == "request.started" and message.data["attempt"] == 2, "the takeover"
            )
            took = time.monotonic() - killed_at
            data = await finished(workers.any, acme, "lost", tmp_path / "opened")

    assert data["attempt"] == 2
    assert took < LEASE_SECONDS + 5 + 2 * PARK_SECONDS + 5
    assert data["aip"]["id"] in str(stored_below(workers.any.aips)[0])


async def test_a_stopped_worker_s_request_is_another_s_at_once(workers: Workers, tmp_path: Path) -> None:
    with workers.serving():
        async with following(workers.any) as acme:
            await acme.request(work(workers), identity="handed over")
            await acme.until(begins("identify_file_format", "handed over"), "identification")
            _, process = workers.at_work()
            process.send_signal(signal.SIGTERM)
            stopped_at = time.monotonic()
            await acme.until(
                lambda message: message.kind == "request.started" and message.data["attempt"] == 2, "the takeover"
            )
            took = time.monotonic() - stopped_at
            await asyncio.to_thread(process.wait, SHUTDOWN_SECONDS)
            await finished(workers.any, acme, "handed over", tmp_path / "opened")

    assert process.returncode == 0
    assert took < SHUTDOWN_SECONDS


async def test_a_request_is_cancelled_and_retried_by_command_whoever_has_it(workers: Workers) -> None:
    with workers.serving():
        async with following(workers.any) as acme:
            await acme.request(work(workers), identity="commanded")
            await acme.until(begins("compress_aip", "commanded"), "packing")
            told_at = time.monotonic()
            cancelled = await asyncio.to_thread(
                workers.any.program, "cancel", "commanded", "--reason", "the wrong folder"
            )
            first = await acme.result("commanded", seconds=20)
            took = time.monotonic() - told_at
            service, _ = workers.at_work()
            retried = await asyncio.to_thread(service.program, "retry", "commanded", "--from", "compress_aip")
            seen = len(acme.messages)
            last = await acme.until(
                lambda message: acme.messages.index(message) >= seen and message.terminal, "the end", seconds=80
            )
            executed = [
                message.data["link"]["execute"]
                for message in acme.of("commanded")
                if message.data["attempt"] == 2 and message.kind in {"link.started", "link.retrying"}
            ]

    assert (cancelled.code, retried.code) == (0, 0), cancelled.err + retried.err
    assert (first.data["outcome"], first.data["attempt"]) == ("cancelled", 1)
    assert first.data["error"]["code"] == "cancelled.by_user"
    assert "the wrong folder" in first.data["error"]["detail"]
    assert took < 15  # the command itself takes a while to start on a busy machine
    assert last.data["outcome"] in DONE
    assert last.data["attempt"] == 2
    assert executed[0] == "compress_aip"
    assert stored_below(workers.any.aips) == [stored_path(last.data)]


# --- room


async def waits(acme: Upstream, request: str, *, times: int = 1) -> list[Message]:
    """See that a request waits for room, and is told as often."""
    said: list[Message] = []

    def often(message: Message) -> bool:
        if message.kind == "request.waiting" and message.data["request_id"] == request:
            said.append(message)
        return len(said) == times

    await acme.until(often, f"request.waiting, {times} times")
    return said


@pytest.mark.parametrize("content_bytes", [3_000_000, 30_000_000], ids=["full", "too small"])
async def test_a_worker_with_room_does_what_another_has_none_for(
    content_bytes: int, workers: Workers, tmp_path: Path
) -> None:
    one, two = workers.services
    source = workers.any.sources / "large"
    many_files(source, 3, heavy_bytes=content_bytes)
    with workers.small_disk("size=12m") as disk, one.serving():
        (disk / "something else").write_bytes(bytes(8_000_000))
        async with following(one) as acme:
            await acme.request(asking(source), identity="large")
            (said,) = await waits(acme, "large")
            await asyncio.sleep(2 * PARK_SECONDS)
            with two.serving():
                began_at = time.monotonic()
                data = await finished(one, acme, "large", tmp_path / "opened")
                took = time.monotonic() - began_at
            order = [message.kind for message in acme.of("large")]

    assert said.data["error"]["code"] == "resource.disk"
    assert data["attempt"] == 1
    assert order.count("request.started") == 1
    assert [one.program.work_folders, two.program.work_folders] == [[], []]
    assert took < 10 * PARK_SECONDS + 10  # the ingest itself, and which of the two the broker asks


async def test_a_lone_worker_says_now_and_then_that_there_is_no_room_and_goes_on_when_there_is(
    workers: Workers, tmp_path: Path
) -> None:
    (one, _) = workers.services
    source = workers.any.sources / "large"
    many_files(source, 3, heavy_bytes=5_000_000)
    with workers.small_disk("size=24m") as disk, one.serving():
        other = disk / "something else"
        other.write_bytes(bytes(18_000_000))
        async with following(one) as acme:
            await acme.request(asking(source), identity="large")
            said = await waits(acme, "large", times=3)
            other.unlink()
            data = await finished(one, acme, "large", tmp_path / "opened")

    between = [
        (datetime.fromisoformat(b.event["time"]) - datetime.fromisoformat(a.event["time"])).total_seconds()
        for a, b in itertools.pairwise(said)
    ]
    assert data["attempt"] == 1
    assert min(between) > 0.8 * TELL_SECONDS
    assert max(between) < TELL_SECONDS + 3 * PARK_SECONDS + 5
