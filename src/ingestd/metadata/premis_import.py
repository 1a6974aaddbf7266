"""`metadata/premis.xml`: events, agents and rights that others recorded of the files of a transfer, in PREMIS 3.

The document is read once, as a stream, against PREMIS's schema; what it says goes to a temporary database, where it is
brought together, since anything may stand anywhere. Everything here blocks.
"""

from __future__ import annotations

import importlib.resources
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from lxml import etree

from ingestd.errors import Violation
from ingestd.metadata.premis_elements import (
    PREMIS,
    Identified,
    Linked,
    agent_links,
    event_words,
    identified,
    is_whole,
    links,
    rights_words,
    texts,
)
from ingestd.premis import AgentLink
from ingestd.tools.xml import ONE_SCHEMA_AT_A_TIME, RefusedXmlError, Sections, root_of

FILE = "metadata/premis.xml"
LISTED = 100
_P = f"{{{PREMIS}}}"
_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
CREATE TABLE thing (row INTEGER PRIMARY KEY, kind TEXT, line INTEGER, type TEXT, value TEXT, words TEXT);
CREATE TABLE name (kind TEXT, type TEXT, value TEXT, row INTEGER, PRIMARY KEY (kind, type, value)) WITHOUT ROWID;
CREATE TABLE link (row INTEGER, kind TEXT, type TEXT, value TEXT, role TEXT);
CREATE TABLE there (row INTEGER PRIMARY KEY, id BLOB);
CREATE TABLE pair (kind TEXT, subject INTEGER, object INTEGER, role TEXT,
PRIMARY KEY (kind, subject, object, role)) WITHOUT ROWID;
BEGIN;
"""
_PAIRS = """
INSERT OR IGNORE INTO pair
SELECT thing.kind || ' ' || link.kind, link.row, name.row, link.role FROM link JOIN thing ON thing.row = link.row
JOIN name ON name.kind = link.kind AND name.type = link.type AND name.value = link.value
WHERE (thing.kind, link.kind) IN (VALUES
('event', 'object'), ('event', 'agent'), ('rights', 'object'), ('rights', 'agent'));
INSERT OR IGNORE INTO pair
SELECT name.kind || ' ' || thing.kind, name.row, link.row, '' FROM link JOIN thing ON thing.row = link.row
JOIN name ON name.kind = link.kind AND name.type = link.type AND name.value = link.value
WHERE (thing.kind, link.kind) IN (VALUES
('object', 'event'), ('agent', 'event'), ('object', 'rights'), ('agent', 'rights'))
AND NOT EXISTS (SELECT 1 FROM pair
WHERE pair.kind = name.kind || ' ' || thing.kind AND subject = name.row AND object = link.row);
"""
_DANGLING = """
SELECT thing.line, thing.kind, link.kind, link.type, link.value FROM link JOIN thing ON thing.row = link.row
LEFT JOIN name ON name.kind = link.kind AND name.type = link.type AND name.value = link.value
WHERE name.row IS NULL AND thing.kind <> 'rights' AND link.kind <> 'rights' ORDER BY thing.row LIMIT ?
"""
_UNRELATED = """
SELECT line, kind, type, value FROM thing WHERE kind IN ('object', 'agent') AND words IS NOT NULL
AND row NOT IN (SELECT object FROM pair) ORDER BY row LIMIT ?
"""
_INCOMPLETE = """
SELECT line, type, value, 'an agent' FROM thing WHERE kind = 'event'
AND NOT EXISTS (SELECT 1 FROM pair WHERE pair.kind = 'event agent' AND subject = thing.row)
UNION ALL SELECT line, type, value, 'a file of the transfer' FROM thing WHERE kind = 'event'
AND NOT EXISTS (SELECT 1 FROM pair JOIN there ON there.row = pair.object
JOIN thing AS file ON file.row = pair.object AND file.words IS NOT NULL
WHERE pair.kind = 'event object' AND subject = thing.row) ORDER BY line LIMIT ?
"""


class PremisDocument:
    """What one document says, once `read` has read it. Close it by leaving its context."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def read(self, path: Path) -> list[Violation]:
        """Read a document; give the first of what is wrong with it. Raises `OSError`."""
        with ONE_SCHEMA_AT_A_TIME:
            try:
                with path.open("rb") as file:
                    _refuse_others(file)
                    return self._read(file)
            except RefusedXmlError as error:
                return [_violation(error.line, "premis.xml", "a PREMIS 3 document", str(error))]

    def objects(self, after: int, window: int) -> list[tuple[int, str]]:
        """A window of the files that the document names: (row, original name)."""
        rows = self._db.execute(
            "SELECT row, words FROM thing WHERE kind = 'object' AND words IS NOT NULL AND row > ? ORDER BY row LIMIT ?",
            (after, window),
        )
        return list(rows)

    def found(self, ids: Mapping[int, bytes], package: bytes) -> None:
        """Say which of the objects are in the transfer, by row. Those that are no files stand for the package."""
        self._db.executemany("INSERT OR REPLACE INTO there VALUES (?, ?)", ids.items())
        self._db.execute(
            "INSERT OR IGNORE INTO there SELECT row, ? FROM thing WHERE kind = 'object' AND words IS NULL", (package,)
        )

    def unrelated(self) -> list[Violation]:
        """The first of what has nobody to belong to: events, files and agents without each other, dangling links."""
        self._db.executescript(_PAIRS)
        violations = [
            _violation(
                line, "premis.link", f"the linked {kind} in the document", f"{type_} {value}, linked by the {holder}"
            )
            for line, holder, kind, type_, value in self._db.execute(_DANGLING, (LISTED,))
        ]
        violations += [
            _violation(
                line, "premis.unrelated", "an event or rights that it is linked with", f"the {kind} {type_} {value}"
            )
            for line, kind, type_, value in self._db.execute(_UNRELATED, (LISTED,))
        ]
        violations += [
            _violation(line, "premis.event", f"{wanted} that it is linked with", f"the event {type_} {value}")
            for line, type_, value, wanted in self._db.execute(_INCOMPLETE, (LISTED,))
        ]
        return sorted(violations, key=lambda violation: int(violation.path.rpartition(":")[2]))[:LISTED]

    def agents(self) -> Iterator[Identified]:
        """The agents that something is linked with."""
        yield from map(_identified, self._db.execute("SELECT type, value, words FROM thing WHERE kind = 'agent'"))

    def events(self, after: int) -> Iterator[Linked]:
        """Each event with each of the files that it is about, numbered from 1 on, without the first `after`."""
        return self._linked("event", after)

    def rights(self) -> Iterator[Linked]:
        """Each rights statement with each file of the transfer, or the package, that it is about."""
        return self._linked("rights", 0)

    def rights_of_nothing(self) -> int:
        """How many rights statements are about nothing in the transfer."""
        sql = (
            "SELECT count(*) FROM thing WHERE kind = 'rights' AND NOT EXISTS (SELECT 1 FROM pair JOIN there"
            " ON there.row = pair.object WHERE pair.kind = 'rights object' AND subject = thing.row)"
        )
        return int(self._db.execute(sql).fetchone()[0])

    def _linked(self, kind: str, after: int) -> Iterator[Linked]:
        rows = self._db.execute(
            "SELECT thing.row, thing.type, thing.value, thing.words, id FROM thing"
            " JOIN pair ON subject = thing.row AND pair.kind = ?"
            " JOIN there ON there.row = pair.object JOIN thing AS about ON about.row = pair.object"
            " WHERE thing.kind = ? AND (thing.kind = 'rights' OR about.words IS NOT NULL)"
            " ORDER BY thing.row, pair.object",
            (f"{kind} object", kind),
        )
        for number, (row, type_, value, words, id_) in enumerate(rows, start=1):
            if number > after:
                one = _identified((type_, value, words))
                yield Linked(number=number, object=id_, said=one, agents=self._agents_of(kind, row))

    def _agents_of(self, kind: str, row: int) -> list[AgentLink]:
        sql = "SELECT type, value, role FROM pair JOIN thing ON row = object WHERE pair.kind = ? AND subject = ?"
        return [AgentLink(*link) for link in self._db.execute(f"{sql} ORDER BY row, role", (f"{kind} agent", row))]

    # Reading

    def _read(self, file: BinaryIO) -> list[Violation]:
        sections = Sections(file)
        reading = etree.iterparse(
            cast("Any", sections),
            events=("end",),
            tag=list(_TAGS),
            huge_tree=True,
            resolve_entities=False,
            no_network=True,
            remove_comments=True,
            remove_pis=True,
        )
        check = _Check()
        try:
            for _, element in reading:
                parent = element.getparent()
                if parent is not None and parent.getparent() is None:  # else it stands in an extension
                    if check.passes(element):
                        self._take(element)
                    if len(check.violations) >= LISTED:
                        break
                    check.forget(element)
                    sections.forgotten()
        except etree.XMLSyntaxError as error:
            check.violations.append(_violation(error.lineno or 1, "premis.xml", "well-formed XML", error.msg))
        if reading.root is not None:
            check.strangers(reading.root)
        return check.violations[:LISTED]

    def _take(self, element: etree._Element) -> None:
        name = etree.QName(element).localname
        if name == "rights":
            for statement in element.iterchildren(f"{_P}rightsStatement"):
                self._keep("rights", statement)
        else:
            self._keep(name, element)

    def _keep(self, kind: str, element: etree._Element) -> None:
        names = identified(element, kind)
        words = _WORDS[kind](element)
        line: Any = element.sourceline
        type_, value = names[0] if names else ("", "")
        row = self._db.execute(
            "INSERT INTO thing (kind, line, type, value, words) VALUES (?, ?, ?, ?, ?)",
            (kind, line, type_, value, words),
        ).lastrowid
        self._db.executemany(
            "INSERT OR IGNORE INTO name VALUES (?, ?, ?, ?)", [(kind, type_, value, row) for type_, value in names]
        )
        self._db.executemany(
            "INSERT INTO link VALUES (?, ?, ?, ?, ?)",
            [(row, other, *link) for other in _LINKED[kind] for link in _links(element, other)],
        )


class _Check:
    """Holds what stands in the document against PREMIS's schema, part by part, so that every fault has its line."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self._schema = _schema()
        self._last = 0

    def passes(self, element: etree._Element) -> bool:
        """Say whether a part is valid and stands where it may: objects, then events, agents and rights."""
        before = len(self.violations)
        place = _ORDER.index(etree.QName(element).localname)
        if place < self._last:
            self._say(element, f"{_ORDER[place]} before {_ORDER[self._last]}", f"{_ORDER[place]} after it")
        self._last = max(place, self._last)
        if not self._schema.validate(element):
            log: Any = self._schema.error_log
            self.violations += [
                _violation(entry.line, "premis.xsd", "what PREMIS 3's schema says", entry.message)
                for entry in list(log)[:LISTED]
            ]
        return len(self.violations) == before

    def forget(self, element: etree._Element) -> None:
        """Free what was read, and see what stands before it."""
        element.clear()
        parent = element.getparent()
        while parent is not None and parent[0] is not element:
            self._stranger(parent[0])
            del parent[0]

    def strangers(self, root: etree._Element) -> None:
        for child in root:
            self._stranger(child)

    def _stranger(self, child: etree._Element) -> None:
        if child.tag not in _TAGS and len(self.violations) < LISTED:
            self._say(child, f"one of {', '.join(_ORDER)}", str(child.tag))

    def _say(self, element: etree._Element, expected: str, actual: str) -> None:
        line: Any = element.sourceline
        self.violations.append(_violation(line, "premis.xsd", expected, actual))


_ORDER = ("object", "event", "agent", "rights")
_TAGS = frozenset(f"{_P}{name}" for name in _ORDER)
_LINKED = {
    "object": ("event", "rights"),
    "agent": ("event", "rights"),
    "event": ("object", "agent"),
    "rights": ("object", "agent"),
}


def _links(element: etree._Element, kind: str) -> list[AgentLink]:
    """What an element links to: of objects, events and rights the role does not matter."""
    return agent_links(element) if kind == "agent" else [AgentLink(*pair) for pair in links(element, kind)]


def _object_words(element: etree._Element) -> str | None:
    """The name that a file had; None for what is no file."""
    return None if is_whole(element) else "".join(texts(element, "originalName")[:1])


def _agent_words(element: etree._Element) -> str:
    name, kind, version = (" ".join(texts(element, f"agent{part}")) for part in ("Name", "Type", "Version"))
    return json.dumps({"name": name, "type": kind, "version": version})


_WORDS: Mapping[str, Any] = {
    "object": _object_words,
    "agent": _agent_words,
    "event": event_words,
    "rights": rights_words,
}


def _identified(row: tuple[str, str, str]) -> Identified:
    type_, value, words = row
    return Identified(type=type_, value=value, words=words)


def _violation(line: int, rule: str, expected: str, actual: str) -> Violation:
    return Violation(path=f"{FILE}:{line}", rule=rule, expected=expected, actual=actual[:500])


def _refuse_others(file: BinaryIO) -> None:
    """Raise `RefusedXmlError` for what is not PREMIS 3, by its first tag."""
    root = root_of(file)
    if (root.namespace, root.name) != (PREMIS, "premis"):
        said = f"{root.namespace} {root.name}".strip()[:200]
        raise RefusedXmlError(f"the root element is {said}, not {PREMIS} premis", root.line)
    if root.attributes.get("version") != "3.0":
        raise RefusedXmlError("the root element does not say version 3.0", root.line)


def _schema() -> etree.XMLSchema:
    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(_Shipped())
    return etree.XMLSchema(etree.fromstring(_shipped("premis.xsd"), parser, base_url="schema:/premis.xsd"))


def _shipped(name: str) -> bytes:
    return (importlib.resources.files("ingestd") / "mets" / "xsd" / name).read_bytes()


class _Shipped(etree.Resolver):
    """Gives the schemas that PREMIS's own imports from this package; nothing is fetched."""

    def resolve(self, system_url: str, public_id: str, context: Any) -> Any:  # type: ignore[override]  # noqa: ARG002
        name = system_url.rpartition("/")[2]
        if name != "xlink.xsd":
            return self.resolve_empty(context)  # type: ignore[attr-defined]
        return self.resolve_string(_shipped(name), context, base_url=f"schema:/{name}")
