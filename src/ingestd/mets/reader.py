"""Reading the METS of an AIP of ingestd, Archivematica or a3m, in flat memory.

A METS says of one file in four places what belongs together. A first pass over the document notes in a temporary
database which amdSec and which dmdSecs belong to which path; a second one reads these and gives whole records. PREMIS 2
and 3 are read alike, by the elements' local names.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from lxml import etree

from ingestd.errors import Code, ContentError, Violation
from ingestd.mets.read_descriptions import read_description
from ingestd.mets.read_provenance import more_identifiers, removed_file, with_provenance
from ingestd.mets.records import (
    ReadAgent,
    ReadEntity,
    ReadEvent,
    ReadFile,
    Record,
    Summary,
)
from ingestd.mets.validation import forget
from ingestd.mets.vocabulary import DELETED, METS, NORMATIVE_LABEL, XLINK
from ingestd.oais import unescape_name
from ingestd.premis import Format
from ingestd.tools.xml import RefusedXmlError, Sections, root_of

WINDOW = 256
_M = f"{{{METS}}}"
_HREF = f"{{{XLINK}}}href"
_AGENTS = 1000
_SIZE_DIGITS = 18
"""No size has more: SQLite takes no more of them, nor Python thousands."""


class _NotMets(ValueError):
    """XML, but no METS."""


async def read(path: Path, *, window: int = WINDOW, whole: bool = False) -> AsyncIterator[Sequence[Record]]:
    """Read a METS as windows of records: what it describes as it comes, each agent once, a `Summary` last.

    With `whole`, rights and what tools wrote come with each file.

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
        for event, element in _elements(
            path, ("start", "end"), ("amdSec", "dmdSec", "file", "div", "structMap", "metsHdr")
        ):
            first.note(event, element)
        second = _Reading(places, whole=whole)
        for _, element in _elements(path, ("end",), ("amdSec", "dmdSec", "file", "div", "structMap")):
            yield from second.records(element)
        yield from second.files_without_section()
        yield second.summary(first)


def _elements(path: Path, events: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, etree._Element]]:
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
            if event == "end":
                forget(element)
                sections.forgotten()
        if reading.root is None or reading.root.tag != f"{_M}mets":
            raise _NotMets("the document is not a METS")


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
        pointer = div.find(f"{_M}fptr")
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
        source = file.get("GROUPID", "").removeprefix("Group-")
        self._insert("INSERT OR IGNORE INTO file VALUES (?, ?, ?, ?, 0, '')", [(identifier, path, use, source)])
        sections = [(section, identifier) for section in file.get("ADMID", "").split()]
        self._insert("INSERT OR IGNORE INTO section VALUES (?, ?)", sections)
        described = [(dmd, path) for dmd in file.get("DMDID", "").split()]
        self._insert("INSERT OR IGNORE INTO described VALUES (?, ?)", described)

    def _insert(self, sql: str, rows: Sequence[tuple[str, ...]]) -> None:
        self._places.executemany(sql, rows)


class _Reading:
    """The second pass: sections into records."""

    def __init__(self, places: sqlite3.Connection, *, whole: bool) -> None:
        self._places = places
        self._whole = whole
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
            name = _text(entity, "{*}originalName")
            more = more_identifiers(entity)
            yield ReadEntity(identifier=_object_uuid(entity), original_name=name, path=path, identifiers=more)
            return
        said = read_description(section, path)
        if said is not None:
            self._counts["descriptions"] += 1
            yield said

    def _described_path(self, section: etree._Element) -> str:
        row = self._places.execute("SELECT path FROM described WHERE id = ?", (section.get("ID", ""),)).fetchone()
        return _restored(row[0]) if row else ""

    def _sources(self, section: etree._Element, path: str) -> Iterator[Record]:
        for source in section.iterchildren(f"{_M}sourceMD"):
            said = read_description(source, path)
            if said is not None:
                yield said

    def _administered(self, section: etree._Element) -> Iterator[Record]:
        for found in section.iterfind(f"{_M}digiprovMD/{_M}mdWrap/{_M}xmlData/{{*}}agent"):
            agent = _agent(found)
            if agent not in self._agents and len(self._agents) < _AGENTS:
                self._agents.add(agent)
                yield agent
        row = self._places.execute(
            "SELECT file.id, path, use, source, label FROM section JOIN file ON file.id = section.file"
            " WHERE section.id = ? AND seen = 0",
            (section.get("ID", ""),),
        ).fetchone()
        path = _restored(row[1]) if row else self._described_path(section)
        yield from self._sources(section, path)
        described = _current_object(section)
        if described is not None and row is None and self._whole:
            yield removed_file(_file(described, ("",) * 5, _events(section)), section, described)
        if row is None or described is None:
            return
        self._places.execute("UPDATE file SET seen = 1 WHERE id = ?", (row[0],))
        events = _events(section)
        self._counts["events"] += len(events)
        self._events.update(event.type for event in events)
        file = _file(described, row, events)
        if self._whole:
            file = with_provenance(file, section, described)
        self._count(file.use, file.format, file.size_bytes or 0)
        yield file

    def _count(self, use: str, found: Format | None, size_bytes: int) -> None:
        self._counts["files"] += 1
        self._counts["bytes"] += size_bytes
        self._uses[use] += 1
        self._formats[" ".join(filter(None, (found.name, found.version, found.puid))) if found else "Unknown"] += 1


def _file(described: etree._Element, row: tuple[str, str, str, str, str], events: Sequence[ReadEvent]) -> ReadFile:
    file_id, path, use, group, label = row
    identifier = _object_uuid(described) or _uuid_of(file_id)
    characteristics = described.find("{*}objectCharacteristics")
    size = _text(characteristics, "{*}size")
    sources = _related(described, "has source")
    return ReadFile(
        identifier=identifier,
        path=_restored(path),
        use=use,
        original_name=_text(described, "{*}originalName"),
        size_bytes=int(size) if size.isascii() and size.isdigit() and len(size) <= _SIZE_DIGITS else None,
        digests=_digests(characteristics),
        format=_format(characteristics),
        modified_at=_text(characteristics, "{*}creatingApplication/{*}dateCreatedByApplication"),
        derived_from=sources[0] if sources else (group if group not in ("", identifier) else ""),
        source_of=_related(described, "is source of"),
        events=events,
        identifiers=more_identifiers(described),
        label=_restored(label),
    )


def _current_object(section: etree._Element) -> etree._Element | None:
    """The PREMIS object of an amdSec; the last one that no later one supersedes."""
    found = None
    for technical in section.iterchildren(f"{_M}techMD"):
        if technical.get("STATUS") != "superseded":
            described = technical.find(f"{_M}mdWrap/{_M}xmlData/{{*}}object")
            found = found if described is None else described
    return found


def _digests(characteristics: etree._Element | None) -> Mapping[str, str]:
    if characteristics is None:
        return {}
    return {
        _text(fixity, "{*}messageDigestAlgorithm"): _text(fixity, "{*}messageDigest")
        for fixity in characteristics.iterfind("{*}fixity")
    }


def _format(characteristics: etree._Element | None) -> Format | None:
    found = None if characteristics is None else characteristics.find("{*}format")
    if found is None:
        return None
    return Format(
        name=_text(found, "{*}formatDesignation/{*}formatName"),
        version=_text(found, "{*}formatDesignation/{*}formatVersion"),
        puid=_text(found, "{*}formatRegistry/{*}formatRegistryKey"),
    )


def _related(described: etree._Element, subtype: str) -> tuple[str, ...]:
    return tuple(
        value.text or ""
        for relationship in described.iterfind("{*}relationship")
        if _text(relationship, "{*}relationshipSubType") == subtype
        for value in relationship.iterfind("*/*")
        if value.tag.rpartition("}")[2] in ("relatedObjectIdentifierValue", "relatedObjectIdentificationValue")
    )


def _events(section: etree._Element) -> tuple[ReadEvent, ...]:
    return tuple(_event(found) for found in section.iterfind(f"{_M}digiprovMD/{_M}mdWrap/{_M}xmlData/{{*}}event"))


def _event(found: etree._Element) -> ReadEvent:
    return ReadEvent(
        identifier=_text(found, "{*}eventIdentifier/{*}eventIdentifierValue"),
        type=_text(found, "{*}eventType"),
        at=_text(found, "{*}eventDateTime"),
        detail=_text(found, "{*}eventDetailInformation/{*}eventDetail") or _text(found, "{*}eventDetail"),
        outcome=_text(found, "{*}eventOutcomeInformation/{*}eventOutcome"),
        note=_text(found, "{*}eventOutcomeInformation/{*}eventOutcomeDetail/{*}eventOutcomeDetailNote"),
    )


def _agent(found: etree._Element) -> ReadAgent:
    return ReadAgent(
        identifier_type=_text(found, "{*}agentIdentifier/{*}agentIdentifierType"),
        identifier=_text(found, "{*}agentIdentifier/{*}agentIdentifierValue"),
        name=_text(found, "{*}agentName"),
        type=_text(found, "{*}agentType"),
        version=_text(found, "{*}agentVersion"),
    )


def _object_uuid(described: etree._Element) -> str:
    for identifier in described.iterfind("{*}objectIdentifier"):
        if _text(identifier, "{*}objectIdentifierType") == "UUID":
            return _text(identifier, "{*}objectIdentifierValue")
    return ""


def _uuid_of(file_id: str) -> str:
    return file_id[-36:]


def _text(element: etree._Element | None, path: str) -> str:
    return "" if element is None else (element.findtext(path) or "")


def _unescaped(label: str) -> str:
    return _stored(unescape_name(label))


def _stored(name: str) -> str:
    """Names may hold bytes that are not UTF-8, which SQLite does not take as text."""
    return name.encode("utf-8", "surrogateescape").decode("latin-1")


def _restored(stored: str) -> str:
    return stored.encode("latin-1").decode("utf-8", "surrogateescape")
