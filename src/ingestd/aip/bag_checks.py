"""The bag of an AIP held against RFC 8493 (BagIt 1.0; 0.9x alike): a rule is the section that is broken. Blocks."""

from __future__ import annotations

from collections.abc import Iterator

from ingestd.aip.container import shown
from ingestd.aip.manifests import PAYLOAD, TAG, read_tags
from ingestd.aip.reading import ALGORITHMS, Reading
from ingestd.errors import Violation

DECLARATION, OXUM, FETCH = "rfc8493.2.1.1", "rfc8493.2.2.2", "rfc8493.2.2.3"
COMPLETE, VALID = "rfc8493.3.complete", "rfc8493.3.valid"

_MISSING = """
SELECT DISTINCT manifest, path FROM listed WHERE manifest {tag} LIKE 'tag%'
    AND NOT EXISTS (SELECT 1 FROM member WHERE member.path = listed.path) ORDER BY path
"""
_UNLISTED = """
SELECT path FROM member WHERE path >= CAST('data/' AS BLOB) AND path < CAST('data0' AS BLOB)
    AND NOT EXISTS (SELECT 1 FROM listed WHERE listed.path = member.path AND listed.manifest = ?) ORDER BY path
"""
_UNTAGGED = """
SELECT path FROM member WHERE path IN (CAST('bagit.txt' AS BLOB), CAST('bag-info.txt' AS BLOB), ?)
    AND NOT EXISTS (SELECT 1 FROM listed WHERE listed.path = member.path AND listed.manifest = ?) ORDER BY path
"""


def check_bag(reading: Reading) -> Iterator[Violation]:
    """Completeness, both ways, and validity (section 3), and the bag's own files."""
    if not reading.is_bag and reading.troubles and reading.mets is None:
        return  # nothing could be read: that has been said
    yield from _declaration(reading)
    yield from _payload_manifests(reading)
    yield from _tag_manifests(reading)
    yield from _digests(reading)
    yield from _oxum(reading)
    if reading.facts.has(b"fetch.txt"):
        actual = "a list of payload that is elsewhere"
        yield Violation(path="fetch.txt", rule=FETCH, expected="a bag that holds everything", actual=actual)


def _declaration(reading: Reading) -> Iterator[Violation]:
    expected = "BagIt-Version and Tag-File-Character-Encoding"
    if not reading.facts.has(b"bagit.txt"):
        yield Violation(path="bagit.txt", rule=DECLARATION, expected=expected, actual="no such file")
        return
    labels = [label for label, _ in read_tags(reading.local(b"bagit.txt"))]
    if labels != ["BagIt-Version", "Tag-File-Character-Encoding"]:
        yield Violation(path="bagit.txt", rule=DECLARATION, expected=expected, actual=", ".join(labels)[:200])


def _names(reading: Reading, start: bytes) -> list[str]:
    sql = "SELECT path FROM member WHERE path >= ? AND path < ? ORDER BY path"
    return [shown(path) for (path,) in reading.facts.rows(sql, (start + b"-", start + b"."))]


def _payload_manifests(reading: Reading) -> Iterator[Violation]:
    manifests = _names(reading, b"manifest")
    if not manifests:
        yield Violation(path="", rule=PAYLOAD, expected="a payload manifest", actual="none")
    for manifest, path in reading.facts.rows(_MISSING.format(tag="NOT")):
        yield Violation(path=shown(path), rule=COMPLETE, expected=f"a file, as {manifest} says", actual="no such file")
    for manifest in manifests:
        for (path,) in reading.facts.rows(_UNLISTED, (manifest,)):
            expected = f"every payload file in {manifest}"
            yield Violation(path=shown(path), rule=COMPLETE, expected=expected, actual="a file that it does not list")


def _tag_manifests(reading: Reading) -> Iterator[Violation]:
    for manifest, path in reading.facts.rows(_MISSING.format(tag="")):
        yield Violation(path=shown(path), rule=TAG, expected=f"a file, as {manifest} says", actual="no such file")
    for manifest in _names(reading, b"tagmanifest"):
        own = manifest.removeprefix("tag").encode()
        for (path,) in reading.facts.rows(_UNTAGGED, (own, manifest)):
            expected = f"every tag file in {manifest}"
            yield Violation(path=shown(path), rule=TAG, expected=expected, actual="a file that it does not list")


def _digests(reading: Reading) -> Iterator[Violation]:
    for algorithm in sorted(ALGORITHMS):
        sql = f"""SELECT manifest, listed.path, digest, {algorithm} FROM listed JOIN member USING (path)
            WHERE algorithm = ? AND {algorithm} IS NOT NULL AND digest <> {algorithm} ORDER BY 2"""  # noqa: S608  a column
        for manifest, path, expected, actual in reading.facts.rows(sql, (algorithm,)):
            rule = TAG if manifest.startswith("tag") else VALID
            told = f"{algorithm} {expected} ({manifest})"
            yield Violation(path=shown(path), rule=rule, expected=told, actual=f"{algorithm} {actual}")


def _oxum(reading: Reading) -> Iterator[Violation]:
    if not reading.facts.has(b"bag-info.txt"):
        return
    found = reading.facts.row(
        "SELECT count(*), coalesce(sum(size_bytes), 0) FROM member"
        " WHERE path >= CAST('data/' AS BLOB) AND path < CAST('data0' AS BLOB)"
    )
    actual = f"{found[1]}.{found[0]}" if found else ""
    for label, value in read_tags(reading.local(b"bag-info.txt")):
        if label.lower() == "payload-oxum" and value != actual:
            yield Violation(path="bag-info.txt", rule=OXUM, expected=f"Payload-Oxum: {value}", actual=actual)
