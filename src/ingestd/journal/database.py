"""One SQLite connection as both journals use it: write-ahead log, explicit transactions, SQL kept in `.sql` files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

import aiosqlite

from ingestd.errors import Code, ResourceError, SystemFault
from ingestd.messages.values import safe_text
from ingestd.workfolder import UnusableError, ran_out

Row = Sequence[Any]
_REMEDIATION = (
    f"Give the account that ingestd runs as (uid {os.geteuid()}) the right to write the working folder (setting "
    "data_dir) and every file in it; if that is read-only, look at its file system."
)


class Database:
    """A connection with one writer at a time.

    Raises `ResourceError` when the disk is full, of bytes or of files, `UnusableError` when it may not be written, and
    `SystemFault` for every other fault of SQLite.
    """

    def __init__(self, connection: aiosqlite.Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, schema: str, added_later: Mapping[str, Mapping[str, str]]) -> Self:
        """Open (and make, if need be) the database at `path` with the tables of `schema`, a file beside this module.

        `added_later` are columns, by table and name, that a database of an earlier version may be without.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with _translated(path.parent):
            connection = await aiosqlite.connect(path, isolation_level=None)
            self = cls(connection, path.parent)
            try:
                await connection.execute("PRAGMA busy_timeout = 10000")
                await connection.execute("PRAGMA journal_mode = WAL")
                await connection.execute("PRAGMA synchronous = NORMAL")
                await connection.execute("PRAGMA foreign_keys = ON")
                sql = resources.files(__package__).joinpath(schema).read_text(encoding="utf-8")
                await connection.executescript(sql)
                for table, columns in added_later.items():
                    there = {row[1] for row in await connection.execute_fetchall(f"PRAGMA table_info({table})")}
                    for name in columns.keys() - there:
                        await connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {columns[name]}")
            except BaseException:
                await connection.close()
                raise
        return self

    async def close(self) -> None:
        await self._connection.close()

    async def rows(self, sql: str, parameters: Iterable[Any] = ()) -> Sequence[Row]:
        """Read what is committed. Never within a transaction of the same task: it waits for the one under way."""
        async with self._writing:
            with _translated(self._folder):
                return list(await self._connection.execute_fetchall(sql, parameters))

    async def row(self, sql: str, parameters: Iterable[Any] = ()) -> Row | None:
        found = await self.rows(sql, parameters)
        return found[0] if found else None

    @contextlib.asynccontextmanager
    async def transaction(self, *, durable: bool = False) -> AsyncIterator[Transaction]:
        """Everything written within becomes true at once, or not at all. `durable` waits for the disk (a power cut may
        otherwise take back the last transactions, never a part of one).
        """
        async with self._writing:
            with _translated(self._folder):
                try:
                    # Within the `try`: a statement whose caller is cancelled is still run, and must be taken back.
                    if durable:
                        await self._connection.execute("PRAGMA synchronous = FULL")
                    await self._connection.execute("BEGIN IMMEDIATE")
                    yield Transaction(self._connection)
                    await self._connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        await self._connection.execute("ROLLBACK")
                    raise
                finally:
                    if durable:
                        await self._connection.execute("PRAGMA synchronous = NORMAL")


class Transaction:
    """Writing, within a transaction. What of a text is no Unicode (a byte of a name, half a surrogate pair) is written
    as `safe_text` writes it: names go in as bytes, and what is said of them must not fail for what they are.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, parameters: Iterable[Any] = ()) -> int:
        """Run one statement; gives the row id that it inserted."""
        cursor = await self._connection.execute(sql, _fit(parameters))
        return cursor.lastrowid or 0

    async def many(self, sql: str, parameters: Sequence[Iterable[Any]]) -> None:
        if parameters:
            await self._connection.executemany(sql, map(_fit, parameters))

    async def rows(self, sql: str, parameters: Iterable[Any] = ()) -> Sequence[Row]:
        return list(await self._connection.execute_fetchall(sql, parameters))

    async def row(self, sql: str, parameters: Iterable[Any] = ()) -> Row | None:
        found = await self.rows(sql, parameters)
        return found[0] if found else None


def _fit(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(safe_text(value) if isinstance(value, str) and not value.isascii() else value for value in values)


@contextlib.contextmanager
def _translated(folder: Path) -> Any:
    try:
        yield
    except sqlite3.OperationalError as error:
        code = ran_out(folder).code
        # SQLite has no words for a disk that can hold no more files: it only cannot open one.
        if "full" in str(error) or "disk I/O" in str(error) or code is Code.RESOURCE_INODES:
            raise ResourceError(f"the journal cannot be written: {error}", code=code) from error
        if "readonly" in str(error) or "unable to open" in str(error):
            raise UnusableError(f"the journal cannot be written: {error}", remediation=_REMEDIATION) from error
        raise SystemFault(f"the journal failed: {error}") from error
    except sqlite3.Error as error:
        raise SystemFault(f"the journal refused what was to be recorded: {error}") from error
