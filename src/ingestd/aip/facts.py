"""What is known of an AIP while it is read, in a scratch SQLite file: nothing here grows with the AIP in memory.

Paths are bytes, relative to the AIP's own folder. All methods block, and are called from one thread at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ingestd.aip.rights import rights_in_words
from ingestd.mets import ReadAgent, ReadDescription, ReadEntity, ReadFile, Record, Summary
from ingestd.oais import escape_name

_SCHEMA = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32000; PRAGMA temp_store = FILE;
CREATE TABLE member (
    path BLOB PRIMARY KEY, size_bytes INTEGER, md5 TEXT, sha1 TEXT, sha256 TEXT, sha512 TEXT
) WITHOUT ROWID;
CREATE TABLE outside (path BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE listed (
    manifest TEXT NOT NULL, algorithm TEXT NOT NULL, path BLOB NOT NULL, raw BLOB NOT NULL, digest TEXT NOT NULL,
    line INTEGER NOT NULL
);
CREATE INDEX listed_path ON listed (path);
CREATE TABLE file (
    number INTEGER PRIMARY KEY, path BLOB NOT NULL, identifier TEXT NOT NULL, use TEXT NOT NULL,
    original_name TEXT NOT NULL, size_bytes INTEGER, format_name TEXT NOT NULL, format_version TEXT NOT NULL,
    puid TEXT NOT NULL, modified_at TEXT NOT NULL, derived_from TEXT NOT NULL
);
CREATE INDEX file_path ON file (path);
CREATE INDEX file_identifier ON file (identifier);
CREATE TABLE fixity (file INTEGER NOT NULL, algorithm TEXT NOT NULL, digest TEXT NOT NULL);
CREATE INDEX fixity_file ON fixity (file);
CREATE TABLE event (
    file INTEGER NOT NULL, identifier TEXT NOT NULL, type TEXT NOT NULL, at TEXT NOT NULL, outcome TEXT NOT NULL,
    detail TEXT NOT NULL, note TEXT NOT NULL
);
CREATE INDEX event_file ON event (file);
CREATE TABLE rights (file INTEGER NOT NULL, whole INTEGER NOT NULL, words TEXT NOT NULL);
CREATE INDEX rights_file ON rights (file);
CREATE TABLE agent (identifier_type TEXT, identifier TEXT, name TEXT, type TEXT, version TEXT);
CREATE TABLE entity (identifier TEXT, original_name TEXT, path BLOB);
CREATE TABLE description (
    path BLOB, section TEXT, kind TEXT, status TEXT, pairs TEXT, xml TEXT, xml_digest TEXT, reference TEXT
);
"""
_ROOT = re.compile(r"<([^\s/>]+)")
_COLUMNS = ("md5", "sha1", "sha256", "sha512")


def algorithm_name(said: str) -> str:
    """Spell an algorithm as BagIt does, whoever wrote it: `SHA-256` is `sha256`."""
    return said.strip().lower().replace("-", "").replace("_", "")


class Facts:
    """The database. `summary` is what the METS holds, once it has been read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.executescript(_SCHEMA)
        self._database.execute("BEGIN")
        self.summary: Summary | None = None

    def close(self) -> None:
        self._database.close()

    def beside(self, other: Facts) -> None:
        """Make another AIP's facts readable here, as the schema `other`. Nothing is added to either any more."""
        other.change("COMMIT")
        self.change("COMMIT")
        self._database.execute("ATTACH ? AS other", (str(other.path),))
        self._database.execute("BEGIN")

    def change(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement that gives no rows."""
        self._database.execute(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Read row by row. What is read must not be changed meanwhile."""
        yield from self._database.execute(sql, parameters)

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._database.execute(sql, parameters).fetchone()
        return found

    def count(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        row = self.row(sql, parameters)
        return int(row[0] or 0) if row else 0

    # What is there

    def add_member(self, path: bytes, size_bytes: int | None, digests: dict[str, str]) -> bool:
        """Note a file of the AIP; False if there was one of that name already."""
        cursor = self._database.execute(
            "INSERT OR IGNORE INTO member VALUES (?, ?, ?, ?, ?, ?)",
            (path, size_bytes, *(digests.get(name) for name in _COLUMNS)),
        )
        return cursor.rowcount == 1

    def add_digests(self, path: bytes, digests: dict[str, str]) -> None:
        values = [digests.get(name) for name in _COLUMNS]
        self._database.execute(
            "UPDATE member SET md5 = ?, sha1 = ?, sha256 = ?, sha512 = ? WHERE path = ?", (*values, path)
        )

    def take_root(self, root: bytes) -> None:
        """Make all paths relative to the AIP's folder; what is not in it goes to `outside`."""
        if not root:
            return
        start = root + b"/"
        within = (start, root + b"0")  # the byte after a slash
        self._database.execute("INSERT INTO outside SELECT path FROM member WHERE NOT (path >= ? AND path < ?)", within)
        self._database.execute("DELETE FROM member WHERE NOT (path >= ? AND path < ?)", within)
        self._database.execute("UPDATE member SET path = CAST(substr(path, ?) AS BLOB)", (len(start) + 1,))

    def has(self, path: bytes) -> bool:
        return self.row("SELECT 1 FROM member WHERE path = ?", (path,)) is not None

    # What the bag says

    def list_(self, rows: Iterable[tuple[str, str, bytes, bytes, str, int]]) -> None:
        """Note lines of manifests: manifest, algorithm, path, path as it stands there, digest, line."""
        self._database.executemany("INSERT INTO listed VALUES (?, ?, ?, ?, ?, ?)", rows)

    def settle_listed(self) -> None:
        """Where no file has the decoded name but one has the name as it stands, that one is meant (BagIt 0.97)."""
        self._database.execute(
            "UPDATE listed SET path = raw WHERE path <> raw AND NOT EXISTS (SELECT 1 FROM member WHERE path ="
            " listed.path) AND EXISTS (SELECT 1 FROM member WHERE path = listed.raw)"
        )

    def compose(self) -> None:
        """Give files the names that manifests and METS have for them where only Unicode's composition differs.

        libarchive, which reads 7z, composes names (NFC).
        """
        wanted = "SELECT path FROM listed UNION SELECT path FROM file EXCEPT SELECT path FROM member"
        self._database.execute(f"CREATE TEMP TABLE wanted AS {wanted}")
        for (path,) in self.rows("SELECT path FROM wanted"):
            name = os.fsdecode(path)
            composed = os.fsencode(unicodedata.normalize("NFC", name))
            if composed != path and not self.row("SELECT 1 FROM listed WHERE path = ?", (composed,)):
                self._database.execute("UPDATE OR IGNORE member SET path = ? WHERE path = ?", (path, composed))

    # What the METS says

    def add_records(self, records: Iterable[Record], payload: bytes, package: str) -> None:
        """Note what was read from the METS of the AIP `package` (a UUID), whose paths are below its folder `payload`.

        Of a description that is an XML document, its root element's name is noted, and a digest of all of it.
        """
        for record in records:
            if isinstance(record, ReadFile):
                self._add_file(record, payload, package)
            elif isinstance(record, ReadAgent):
                named = (record.identifier_type, record.identifier, record.name, record.type)
                values: tuple[object, ...] = (*named, record.version)
                self._database.execute("INSERT INTO agent VALUES (?, ?, ?, ?, ?)", values)
            elif isinstance(record, ReadEntity):
                values = (record.identifier, record.original_name, os.fsencode(record.path))
                self._database.execute("INSERT INTO entity VALUES (?, ?, ?)", values)
            elif isinstance(record, ReadDescription):
                said = (record.section, record.kind, record.status, json.dumps(record.pairs))
                values = (os.fsencode(record.path), *said, *_of_xml(record.xml), escape_name(record.reference))
                self._database.execute("INSERT INTO description VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            else:
                self.summary = record

    def _add_file(self, file: ReadFile, payload: bytes, package: str) -> None:
        path = b"/".join(part for part in (payload, os.fsencode(file.path)) if part)
        found = file.format
        said = ("", "", "") if found is None else (found.name, found.version, found.puid)
        cursor = self._database.execute(
            "INSERT INTO file VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                path,
                file.identifier,
                file.use,
                file.original_name,
                file.size_bytes if file.size_bytes is None or file.size_bytes < 2**63 else None,
                *said,
                file.modified_at,
                file.derived_from,
            ),
        )
        number = cursor.lastrowid
        digests = [(number, algorithm_name(name), value.strip().lower()) for name, value in file.digests.items()]
        self._database.executemany("INSERT INTO fixity VALUES (?, ?, ?)", digests)
        events = [(number, e.identifier, e.type, e.at, e.outcome, e.detail, e.note) for e in file.events]
        self._database.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", events)
        rights = [(number, whole, words) for xml in file.rights for whole, words in rights_in_words(xml, package)]
        self._database.executemany("INSERT INTO rights VALUES (?, ?, ?)", rights)


def _of_xml(xml: str) -> tuple[str, str]:
    """The name of the root element, as far as it is written, and a digest."""
    named = _ROOT.match(xml)
    return (named[1], hashlib.sha256(xml.encode("utf-8", "surrogateescape")).hexdigest()) if named else ("", "")
