"""A service whose workflow is small: what the tests of OAIS Ingest work with."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from ingestd.batches import Batches
from ingestd.engine import Engine
from ingestd.errors import Code, DependencyError
from ingestd.fpr.commands import Commands
from ingestd.fpr.registry import Registry
from ingestd.ingest import Ingest
from ingestd.job import Handler, Outcome, Services, Task
from ingestd.journal import ServiceJournal
from ingestd.leases import Leases
from ingestd.messages import Event, EventType, ProcessingConfig, RequestEnvelope, parse_request
from ingestd.storage.conditional import Conditional, LocalConditional
from ingestd.workflow import Workflow, new_link_id
from tests.steps import services
from tests.unit.test_workflow import FAILING, link

A, B = (new_link_id("ingest", name) for name in "ab")


@functools.cache
def registry() -> Registry:
    return Registry.load()


class Cut:
    """Documents that can be away, for one worker."""

    def __init__(self, documents: Conditional) -> None:
        self._documents = documents
        self.away = False

    async def read(self, key: str) -> tuple[bytes, str] | None:
        return await self._there().read(key)

    async def create(self, key: str, content: bytes) -> str:
        return await self._there().create(key, content)

    async def replace(self, key: str, content: bytes, tag: str) -> str:
        return await self._there().replace(key, content, tag)

    async def remove(self, key: str, tag: str) -> None:
        await self._there().remove(key, tag)

    def list(self, prefix: str = "") -> AsyncIterator[str]:
        return self._there().list(prefix)

    def _there(self) -> Conditional:
        if self.away:
            raise DependencyError("away", code=Code.DEPENDENCY_STORAGE_UNAVAILABLE)
        return self._documents


class House:
    """A service whose workflow has two small steps, and that can be opened again after it died."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.source = tmp_path / "source"
        self.source.mkdir()
        (self.source / "a").write_text("a")
        self.settings: dict[str, Any] = {}
        # The small workflow has no link for any option: whoever wants one done would be warned.
        self.options = {name: False for name, one in ProcessingConfig.model_fields.items() if one.annotation is bool}
        self.results: dict[str, list[Outcome | Exception]] = {}
        self.ran: list[str] = []
        self.passed: list[str] = []
        """Steps that came by the fence."""
        self.events: list[Event] = []
        self.held: set[str] = set()
        """Steps that wait until they are taken out of here."""
        self.last = "b"
        """What the second step is called."""
        self.documents = LocalConditional(tmp_path / "documents")
        self.shared: dict[str, Cut] = {}
        """What each worker has of the documents."""
        self.lease_seconds = 60.0
        self.gate = asyncio.Event()
        self.gate.set()

    def _handler(self, name: str) -> Handler:
        async def step(task: Task, services: Services) -> Outcome:
            self.ran.append(name)
            await self.gate.wait()
            while name in self.held:
                await asyncio.sleep(0.01)
            if name == "fenced":
                await task.fence()
                self.passed.append(name)
            left = self.results.get(name, [])
            result = left.pop(0) if left else Outcome()
            if isinstance(result, Exception):
                raise result
            return result

        return step

    @contextlib.asynccontextmanager
    async def open(self, worker: str = "") -> AsyncIterator[Ingest]:
        """Open the service; as a `worker` it shares archival storage with others, and has a data folder of its own."""
        links = {A: link("a", B, start=True), B: link(self.last, None, end=True)}
        links[FAILING] = link("c", None, end=True, group={"en": "Failed"}, fallback_link_id=None)
        sources = {"roots": [self.tmp_path]}
        made = services(self.tmp_path / worker, processing=self.options, sources=sources, **self.settings)
        cast("Any", made).pool = SimpleNamespace(spawned=0)
        cast("Any", made).registry = registry()
        cast("Any", made).commands = Commands(registry(), cast("Any", made).pool)
        made.settings.data_dir.mkdir(parents=True, exist_ok=True)
        journal = await ServiceJournal.open(made.settings.journal_path)
        engine = Engine(Workflow.parse({"links": links}), {n: self._handler(n) for n in {*"abc", self.last}}, made)
        try:
            self.shared[worker] = Cut(self.documents)
            leases = Leases(self.shared[worker], worker=worker, seconds=self.lease_seconds) if worker else None
            batches = Batches(self.shared[worker]) if worker else None
            async with Ingest(engine, made, journal, leases, batches) as ingest:
                ingest.observers.append(self.events.append)
                yield ingest
        finally:
            await journal.close()

    @property
    def work(self) -> Path:
        return self.tmp_path / "data" / "work"

    def envelope(self, identity: str = "r", **more: Any) -> RequestEnvelope:
        data = {"source": {"location": str(self.source)}, "idempotency_key": "k", **more}
        return parse_request({"id": identity, "source": "me", "data": data})

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_async(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(10):
            while not await condition():
                await asyncio.sleep(0.01)

    async def told(self, ingest: Ingest) -> list[Event]:
        """Give every terminal event that is to be published, and mark all as published."""
        found: list[Event] = []
        while await ingest.unconfirmed():
            items = await ingest.outbox()
            await ingest.confirm([item.id for item in items])
            found += [item.event for item in items if item.event.kind.terminal]
        return found

    def kinds(self) -> list[EventType]:
        return [event.kind for event in self.events]
