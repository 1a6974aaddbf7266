"""The bag's own files as they stand, whoever wrote them: manifests line by line (RFC 8493, 2.1.3 and 2.2.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ingestd.aip.container import shown
from ingestd.aip.facts import algorithm_name
from ingestd.errors import Violation
from ingestd.sources.names import NameRefused, split

if TYPE_CHECKING:
    from ingestd.aip.reading import Reading

TAG, PAYLOAD = "rfc8493.2.2.1", "rfc8493.2.1.3"
_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]+\*?(.+)", re.DOTALL)
_MANIFEST = re.compile(rb"(?:tag)?manifest-([A-Za-z0-9-]+)\.txt")
_LINE_BYTES = 64 * 1024
_REPORTED = 100


class Line(NamedTuple):
    """`raw` is the path as it stands; `path` with what is percent-encoded in it decoded."""

    number: int
    path: bytes
    raw: bytes
    digest: str


def manifests_of(reading: Reading) -> list[bytes]:
    """The names of the payload and tag manifests that are in the AIP's folder."""
    sql = "SELECT path FROM member WHERE (path >= ? AND path < ?) OR (path >= ? AND path < ?)"
    rows = reading.facts.rows(sql, (b"manifest-", b"manifest.", b"tagmanifest-", b"tagmanifest."))
    return [path for (path,) in rows if _MANIFEST.fullmatch(path)]


def read_manifests(reading: Reading) -> None:
    """Note what the manifests list; lines that say nothing go to the reading's troubles. Blocks."""
    for manifest in manifests_of(reading):
        found = _MANIFEST.fullmatch(manifest)
        algorithm = algorithm_name(found[1].decode()) if found else ""
        lines = _lines(reading, manifest)
        name = shown(manifest)
        while window := list(islice(lines, 500)):
            reading.facts.list_((name, algorithm, line.path, line.raw, line.digest, line.number) for line in window)
    reading.facts.settle_listed()


def _lines(reading: Reading, manifest: bytes) -> Iterator[Line]:
    rule = TAG if manifest.startswith(b"tag") else PAYLOAD
    reported = 0
    for number, raw in enumerate(_raw_lines(reading.local(manifest)), start=1):
        problem, line = _parsed(number, raw)
        if line is not None:
            yield line
        elif problem and reported < _REPORTED:
            reported += 1
            expected = "a digest, spaces, and a path below the bag"
            place = f"{shown(manifest)}:{number}"
            reading.troubles.append(Violation(path=place, rule=rule, expected=expected, actual=problem))


def _raw_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(_LINE_BYTES):
            yield line.rstrip(b"\r\n")


def _parsed(number: int, raw: bytes) -> tuple[str, Line | None]:
    if not raw.strip():
        return "", None
    found = _LINE.fullmatch(raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw)
    if found is None:
        return shown(raw[:200]), None
    name = found[2].removeprefix(b"./")
    decoded = re.sub(rb"%(0[dD]|0[aA]|25)", lambda code: bytes([int(code[1], 16)]), name)
    try:
        split(decoded)
    except NameRefused as refusal:
        return f"{shown(name[:200])}, which is not {refusal.expected}", None
    return "", Line(number, decoded, name, found[1].decode().lower())


def read_tags(path: Path) -> list[tuple[str, str]]:
    """Read `bag-info.txt` or `bagit.txt` (2.1.1, 2.2.2): labels and values, continued lines joined. At most 1 MiB."""
    with path.open("rb") as file:
        text = file.read(1024 * 1024).decode("utf-8-sig", "replace")
    pairs: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line[:1] in (" ", "\t") and pairs:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]} {line.strip()}")
        elif ":" in line:
            label, _, value = line.partition(":")
            pairs.append((label.strip(), value.strip()))
    return pairs
