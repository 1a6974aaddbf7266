from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ingestd.config import ToolSettings
from ingestd.engine import WINDOW_FILES, Ended, Engine, Step
from ingestd.errors import (
    Cancelled,
    Code,
    ContentError,
    DependencyError,
    IngestError,
    ResourceError,
    SystemFault,
    ToolError,
    Violation,
)
from ingestd.job import Handler, Outcome, Services, Task
from ingestd.oais import TRANSFER_OPTIONS, Facts, FileUse, Warning_
from ingestd.premis import Event, EventType
from ingestd.workflow import Workflow, new_link_id
from tests.steps import Bench, a_file, a_package, services
from tests.unit.test_workflow import FAILED, FAILING, OK, choice, link

A, B, C, D = (new_link_id("engine", name) for name in "abcd")


@dataclass(kw_only=True)
class World:
    """A package, a workflow of small steps, and what was reported of it."""

    bench: Bench
    links: dict[str, Any]
    handlers: dict[str, Handler] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)

    async def preserve(self) -> Ended:
        raw = {"links": {**self.links, FAILING: failing()}}
        handlers = {**self.handlers, "give_up": self.step("give_up")}
        workflow = Workflow.parse(raw, handlers=handlers, options=["normalize"])

        async def report(step: Step) -> None:
            self.steps.append(step)

        return await Engine(workflow, handlers, self.bench.services).preserve(
            self.bench.task(), self.bench.journal, report
        )

    async def reopen(self) -> None:
        raw = {"links": {**self.links, FAILING: failing()}}
        await Engine(Workflow.parse(raw), {}, self.bench.services).reopen(self.bench.journal)

    def step(self, name: str, *results: Outcome | Exception) -> Handler:
        """A step that notes that it ran, and gives one result after the other."""
        left = list(results)

        async def run(task: Task, services: Services) -> Outcome:
            self.ran.append(name)
            result = left.pop(0) if left else Outcome()
            if isinstance(result, Exception):
                raise result
            return result

        return run

    async def warnings(self) -> list[Warning_]:
        return [warning async for some in self.bench.journal.warnings() for warning in some]


def failing() -> dict[str, Any]:
    return link("give_up", None, end=True, group={"en": "Failed"}, fallback_link_id=None)


def files_link(execute: str, then: str | None, **config: Any) -> dict[str, Any]:
    made = link(execute, then)
    made["config"] |= {"@manager": "linkTaskManagerFiles", **config}
    return made


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    bench = await Bench.open(tmp_path)
    links = {A: link("a", B, start=True), B: link("b", C), C: link("c", None, end=True)}
    world = World(bench=bench, links=links)
    world.handlers = {name: world.step(name) for name in "abc"}
    yield world
    await bench.journal.close()


# --- order


async def test_links_run_one_after_the_other_to_the_end(world: World) -> None:
    ended = await world.preserve()

    assert ended.error is None
    assert ["a", "b", "c"] == world.ran
    assert [(A, None), (A, 0), (B, None), (B, 0), (C, None), (C, 0)] == [(s.id, s.exit_code) for s in world.steps]


async def test_what_is_done_is_not_done_again(world: World) -> None:
    await world.preserve()
    world.ran.clear()

    assert (await world.preserve()).error is None
    assert world.ran == []


@pytest.mark.parametrize(("normalize", "ran"), [(True, ["a", "b", "c"]), (False, ["a", "c"])])
async def test_a_choice_follows_the_option_and_says_what_it_leaves_out(
    world: World, normalize: bool, ran: list[str]
) -> None:
    world.links |= {A: link("a", D, start=True), D: choice("normalize", B, C)}
    world.bench.package = a_package(processing={"normalize": normalize})

    await world.preserve()

    assert ran == world.ran
    assert [s.id for s in world.steps if s.skipped] == ([] if normalize else [D])


# --- files


async def receive(world: World, count: int) -> None:
    files = [a_file(f"objects/{number:05}") for number in range(count)]
    await world.bench.journal.record(Facts(files=files))


def by_window(run: Callable[[Task], Outcome]) -> Handler:
    async def step(task: Task, services: Services) -> Outcome:
        return run(task)

    return step


async def test_files_come_in_windows_each_once(world: World) -> None:
    await receive(world, 2 * WINDOW_FILES + 5)
    world.links[A] = files_link("a", B) | {"start": True}
    seen: list[list[str]] = []

    def note(task: Task) -> Outcome:
        seen.append([file.path for file in task.files])
        return Outcome()

    world.handlers["a"] = by_window(note)
    await world.preserve()

    assert [WINDOW_FILES, WINDOW_FILES, 5] == [len(window) for window in seen]
    assert [f"objects/{number:05}" for number in range(2 * WINDOW_FILES + 5)] == [
        path for window in seen for path in window
    ]
    done = [step.files_done for step in world.steps if step.id == A]
    assert sorted(done) == done
    assert world.steps[-7].files_total == 2 * WINDOW_FILES + 5


async def test_only_files_below_the_links_folder_and_of_its_uses_come(world: World) -> None:
    files = [a_file("objects/a"), a_file("logs/b"), a_file("objects/c", use=FileUse.METADATA)]
    await world.bench.journal.record(Facts(files=files))
    world.links[A] = files_link("a", B, filter_subdir="objects/", arguments="--use metadata,access") | {"start": True}
    seen: list[str] = []

    def note(task: Task) -> Outcome:
        seen.extend(file.path for file in task.files)
        return Outcome()

    world.handlers["a"] = by_window(note)
    await world.preserve()

    assert ["objects/c"] == seen
    assert max(step.files_total for step in world.steps) == 1


async def test_windows_run_at_once_and_are_recorded_in_their_order(tmp_path: Path, world: World) -> None:
    world.bench.services = services(tmp_path, tools=ToolSettings(processes=3))
    await receive(world, 6 * WINDOW_FILES)
    world.links[A] = files_link("a", B) | {"start": True}
    at_work = most = 0

    async def step(task: Task, services: Services) -> Outcome:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        first = task.files[0].row
        await asyncio.sleep(0.08 - first / 10_000)  # the first are the slowest
        at_work -= 1
        return Outcome(facts=Facts(warnings=[Warning_(code="row", detail=f"{first:06}")]))

    world.handlers["a"] = step
    await world.preserve()

    told = [warning.detail for warning in await world.warnings()]
    assert sorted(told) == told
    assert len(told) == 6
    assert most == 3


async def test_the_worst_exit_code_of_all_windows_counts(world: World) -> None:
    await receive(world, 3 * WINDOW_FILES)
    world.links[A] = files_link("a", B) | {
        "start": True,
        "exit_codes": {"0": {"job_status": OK, "link_id": B}, "2": {"job_status": FAILED, "link_id": C}},
    }
    codes = iter([0, 2, 1])
    world.handlers["a"] = by_window(lambda task: Outcome(exit_code=next(codes)))

    ended = await world.preserve()

    assert ended.error is None
    assert world.ran == ["c"]
    assert [("workflow.job_failed", "a ended with exit code 2")] == [(w.code, w.detail) for w in await world.warnings()]


@pytest.mark.parametrize("count", [1, 4])
async def test_an_interrupted_files_job_goes_on_after_the_last_recorded_window(
    tmp_path: Path, world: World, count: int
) -> None:
    world.bench.services = services(tmp_path, tools=ToolSettings(processes=count))
    await receive(world, 6 * WINDOW_FILES)
    world.links[A] = files_link("a", B) | {
        "start": True,
        "exit_codes": {"0": {"job_status": OK, "link_id": B}, "1": {"job_status": FAILED, "link_id": C}},
    }
    broken = True

    def note(task: Task) -> Outcome:
        if broken and task.files[0].row > 3 * WINDOW_FILES:
            raise ResourceError("disk")
        events = [Event(object=file.id, type=EventType.FIXITY_CHECK, at=file.modified_at) for file in task.files]  # type: ignore[arg-type]
        return Outcome(facts=Facts(events=events), exit_code=int(task.files[0].row == 1))

    world.handlers["a"] = by_window(note)
    first = await world.preserve()
    assert first.error is not None
    assert first.error.code is Code.RESOURCE_DISK
    broken = False

    second = await world.preserve()

    assert second.error is None
    assert world.ran == ["c"]  # the exit code of the first window was not forgotten
    files = await world.bench.files()
    events = await world.bench.journal.events([file.id for file in files])
    assert {1} == {len(told) for told in events.values()}
    assert len(events) == 6 * WINDOW_FILES
    jobs = [job for job in await world.bench.journal.jobs() if job.link == A]
    assert [6 * WINDOW_FILES] == [job.files_done for job in jobs]


# --- walks


async def test_a_walk_is_recorded_step_by_step_and_taken_up_at_its_cursor(world: World) -> None:
    closed: list[int] = []

    async def walk(task: Task, services: Services) -> AsyncIterator[Outcome]:
        try:
            for number in range(task.cursor + 1, 6):
                if number == 4 and not closed:
                    raise ResourceError("disk")
                world.ran.append(f"a{number}")
                yield Outcome(cursor=number, facts=Facts(package={"last": str(number)}))
        finally:
            closed.append(1)

    world.handlers["a"] = walk

    assert (await world.preserve()).error is not None
    assert (await world.bench.journal.facts())["last"] == "3"
    assert (await world.preserve()).error is None
    assert world.ran == ["a1", "a2", "a3", "a4", "a5", "b", "c"]


async def test_a_walk_is_closed_when_its_outcome_cannot_be_recorded(world: World) -> None:
    closed: list[int] = []

    async def walk(task: Task, services: Services) -> AsyncIterator[Outcome]:
        twin = [a_file("objects/a"), a_file("objects/a", id=uuid.uuid4())]
        try:
            yield Outcome(facts=Facts(files=twin))
        finally:
            closed.append(1)

    world.handlers["a"] = walk
    ended = await world.preserve()

    assert isinstance(ended.error, IngestError)
    assert closed == [1]


# --- failures


STOPS: list[Exception] = [
    ResourceError("disk"),
    DependencyError("clamd"),
    Cancelled("stop"),
    SystemFault("bug"),
    KeyError("bug"),
    OSError(28, "No space left on device", "/secret/path"),
    OSError(5, "Input/output error", "/secret/path"),
]


@pytest.mark.parametrize("error", STOPS, ids=lambda error: type(error).__name__)
async def test_what_no_workflow_walks_past_stops_the_package_and_is_taken_up_exactly_there(
    world: World, error: Exception
) -> None:
    world.links[B] |= {"fallback_link_id": C}  # the workflow would walk past it
    world.handlers["b"] = world.step("b", error)

    ended = await world.preserve()

    assert ended.error is not None
    assert ended.link_id == B
    assert "secret" not in ended.error.detail
    assert world.ran == ["a", "b"]

    again = await world.preserve()

    assert again.error is None
    assert world.ran == ["a", "b", "b", "c"]
    assert await world.warnings() == []


async def test_a_failure_that_goes_on_to_a_working_link_is_a_warning(world: World) -> None:
    world.links[B] |= {"fallback_link_id": C}
    violations = (Violation(path="objects/a", rule="r", expected="e"), Violation(path="objects/b", rule="s"))
    world.handlers["b"] = world.step("b", ToolError("no", violations=violations))

    ended = await world.preserve()

    assert ended.error is None
    assert world.ran == ["a", "b", "c"]
    assert [("tool.crashed", "objects/a", "r: e", "b"), ("tool.crashed", "objects/b", "s: no", "b")] == [
        (w.code, w.path, w.detail, w.link) for w in await world.warnings()
    ]


async def test_a_failing_exit_code_that_goes_on_is_a_warning_too(world: World) -> None:
    world.links[B] |= {"fallback_link_id": C}
    world.handlers["b"] = world.step("b", Outcome(exit_code=1))

    ended = await world.preserve()

    assert ended.error is None
    assert world.ran == ["a", "b", "c"]
    assert [w.code for w in await world.warnings()] == ["workflow.job_failed"]
    assert [s.failed for s in world.steps if s.id == B and s.ended] == [True]


@pytest.mark.parametrize("result", [ContentError("bad"), Outcome(exit_code=3)], ids=["error", "exit code"])
async def test_a_failure_that_leads_to_the_failing_branch_fails_the_package(
    world: World, result: Outcome | Exception
) -> None:
    world.handlers["b"] = world.step("b", result)

    ended = await world.preserve()

    assert ended.error is not None
    assert ended.link_id == B
    assert world.ran == ["a", "b", "give_up"]
    assert await world.warnings() == []


async def test_a_package_that_failed_is_taken_up_at_the_link_that_failed(world: World) -> None:
    world.handlers["b"] = world.step("b", ContentError("bad"))
    await world.preserve()

    await world.reopen()
    ended = await world.preserve()

    assert ended.error is None
    assert world.ran == ["a", "b", "give_up", "b", "c"]


@pytest.mark.parametrize("moment", range(1, 4))
async def test_a_package_that_dies_on_its_way_to_failure_is_never_a_success(world: World, moment: int) -> None:
    """Killed at any report after the failure, and gone on with: it has failed, and says why."""
    world.handlers["b"] = world.step("b", ContentError("bad"))

    class Killed(BaseException):
        pass

    raw = {"links": {**world.links, FAILING: failing()}}
    handlers: Mapping[str, Handler] = {**world.handlers, "give_up": world.step("give_up")}
    engine = Engine(Workflow.parse(raw), handlers, world.bench.services)
    after = 0

    async def report(step: Step) -> None:
        nonlocal after
        after += int(after > 0 or (step.id == B and step.ended))
        if after == moment:
            raise Killed

    with pytest.raises(Killed):
        await engine.preserve(world.bench.task(), world.bench.journal, report)
    ended = await world.preserve()

    assert ended.error is not None
    assert (ended.error.code, ended.error.detail, ended.link_id) == (Code.CONTENT_STRUCTURE_INVALID, "bad", B)
    assert world.ran.count("b") == 1


async def test_the_last_link_fails_like_any_other(world: World) -> None:
    world.handlers["c"] = world.step("c", ContentError("not stored"))

    ended = await world.preserve()

    assert ended.error is not None
    assert world.ran == ["a", "b", "c", "give_up"]
    await world.reopen()
    assert (await world.preserve()).error is None
    assert world.ran == ["a", "b", "c", "give_up", "c"]


async def test_a_workflow_that_leads_to_failure_without_a_failure_is_no_success(world: World) -> None:
    world.links |= {A: link("a", D, start=True), D: choice("normalize", FAILING, B)}

    ended = await world.preserve()

    assert ended.error is not None
    assert world.ran == ["a", "give_up"]
    await world.reopen()
    assert (await world.preserve()).error is not None


# --- cancelled


@pytest.mark.parametrize("kind", ["package", "files", "walk"])
async def test_cancelled_in_the_middle_it_goes_on_later_at_the_same_link(world: World, kind: str) -> None:
    await receive(world, 3 * WINDOW_FILES)
    reached, hang = asyncio.Event(), True

    async def work(task: Task, services: Services) -> Outcome:
        world.ran.append("a")
        reached.set()
        if hang:
            await asyncio.sleep(60)
        return Outcome()

    async def walk(task: Task, services: Services) -> AsyncIterator[Outcome]:
        yield await work(task, services)

    world.handlers["a"] = walk if kind == "walk" else work
    if kind == "files":
        world.links[A] = files_link("a", B) | {"start": True}
    running = asyncio.ensure_future(world.preserve())
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    hang = False

    assert (await world.preserve()).error is None
    assert world.ran[-2:] == ["b", "c"]
    assert len([job for job in await world.bench.journal.jobs() if job.link == A]) == 1


async def test_a_step_whose_outcome_was_recorded_is_not_run_again(world: World) -> None:
    """Killed between the outcome and the end of its job: its events are there once."""
    event = Event(object=a_file("objects/a").id, type=EventType.VALIDATION, at=a_file("x").modified_at)  # type: ignore[arg-type]
    job = await world.bench.journal.start_job(A, "a", "a")
    await world.bench.journal.record(Facts(events=[event]), job=job.row, cursor=1, exit_code=0)

    assert (await world.preserve()).error is None
    assert world.ran == ["b", "c"]


async def test_a_choice_follows_what_the_transfer_itself_asks_for(world: World) -> None:
    world.links |= {A: link("a", D, start=True), D: choice("normalize", B, C)}
    world.bench.package = a_package(processing={"normalize": True})
    await world.bench.journal.record(Facts(package={TRANSFER_OPTIONS: '{"normalize": false}'}))

    await world.preserve()

    assert world.ran == ["a", "c"]
