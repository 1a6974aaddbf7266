"""Identifiers of one METS and what refers to them, held against each other in flat memory.

Numbered identifiers (`amdSec_17`) mostly come in ascending order and are kept as runs of numbers; all others, and
references that come before what they refer to, go to a temporary SQLite file.
"""

from __future__ import annotations

import bisect
import re
import sqlite3
from collections.abc import Iterator
from enum import StrEnum
from types import TracebackType
from typing import Self

_NUMBERED = re.compile(r"(amdSec|dmdSec|techMD|rightsMD|sourceMD|digiprovMD)_([1-9][0-9]{0,17})")


class Kind(StrEnum):
    """What an identifier identifies, as far as references tell it apart."""

    DESCRIPTIVE = "dmdSec"
    ADMINISTRATIVE = "amdSec"
    FILE = "file"
    OTHER = "element"


class _Runs:
    """A set of numbers that were added in ascending order, as runs without gaps."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def append(self, number: int) -> bool:
        """Add a number that is larger than all; say False, and add nothing, if it is not."""
        if self._ends and number <= self._ends[-1]:
            return False
        if self._ends and number == self._ends[-1] + 1:
            self._ends[-1] = number
        else:
            self._starts.append(number)
            self._ends.append(number)
        return True

    def __contains__(self, number: int) -> bool:
        at = bisect.bisect_right(self._starts, number) - 1
        return at >= 0 and number <= self._ends[at]


class Identifiers:
    """Collects identifiers and references; tells duplicates at once and dangling references at the end. Blocks."""

    def __init__(self) -> None:
        self._runs: dict[tuple[Kind, str], _Runs] = {}
        self._numbers_spilled = False
        self._spill = sqlite3.connect(
            "", isolation_level=None, check_same_thread=False
        )  # a temporary file of SQLite's own
        self._spill.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE identifier (name TEXT PRIMARY KEY, kind TEXT NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE reference (kind TEXT NOT NULL, name TEXT NOT NULL, place TEXT NOT NULL);"
            "BEGIN;"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spill.close()

    def add(self, kind: Kind, name: str) -> bool:
        """Add an identifier; say False if the document has it already."""
        numbered = _NUMBERED.fullmatch(name)
        if numbered is None:
            return self._spill_over(kind, name)
        prefix, number = numbered[1], int(numbered[2])
        if any(number in self._runs[other, prefix] for other in Kind if (other, prefix) in self._runs):
            return False
        if self._numbers_spilled and self._spilled(name):
            return False
        runs = self._runs.setdefault((kind, prefix), _Runs())
        if runs.append(number):
            return True
        self._numbers_spilled = True
        return self._spill_over(kind, name)

    def refer(self, kind: Kind, name: str, place: str) -> None:
        """Note that `place` refers to an identifier of a kind."""
        if not self.known(kind, name):
            self._spill.execute("INSERT INTO reference VALUES (?, ?, ?)", (kind, name, place))

    def dangling(self) -> Iterator[tuple[Kind, str, str]]:
        """Give the references that lead nowhere: kind, identifier, place."""
        for kind, name, place in self._spill.execute("SELECT kind, name, place FROM reference ORDER BY rowid"):
            if not self.known(Kind(kind), name):
                yield Kind(kind), name, place

    def known(self, kind: Kind, name: str) -> bool:
        """Say whether there is an identifier of a kind."""
        numbered = _NUMBERED.fullmatch(name)
        if numbered:
            runs = self._runs.get((kind, numbered[1]))
            if runs is not None and int(numbered[2]) in runs:
                return True
        return self._spilled(name, kind)

    def _spill_over(self, kind: Kind, name: str) -> bool:
        sql = "INSERT OR IGNORE INTO identifier VALUES (?, ?)"
        return self._spill.execute(sql, (name, kind)).rowcount == 1

    def _spilled(self, name: str, kind: Kind | None = None) -> bool:
        found = self._spill.execute("SELECT kind FROM identifier WHERE name = ?", (name,)).fetchone()
        return found is not None and kind in (None, found[0])
