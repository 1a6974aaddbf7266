"""What is different between two AIPs, or two versions of one: files, what is said of them, and what was done to them.

Files are the same by their UUID, else by their path. What is compared is what the AIPs say (METS and manifests); that
it is true is for `verify` to prove.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from ingestd.aip.container import shown
from ingestd.aip.manifests import read_manifests
from ingestd.aip.reading import Reading, opened
from ingestd.aip.records import Change, Difference

LIMIT = 1000
"""How many changes are kept; all are counted."""

_PAIRS = """
CREATE TEMP TABLE pair (a INTEGER PRIMARY KEY, b INTEGER UNIQUE);
INSERT OR IGNORE INTO pair SELECT file.number, there.number FROM main.file JOIN other.file AS there
    ON there.identifier = file.identifier WHERE file.identifier <> '';
INSERT OR IGNORE INTO pair SELECT file.number, there.number FROM main.file JOIN other.file AS there
    ON there.path = file.path WHERE file.number NOT IN (SELECT a FROM pair)
    AND there.number NOT IN (SELECT b FROM pair)
"""
_REMOVED = "SELECT path, identifier FROM main.file WHERE number NOT IN (SELECT a FROM pair) ORDER BY path"
_ADDED = "SELECT path, identifier FROM other.file WHERE number NOT IN (SELECT b FROM pair) ORDER BY path"
_BOTH = """
SELECT there.path, {before}, {after} FROM pair JOIN main.file AS here ON here.number = a
    JOIN other.file AS there ON there.number = b WHERE {before} IS NOT {after} ORDER BY 1
"""
_SAID = {
    "file moved": "{file}.path",
    "identifier changed": "{file}.identifier",
    "size changed": "{file}.size_bytes",
    "use changed": "{file}.use",
    "original name changed": "{file}.original_name",
    "format changed": "{file}.format_name || ' ' || {file}.format_version || ' ' || {file}.puid",
}
_DIGESTS = """
SELECT there.path, one.algorithm || ' ' || one.digest, two.algorithm || ' ' || two.digest FROM pair
    JOIN main.fixity AS one ON one.file = a JOIN other.fixity AS two ON two.file = b AND two.algorithm = one.algorithm
    JOIN other.file AS there ON there.number = b WHERE one.digest <> two.digest ORDER BY 1
"""
_EVENTS = """
SELECT there.path, type, at, outcome FROM pair JOIN {one}.event AS event ON event.file = {file}
    JOIN other.file AS there ON there.number = b WHERE NOT EXISTS (SELECT 1 FROM {two}.event AS same
    WHERE same.file = {match} AND same.identifier = event.identifier) ORDER BY 1, at
"""
_DESCRIBED = """
SELECT DISTINCT path, section, kind, status, pairs, xml, reference FROM {one}.description AS said
    WHERE NOT EXISTS (SELECT 1 FROM {two}.description AS same WHERE {same}) ORDER BY path, kind
"""
_SAME = """
same.path = said.path AND (same.section, same.kind, same.pairs, same.xml, same.xml_digest, same.reference) =
    (said.section, said.kind, said.pairs, said.xml, said.xml_digest, said.reference)
"""
_STATUS = f"""
SELECT DISTINCT said.path, said.kind || ': ' || said.status, same.status FROM main.description AS said
    JOIN other.description AS same ON {_SAME} WHERE said.status NOT IN (
        SELECT status FROM other.description AS same WHERE {_SAME}) ORDER BY 1, 2
"""  # noqa: S608  a text of this module
_RIGHTS = """
SELECT there.path, words FROM pair JOIN {one}.rights AS said ON said.file = {file} AND NOT said.whole
    JOIN other.file AS there ON there.number = b WHERE NOT EXISTS (SELECT 1 FROM {two}.rights AS same
    WHERE same.file = {match} AND NOT same.whole AND same.words = said.words)
UNION ALL SELECT x'', words FROM {one}.rights AS said WHERE whole
    AND words NOT IN (SELECT words FROM {two}.rights WHERE whole) ORDER BY 1
"""
_KINDS = {"dmdSec": "description", "sourceMD": "source metadata"}
_AGENTS = """
SELECT name, identifier FROM {one}.agent EXCEPT SELECT name, identifier FROM {two}.agent ORDER BY 1
"""
_OTHERS = """
SELECT path, algorithm || ' ' || digest FROM {one}.listed AS here WHERE manifest NOT LIKE 'tag%'
    AND path NOT IN (SELECT path FROM {one}.file) AND NOT EXISTS (SELECT 1 FROM {two}.listed AS there
    WHERE there.path = here.path AND there.manifest NOT LIKE 'tag%') ORDER BY path
"""
_OTHERS_CHANGED = """
SELECT there.path, here.algorithm || ' ' || here.digest, there.algorithm || ' ' || there.digest
    FROM main.listed AS here JOIN other.listed AS there ON there.path = here.path AND there.manifest = here.manifest
    WHERE here.digest <> there.digest AND here.manifest NOT LIKE 'tag%'
    AND here.path NOT IN (SELECT path FROM main.file) ORDER BY 1
"""


async def diff(before: Path, after: Path, *, scratch: Path | None = None) -> Difference:
    """Say what is different in the AIP `after`. Raises what `reading.opened` raises, for either."""
    async with opened(before, scratch=scratch) as one, opened(after, scratch=scratch) as two:
        for reading in (one, two):
            await reading.run(partial(read_manifests, reading))
        return await one.run(partial(_difference, one, two))


def _difference(one: Reading, two: Reading) -> Difference:
    one.facts.beside(two.facts)
    for statement in _PAIRS.split(";"):
        one.facts.change(statement)
    one.facts.change("CREATE INDEX temp.pair_b ON pair (b)")
    counts: Counter[str] = Counter()
    kept: list[Change] = []
    for change in _changes(one):
        counts[change.kind] += 1
        if len(kept) < LIMIT:
            kept.append(change)
    troubles = [f"{trouble.path}: {trouble.actual}" for reading in (one, two) for trouble in reading.troubles]
    return Difference(
        before=one.name,
        after=two.name,
        same=not counts,
        same_files=one.facts.count("SELECT count(*) FROM pair"),
        counts=dict(counts),
        changes=kept,
        notes=[*troubles, *one.notes, *two.notes],
    )


def _changes(reading: Reading) -> Iterator[Change]:
    said = (_descriptions(reading), _rights(reading), _agents(reading))
    yield from chain(_files(reading), _events(reading), *said, _others(reading))


def _files(reading: Reading) -> Iterator[Change]:
    facts = reading.facts
    yield from (Change(kind="file removed", path=shown(path), before=name) for path, name in facts.rows(_REMOVED))
    yield from (Change(kind="file added", path=shown(path), after=name) for path, name in facts.rows(_ADDED))
    yield from _pairs(reading, "content changed", _DIGESTS)
    for kind, value in _SAID.items():
        sql = _BOTH.format(before=value.format(file="here"), after=value.format(file="there"))
        yield from _pairs(reading, kind, sql)


def _pairs(reading: Reading, kind: str, sql: str) -> Iterator[Change]:
    for path, before, after in reading.facts.rows(sql):
        yield Change(kind=kind, path=shown(path), before=_word(before), after=_word(after))


def _word(value: object) -> str:
    return shown(value) if isinstance(value, bytes) else "" if value is None else str(value).strip()


def _events(reading: Reading) -> Iterator[Change]:
    gone = _EVENTS.format(one="main", two="other", file="a", match="b")
    for path, kind, at, outcome in reading.facts.rows(gone):
        yield Change(kind="event removed", path=shown(path), before=_joined((kind, outcome, at)))
    new = _EVENTS.format(one="other", two="main", file="b", match="a")
    for path, kind, at, outcome in reading.facts.rows(new):
        yield Change(kind="event added", path=shown(path), after=_joined((kind, outcome, at)))


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(part for part in parts if part)


def _descriptions(reading: Reading) -> Iterator[Change]:
    for path, section, *said in reading.facts.rows(_DESCRIBED.format(one="main", two="other", same=_SAME)):
        yield Change(kind=f"{_KINDS[section]} removed", path=shown(path), before=_described(*said))
    for path, section, *said in reading.facts.rows(_DESCRIBED.format(one="other", two="main", same=_SAME)):
        yield Change(kind=f"{_KINDS[section]} added", path=shown(path), after=_described(*said))
    yield from _pairs(reading, "metadata status changed", _STATUS)


def _described(kind: str, status: str, pairs: str, xml: str, reference: str) -> str:
    words = [f"{name}={value}" for name, value in json.loads(pairs)]
    words += [f"<{xml}>"] * bool(xml) + [reference] * bool(reference) + [status] * (status != "original")
    return f"{kind}: " + "; ".join(words)


def _rights(reading: Reading) -> Iterator[Change]:
    for path, words in reading.facts.rows(_RIGHTS.format(one="main", two="other", file="a", match="b")):
        yield Change(kind="rights removed", path=shown(path), before=_granted(**json.loads(words)))
    for path, words in reading.facts.rows(_RIGHTS.format(one="other", two="main", file="b", match="a")):
        yield Change(kind="rights added", path=shown(path), after=_granted(**json.loads(words)))


def _granted(basis: str, grounds: str, acts: list[str]) -> str:
    return " | ".join(filter(None, (basis, grounds, *acts)))


def _agents(reading: Reading) -> Iterator[Change]:
    for name, identifier in reading.facts.rows(_AGENTS.format(one="main", two="other")):
        yield Change(kind="agent removed", path="", before=_joined((name, identifier)))
    for name, identifier in reading.facts.rows(_AGENTS.format(one="other", two="main")):
        yield Change(kind="agent added", path="", after=_joined((name, identifier)))


def _others(reading: Reading) -> Iterator[Change]:
    """Payload that no METS names: logs, the METS itself."""
    for path, digest in reading.facts.rows(_OTHERS.format(one="main", two="other")):
        yield Change(kind="other file removed", path=shown(path), before=digest)
    for path, digest in reading.facts.rows(_OTHERS.format(one="other", two="main")):
        yield Change(kind="other file added", path=shown(path), after=digest)
    yield from _pairs(reading, "other file changed", _OTHERS_CHANGED)
