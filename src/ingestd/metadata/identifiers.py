"""`metadata/identifiers.json`: further identifiers of files, folders and the package, as Archivematica documents it.

An array of `{"file": "objects/…", "identifiers": [{"identifier": "…", "identifierType": "…"}]}`; a file that is empty
or `objects` is the package. Read item by item, so that memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestd.errors import Violation
from ingestd.metadata.objects import Entry, entries
from ingestd.metadata.rights import target_of

FILE = "metadata/identifiers.json"
EXAMPLE = '[{"file": "objects/letter.txt", "identifiers": [{"identifier": "10.1234/abcd", "identifierType": "DOI"}]}]'
_CHARACTERS = 4000
"""Longest type or value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """What one item says: further identifiers (type, value) of what is at `path`, `objects` for the package."""

    number: int
    line: int
    path: str
    identifiers: Sequence[tuple[str, str]]


def read(path: Path) -> Iterator[Named | Violation]:
    """Give each item, or everything that is wrong with it. Blocks; raises `OSError`."""
    for item in entries(path, FILE, EXAMPLE):
        if isinstance(item, Violation):
            yield item
            continue
        wrong = list(_wrong(item))
        if wrong:
            yield from wrong
        else:
            yield _named(item)


def _wrong(item: Entry) -> Iterator[Violation]:
    value = item.values
    if not isinstance(value.get("file"), str):
        yield _violation(item, "file", "the path of a file or folder as text", value.get("file"))
    listed = value.get("identifiers")
    if not isinstance(listed, list) or not listed:
        yield _violation(item, "identifiers", "a list of identifiers", listed)
        return
    for one in listed:
        for name in ("identifier", "identifierType"):
            said = one.get(name) if isinstance(one, dict) else one
            if not isinstance(said, str) or not said.strip() or len(said) > _CHARACTERS:
                yield _violation(item, name, "text", said)


def _violation(item: Entry, rule: str, expected: str, actual: Any) -> Violation:
    place = f"{FILE}:{item.line}"
    said = "nothing" if actual is None else ascii(actual)[:100]
    return Violation(path=place, rule=rule, expected=f"{expected}, for example {EXAMPLE}", actual=said)


def _named(item: Entry) -> Named:
    pairs = [(one["identifierType"].strip(), one["identifier"].strip()) for one in item.values["identifiers"]]
    path = target_of(item.values["file"].strip()) or "objects"
    return Named(number=item.number, line=item.line, path=path, identifiers=pairs)
