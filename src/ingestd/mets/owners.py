"""Whose the administrative sections of a METS are, by its fileSec; in flat memory. Everything here blocks."""

from __future__ import annotations

import sqlite3
from types import TracebackType
from typing import Self

_SCHEMA = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
CREATE TABLE part (id TEXT PRIMARY KEY, section TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE owner (id TEXT NOT NULL, section TEXT NOT NULL, href TEXT NOT NULL);
CREATE INDEX owner_id ON owner (id);
CREATE INDEX owner_section ON owner (section);
BEGIN;
"""
_SECTION = "coalesce((SELECT section FROM part WHERE id = ?1), ?1)"


class Owners:
    """Parts of amdSecs, and files that name an amdSec, or parts of one, as their own. Sections come before files."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add_part(self, identifier: str, section: str) -> None:
        self._database.execute("INSERT OR IGNORE INTO part VALUES (?, ?)", (identifier, section))

    def add_owner(self, identifier: str, href: str) -> None:
        """Note that the file at `href` names an amdSec, or a part of one."""
        self._database.execute(f"INSERT INTO owner VALUES (?1, {_SECTION}, ?2)", (identifier, href))  # noqa: S608  a text of this module

    def of(self, identifier: str) -> str:
        """The one file that names this section, or the same amdSec; empty where that is none, or several do."""
        for where in ("id = ?1", f"section = {_SECTION}"):
            sql = f"SELECT DISTINCT href FROM owner WHERE {where} LIMIT 2"  # noqa: S608  texts of this module
            found = self._database.execute(sql, (identifier,)).fetchall()
            if found:
                return str(found[0][0]) if len(found) == 1 else ""
        return ""
