"""The contents of archives, disk images and mailboxes among the objects, beside them, down to the innermost.

A container is one by its format: the registry has a rule for it. What is unpacked is hostile until it is proved
harmless, so it comes out into a scratch folder, under the limits of the settings `unpack`, and is moved only when all
of it is there. One that cannot be opened is a warning, and stays as it is.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path, PurePosixPath

from ingestd import __version__
from ingestd.config import UnpackSettings
from ingestd.errors import Code, ContentError, IngestError, PolicyError, SourceError, ToolError
from ingestd.fpr.commands import CommandRun
from ingestd.fpr.identified import command_of, identify
from ingestd.fpr.records import Command, Purpose, Rule
from ingestd.fpr.variables import values_for
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Directory, Facts, File, FileUse, RuleUse, Warning_, escape_name
from ingestd.premis import Event, EventType, Program, now
from ingestd.sources.archives import Acted, NotAnArchive, receive_archive
from ingestd.sources.contents import Placed, Plan, limits_of, short, survey, watch_folder
from ingestd.sources.kinds import Archive, archive_in
from ingestd.sources.names import open_plain
from ingestd.sources.writer import Limits, Meter
from ingestd.together import tasks
from ingestd.tools.run import Stop

_OURS = frozenset({"7z-extract", "unar-extract"})
"""Commands of the shipped registry in whose place we unpack ourselves what we can read."""
_RECEIVED = "extraction_received_bytes"
_DONE = "extracted/"
_TOLD_CHARACTERS = 300
_PASSWORD = re.compile(r"password|passphrase|encrypted", re.IGNORECASE)
_METHOD = re.compile(r"unsupported|not implemented|not supported", re.IGNORECASE)


async def extract_contents(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Unpack every container among the objects into `<container>-<date>` beside it, and what comes out in turn.

    Files are recorded with the original path `<container's original>/<path within>`, safe names, their formats, and
    the events `unpacking`, `message digest calculation`, `filename change`, `format identification`; hidden and system
    files as removed, as at the top of a transfer. With option `delete` = `True` the container is removed after.

    One that cannot be opened is a warning with the code of what was wrong. Run again after it was stopped, it goes on
    at the container that it was at, and nothing is recorded twice.
    """
    extraction = await _Extraction.begin(task, services)
    yield Outcome(facts=Facts(package={_RECEIVED: str(extraction.budget.received_bytes)}))
    row, before = task.cursor, -1
    while row != before:
        before = row
        # What is extracted is recorded behind what is there: this goes on until nothing comes out any more.
        async for files in task.history.files(under="objects", uses=(FileUse.ORIGINAL,), after_row=row):
            for file in files:
                async for outcome in extraction.extract(file):
                    yield outcome
            row = files[-1].row
            yield Outcome(cursor=row)


@dataclass(kw_only=True, slots=True)
class _Budget:
    """What all containers of a package may unpack to together."""

    settings: UnpackSettings
    received_bytes: int
    entries: int = 0
    bytes: int = 0

    def left(self) -> UnpackSettings:
        """Give the limits for the next container. Raises `content.archive_bomb` where nothing is left."""
        settings = self.settings
        allowed = max(settings.ratio_from_bytes, int(settings.max_ratio * self.received_bytes))
        most_bytes = min(settings.max_bytes, allowed) - self.bytes
        most_entries = settings.max_entries - self.entries
        if most_bytes < 1 or most_entries < 1:
            raise ContentError(
                "the archives of this package together unpack to more than the settings unpack.* allow",
                code=Code.CONTENT_ARCHIVE_BOMB,
            )
        return settings.model_copy(update={"max_bytes": most_bytes, "max_entries": most_entries})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unpacked:
    """A container whose content is in the scratch folder: its names, where it goes, and what unpacked it if not we,
    with what the registry's command says of that.
    """

    plan: Plan
    target: str
    programs: Sequence[Program]
    note: str = ""


class _Extraction:
    """The extraction of one package's containers."""

    def __init__(self, task: Task, services: Services, folder: Path, budget: _Budget, done: frozenset[str]) -> None:
        self.budget = budget
        self._task = task
        self._services = services
        self._done = done
        self._suffix = task.package.created_at.astimezone(UTC).strftime("-%Y-%m-%dT%H_%M_%S")
        self._scratch = folder / "scratch" / "extraction"

    @classmethod
    async def begin(cls, task: Task, services: Services) -> _Extraction:
        """Start, or take up what an earlier run has recorded of itself."""
        facts = await task.history.facts()
        done = {name.removeprefix(_DONE): value.split() for name, value in facts.items() if name.startswith(_DONE)}
        received = int(facts[_RECEIVED]) if _RECEIVED in facts else (await task.history.totals()).bytes
        budget = _Budget(
            settings=services.settings.unpack,
            received_bytes=received,
            entries=sum(int(entries) for entries, _ in done.values()),
            bytes=sum(int(size) for _, size in done.values()),
        )
        # Links lead to the data folder, perhaps: below it none is followed.
        return cls(task, services, await asyncio.to_thread(task.folder.resolve), budget, frozenset(done))

    async def extract(self, file: File) -> AsyncIterator[Outcome]:
        """Unpack one file if it is a container that was not unpacked before."""
        rule = self._rule(file)
        command = self._services.registry.command(rule.command) if rule else None
        if rule is None or command is None or str(file.id) in self._done:
            return
        path = self._task.at(file.path)
        if self._deletes() and not await asyncio.to_thread(os.path.lexists, path):
            # It was removed, and the service stopped before that was recorded.
            yield Outcome(facts=_removal(file), cursor=file.row)
            return
        try:
            unpacked = await self._unpack(file, command)
        except (ContentError, PolicyError, SourceError, ToolError) as error:
            yield Outcome(facts=Facts(warnings=[_warning(file, error)], rules=_uses(rule, error)), cursor=file.row)
        else:
            async for outcome in self._place(file, unpacked):
                yield outcome
            plan = unpacked.plan
            self.budget.entries += plan.entries
            self.budget.bytes += plan.bytes
            facts = _removal(file) if self._deletes() else Facts()
            if self._deletes():
                await asyncio.to_thread(path.unlink)
            facts = replace(facts, rules=_uses(rule), package={f"{_DONE}{file.id}": f"{plan.entries} {plan.bytes}"})
            yield Outcome(facts=facts, cursor=file.row)
        finally:
            await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)

    def _rule(self, file: File) -> Rule | None:
        registry = self._services.registry
        return next(iter(registry.choose(Purpose.EXTRACT, registry.version_of(file.format))), None)

    def _deletes(self) -> bool:
        return self._task.options.get("delete") == "True"

    async def _unpack(self, file: File, command: Command) -> _Unpacked:
        """Unpack into the scratch folder and name what came out."""
        depth = sum(part.endswith(self._suffix) for part in PurePosixPath(file.path).parts[:-1])
        if depth >= self.budget.settings.max_nesting:
            raise ContentError(
                f"more than {depth} archives within one another (unpack.max_nesting): left as it is",
                code=Code.CONTENT_ARCHIVE_BOMB,
            )
        limits = self.budget.left()
        content = self._scratch / "content"
        plan = Plan(content, self._scratch, system_names=self._services.settings.removable_files)
        path = await asyncio.to_thread(self._task.at(file.path).resolve)
        programs: list[Program] = []
        note = ""
        archive = await asyncio.to_thread(_look, path) if command.id in _OURS else None
        if archive is None or not await self._unpack_archive(path, archive, plan, limits, programs.append):
            run = await self._run_command(file, command, plan, limits)
            programs, note = [run.program], run.event_detail
        target = await self._target(file)
        await asyncio.to_thread(plan.name, target)
        return _Unpacked(plan=plan, target=target, programs=programs, note=note)

    async def _unpack_archive(
        self, path: Path, archive: Archive, plan: Plan, limits: UnpackSettings, acted: Acted
    ) -> bool:
        """Unpack what we can read; False where a program may do better."""
        await self._clear()
        windows = receive_archive(
            str(path),
            archive,
            self._scratch / "content",
            unpack=limits,
            algorithm=self._services.settings.digest_algorithm,
            pool=self._services.pool,
            known=_nothing_known,
            scratch=self._scratch,
            unwrap=False,
            acted=acted,
        )
        try:
            async with aclosing(windows):
                await plan.note(windows)
        except NotAnArchive:
            return False
        except ContentError as error:
            if error.code is not Code.CONTENT_ARCHIVE_UNSUPPORTED:
                raise
            return False
        return True

    async def _run_command(self, file: File, command: Command, plan: Plan, limits: UnpackSettings) -> CommandRun:
        """Run the registry's command and take down what it left."""
        resolved = self._services.commands.resolve(command)
        if resolved is None:
            tool = self._services.registry.tool(command.tool)
            name = tool.name if tool else command.tool
            raise ToolError(f"{name} is not installed: left as it is", code=Code.TOOL_NOT_INSTALLED)
        await self._clear()
        content = self._scratch / "content"
        meter = Meter(limits_of(limits, file.size_bytes))
        done = await self._watched(file, resolved, content, meter.limits)
        if not done.ok:
            raise _failed(done)
        algorithm = self._services.settings.digest_algorithm
        await plan.note(survey(content, algorithm, meter))
        return done

    async def _watched(self, file: File, command: Command, content: Path, most: Limits) -> CommandRun:
        """Run a command, and stop it when more comes out than may."""
        pool_limits = self._services.pool.limits
        limits = replace(pool_limits, file_bytes=min(pool_limits.file_bytes, most.max_bytes))
        variables = {**values_for(self._task.package, self._task.root, file), "outputDirectory": f"{content}/"}
        async with tasks() as group:
            watch = group.create_task(watch_folder(content, most))
            run = await self._services.commands.run(command, variables, purpose=Purpose.EXTRACT, limits=limits)
            watch.cancel()
        return run

    async def _clear(self) -> None:
        def clear() -> None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            (self._scratch / "content").mkdir(parents=True)

        await asyncio.to_thread(clear)

    async def _target(self, file: File) -> str:
        """Choose the folder for the content: the one of an earlier run, or a new one."""
        known = await self._task.history.directory_received_as(file.original)
        if known is not None:
            return known.path
        place = PurePosixPath(file.path)
        stem = short(place.name, room=len(self._suffix) + 8)
        number = 0
        while True:
            name = f"{stem}_{number}{self._suffix}" if number else f"{stem}{self._suffix}"
            candidate = str(place.with_name(name))
            if not await self._task.history.taken([candidate]):
                return candidate
            number += 1

    async def _place(self, file: File, unpacked: _Unpacked) -> AsyncIterator[Outcome]:
        """Move what came out to its place, window by window, and tell what it is."""
        plan, target = unpacked.plan, unpacked.target
        tools = [ToolUse(name=one.name, version=one.version, used_for="extraction") for one in unpacked.programs]
        # Recorded before it is made: a folder that is there is this container's.
        yield Outcome(facts=Facts(directories=[self._directory(target, file.original)]), tools=tools)
        await asyncio.to_thread(self._task.at(target).mkdir, exist_ok=True)
        windows = plan.windows()
        while window := await asyncio.to_thread(next, windows, ()):
            await asyncio.to_thread(plan.move, window, self._task.at(target))
            yield await self._recorded(file, unpacked, window)

    async def _recorded(self, container: File, unpacked: _Unpacked, window: Sequence[Placed]) -> Outcome:
        target = unpacked.target
        directories = [
            self._directory(f"{target}/{one.path}", f"{container.original}/{one.received.path}")
            for one in window
            if one.received.directory and not one.removed
        ]
        files = [
            self._file(container, target, one)
            for one in window
            if not (one.received.directory or one.received.left_out)
        ]
        known = await self._task.history.events([file.id for file in files])
        new = [file for file in files if file.id not in known]
        kept = [file for file in new if not file.removed]
        formats: Sequence[Event] = ()
        warnings = [_noted(container, one) for one in window if one.received.note]
        if kept and self._task.package.processing.get("identify_transfer", True):
            paths = [self._task.at(file.path) for file in kept]
            services = self._services
            found = await identify(
                kept,
                paths,
                command=command_of(self._task.package.processing, services.registry),
                commands=services.commands,
                siegfried=services.tools.siegfried,
            )
            kept, formats = list(found.files), found.events
            warnings += found.warnings
        removed = [file for file in new if file.removed]
        return Outcome(
            facts=Facts(
                directories=directories,
                files=[*kept, *removed],
                events=[*_events(container, [*kept, *removed], unpacked), *formats, *map(_removed_event, removed)],
                warnings=warnings,
            ),
            now_with="extraction",
        )

    def _directory(self, path: str, original: str) -> Directory:
        assigns = self._task.package.processing.get("assign_uuids_to_directories", True)
        id_ = uuid.uuid5(self._task.package.id, f"directory:{escape_name(original)}") if assigns else None
        return Directory(path=path, original=original, id=id_)

    def _file(self, container: File, target: str, one: Placed) -> File:
        original = f"{container.original}/{one.received.path}"
        return File(
            id=uuid.uuid5(self._task.package.id, f"file:{escape_name(original)}"),
            path=f"{target}/{one.path}",
            original=original,
            size_bytes=one.received.size_bytes,
            digest=one.received.digest,
            modified_at=one.received.modified_at,
            removed=one.removed,
        )


def _uses(rule: Rule, error: IngestError | None = None) -> Sequence[RuleUse]:
    """Count the following of a rule, but not where there is no program to follow it with."""
    missing = error is not None and error.code is Code.TOOL_NOT_INSTALLED
    return () if missing else (RuleUse(rule=rule.id, command=rule.command, ok=error is None),)


def _look(path: Path) -> Archive | None:
    descriptor = open_plain(str(path), os.O_RDONLY)
    try:
        return archive_in(descriptor)
    finally:
        os.close(descriptor)


async def _nothing_known(_paths: Sequence[str]) -> frozenset[str]:
    return frozenset()


def _failed(done: CommandRun) -> IngestError:
    """Word the failure of a program: a password, a method it does not know, damage, or a limit that it met."""
    error = done.error()
    if done.run.stopped is Stop.OUTPUT:
        detail = f"{done.tool.name} was stopped: more came out than the settings unpack.* allow"
        return ContentError(detail, code=Code.CONTENT_ARCHIVE_BOMB, tool=error.tool)
    if done.run.stopped or done.run.signal is not None:
        return error
    said = done.run.stderr_tail + done.run.stdout[-8192:].decode("utf-8", errors="replace")
    code, detail = Code.CONTENT_ARCHIVE_CORRUPT, "the archive is damaged, or not what it seems"
    if _PASSWORD.search(said):
        code = Code.CONTENT_ARCHIVE_ENCRYPTED
        detail = "the archive is encrypted: it cannot be opened without its password"
    elif _METHOD.search(said):
        code, detail = Code.CONTENT_ARCHIVE_UNSUPPORTED, "the archive uses a method that the program does not know"
    return ContentError(f"{detail} ({done.tool.name})", code=code, tool=error.tool, stderr_tail=error.stderr_tail)


def _warning(file: File, error: IngestError) -> Warning_:
    """Say of a container why it was not unpacked; of what is wrong within it, the first is named."""
    first = next(iter(error.violations), None)
    example = f": {first.path}: expected {first.expected}" if first and first.expected not in error.detail else ""
    detail = f"not unpacked: {error.detail}{example}"
    return Warning_(code=error.code, detail=detail[:_TOLD_CHARACTERS], path=escape_name(file.path))


def _noted(container: File, one: Placed) -> Warning_:
    note = one.received.note
    path = f"{container.original}/{one.received.path}"
    return Warning_(code=note.code if note else "", detail=note.detail if note else "", path=escape_name(path))


def _events(container: File, files: Sequence[File], unpacked: _Unpacked) -> list[Event]:
    """Tell of extracted files how they came in, and what they were called there."""
    at = now()
    detail = f"Unpacked from: %transferDirectory%{escape_name(container.path)} ({container.id})"
    events = []
    for file in files:
        unpacking = EventType.UNPACKING
        programs = unpacked.programs
        events.append(
            Event(object=file.id, type=unpacking, at=at, detail=detail, note=unpacked.note, programs=programs)
        )
        if file.digest:
            module = f'program="python"; module="hashlib.{file.digest.algorithm}()"'
            kind, when = EventType.MESSAGE_DIGEST_CALCULATION, file.digest.calculated_at
            events.append(Event(object=file.id, type=kind, at=when, detail=module, note=file.digest.value))
        if not file.removed and _within(file.path, container) != file.original.removeprefix(f"{container.original}/"):
            events.append(_renamed(file))
    return events


def _within(path: str, container: File) -> str:
    """The path below the folder beside the container, whatever that is called."""
    parent = str(PurePosixPath(container.path).parent)
    return path.removeprefix(f"{parent}/").partition("/")[2]


def _renamed(file: File) -> Event:
    return Event(
        object=file.id,
        type=EventType.FILENAME_CHANGE,
        at=now(),
        detail=f"prohibited characters removed: {Program('ingestd', __version__).words()}",
        note=f'Original name="%transferDirectory%{escape_name(file.original)}"; '
        f'new name="%transferDirectory%{file.path}"',
    )


def _removal(file: File) -> Facts:
    return Facts(files=[replace(file, removed=True)], events=[_removed_event(file)])


def _removed_event(file: File) -> Event:
    detail = f"removed from: {escape_name(file.path)}"
    return Event(object=file.id, type=EventType.FILE_REMOVED, at=now(), detail=detail)
