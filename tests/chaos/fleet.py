"""Workers that are killed, and an upstream that is not impressed: what the tests of this folder are made of.

Each worker is `ingestd serve` as a process, with a data folder of its own. They share a broker and archival storage,
and nothing else. Everything random comes from one seed, which is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from pydantic import SecretStr

from ingestd.config import AmqpSettings
from ingestd.transport.amqp.connection import BrokerError, answered, connected, lost, wire
from tests.acceptance.program import rows
from tests.acceptance.test_serve import Service, fresh
from tests.acceptance.upstream import Message
from tests.chaos.archives import Shelf, folder_shelf

LONG = os.environ.get("CHAOS") == "long"
"""Whether all is tried (`make chaos`), or a sample of it (`make test`)."""
DONE = {"succeeded", "succeeded_with_warnings"}
LEASE_SECONDS = 1
PARK_SECONDS = 1
SKEW_SECONDS = 5
TAKEOVER_SECONDS = LEASE_SECONDS + SKEW_SECONDS + 2 * PARK_SECONDS + 4
"""What is promised: the lease ends, the clocks may differ, the parked copy comes round; and a slow machine's start."""

LEAN = {
    "scan_for_viruses": False,
    "extract_packages": False,
    "identify_transfer": False,
    "identify_submission_and_metadata": False,
    "identify_before_normalization": False,
    "normalize": False,
    "transcribe_files": False,
    "validate_formats": False,
    "perform_policy_checks_on_originals": False,
    "aip_compression_algorithm": "tar",
}
"""A whole walk, with few programs."""


def chance(name: str) -> random.Random:
    """Give what is random in a test. `CHAOS_SEED` repeats a run."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**9))
    print(f"\nchaos: {name}: CHAOS_SEED={seed}")
    return random.Random(f"{name} {seed}")


def figure(name: str, **figures: object) -> None:
    """Say what was counted and measured."""
    print(f"chaos: {name}: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in figures.items()))


class Worker:
    """One `ingestd serve`, which may live many times on one data folder."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.process: subprocess.Popen[bytes] | None = None
        self.lives = 0

    @property
    def data_dir(self) -> Path:
        return self.service.program.data_dir

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        assert not self.alive
        self.lives += 1
        self.process = self.service.program.start("serve", log=self.service.log)

    async def ready(self) -> None:
        async with asyncio.timeout(60):
            while (await asyncio.to_thread(self.service.get, "/readyz"))[0] != 200:
                assert self.alive, self.service.log.read_text(encoding="utf-8")[-3000:]
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.communicate(timeout=20)

    def lose(self) -> None:
        """End it, and lose its disk."""
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=40)
        return self.process.returncode

    def jobs(self, package: str) -> list[Mapping[str, Any]]:
        """The jobs of a package that is, or was, at work here; none while there is no journal of it."""
        journal = self.data_dir / "work" / package / "journal.db"
        with contextlib.suppress(Exception):  # it is just being made, or removed
            return rows(journal, "SELECT * FROM job ORDER BY row")
        return []

    def complaints(self) -> list[str]:
        """What it logged of faults of its own."""
        said = self.service.log.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in said if line.startswith("{")]
        return [json.dumps(line) for line in found if line["level"] in {"error", "critical"}]


class Fleet:
    """`count` workers on one topology of their own."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        count: int = 1,
        shelf: Shelf | None = None,
        **settings: object,
    ) -> None:
        self.folder = folder
        self.topology = fresh()
        self.shelf = shelf or folder_shelf(folder / "aips")
        self.sources = folder / "sources"
        self.sources.mkdir(parents=True)
        common: dict[str, object] = {
            "AMQP__PARK_SECONDS": PARK_SECONDS,
            "AMQP__RECONNECT_MIN_SECONDS": 0.1,
            "LEASE_SECONDS": LEASE_SECONDS,
            "CRASH_LIMIT": 100_000,
            "TOOLS__SANDBOX": "off",  # the command that identifies writes down that it ran
            "PROCESSING": json.dumps(LEAN),
            **self.shelf.settings,
        }
        self.workers = [self._worker(number, url, common | settings) for number in range(count)]

    def _worker(self, number: int, url: str, settings: Mapping[str, object]) -> Worker:
        folder = self.folder / f"worker-{number}"
        folder.mkdir()
        service = Service(folder, url, topology=self.topology, **settings)
        service.program.settings = {
            **service.program.settings,
            "LOCATIONS": json.dumps(self.shelf.locations),
            "SOURCES__ROOTS": json.dumps([str(self.sources)]),
            **settings,
        }
        return Worker(service)

    @property
    def one(self) -> Worker:
        return self.workers[0]

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Start all; in the end nothing of them is left running."""
        try:
            for worker in self.workers:
                worker.start()
            yield
        finally:
            for worker in self.workers:
                worker.kill()

    def holder(self, package: str) -> Worker | None:
        """Who has a package's folder."""
        found = [worker for worker in self.workers if (worker.data_dir / "work" / package / "journal.db").exists()]
        return next((worker for worker in found if worker.alive), None)

    def source(self, name: str, *, files: int = 3, heavy_bytes: int = 0) -> Path:
        folder = self.sources / name
        (folder / "letters").mkdir(parents=True)
        for number in range(files):
            (folder / "letters" / f"{number}.txt").write_text(f"Letter {number} of {name}\n", encoding="utf-8")
        if heavy_bytes:
            (folder / "heavy.bin").write_bytes(random.Random(name).randbytes(heavy_bytes))
        return folder


class Client:
    """An upstream that sends until it is confirmed, and hears everything, whatever becomes of the broker.

    So what it sends may come twice, which the contract allows.
    """

    def __init__(self, url: str, topology: str) -> None:
        self.settings = AmqpSettings(url=SecretStr(url))
        self.topology = topology
        self.messages: list[Message] = []
        self.listening = asyncio.Event()

    async def hear(self) -> None:
        """Hear for ever, on a queue that survives the broker."""
        while True:
            with contextlib.suppress(BrokerError):
                await self._hear_once()
            self.listening.clear()
            await asyncio.sleep(0.5)

    async def _hear_once(self) -> None:
        async with connected(self.settings, "chaos") as connection:
            async with answered(10):
                channel = await connection.channel()
                await channel.set_qos(200)
                queue = await channel.declare_queue(f"{self.topology}.client", durable=True)
                for exchange in ("events", "results"):
                    await queue.bind(f"{self.topology}.{exchange}", "#")
                await queue.consume(self._read)
                underlay = await channel.get_underlay_channel()
            self.listening.set()
            await lost(wire(connection), underlay)

    async def _read(self, message: AbstractIncomingMessage) -> None:
        self.messages.append(Message(message))
        await message.ack()

    async def send(self, body: bytes, *, exchange: str = "requests", key: str = "preservation.request.acme") -> None:
        await self.send_all([body], exchange=exchange, key=key)

    async def send_all(
        self, bodies: Iterable[bytes], *, exchange: str = "requests", key: str = "preservation.request.acme"
    ) -> None:
        """Send messages one after another, each until the broker confirms it."""
        left = list(bodies)
        while left:
            with contextlib.suppress(BrokerError):
                async with connected(self.settings, "chaos") as connection, answered(10):
                    channel = await connection.channel()
                    to = await channel.get_exchange(f"{self.topology}.{exchange}", ensure=False)
                    while left:
                        message = aio_pika.Message(left[0], delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                        await to.publish(message, key, mandatory=exchange == "requests")
                        left.pop(0)
            if left:
                await asyncio.sleep(0.2)

    async def request(self, source: Path, identity: str | None = None, **more: Any) -> str:
        identity = identity or str(uuid.uuid4())
        await self.send(request(source, identity, **more))
        return identity

    async def cancel(self, identity: str) -> None:
        event = {
            "specversion": "1.0",
            "type": "org.ingestd.control.cancel.v1",
            "id": str(uuid.uuid4()),
            "source": "urn:repository:acme",
            "data": {"request": identity, "reason": "chaos"},
        }
        await self.send(json.dumps(event).encode(), exchange="control", key="")

    # --- what came

    async def until(self, true: Callable[[], object], what: str, *, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                kinds = Counter(message.kind for message in self.messages)
                raise AssertionError(f"waited {seconds} s for {what}; there came {dict(kinds)}")
            await asyncio.sleep(0.01)

    async def results(self, requests: Iterable[str], *, seconds: float = 60) -> dict[str, Message]:
        """Wait for the results of all these requests, as they come from the exchange of results."""
        wanted = set(requests)

        def missing() -> set[str]:
            return wanted - self.ended()

        with contextlib.suppress(AssertionError):
            await self.until(lambda: not missing(), "results", seconds=seconds)
        lacking = sorted(missing())
        said = [(m.kind, m.data["attempt"], (m.data["link"] or {}).get("name")) for m in self.of(*lacking[:1])]
        assert not lacking, f"after {seconds} s no result of {lacking}; the first of them came to {said[-8:]}"
        return {identity: self.terminal(identity)[-1] for identity in wanted}

    def ended(self) -> set[str]:
        return {message.data["request_id"] for message in self.messages if message.terminal}

    def of(self, *requests: str) -> list[Message]:
        """Events of requests, each once, in the order of their first coming."""
        found: dict[str, Message] = {}
        for message in self.messages:
            if message.data["request_id"] in requests:
                found.setdefault(message.id, message)
        return list(found.values())

    def terminal(self, request: str) -> list[Message]:
        return [message for message in self.of(request) if message.terminal]

    async def count(self, *queues: str) -> int:
        """How many messages are ready in these queues."""
        async with connected(self.settings, "chaos") as connection, answered(10):
            channel = await connection.channel()
            total = 0
            for queue in queues:
                declared = await channel.declare_queue(f"{self.topology}.{queue}", passive=True)
                total += declared.declaration_result.message_count or 0
            return total

    async def drained(self, *, seconds: float = 30) -> None:
        """Wait until nothing is in hand any more: no request waits, and no copy is parked."""
        quiet = 0
        async with asyncio.timeout(seconds):
            while quiet < 3:
                left = await self.count("requests", "requests.high", "requests.low", "inflight")
                quiet = 0 if left else quiet + 1
                await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def client(url: str, fleet: Fleet) -> AsyncIterator[Client]:
    """An upstream of a fleet, one of whose workers must be ready: the topology is there then."""
    made = Client(url, fleet.topology)
    async with asyncio.TaskGroup() as group:
        hearing = group.create_task(made.hear())
        async with asyncio.timeout(30):
            await made.listening.wait()
        yield made
        hearing.cancel()


def request(source: Path, identity: str, **more: Any) -> bytes:
    """A request as a CloudEvent."""
    data = {"source": {"location": str(source)}, "tenant": "acme", "collection": "chaos", **more}
    event = {
        "specversion": "1.0",
        "type": "org.ingestd.preservation.request.v1",
        "id": identity,
        "source": "urn:repository:acme",
        "data": data,
    }
    return json.dumps(event).encode()


def hold_account(client: Client, requests: Iterable[str]) -> None:
    """One terminal event in all for each request, none twice for an attempt, numbers that grow within each attempt.

    The terminal event has the highest; it may come before others, if somebody else told it for a worker that was dead.
    """
    for identity in requests:
        messages = client.of(identity)
        ends = [(message.kind, message.data["attempt"]) for message in messages if message.terminal]
        assert len(ends) == 1, f"{identity} ended as {ends}"
        for attempt in {message.data["attempt"] for message in messages}:
            told = [message for message in messages if message.data["attempt"] == attempt]
            told.sort(key=lambda message: message.terminal)
            numbers = [message.data["sequence"] for message in told]
            assert numbers == sorted(set(numbers)), f"{identity}, attempt {attempt}: {numbers}"


def hold_links(client: Client, identity: str) -> None:
    """No link was ended twice."""
    done = Counter(message.data["link"]["id"] for message in client.of(identity) if message.kind == "link.completed")
    assert [link for link, count in done.items() if count > 1] == []
