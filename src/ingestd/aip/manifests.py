"""The bag's own files as they stand, whoever wrote them: what its manifests list, and its tags (RFC 8493)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ingestd import manifests
from ingestd.aip.container import shown
from ingestd.errors import Violation

if TYPE_CHECKING:
    from ingestd.aip.reading import Reading

TAG, PAYLOAD = "rfc8493.2.2.1", "rfc8493.2.1.3"
_MANIFEST = re.compile(rb"(?:tag)?manifest-([A-Za-z0-9-_]+)\.txt")


def manifests_of(reading: Reading) -> list[bytes]:
    """The names of the payload and tag manifests that are in the AIP's folder."""
    sql = "SELECT path FROM member WHERE (path >= ? AND path < ?) OR (path >= ? AND path < ?)"
    rows = reading.facts.rows(sql, (b"manifest-", b"manifest.", b"tagmanifest-", b"tagmanifest."))
    return [path for (path,) in rows if _MANIFEST.fullmatch(path)]


def read_manifests(reading: Reading) -> None:
    """Note what the manifests list; lines that say nothing go to the reading's troubles. Blocks."""
    encoding = _encoding(reading)
    for manifest in manifests_of(reading):
        found = _MANIFEST.fullmatch(manifest)
        word = manifests.word_of(found[1].decode()) if found else ""
        rule = TAG if manifest.startswith(b"tag") else PAYLOAD
        if not word:
            expected = "a manifest by an algorithm that is known"
            reading.troubles.append(Violation(path=shown(manifest), rule=rule, expected=expected, actual="another"))
            continue
        lines = _lines(reading, manifest, word, rule, encoding)
        while window := list(islice(lines, 500)):
            reading.facts.list_(window)
    reading.facts.settle_listed()


def _encoding(reading: Reading) -> str:
    tags = read_tags(reading.local(b"bagit.txt")) if reading.facts.has(b"bagit.txt") else []
    return next((value for label, value in tags if label == "Tag-File-Character-Encoding"), "utf-8")


def _lines(
    reading: Reading, manifest: bytes, word: str, rule: str, encoding: str
) -> Iterator[tuple[str, str, bytes, bytes, str, int]]:
    """Lines as `Facts.list_` takes them."""
    name = shown(manifest)
    wrong = manifests.Wrong()
    for line in manifests.read(reading.local(manifest), word, name=name, encoding=encoding):
        if isinstance(line, Violation):
            wrong.add(Violation(path=line.path, rule=rule, expected=line.expected, actual=line.actual))
        elif manifests.leads_out(line.path):
            expected = "a path that stays within the bag"
            wrong.add(Violation(path=f"{name}:{line.line}", rule=rule, expected=expected, actual=shown_path(line.path)))
        else:
            path = manifests.spellings(line.path)[0]
            raw = line.path.removeprefix("./")
            yield name, word, os.fsencode(path), os.fsencode(raw), line.digest, line.line
    reading.troubles += wrong.listed


def shown_path(path: str) -> str:
    """A path that a stranger wrote, cut to what people read."""
    return shown(os.fsencode(path))[:200]


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
