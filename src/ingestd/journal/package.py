"""The journal of one package: its files, events, jobs. Written by the engine alone, read by the steps as `History`."""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ingestd.journal.database import Database, Row, Transaction
from ingestd.oais import Description, Directory, Extension, Facts, File, FileUse, Rename, Totals, Warning_
from ingestd.premis import Agent, AgentType, Digest, DigestAlgorithm, Event, EventOutcome, EventType, Format, now

_FILE = (
    "row, id, path, original, use, size_bytes, digest_algorithm, digest, digest_at, modified_at,"
    " format_name, format_version, puid, mime, derived_from, label, removed"
)
_UPSERT_FILE = (
    "INSERT INTO file (id, path, original, use, size_bytes, digest_algorithm, digest, digest_at, modified_at,"
    " format_name, format_version, puid, mime, derived_from, label, removed)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET path = excluded.path, original = excluded.original, use = excluded.use,"
    " size_bytes = excluded.size_bytes, digest_algorithm = excluded.digest_algorithm, digest = excluded.digest,"
    " digest_at = excluded.digest_at, modified_at = excluded.modified_at, format_name = excluded.format_name,"
    " format_version = excluded.format_version, puid = excluded.puid, mime = excluded.mime,"
    " derived_from = excluded.derived_from, label = excluded.label, removed = excluded.removed"
)
_INSERT_DIRECTORY = (
    "INSERT INTO directory (id, path, original, removed) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (path) WHERE removed = 0"
    " DO UPDATE SET id = coalesce(excluded.id, id), original = excluded.original"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    """One run of one link. A job that has not ended was interrupted, or is at work."""

    row: int
    link: str
    name: str
    execute: str
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    cursor: int
    files_done: int
    seconds: float


class PackageJournal:
    """Everything known of one package; implements `oais.History`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @classmethod
    async def open(cls, path: Path) -> Self:
        return cls(await Database.open(path, "package.sql"))

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
        tools: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        """Record what a step told, with how far its job is, in one transaction."""
        async with self._db.transaction() as transaction:
            await _record(transaction, facts)
            await transaction.many("INSERT OR IGNORE INTO tool VALUES (?, ?, ?)", [*tools])
            if job:
                await transaction.execute(
                    "UPDATE job SET cursor = max(cursor, ?), files_done = files_done + ? WHERE row = ?",
                    (cursor, files_done, job),
                )

    async def start_job(self, link: str, name: str, execute: str) -> JobRecord:
        """Begin a job, or take up the one of this link that was interrupted."""
        async with self._db.transaction() as transaction:
            open_job = await transaction.row("SELECT row FROM job WHERE link = ? AND ended_at IS NULL", (link,))
            if open_job is None:
                await transaction.execute(
                    "INSERT INTO job (link, name, execute, started_at) VALUES (?, ?, ?, ?)",
                    (link, name, execute, now().isoformat()),
                )
        found = await self._db.row("SELECT * FROM job WHERE link = ? AND ended_at IS NULL", (link,))
        assert found is not None  # noqa: S101  just written
        return _job(found)

    async def end_job(self, job: int, exit_code: int, seconds: float, next_link: str) -> None:
        """End a job and say, in the same transaction, where the package goes on (empty: nowhere)."""
        async with self._db.transaction() as transaction:
            await transaction.execute(
                "UPDATE job SET ended_at = ?, exit_code = ?, seconds = seconds + ? WHERE row = ?",
                (now().isoformat(), exit_code, seconds, job),
            )
            await _set_facts(transaction, {"next_link": next_link})

    async def reopen_at(self, link: str) -> None:
        """Go on at `link`: the retry of a package that failed."""
        async with self._db.transaction() as transaction:
            await _set_facts(transaction, {"next_link": link})

    async def add_agents(self, agents: Sequence[Agent]) -> None:
        async with self._db.transaction() as transaction:
            await transaction.many(
                "INSERT OR IGNORE INTO agent (identifier_type, identifier, name, type) VALUES (?, ?, ?, ?)",
                [(agent.identifier_type, agent.identifier, agent.name, agent.type) for agent in agents],
            )

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
        clause, parameters = _under(under)
        if uses:
            clause += f" AND use IN ({_marks(uses)})"
            parameters += [str(use) for use in uses]
        sql = f"SELECT {_FILE} FROM file WHERE removed = {int(removed)}{clause}"  # noqa: S608  names are parameters
        async for rows in self._pages(sql, parameters, by_path=by_path, after_row=after_row, window=window, path_at=2):
            yield [_file(row) for row in rows]

    async def directories(
        self, *, under: str = "", by_path: bool = False, after_row: int = 0, window: int = 256
    ) -> AsyncIterator[Sequence[Directory]]:
        clause, parameters = _under(under)
        sql = f"SELECT row, id, path, original, removed FROM directory WHERE removed = 0{clause}"  # noqa: S608  as above
        async for rows in self._pages(sql, parameters, by_path=by_path, after_row=after_row, window=window, path_at=2):
            yield [_directory(row) for row in rows]

    async def file_at(self, path: str) -> File | None:
        row = await self._db.row(
            f"SELECT {_FILE} FROM file WHERE removed = 0 AND path = ?",  # noqa: S608  column names are constant
            (os.fsencode(path),),
        )
        return _file(row) if row else None

    async def files_at(self, paths: Sequence[str]) -> Mapping[str, File]:
        rows = await self._db.rows(
            f"SELECT {_FILE} FROM file WHERE removed = 0 AND path IN ({_marks(paths)})",  # noqa: S608  as above
            [os.fsencode(path) for path in paths],
        )
        return {file.path: file for file in map(_file, rows)}

    async def files_received_as(self, originals: Sequence[str]) -> Mapping[str, File]:
        rows = await self._db.rows(
            f"SELECT {_FILE} FROM file WHERE removed = 0 AND original IN ({_marks(originals)})",  # noqa: S608  as above
            [os.fsencode(path) for path in originals],
        )
        return {file.original: file for file in map(_file, rows)}

    async def directory_received_as(self, original: str) -> Directory | None:
        row = await self._db.row(
            "SELECT row, id, path, original, removed FROM directory WHERE removed = 0 AND original = ?",
            (os.fsencode(original),),
        )
        return _directory(row) if row else None

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
            "SELECT object, id, type, at, detail, outcome, note FROM event"  # noqa: S608  as above
            f" WHERE object IN ({_marks(objects)}) ORDER BY row",
            [id_.bytes for id_ in objects],
        )
        found: dict[uuid.UUID, list[Event]] = {}
        for row in rows:
            event = _event(row)
            found.setdefault(event.object, []).append(event)
        return found

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
            "SELECT row, target, kind, pairs FROM description"  # noqa: S608  as above
            f" WHERE target IN ({_marks(targets)}) ORDER BY row",
            [id_.bytes for id_ in targets],
        )
        found: dict[uuid.UUID, list[tuple[int, Description]]] = {}
        for row, target, kind, pairs in rows:
            id_ = uuid.UUID(bytes=target)
            description = Description(target=id_, kind=kind, pairs=[(name, value) for name, value in json.loads(pairs)])
            found.setdefault(id_, []).append((row, description))
        return found

    async def derivatives(self, files: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Sequence[File]]:
        rows = await self._db.rows(
            f"SELECT {_FILE} FROM file WHERE removed = 0 AND derived_from IN ({_marks(files)}) ORDER BY row",  # noqa: S608  as above
            [id_.bytes for id_ in files],
        )
        found: dict[uuid.UUID, list[File]] = {}
        for file in map(_file, rows):
            if file.derived_from is not None:
                found.setdefault(file.derived_from, []).append(file)
        return found

    async def agents(self) -> Sequence[Agent]:
        rows = await self._db.rows("SELECT identifier_type, identifier, name, type FROM agent ORDER BY row")
        return [
            Agent(identifier_type=kind, identifier=identifier, name=name, type=AgentType(type_))
            for kind, identifier, name, type_ in rows
        ]

    async def facts(self) -> Mapping[str, str]:
        return {row[0]: row[1] for row in await self._db.rows("SELECT name, value FROM fact")}

    async def totals(self, *, under: str = "") -> Totals:
        clause, parameters = _under(under)
        uses = await self._db.rows(
            f"SELECT use, count(*), sum(size_bytes) FROM file WHERE removed = 0{clause} GROUP BY use",  # noqa: S608  as above
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
        async for rows in self._pages(sql, [], by_path=False, after_row=0, window=256, path_at=3):
            yield [
                Warning_(code=code, detail=detail, path=os.fsdecode(path), link=link)
                for _, code, detail, path, link in rows
            ]

    # --- reading: the engine and whoever reports ---------------------------------------------------------------------

    async def count_identified(self) -> int:
        row = await self._db.row("SELECT count(*) FROM file WHERE removed = 0 AND puid <> ''")
        return int(row[0]) if row else 0

    async def count_warnings(self) -> Sequence[tuple[str, int, Sequence[str]]]:
        """Per warning code: how many, and up to three of them in words."""
        rows = await self._db.rows("SELECT code, count(*) FROM warning GROUP BY code ORDER BY min(row)")
        counted = []
        for code, count in rows:
            samples = await self._db.rows(
                "SELECT detail, path FROM warning WHERE code = ? ORDER BY row LIMIT 3", (code,)
            )
            words = [f"{os.fsdecode(path)}: {detail}" if path else detail for detail, path in samples]
            counted.append((code, count, words))
        return counted

    async def tools(self) -> Sequence[tuple[str, str, str]]:
        rows = await self._db.rows(
            "SELECT name, version, group_concat(used_for, ', ') FROM tool GROUP BY name, version ORDER BY name"
        )
        return [(name, version, used_for) for name, version, used_for in rows]

    async def jobs(self) -> Sequence[JobRecord]:
        return [_job(row) for row in await self._db.rows("SELECT * FROM job ORDER BY row")]

    async def _pages(
        self, sql: str, parameters: Sequence[Any], *, by_path: bool, after_row: int, window: int, path_at: int
    ) -> AsyncIterator[Sequence[Row]]:
        """Page by key, never by offset; no read stays open between pages, so the log can be checkpointed."""
        key, after = ("path", b"") if by_path else ("row", after_row)
        while True:
            page = await self._db.rows(
                f"{sql} AND {key} > ? ORDER BY {key} LIMIT ?",
                [*parameters, after, window],
            )
            if page:
                yield page
            if len(page) < window:
                return
            after = page[-1][path_at if by_path else 0]


async def _record(transaction: Transaction, facts: Facts) -> None:
    for rename in facts.renames:
        await _rename(transaction, rename)
    for directory in facts.directories:
        await _put_directory(transaction, directory)
    await transaction.many(_UPSERT_FILE, [_file_values(file) for file in facts.files])
    await transaction.many(
        "INSERT INTO event (object, id, type, at, detail, outcome, note) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(e.object.bytes, e.id.bytes, e.type, e.at.isoformat(), e.detail, e.outcome, e.note) for e in facts.events],
    )
    await transaction.many(
        "INSERT INTO extension (file, tool, xml) VALUES (?, ?, ?)",
        [(x.file.bytes, x.tool, zlib.compress(x.xml.encode(), 1)) for x in facts.extensions],
    )
    await transaction.many(
        "INSERT INTO description (target, kind, pairs) VALUES (?, ?, ?)",
        [(d.target.bytes, d.kind, json.dumps(list(d.pairs), ensure_ascii=False)) for d in facts.descriptions],
    )
    await transaction.many(
        "INSERT OR IGNORE INTO warning (code, detail, path, link) VALUES (?, ?, ?, ?)",
        [(w.code, w.detail, os.fsencode(w.path), w.link) for w in facts.warnings],
    )
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


async def _rename(transaction: Transaction, rename: Rename) -> None:
    old, new = os.fsencode(rename.old), os.fsencode(rename.new)
    columns = ("path", "original") if rename.as_received else ("path",)
    below = (old + b"/", old + b"0")  # "0" follows "/": everything below the folder, nothing beside it
    for table in ("file", "directory"):
        for column in columns:
            await transaction.execute(
                f"UPDATE {table} SET {column} = CAST(? || substr({column}, ?) AS BLOB)"  # noqa: S608  names are constant
                f" WHERE {column} = ? OR ({column} >= ? AND {column} < ?)",
                (new, len(old) + 1, old, *below),
            )


def _under(folder: str) -> tuple[str, list[Any]]:
    if not folder:
        return "", []
    raw = os.fsencode(folder.rstrip("/"))
    return " AND path > ? AND path < ?", [raw + b"/", raw + b"0"]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _file_values(file: File) -> tuple[Any, ...]:
    digest, format_ = file.digest, file.format
    return (
        file.id.bytes,
        os.fsencode(file.path),
        os.fsencode(file.original),
        file.use,
        file.size_bytes,
        digest.algorithm if digest else None,
        digest.value if digest else None,
        digest.calculated_at.isoformat() if digest else None,
        file.modified_at.isoformat() if file.modified_at else None,
        format_.name if format_ else None,
        format_.version if format_ else None,
        format_.puid if format_ else None,
        format_.mime if format_ else None,
        file.derived_from.bytes if file.derived_from else None,
        file.label,
        int(file.removed),
    )


def _file(row: Row) -> File:
    (number, id_, path, original, use, size, algorithm, digest, digest_at, modified) = row[:10]
    (name, version, puid, mime, derived, label, removed) = row[10:]
    return File(
        row=number,
        id=uuid.UUID(bytes=id_),
        path=os.fsdecode(path),
        original=os.fsdecode(original),
        use=FileUse(use),
        size_bytes=size,
        digest=Digest(algorithm=DigestAlgorithm(algorithm), value=digest, calculated_at=_time(digest_at))
        if digest
        else None,
        modified_at=_time(modified) if modified else None,
        format=Format(name=name, version=version, puid=puid, mime=mime) if name is not None else None,
        derived_from=uuid.UUID(bytes=derived) if derived else None,
        label=label,
        removed=bool(removed),
    )


def _directory(row: Row) -> Directory:
    number, id_, path, original, removed = row
    return Directory(
        row=number,
        id=uuid.UUID(bytes=id_) if id_ else None,
        path=os.fsdecode(path),
        original=os.fsdecode(original),
        removed=bool(removed),
    )


def _event(row: Row) -> Event:
    object_, id_, type_, at, detail, outcome, note = row
    return Event(
        object=uuid.UUID(bytes=object_),
        id=uuid.UUID(bytes=id_),
        type=EventType(type_),
        at=_time(at),
        detail=detail,
        outcome=EventOutcome(outcome),
        note=note,
    )


def _job(row: Row) -> JobRecord:
    number, link, name, execute, started, ended, exit_code, cursor, files_done, seconds = row
    return JobRecord(
        row=number,
        link=link,
        name=name,
        execute=execute,
        started_at=_time(started),
        ended_at=_time(ended) if ended else None,
        exit_code=exit_code,
        cursor=cursor,
        files_done=files_done,
        seconds=seconds,
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
