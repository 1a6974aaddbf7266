"""What others promised of files: a checksum that a repository wrote into its own records, held against the bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingestd.errors import Violation
from ingestd.fixity import digest_with
from ingestd.manifests import HASHES
from ingestd.oais import File, History, Warning_, escape_name
from ingestd.premis import Event, EventOutcome, EventType, now

UNVERIFIED = "content.checksum_unverified"
_NOT_A_WORD = re.compile("[^a-z0-9]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """A file's digest, and the algorithm as the promise calls it (`MD5`, `SHA-1`); `place` is where that is said."""

    file: File
    algorithm: str
    digest: str
    place: str


@dataclass(kw_only=True, slots=True)
class Kept:
    """What became of promises: an event `fixity check` of each file, what is wrong, and what could not be proved."""

    events: list[Event] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    warnings: list[Warning_] = field(default_factory=list)


async def prove(root: Path, history: History, promises: Sequence[Promise], source: str) -> Kept:
    """Hold a window of promises, made in the file `source`, against the files. What was told before is not told again.

    A file is read unless its digest by this algorithm is known.
    """
    kept = Kept()
    ids = [promise.file.id for promise in promises]
    known, events = await history.digests(ids), await history.events(ids)
    told = {(event.object, event.detail) for some in events.values() for event in some}
    for promise in promises:
        file, word = promise.file, _NOT_A_WORD.sub("", promise.algorithm.lower())
        value = known.get((file.id, word))
        if file.digest is not None and file.digest.algorithm == word:
            value = file.digest.value
        if value is None and word in HASHES and not file.removed:
            value = (await asyncio.to_thread(digest_with, root / file.path, [HASHES[word]]))[HASHES[word]]
        if value is None:
            why = "it was removed" if word in HASHES else "its algorithm is not known here"
            detail = f"{promise.place}: the {promise.algorithm} could not be checked, since {why}"
            kept.warnings.append(Warning_(code=UNVERIFIED, detail=detail, path=escape_name(file.path)))
            continue
        said = f'program="python"; module="hashlib.{HASHES[word]}()"; file="{escape_name(source)}"'
        passed = value == promise.digest
        if (file.id, said) not in told:
            outcome = EventOutcome.PASS if passed else EventOutcome.FAIL
            kept.events.append(
                Event(object=file.id, type=EventType.FIXITY_CHECK, at=now(), detail=said, outcome=outcome, note=value)
            )
        if not passed:
            expected = f"{promise.digest} ({promise.place})"
            kept.violations.append(
                Violation(path=escape_name(file.original), rule=word, expected=expected, actual=value)
            )
    return kept
