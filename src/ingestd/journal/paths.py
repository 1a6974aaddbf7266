"""Paths in the SQL of a package's journal: everything below a folder is a range of bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ingestd.journal.database import Transaction
from ingestd.oais import Rename


async def rename(transaction: Transaction, renames: Sequence[Rename]) -> None:
    """Move what is at and below each old path, in order. Removed files stay where they were when they were removed."""
    received = [rename for rename in renames if rename.as_received]
    for table in ("file", "directory"):
        for column, moved in (("path", renames), ("original", received)):
            await transaction.many(
                f"UPDATE {table} SET {column} = CAST(? || substr({column}, ?) AS BLOB)"  # noqa: S608  names are constant
                # Not with OR: SQLite would look at every row.
                f" WHERE row IN (SELECT row FROM {table} WHERE removed = 0 AND {column} = ? UNION ALL"
                f" SELECT row FROM {table} WHERE removed = 0 AND {column} > ? AND {column} < ?)",
                [_moved(rename) for rename in moved],
            )


def _moved(rename: Rename) -> tuple[bytes, int, bytes, bytes, bytes]:
    old = os.fsencode(rename.old)
    return (os.fsencode(rename.new), len(old) + 1, old, *range_of(rename.old))


def under_(folder: str) -> tuple[str, list[Any]]:
    return (" AND path > ? AND path < ?", [*range_of(folder)]) if folder else ("", [])


def range_of(folder: str) -> tuple[bytes, bytes]:
    """Bounds of everything below a folder, and of nothing beside it: `0` is the byte after `/`."""
    raw = os.fsencode(folder.rstrip("/"))
    return (raw + b"/", raw + b"0") if folder else (b"", b"")
