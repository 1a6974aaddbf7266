"""Reading the METS of an AIP of ingestd, Archivematica or a3m, in flat memory.

A METS says of one file in four places what belongs together. A first pass over the document notes in a temporary
database which amdSec (or part of one, as METS allows and Archivematica 0.x has it) and which dmdSecs belong to which
path; a second one reads these and gives whole records.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

from lxml import etree

from ingestd.errors import Code, ContentError, Violation
from ingestd.mets.read_descriptions import read_description
from ingestd.mets.read_premis import (
    Premis,
    described_file,
    more_identifiers,
    object_uuid,
    premis_of,
    read_agent,
    text_at,
    with_provenance,
)
from ingestd.mets.records import ReadAgent, ReadEntity, ReadFile, Record, Summary
from ingestd.mets.validation import forget
from ingestd.mets.vocabulary import DELETED, METS, NORMATIVE_LABEL, XLINK
from ingestd.oais import unescape_name
from ingestd.premis import Format
from ingestd.tools.xml import RefusedXmlError, Sections, root_of

WINDOW = 256
_M = f"{{{METS}}}"
_HREF = f"{{{XLINK}}}href"
_AGENTS = 1000


_PARTS = frozenset({f"{_M}techMD", f"{_M}rightsMD", f"{_M}sourceMD", f"{_M}digiprovMD"})
_NAMES = ("amdSec", "dmdSec", "file", "div", *(part.removeprefix(_M) for part in _PARTS))

_Row: TypeAlias = tuple[str, str, str, str, str]
"""A file of the fileSec: ID, path, use, source, label."""
_COLUMNS = "file.id, path, use, source, label"


class _NotMets(ValueError):
    """XML, but no METS."""


async def read(path: Path, *, window: int = WINDOW, whole: bool = False) -> AsyncIterator[Sequence[Record]]:
    """Read a METS as windows of records: what it describes as it comes, each agent once, a `Summary` last.

    With `whole`, what tools wrote, and to which agents events are linked, come with each file, and what was removed.

    Raises `ContentError` (`content.metadata_invalid`) for what is not well formed, declares a document type, or is not
    a METS; `OSError` if the file cannot be read.
    """
    loop = asyncio.get_running_loop()
    # One thread for the whole reading: neither SQLite's nor lxml's objects like to change theirs.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="mets") as thread:
        records = _records(path, whole=whole)
        try:
            while some := await loop.run_in_executor(thread, lambda: list(itertools.islice(records, window))):
                yield some
        except (_NotMets, RefusedXmlError, etree.XMLSyntaxError) as error:
            violation = Violation(path=path.name, rule="mets.xml", actual=str(error))
            raise ContentError(
                f"{path.name} cannot be read as METS: {error}",
                code=Code.CONTENT_METADATA_INVALID,
                violations=(violation,),
            ) from error
        finally:
            await loop.run_in_executor(thread, records.close)


def _records(path: Path, *, whole: bool) -> Generator[Record, None, None]:
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as places:
        first = _Places(places)
        for event, element in _elements(path, ("start", "end"), ("structMap", "metsHdr", *_NAMES)):
            first.note(event, element)
        second = _Reading(places, whole=whole)
        for _, element in _elements(path, ("end",), ("structMap", *_NAMES), keeps=second.keeps):
            yield from second.records(element)
        yield from second.files_without_section()
        yield second.summary(first)


def _elements(
    path: Path, events: Sequence[str], names: Sequence[str], keeps: Callable[[], bool] = lambda: False
) -> Iterator[tuple[str, etree._Element]]:
    """Give elements, and forget each after it was looked at; a part of an amdSec that `keeps` stays as long as that."""
    with path.open("rb") as file:
        root_of(file)
        sections = Sections(file)
        reading = etree.iterparse(
            cast("Any", sections),
            events=events,
            tag=[f"{_M}{name}" for name in ("mets", *names)],
            huge_tree=True,
            resolve_entities=False,
            no_network=True,
            remove_comments=True,
            remove_pis=True,
        )
        for event, element in reading:
            yield event, element
            if event != "end":
                continue
            if element.tag not in _PARTS:
                forget(element)
                sections.forgotten()
            elif keeps():
                sections.kept()
            else:
                _spend(element)
                sections.spent()
        if reading.root is None or reading.root.tag != f"{_M}mets":
            raise _NotMets("the document is not a METS")


def _spend(part: etree._Element) -> None:
    """Free a part of an amdSec, and the one before it if that was freed, too: the parser still needs the last one."""
    section, before = part.getparent(), part.getprevious()
    if section is not None and before is not None and not len(before) and not before.attrib:
        section.remove(before)
    part.clear()


class _Places:
    """The first pass: what belongs to which path."""

    def __init__(self, places: sqlite3.Connection) -> None:
        self._places = places
        self._labels: list[str] = []
        self._directories = [0, 0]
        self._normative = False
        self._counting = True
        self._maps = 0
        self.created_at = ""
        self.label = ""
        places.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE file (id TEXT PRIMARY KEY, path TEXT, use TEXT, source TEXT, seen INTEGER NOT NULL,"
            " label TEXT NOT NULL DEFAULT '');"
            "CREATE TABLE section (id TEXT PRIMARY KEY, file TEXT NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE described (id TEXT PRIMARY KEY, path TEXT NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE part (number INTEGER PRIMARY KEY, file TEXT NOT NULL, xml BLOB NOT NULL);"
            "CREATE INDEX part_file ON part (file);"
            "BEGIN;"
        )

    @property
    def directories(self) -> int:
        """Directories below the root, of the normative map where there is one."""
        return max(0, *(count - 1 for count in self._directories))

    @property
    def more_struct_maps(self) -> int:
        return max(0, self._maps - 1)

    def note(self, event: str, element: etree._Element) -> None:
        name = element.tag.removeprefix(_M)
        if name == "div":
            (self._enter if event == "start" else self._leave)(element)
        elif name == "structMap" and event == "start":
            self._normative = element.get("LABEL") == NORMATIVE_LABEL
            self._counting = self._normative or not self._maps
            self._maps += not self._normative
        elif name == "metsHdr" and event == "end":
            self.created_at = element.get("CREATEDATE", "")
        elif name == "file" and event == "end":
            self._file(element)

    def _enter(self, div: etree._Element) -> None:
        self._labels.append(_unescaped(div.get("LABEL", "")))
        if self._counting and div.get("TYPE", "").lower() == "directory":
            self._directories[self._normative] += 1
        if len(self._labels) == 1 and not self.label:
            self.label = self._labels[0]

    def _leave(self, div: etree._Element) -> None:
        described = [*div.get("DMDID", "").split(), *div.get("ADMID", "").split()]
        # In Archivematica 0.x a directory has no divs for its files, but points to all of them itself.
        pointer = None if div.get("TYPE", "").lower() == "directory" else div.find(f"{_M}fptr")
        if described:
            found = self._path_of(pointer.get("FILEID", "")) if pointer is not None else None
            path = found or "/".join(self._labels[1:])
            self._insert("INSERT OR IGNORE INTO described VALUES (?, ?)", [(one, path) for one in described])
        label = self._labels.pop()
        if pointer is not None and label and not self._normative:
            self._places.execute(
                "UPDATE file SET label = ? WHERE id = ? AND label = ''"
                " AND substr('/' || path, -length(?) - 1) <> '/' || ?",
                (label, pointer.get("FILEID", ""), label, label),
            )

    def _path_of(self, file: str) -> str | None:
        row = self._places.execute("SELECT path FROM file WHERE id = ?", (file,)).fetchone()
        return None if row is None else str(row[0])

    def _file(self, file: etree._Element) -> None:
        identifier = file.get("ID", "")
        location = file.find(f"{_M}FLocat")
        group = file.getparent()
        use = "" if group is None else group.get("USE", "")
        if use == DELETED:
            return
        href = "" if location is None else location.get(_HREF, "")
        path = _stored(unescape_name(href))
        named, _, source = file.get("GROUPID", "").partition("Group-")
        source = "" if named else source
        self._insert("INSERT OR IGNORE INTO file VALUES (?, ?, ?, ?, 0, '')", [(identifier, path, use, source)])
        sections = [(section, identifier) for section in file.get("ADMID", "").split()]
        self._insert("INSERT OR IGNORE INTO section VALUES (?, ?)", sections)
        described = [(dmd, path) for dmd in file.get("DMDID", "").split()]
        self._insert("INSERT OR IGNORE INTO described VALUES (?, ?)", described)

    def _insert(self, sql: str, rows: Sequence[tuple[str, ...]]) -> None:
        self._places.executemany(sql, rows)


class _Reading:
    """The second pass: sections into records.

    An amdSec mostly is a file's. One of several files, in whose parts it names them, may be as large as all of them:
    its parts wait in the database until it ends.
    """

    def __init__(self, places: sqlite3.Connection, *, whole: bool) -> None:
        self._places = places
        self._whole = whole
        self._kept = False
        self._waiting = False
        self._parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
        self._agents: set[ReadAgent] = set()
        self._counts: Counter[str] = Counter()
        self._uses: Counter[str] = Counter()
        self._formats: Counter[str] = Counter()
        self._events: Counter[str] = Counter()

    def records(self, element: etree._Element) -> Iterator[Record]:
        if element.tag == f"{_M}dmdSec":
            yield from self._described(element)
        elif element.tag == f"{_M}amdSec":
            yield from self._administered(element)
        elif element.tag in _PARTS:
            yield from self._part(element)

    def keeps(self) -> bool:
        """Whether the last part is needed until its amdSec ends."""
        return self._kept

    def files_without_section(self) -> Iterator[ReadFile]:
        """The files of the fileSec whose amdSec is not there: nothing is known of them but where they are."""
        for identifier, path, use in self._places.execute(
            "SELECT id, path, use FROM file WHERE seen = 0 ORDER BY rowid"
        ):
            self._count(use, None, 0)
            yield ReadFile(identifier=_uuid_of(identifier), path=_restored(path), use=use)

    def summary(self, places: _Places) -> Summary:
        return Summary(
            created_at=places.created_at,
            label=places.label,
            files=self._counts["files"],
            bytes=self._counts["bytes"],
            directories=places.directories,
            events=self._counts["events"],
            agents=len(self._agents),
            entities=self._counts["entities"],
            descriptions=self._counts["descriptions"],
            by_use=dict(self._uses),
            by_format=dict(self._formats),
            by_event=dict(self._events),
            more_struct_maps=places.more_struct_maps,
        )

    def _described(self, section: etree._Element) -> Iterator[Record]:
        path = self._described_path(section)
        entity = section.find(f"{_M}mdWrap/{_M}xmlData/{{*}}object")
        if entity is not None:
            self._counts["entities"] += 1
            name = text_at(entity, "{*}originalName")
            more = more_identifiers(entity)
            yield ReadEntity(identifier=object_uuid(entity), original_name=name, path=path, identifiers=more)
            return
        said = read_description(section, path)
        if said is not None:
            self._counts["descriptions"] += 1
            yield said

    def _described_path(self, section: etree._Element) -> str:
        row = self._places.execute("SELECT path FROM described WHERE id = ?", (section.get("ID", ""),)).fetchone()
        return _restored(row[0]) if row else ""

    def _sources(self, sources: Iterable[etree._Element], path: str) -> Iterator[Record]:
        for source in sources:
            said = read_description(source, path)
            if said is not None:
                yield said

    def _part(self, part: etree._Element) -> Iterator[Record]:
        """What a part says for itself; what it says of one of several files is put aside until their amdSec ends."""
        section = part.getparent()
        self._kept = True
        if section is None or self._file_of(section) is not None:
            return
        yield from self._said_by(premis_of([part]))
        row = self._file_of(part)
        if part.tag == f"{_M}sourceMD":
            yield from self._sources([part], _restored(row[1]) if row else self._described_path(section))
            self._kept = False
        elif row is not None:
            self._waiting, self._kept = True, False
            xml = etree.tostring(part, with_tail=False)
            self._places.execute("INSERT INTO part (file, xml) VALUES (?, ?)", (row[0], xml))
        else:
            self._kept = self._whole

    def _administered(self, section: etree._Element) -> Iterator[Record]:
        """What an amdSec says: of a file, of several that have parts of it, of the package, or of what is gone."""
        own = self._file_of(section)
        whole = premis_of(section)
        if own is not None:
            yield from self._said_by(whole)
            yield from self._sources(section.iterchildren(f"{_M}sourceMD"), _restored(own[1]))
            yield from self._described_file(own, whole)
        elif not self._waiting and whole.object is not None and self._whole:
            removed = described_file(whole, whole.object, ReadFile(identifier="", path="", use=""))
            yield replace(with_provenance(whole, removed), removed=True)
        if self._waiting:
            yield from self._several()
            self._places.execute("DELETE FROM part")
            self._waiting = False

    def _several(self) -> Iterator[ReadFile]:
        """The files of an amdSec that has parts of several."""
        for (identifier,) in self._places.execute("SELECT file FROM part GROUP BY file ORDER BY min(number)"):
            row = self._places.execute(f"SELECT {_COLUMNS} FROM file WHERE id = ?", (identifier,)).fetchone()  # noqa: S608  names of this module
            parts = self._places.execute("SELECT xml FROM part WHERE file = ? ORDER BY number", (identifier,))
            section = b"<amdSec>%s</amdSec>" % b"".join(xml for (xml,) in parts)
            yield from self._described_file(cast("_Row", row), premis_of(etree.fromstring(section, self._parser)))

    def _said_by(self, found: Premis) -> Iterator[ReadAgent]:
        for element in found.agents:
            agent = read_agent(element)
            if agent not in self._agents and len(self._agents) < _AGENTS:
                self._agents.add(agent)
                yield agent

    def _described_file(self, row: _Row, found: Premis) -> Iterator[ReadFile]:
        identifier, path, use, source, label = row
        if found.object is None:
            return
        self._places.execute("UPDATE file SET seen = 1 WHERE id = ?", (identifier,))
        bare = ReadFile(
            identifier=_uuid_of(identifier),
            path=_restored(path),
            use=use,
            derived_from=source,
            label=_restored(label),
        )
        file = described_file(found, found.object, bare)
        self._counts["events"] += len(file.events)
        self._events.update(event.type for event in file.events)
        self._count(file.use, file.format, file.size_bytes or 0)
        yield with_provenance(found, file) if self._whole else file

    def _file_of(self, section: etree._Element) -> _Row | None:
        """The file that names a section, or a part of one, as its own, unless it was described before."""
        row = self._places.execute(
            f"SELECT {_COLUMNS} FROM section JOIN file ON file.id = section.file"  # noqa: S608  names of this module
            " WHERE section.id = ? AND seen = 0",
            (section.get("ID", ""),),
        ).fetchone()
        return None if row is None else cast("_Row", row)

    def _count(self, use: str, found: Format | None, size_bytes: int) -> None:
        self._counts["files"] += 1
        self._counts["bytes"] += size_bytes
        self._uses[use] += 1
        self._formats[" ".join(filter(None, (found.name, found.version, found.puid))) if found else "Unknown"] += 1


def _uuid_of(file_id: str) -> str:
    return file_id[-36:]


def _unescaped(label: str) -> str:
    return _stored(unescape_name(label))


def _stored(name: str) -> str:
    """Names may hold bytes that are not UTF-8, which SQLite does not take as text."""
    return name.encode("utf-8", "surrogateescape").decode("latin-1")


def _restored(stored: str) -> str:
    return stored.encode("latin-1").decode("utf-8", "surrogateescape")
