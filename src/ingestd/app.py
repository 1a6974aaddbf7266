"""The composition root: everything that lives is made here, and closed in reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from importlib import resources
from pathlib import Path

import structlog

from ingestd.batches import Batches
from ingestd.config import Settings
from ingestd.engine import Engine
from ingestd.fpr.commands import Commands
from ingestd.fpr.registry import Registry
from ingestd.handlers import HANDLERS
from ingestd.ingest import Ingest
from ingestd.job import Services
from ingestd.journal import ServiceJournal
from ingestd.leases import Leases
from ingestd.logs import configure_embedded
from ingestd.messages import CHOICES
from ingestd.storage import Locations
from ingestd.storage.conditional import probe
from ingestd.tools import Toolbox
from ingestd.workflow import Workflow
from ingestd.workfolder import FolderBusy, locked, prove_folder

log = structlog.get_logger(__name__)


def workflow_path(settings: Settings) -> Path:
    """The workflow in force: the one that is set, or the one that ingestd ships."""
    if settings.workflow is not None:
        return settings.workflow
    packaged = Path(str(resources.files("ingestd").joinpath("_data/workflow.json")))
    beside_source = Path(__file__).parents[2] / "workflow.json"
    return packaged if packaged.exists() else beside_source


def load_workflow(settings: Settings) -> Workflow:
    """Read the workflow and prove it. Raises `SystemFault` with every fault."""
    return Workflow.load(workflow_path(settings), handlers=HANDLERS, options=CHOICES)


@contextlib.asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Open what steps work with."""
    async with Toolbox(settings) as tools:
        registry = await asyncio.to_thread(Registry.load, settings.fpr_folders)
        locations = Locations.open(settings.all_locations, settings.default_location, settings.credentials)
        async with contextlib.aclosing(locations):
            yield Services(
                settings=settings,
                tools=tools,
                registry=registry,
                commands=Commands(registry, tools.pool, tools.pool.home()),
                locations=locations,
            )


@contextlib.asynccontextmanager
async def open_ingest(settings: Settings | None = None, *, shared: bool = False) -> AsyncIterator[Ingest]:
    """Open ingest in this process, with no broker. Leaving stops what is in hand; it can be resumed.

    `shared`: other workers may get the same requests, so who works on one is agreed upon in archival storage. Then
    nothing begins unless every location can take something now (`DependencyError`), and the default one has
    conditional writes (`SystemFault`).
    """
    configure_embedded()
    settings = settings or Settings.load()
    workflow = load_workflow(settings)
    for folder in (settings.data_dir, settings.work_dir, settings.scratch_dir):
        await asyncio.to_thread(prove_folder, folder, "data_dir")
    async with contextlib.AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings))
        journal = await ServiceJournal.open(settings.journal_path)
        stack.push_async_callback(journal.close)
        engine = Engine(workflow, HANDLERS, services)
        leases = batches = None
        if shared:
            worker = stack.enter_context(_worker(settings))
            await services.locations.check()
            documents = services.locations.conditional(settings.default_location)
            await probe(documents, settings.default_location)
            leases = Leases(documents, worker=worker, seconds=settings.lease_seconds)
            batches = Batches(documents)
        yield await stack.enter_async_context(Ingest(engine, services, journal, leases, batches))


async def serve(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Run the service on RabbitMQ until SIGTERM, SIGINT or `stop`."""
    from ingestd.monitor import Monitor
    from ingestd.transport.amqp.service import AmqpService

    stop = stop or asyncio.Event()
    with _stopping(stop):
        async with open_ingest(settings, shared=True) as ingest:
            broker = AmqpService(ingest, settings.amqp, drain_seconds=settings.shutdown_seconds / 2)
            monitor = Monitor(ingest, broker, ingest.admission)
            monitor.show(ingest.admission)
            ingest.observers.append(monitor.observe)
            async with monitor.serving(settings.http_host, settings.http_port):
                taken_up = await ingest.take_up_interrupted()
                log.info("serving", concurrent_packages=settings.concurrent_packages, taken_up=taken_up)
                drained = asyncio.Event()
                async with asyncio.TaskGroup() as group:
                    group.create_task(broker.run(stop, drained))
                    audits = group.create_task(ingest.keep_auditing())
                    await stop.wait()
                    log.info("stopping", in_hand=len(ingest.in_hand()))
                    audits.cancel()
                    await ingest.halt()
                    drained.set()
    log.info("stopped")


@contextlib.contextmanager
def _worker(settings: Settings) -> Iterator[str]:
    """The name of this worker. It is its data folder's, so that one that was killed knows its own leases again; a
    second process on the same folder has a name of its own.
    """
    place = settings.data_dir / "worker"
    try:
        with locked(place):
            name = place.read_text() or f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
            place.write_text(name)
            yield name
    except FolderBusy:
        yield f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"


@contextlib.contextmanager
def _stopping(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
