"""The journal of one package: its files, events, jobs. Written by the engine alone, read by the steps as `History`."""

from __future__ import annotations

import os
import uuid
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ingestd.journal.database import Database, Row, Transaction
from ingestd.journal.paths import range_of, rename, under_
from ingestd.journal.provenance import (
    agent_of,
    agents_linked,
    event_types_imported,
    identifiers_of,
    put_agents,
    record_provenance,
    rights_of,
)
from ingestd.journal.records import (
    DESCRIPTION_COLUMNS,
    FILE_COLUMNS,
    IN_AIP,
    INSERT_DESCRIPTION,
    REVISE_DESCRIPTION,
    UPSERT_FILE,
    JobRecord,
    description_of,
    description_values,
    directory_of,
    event_of,
    event_values,
    file_of,
    file_values,
    job_of,
)
from ingestd.journal.rules import RuleCount, record_uses
from ingestd.oais import (
    Description,
    Directory,
    Extension,
    Facts,
    File,
    FileUse,
    Totals,
    Warning_,
)
from ingestd.premis import Agent, AgentLink, Event, Identifier, RightsStatement, now

_INSERT_DIRECTORY = (
    "INSERT INTO directory (id, path, original, removed) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (path) WHERE removed = 0"
    " DO UPDATE SET id = coalesce(excluded.id, id), original = excluded.original"
)
_ADDED_LATER = {"event": {"programs": "TEXT NOT NULL DEFAULT ''"}}
"""Columns that journals of earlier versions do not have."""


class PackageJournal:
    """Everything known of one package; implements `oais.History`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @classmethod
    async def open(cls, path: Path) -> Self:
        return cls(await Database.open(path, "package.sql", _ADDED_LATER))

    async def close(self) -> None:
        await self._db.close()

    # --- writing: the engine -----------------------------------------------------------------------------------------

    async def record(
        self,
        facts: Facts,
        *,
        job: int = 0,
        cursor: int = 0,
        files_done: int = 0,
        exit_code: int = 0,
        tools: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        """Record what a step told, with how far its job is, in one transaction."""
        async with self._db.transaction() as transaction:
            await _record(transaction, facts)
            await transaction.many("INSERT OR IGNORE INTO tool VALUES (?, ?, ?)", [*tools])
            if job:
                await transaction.execute(
                    "UPDATE job SET cursor = max(cursor, ?), files_done = files_done + ?,"
                    " exit_code = max(coalesce(exit_code, 0), ?) WHERE row = ?",
                    (cursor, files_done, exit_code, job),
                )

    async def start_job(self, link: str, name: str, execute: str) -> JobRecord:
        """Begin a job, or take up the one of this link that was interrupted."""
        async with self._db.transaction() as transaction:
            last = await transaction.row("SELECT ended_at FROM job WHERE link = ? ORDER BY row DESC", (link,))
            if last is None or last[0] is not None:
                await transaction.execute(
                    "INSERT INTO job (link, name, execute, started_at) VALUES (?, ?, ?, ?)",
                    (link, name, execute, now().isoformat()),
                )
        found = await self._db.row("SELECT * FROM job WHERE link = ? AND ended_at IS NULL", (link,))
        assert found is not None  # noqa: S101  just written
        return replace(job_of(found), again=last is not None)

    async def end_job(self, job: int, exit_code: int, seconds: float, next_link: str, facts: Facts = Facts()) -> None:
        """End a job and say, in the same transaction, where the package goes on (empty: nowhere), and what follows
        from its end: warnings, or that the package failed.
        """
        async with self._db.transaction() as transaction:
            await transaction.execute(
                "UPDATE job SET ended_at = ?, exit_code = ?, seconds = seconds + ? WHERE row = ?",
                (now().isoformat(), exit_code, seconds, job),
            )
            await _record(transaction, facts)
            await _set_facts(transaction, {"next_link": next_link})

    async def add_agents(self, agents: Sequence[Agent]) -> None:
        async with self._db.transaction() as transaction:
            await put_agents(transaction, "agent", agents)

    # --- reading: History --------------------------------------------------------------------------------------------

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
        clause = f" AND use IN ({_marks(uses)})" if uses else ""
        sql = f"SELECT {FILE_COLUMNS} FROM file WHERE removed = {int(removed)}{clause}"  # noqa: S608  names are parameters
        chosen = [str(use) for use in uses]
        pages = self._pages_by_path(sql, chosen, under, window) if by_path else None
        async for rows in pages or self._pages_by_row(sql, chosen, under, after_row, window):
            yield [file_of(row) for row in rows]

    async def directories(
        self, *, under: str = "", by_path: bool = False, after_row: int = 0, window: int = 256
    ) -> AsyncIterator[Sequence[Directory]]:
        sql = "SELECT row, id, path, original, removed FROM directory WHERE removed = 0"
        pages = self._pages_by_path(sql, [], under, window) if by_path else None
        async for rows in pages or self._pages_by_row(sql, [], under, after_row, window):
            yield [directory_of(row) for row in rows]

    async def file_at(self, path: str) -> File | None:
        row = await self._db.row(
            f"SELECT {FILE_COLUMNS} FROM file WHERE removed = 0 AND path = ?",  # noqa: S608  column names are constant
            (os.fsencode(path),),
        )
        return file_of(row) if row else None

    async def files_at(self, paths: Sequence[str]) -> Mapping[str, File]:
        rows = await self._db.rows(
            f"SELECT {FILE_COLUMNS} FROM file WHERE removed = 0 AND path IN ({_marks(paths)})",  # noqa: S608  as above
            [os.fsencode(path) for path in paths],
        )
        return {file.path: file for file in map(file_of, rows)}

    async def files_by_id(self, ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, File]:
        rows = await self._db.rows(
            f"SELECT {FILE_COLUMNS} FROM file WHERE removed = 0 AND id IN ({_marks(ids)})",  # noqa: S608  as above
            [id_.bytes for id_ in ids],
        )
        return {file.id: file for file in map(file_of, rows)}

    async def files_received_as(self, originals: Sequence[str], *, removed: bool = False) -> Mapping[str, File]:
        rows = await self._db.rows(
            f"SELECT {FILE_COLUMNS} FROM file WHERE removed = {int(removed)} AND original IN ({_marks(originals)})",  # noqa: S608  as above
            [os.fsencode(path) for path in originals],
        )
        return {file.original: file for file in map(file_of, rows)}

    async def digests(self, files: Sequence[uuid.UUID]) -> Mapping[tuple[uuid.UUID, str], str]:
        rows = await self._db.rows(
            f"SELECT file, algorithm, value FROM digest WHERE file IN ({_marks(files)})",  # noqa: S608  as above
            [id_.bytes for id_ in files],
        )
        return {(uuid.UUID(bytes=file), algorithm): value for file, algorithm, value in rows}

    async def directories_at(self, paths: Sequence[str]) -> Mapping[str, Directory]:
        rows = await self._db.rows(
            "SELECT row, id, path, original, removed FROM directory WHERE removed = 0"  # noqa: S608  as above
            f" AND path IN ({_marks(paths)})",
            [os.fsencode(path) for path in paths],
        )
        return {directory.path: directory for directory in map(directory_of, rows)}

    async def directory_received_as(self, original: str) -> Directory | None:
        row = await self._db.row(
            "SELECT row, id, path, original, removed FROM directory WHERE removed = 0 AND original = ?",
            (os.fsencode(original),),
        )
        return directory_of(row) if row else None

    async def taken(self, paths: Sequence[str]) -> frozenset[str]:
        marks = _marks(paths)
        raw = [os.fsencode(path) for path in paths]
        rows = await self._db.rows(
            f"SELECT path FROM file WHERE removed = 0 AND path IN ({marks})"  # noqa: S608  as above
            f" UNION SELECT path FROM directory WHERE removed = 0 AND path IN ({marks})",
            [*raw, *raw],
        )
        return frozenset(os.fsdecode(row[0]) for row in rows)

    async def events(self, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Event]]:
        rows = await self._db.rows(
            "SELECT object, id, type, at, detail, outcome, note, programs, agents, said_at FROM event"  # noqa: S608  as above
            f" WHERE object IN ({_marks(objects)}) ORDER BY row",
            [id_.bytes for id_ in objects],
        )
        found: dict[uuid.UUID, list[Event]] = {}
        for row in rows:
            event = event_of(row)
            found.setdefault(event.object, []).append(event)
        return found

    async def imported_event_types(self) -> Sequence[str]:
        return await event_types_imported(self._db)

    async def extensions(self, files: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Extension]]:
        rows = await self._db.rows(
            f"SELECT file, tool, xml FROM extension WHERE file IN ({_marks(files)}) ORDER BY row",  # noqa: S608  as above
            [id_.bytes for id_ in files],
        )
        found: dict[uuid.UUID, list[Extension]] = {}
        for file, tool, xml in rows:
            id_ = uuid.UUID(bytes=file)
            found.setdefault(id_, []).append(Extension(file=id_, tool=tool, xml=zlib.decompress(xml).decode()))
        return found

    async def descriptions(self, targets: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[tuple[int, Description]]]:
        rows = await self._db.rows(
            f"SELECT row, {DESCRIPTION_COLUMNS} FROM description"  # noqa: S608  as above
            f" WHERE target IN ({_marks(targets)}) ORDER BY row",
            [id_.bytes for id_ in targets],
        )
        found: dict[uuid.UUID, list[tuple[int, Description]]] = {}
        for row, *columns in rows:
            description = description_of(columns)
            found.setdefault(description.target, []).append((row, description))
        return found

    async def derivatives(self, files: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[File]]:
        rows = await self._db.rows(
            f"SELECT {FILE_COLUMNS} FROM file WHERE removed = 0 AND derived_from IN ({_marks(files)}) ORDER BY row",  # noqa: S608  as above
            [id_.bytes for id_ in files],
        )
        found: dict[uuid.UUID, list[File]] = {}
        for file in map(file_of, rows):
            if file.derived_from is not None:
                found.setdefault(file.derived_from, []).append(file)
        return found

    async def agents(self) -> Sequence[Agent]:
        rows = await self._db.rows("SELECT identifier_type, identifier, name, type, version FROM agent ORDER BY row")
        return [agent_of(row) for row in rows]

    async def linked_agents(self, links: Sequence[AgentLink]) -> Mapping[AgentLink, Agent]:
        return await agents_linked(self._db, links)

    async def rights(self, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[RightsStatement]]:
        return await rights_of(self._db, objects)

    async def identifiers(self, objects: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[Identifier]]:
        return await identifiers_of(self._db, objects)

    async def facts(self) -> Mapping[str, str]:
        return {row[0]: row[1] for row in await self._db.rows("SELECT name, value FROM fact")}

    async def totals(self, *, under: str = "") -> Totals:
        clause, parameters = under_(under)
        files = clause if under else IN_AIP
        uses = await self._db.rows(
            f"SELECT use, count(*), sum(size_bytes) FROM file WHERE removed = 0{files} GROUP BY use",  # noqa: S608  as above
            parameters,
        )
        directories = await self._db.row(
            f"SELECT count(*) FROM directory WHERE removed = 0{clause}",  # noqa: S608  as above
            parameters,
        )
        removed = await self._db.row(f"SELECT count(*) FROM file WHERE removed = 1{clause}", parameters)  # noqa: S608  as above
        return Totals(
            files=sum(row[1] for row in uses),
            bytes=sum(row[2] or 0 for row in uses),
            directories=directories[0] if directories else 0,
            removed=removed[0] if removed else 0,
            by_use={row[0]: row[1] for row in uses},
        )

    async def warnings(self) -> AsyncIterator[Sequence[Warning_]]:
        sql = "SELECT row, code, detail, path, link FROM warning WHERE true"
        async for rows in self._pages_by_row(sql, [], "", 0, 256):
            yield [
                Warning_(code=code, detail=detail, path=os.fsdecode(path), link=link)
                for _, code, detail, path, link in rows
            ]

    # --- reading: the engine and whoever reports ---------------------------------------------------------------------

    async def rule_counts(self) -> Sequence[RuleCount]:
        """How often the rules were followed for this package, over all its attempts."""
        rows = await self._db.rows("SELECT rule, command, attempts, okay FROM rule_use ORDER BY rule, command")
        return [RuleCount(rule=row[0], command=row[1], attempts=row[2], okay=row[3]) for row in rows]

    async def count_identified(self) -> int:
        """Count the files of the AIP whose format is known."""
        sql = "SELECT count(*) FROM file WHERE removed = 0 AND format_name NOT IN ('', 'Unknown')"
        row = await self._db.row(f"{sql}{IN_AIP}")
        return int(row[0]) if row else 0

    async def count_warnings(self) -> Sequence[tuple[str, int, Sequence[str]]]:
        """Per warning code: how many, and up to three of them in words."""
        rows = await self._db.rows("SELECT code, count(*) FROM warning GROUP BY code ORDER BY min(row)")
        counted = []
        for code, count in rows:
            samples = await self._db.rows(
                "SELECT detail, path, link FROM warning WHERE code = ? ORDER BY row LIMIT 3", (code,)
            )
            words = [_in_words(detail, os.fsdecode(path), link) for detail, path, link in samples]
            counted.append((code, count, words))
        return counted

    async def tools(self) -> Sequence[tuple[str, str, str]]:
        rows = await self._db.rows(
            "SELECT name, version, group_concat(used_for, ', ') FROM tool GROUP BY name, version ORDER BY name"
        )
        return [(name, version, used_for) for name, version, used_for in rows]

    async def jobs(self) -> Sequence[JobRecord]:
        return [job_of(row) for row in await self._db.rows("SELECT * FROM job ORDER BY row")]

    # Pages are by key, never by offset; no read stays open between pages, so the log can be checkpointed.

    async def _pages_by_row(
        self, sql: str, parameters: Sequence[Any], under: str, after_row: int, window: int
    ) -> AsyncIterator[Sequence[Row]]:
        """Page in the order of recording. The `+` keeps SQLite from sorting everything below `under` for each page."""
        low, high = range_of(under)
        clause = " AND +path > ? AND +path < ?" if under else ""
        bounds = [low, high] if under else []
        while True:
            page = await self._db.rows(
                f"{sql}{clause} AND row > ? ORDER BY row LIMIT ?", [*parameters, *bounds, after_row, window]
            )
            if page:
                yield page
            if len(page) < window:
                return
            after_row = page[-1][0]

    async def _pages_by_path(
        self, sql: str, parameters: Sequence[Any], under: str, window: int
    ) -> AsyncIterator[Sequence[Row]]:
        """Page in the order of the paths' bytes: from one lower bound, which moves on."""
        after, high = range_of(under)
        clause = " AND path < ?" if under else ""
        bounds = [high] if under else []
        while True:
            page = await self._db.rows(
                f"{sql} AND path > ?{clause} ORDER BY path LIMIT ?", [*parameters, after, *bounds, window]
            )
            if page:
                yield page
            if len(page) < window:
                return
            after = page[-1][2]


def _in_words(detail: str, path: str, link: str) -> str:
    """Word a warning; one on a file names its job, since several may say the same of it."""
    where = f"{path} ({link})" if path and link else path
    return f"{where}: {detail}" if where else detail


async def _record(transaction: Transaction, facts: Facts) -> None:
    await rename(transaction, facts.renames)
    for directory in facts.directories:
        await _put_directory(transaction, directory)
    await transaction.many(UPSERT_FILE, [file_values(file) for file in facts.files])
    await transaction.many(
        "INSERT OR REPLACE INTO digest (file, algorithm, value) VALUES (?, ?, ?)",
        [(more.file.bytes, more.algorithm, more.value) for more in facts.digests],
    )
    await transaction.many(
        "INSERT INTO event (object, id, type, at, detail, outcome, note, programs, agents, said_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [event_values(event) for event in facts.events],
    )
    await transaction.many(
        "INSERT INTO extension (file, tool, xml) VALUES (?, ?, ?)",
        [(x.file.bytes, x.tool, zlib.compress(x.xml.encode(), 1)) for x in facts.extensions],
    )
    await transaction.many(INSERT_DESCRIPTION, [description_values(said) for said in facts.descriptions])
    await transaction.many(REVISE_DESCRIPTION, [(said.status, said.group, row) for row, said in facts.revised])
    await record_provenance(transaction, facts)
    await transaction.many(
        "INSERT OR IGNORE INTO warning (code, detail, path, link) VALUES (?, ?, ?, ?)",
        [(w.code, w.detail, os.fsencode(w.path), w.link) for w in facts.warnings],
    )
    await record_uses(transaction, facts.rules)
    await _set_facts(transaction, facts.package)


async def _set_facts(transaction: Transaction, facts: Mapping[str, str]) -> None:
    await transaction.many(
        "INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", list(facts.items())
    )


async def _put_directory(transaction: Transaction, directory: Directory) -> None:
    values = (
        directory.id.bytes if directory.id else None,
        os.fsencode(directory.path),
        os.fsencode(directory.original),
        int(directory.removed),
    )
    if directory.row:
        await transaction.execute(
            "UPDATE directory SET id = ?, path = ?, original = ?, removed = ? WHERE row = ?", (*values, directory.row)
        )
    else:
        await transaction.execute(_INSERT_DIRECTORY, values)


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
