"""Fakes of the ports, in memory: what tests use instead of patching."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from ingestd.oais import (
    DIP,
    DIP_USES,
    Description,
    Directory,
    Extension,
    Facts,
    File,
    FileUse,
    Rename,
    Totals,
    Warning_,
)
from ingestd.premis import Agent, AgentLink, Event, Identifier, RightsStatement, with_all_acts

Record = TypeVar("Record")
Entry = TypeVar("Entry", File, Directory)


class FakeHistory:
    """A package's history in memory: `oais.History`, and `record` to put facts into it.

    Rows are given in the order of recording, from 1 on. `by_path` is the order of the paths' bytes. `under` names a
    folder that is not itself among the results; `removed` asks for the removed files alone.
    """

    def __init__(self, *, agents: Sequence[Agent] = ()) -> None:
        self._files: dict[uuid.UUID, File] = {}
        self._directories: dict[int, Directory] = {}
        self._row_at: dict[str, int] = {}
        self._events: dict[uuid.UUID, list[Event]] = {}
        self._extensions: dict[uuid.UUID, list[Extension]] = {}
        self._descriptions: dict[uuid.UUID, list[tuple[int, Description]]] = {}
        self._rights: dict[uuid.UUID, list[RightsStatement]] = {}
        self._identifiers: dict[uuid.UUID, dict[Identifier, None]] = {}
        self._linked_agents: dict[AgentLink, Agent] = {}
        self._warnings: dict[Warning_, None] = {}
        self._digests: dict[tuple[uuid.UUID, str], str] = {}
        self._facts: dict[str, str] = {}
        self._agents = tuple(agents)
        self._rows: Counter[str] = Counter()

    def record(self, facts: Facts) -> None:
        for rename in facts.renames:
            self._rename(rename)
        for directory in facts.directories:
            self._put_directory(directory)
        for file in facts.files:
            recorded = self._files.get(file.id)
            self._files[file.id] = replace(file, row=recorded.row if recorded else self._row("file"))
        for event in facts.events:
            self._events.setdefault(event.object, []).append(event)
        for extension in facts.extensions:
            self._extensions.setdefault(extension.file, []).append(extension)
        for description in facts.descriptions:
            row = self._row("description")
            self._descriptions.setdefault(description.target, []).append((row, description))
        for statement in facts.rights:
            said = self._rights.setdefault(statement.object, [])
            said[:] = with_all_acts([*said, statement])
        for one in facts.identifiers:
            self._identifiers.setdefault(one.object, {})[one] = None
        self._linked_agents |= {agent.link: agent for agent in facts.agents if agent.link not in self._linked_agents}
        self._digests |= {(more.file, more.algorithm): more.value for more in facts.digests}
        self._warnings |= dict.fromkeys(facts.warnings)
        self._facts.update(facts.package)

    async def files(
        self,
        *,
        under: str = "",
        uses: Sequence[FileUse] = (),
        by_path: bool = False,
        after_row: int = 0,
        window: int = 256,
        removed: bool = False,
    ) -> AsyncIterator[Sequence[File]]:
        chosen = [
            file
            for file in self._files.values()
            if file.removed == removed
            and (not uses or file.use in uses)
            and file.row > after_row
            and _below(file.path, under)
        ]
        for some in _windows(_ordered(chosen, by_path=by_path), window):
            yield some

    async def directories(
        self, *, under: str = "", by_path: bool = False, after_row: int = 0, window: int = 256
    ) -> AsyncIterator[Sequence[Directory]]:
        chosen = [d for d in self._present_directories() if d.row > after_row and _below(d.path, under)]
        for some in _windows(_ordered(chosen, by_path=by_path), window):
            yield some

    async def file_at(self, path: str) -> File | None:
        return next((file for file in self._present_files() if file.path == path), None)

    async def files_at(self, paths: Sequence[str]) -> Mapping[str, File]:
        wanted = set(paths)
        return {file.path: file for file in self._present_files() if file.path in wanted}

    async def files_by_id(self, ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, File]:
        return {file.id: file for file in self._present_files() if file.id in ids}

    async def files_received_as(self, originals: Sequence[str], *, removed: bool = False) -> Mapping[str, File]:
        wanted = set(originals)
        return {f.original: f for f in self._files.values() if f.removed is removed and f.original in wanted}

    async def digests(self, files: Sequence[uuid.UUID]) -> Mapping[tuple[uuid.UUID, str], str]:
        return {key: value for key, value in self._digests.items() if key[0] in files}

    async def directories_at(self, paths: Sequence[str]) -> Mapping[str, Directory]:
        return {d.path: d for d in self._present_directories() if d.path in paths}

    async def directory_received_as(self, original: str) -> Directory | None:
        return next((d for d in self._present_directories() if d.original == original), None)

    async def taken(self, paths: Sequence[str]) -> frozenset[str]:
        there = {file.path for file in self._present_files()} | {d.path for d in self._present_directories()}
        return frozenset(there.intersection(paths))

    async def events(self, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Event]]:
        return {key: tuple(self._events[key]) for key in objects if key in self._events}

    async def imported_event_types(self) -> Sequence[str]:
        return sorted({event.type for events in self._events.values() for event in events if event.agents})

    async def extensions(self, files: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Extension]]:
        return {key: tuple(self._extensions[key]) for key in files if key in self._extensions}

    async def descriptions(self, targets: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[tuple[int, Description]]]:
        return {key: tuple(self._descriptions[key]) for key in targets if key in self._descriptions}

    async def derivatives(self, files: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[File]]:
        found: dict[uuid.UUID, list[File]] = {}
        wanted = set(files)
        for file in self._present_files():
            if file.derived_from in wanted and file.derived_from is not None:
                found.setdefault(file.derived_from, []).append(file)
        return found

    async def agents(self) -> Sequence[Agent]:
        return self._agents

    async def linked_agents(self, links: Sequence[AgentLink]) -> Mapping[AgentLink, Agent]:
        known = self._linked_agents
        return {link.agent: known[link.agent] for link in links if link.agent in known}

    async def rights(self, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[RightsStatement]]:
        return {key: tuple(self._rights[key]) for key in objects if key in self._rights}

    async def identifiers(self, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Identifier]]:
        return {key: tuple(self._identifiers[key]) for key in objects if key in self._identifiers}

    async def facts(self) -> Mapping[str, str]:
        return dict(self._facts)

    async def tools(self) -> Sequence[tuple[str, str, str]]:
        return ()

    async def totals(self, *, under: str = "") -> Totals:
        files = [file for file in self._present_files() if self._counts(file, under)]
        return Totals(
            files=len(files),
            bytes=sum(file.size_bytes for file in files),
            directories=sum(1 for d in self._present_directories() if _below(d.path, under)),
            removed=sum(1 for file in self._files.values() if file.removed and self._counts(file, under)),
            by_use=Counter(str(file.use) for file in files),
        )

    def _counts(self, file: File, under: str) -> bool:
        return _below(file.path, under) if under else not (_below(file.path, DIP) and file.use in DIP_USES)

    async def warnings(self) -> AsyncIterator[Sequence[Warning_]]:
        for some in _windows(list(self._warnings), 256):
            yield some

    def _row(self, kind: str) -> int:
        self._rows[kind] += 1
        return self._rows[kind]

    def _present_files(self) -> Iterable[File]:
        return (file for file in self._files.values() if not file.removed)

    def _present_directories(self) -> Iterable[Directory]:
        return (directory for directory in self._directories.values() if not directory.removed)

    def _rename(self, rename: Rename) -> None:
        self._files = {key: _renamed(file, rename) for key, file in self._files.items()}
        self._directories = {row: _renamed(directory, rename) for row, directory in self._directories.items()}
        self._row_at = {d.path: d.row for d in self._present_directories()}

    def _put_directory(self, directory: Directory) -> None:
        """A directory with a row replaces that one; any other is known by its path, and keeps an id it once got."""
        if directory.row:
            self._row_at.pop(self._directories[directory.row].path, None)
        elif directory.path in self._row_at:
            known = self._directories[self._row_at[directory.path]]
            directory = replace(known, id=directory.id or known.id, original=directory.original)
        else:
            directory = replace(directory, row=self._row("directory"))
        self._directories[directory.row] = directory
        if not directory.removed:
            self._row_at[directory.path] = directory.row


def _renamed(record: Entry, rename: Rename) -> Entry:
    if record.removed:
        return record
    path = _moved(record.path, rename)
    original = _moved(record.original, rename) if rename.as_received else record.original
    return replace(record, path=path, original=original)


def _moved(path: str, rename: Rename) -> str:
    if path == rename.old or path.startswith(f"{rename.old}/"):
        return rename.new + path[len(rename.old) :]
    return path


def _below(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _ordered(records: list[Entry], *, by_path: bool) -> list[Entry]:
    if by_path:
        return sorted(records, key=lambda record: os.fsencode(record.path))
    return records


def _windows(records: Sequence[Record], size: int) -> Iterable[Sequence[Record]]:
    return (records[start : start + size] for start in range(0, len(records), size))
