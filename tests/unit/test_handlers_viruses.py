"""The scan for malware as steps: with a real clamd, with none, and with one that goes away."""

from __future__ import annotations

import shutil
import stat
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingestd.config import Settings
from ingestd.errors import Code, ContentError, DependencyError
from ingestd.fpr import Registry
from ingestd.fpr.commands import Commands
from ingestd.handlers.viruses import refuse_infected, scan_for_viruses
from ingestd.job import Outcome, Services, Task
from ingestd.messages import ProcessingConfig, RequestSource
from ingestd.oais import Facts, File, Package, Warning_, escape_name
from ingestd.premis import Event, EventOutcome, EventType
from ingestd.storage import Locations
from ingestd.tools import Toolbox
from ingestd.tools.clamav import find_scanner
from tests.clamd import EICAR, MAX_FILE_BYTES, SIGNATURE, PrivateClamd
from tests.fakes import FakeHistory

pytestmark = pytest.mark.tool

PACKAGE = Package(
    id=uuid.UUID("11111111-1111-4111-8111-111111111111"),
    name="test",
    created_at=datetime(2026, 11, 20, 18, 57, 41, tzinfo=UTC),
    processing=ProcessingConfig().as_options(),
)

if shutil.which("clamd", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None:
    pytest.skip("clamd is not installed (Debian: clamav-daemon)", allow_module_level=True)


@dataclass(kw_only=True)
class Bench:
    """A package in a folder, its history, and services with the scanner that a test wants."""

    task: Task
    services: Services
    history: FakeHistory

    def receive(self, **contents: bytes) -> None:
        for name, content in contents.items():
            path = f"objects/{name}"
            self.task.at(path).write_bytes(content)
            id_ = uuid.uuid5(PACKAGE.id, f"file:{escape_name(path)}")
            self.history.record(Facts(files=[File(id=id_, path=path, original=path, size_bytes=len(content))]))

    async def scan(self, window: int = 64) -> list[Outcome]:
        outcomes = []
        async for files in self.history.files(window=window):
            outcome = await scan_for_viruses(replace(self.task, files=files), self.services)
            self.history.record(outcome.facts)
            outcomes.append(outcome)
        return outcomes

    async def decide(self) -> None:
        async for outcome in refuse_infected(self.task, self.services):
            self.history.record(outcome.facts)

    async def events(self) -> dict[str, list[Event]]:
        files = [file async for window in self.history.files() for file in window]
        events = await self.history.events([file.id for file in files])
        return {file.path.removeprefix("objects/"): list(events.get(file.id, ())) for file in files}

    async def warnings(self) -> set[Warning_]:
        """Give the warnings, each once, as a journal keeps them."""
        return {warning async for window in self.history.warnings() for warning in window}


Make = Callable[..., Bench]


@pytest.fixture(scope="module")
def clamd() -> Iterator[PrivateClamd]:
    with PrivateClamd() as running:
        yield running


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    async with Toolbox(Settings(data_dir=tmp_path / "data")) as tools:

        def one(address: Path | str, **clamav: object) -> Bench:
            root = tmp_path / "transfer"
            (root / "objects").mkdir(parents=True)
            values = {"address": str(address), "max_file_bytes": MAX_FILE_BYTES, **clamav}
            settings = Settings.model_validate({"data_dir": tmp_path / "data", "clamav": values})
            history = FakeHistory()
            task = Task(
                package=PACKAGE,
                folder=tmp_path,
                root=root,
                history=history,
                source=RequestSource(location="/nowhere"),
                target="primary",
            )
            registry = Registry([])
            services = Services(
                settings=settings,
                tools=tools,
                registry=registry,
                commands=Commands(registry, tools.pool),
                locations=Locations.open({"primary": (tmp_path / "aips").as_uri()}, "primary"),
            )
            return Bench(task=task, services=services, history=history)

        yield one


async def test_every_file_gets_an_event_with_one_of_three_outcomes(make: Make, clamd: PrivateClamd) -> None:
    bench = make(clamd.socket)
    bench.receive(clean=b"hello", infected=EICAR, large=b"x" * (MAX_FILE_BYTES + 1))

    [outcome] = await bench.scan()

    events = {name: told[0] for name, told in (await bench.events()).items()}
    assert {EventType.VIRUS_CHECK} == {event.type for event in events.values()}
    assert ("Pass", "") == (events["clean"].outcome, events["clean"].note)
    assert ("Fail", SIGNATURE) == (events["infected"].outcome, events["infected"].note)
    assert "Not scanned" == events["large"].outcome
    assert events["clean"].detail.startswith('program="ClamAV (clamd)"; version="ClamAV 1.')
    (program,) = events["clean"].programs
    assert "ClamAV (clamd)" == program.name
    assert program.version.startswith("1.")
    assert [("ClamAV (clamd)", "virus check")] == [(tool.name, tool.used_for) for tool in outcome.tools]
    [warning] = await bench.warnings()
    assert ("policy.virus_not_scanned", "objects/large") == (warning.code, warning.path)


async def test_all_infected_files_of_all_windows_are_named_and_counted(make: Make, clamd: PrivateClamd) -> None:
    bench = make(clamd.socket)
    bench.receive(**{f"f{number}": EICAR if number % 3 == 0 else b"%d" % number for number in range(10)})
    await bench.scan(window=2)

    with pytest.raises(ContentError) as raised:
        await bench.decide()

    assert Code.CONTENT_INFECTED is raised.value.code
    assert {f"objects/f{number}" for number in (0, 3, 6, 9)} == {one.path for one in raised.value.violations}
    assert {SIGNATURE} == {one.actual for one in raised.value.violations}
    facts = await bench.history.facts()
    assert ("6", "4", "0") == tuple(facts[f"virus_scan_{word}"] for word in ("clean", "infected", "not_scanned"))
    assert "ClamAV (clamd)" in facts["virus_scanner"]


async def test_a_clean_package_goes_on_and_is_counted(make: Make, clamd: PrivateClamd) -> None:
    bench = make(clamd.socket)
    bench.receive(a=b"a", b=b"b")
    await bench.scan()

    await bench.decide()

    facts = await bench.history.facts()
    assert ("2", "0", "0") == tuple(facts[f"virus_scan_{word}"] for word in ("clean", "infected", "not_scanned"))
    assert await bench.warnings() == set()


async def test_what_was_scanned_is_not_scanned_again(make: Make, clamd: PrivateClamd) -> None:
    bench = make(clamd.socket)
    bench.receive(a=b"a")
    await bench.scan()
    bench.receive(b=EICAR)

    await bench.scan()

    assert {"a": 1, "b": 1} == {name: len(events) for name, events in (await bench.events()).items()}


async def test_with_no_scanner_one_warning_stands_for_all(make: Make) -> None:
    bench = make("")
    if await find_scanner(bench.services.settings.clamav, bench.services.pool):
        pytest.skip("this machine has a scanner of its own")
    bench.receive(**{f"f{number}": b"x" for number in range(5)})

    await bench.scan(window=2)
    await bench.decide()

    [warning] = await bench.warnings()
    assert Code.TOOL_NOT_INSTALLED == warning.code
    assert {EventOutcome.NOT_SCANNED} == {event.outcome for told in (await bench.events()).values() for event in told}
    assert "5" == (await bench.history.facts())["virus_scan_not_scanned"]


async def test_switched_off_nothing_is_said(make: Make, clamd: PrivateClamd) -> None:
    bench = make(clamd.socket, scanner="off")
    bench.receive(infected=EICAR)

    await bench.scan()
    await bench.decide()

    assert {"infected": []} == await bench.events()
    assert await bench.warnings() == set()
    assert await bench.history.facts() == {}


async def test_a_clamd_whose_address_is_set_and_that_is_away_stops_the_package(make: Make, tmp_path: Path) -> None:
    bench = make(tmp_path / "none")
    bench.receive(a=b"a")

    with pytest.raises(DependencyError):
        await bench.scan()


async def test_a_clamd_that_keeps_its_limits_to_itself_is_warned_of_once(make: Make) -> None:
    with PrivateClamd(alert=False) as silent:
        bench = make(silent.socket)
        bench.receive(a=b"a", b=b"b")
        await bench.scan()
        await bench.decide()

    [warning] = await bench.warnings()
    assert Code.POLICY_VIRUS_NOT_SCANNED == warning.code
    assert "AlertExceedsMax" in warning.detail


async def test_quarantine_closes_the_folder_and_says_so(make: Make, clamd: PrivateClamd) -> None:
    bench = make(clamd.socket, on_infected="quarantine")
    bench.receive(infected=EICAR)
    bench.task.root.chmod(0o755)
    await bench.scan()

    with pytest.raises(ContentError):
        await bench.decide()

    assert "yes" == (await bench.history.facts())["quarantined"]
    assert 0o700 == stat.S_IMODE(bench.task.root.stat().st_mode)
