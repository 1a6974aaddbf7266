"""Sizes and message digests as events, and what others promised of them: bags and checksum files.

Digests were calculated as the bytes came in, and are facts since: a manifest is held against the records, and a file is
only read again where nobody foresaw that its manifest would ask for this algorithm.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from ingestd.bag import (
    BAG,
    BagState,
    Declaration,
    Manifest,
    info_of,
    is_bag,
    manifests_in,
    no_bag,
    read_declaration,
    read_fetch,
    read_info,
)
from ingestd.errors import Code, ContentError, Violation
from ingestd.fixity import digest_file, digest_with
from ingestd.job import Outcome, Services, Task
from ingestd.manifests import HASHES, Entry, Wrong, leads_out, read, spellings
from ingestd.oais import Description, Facts, File, Section, TransferType, Warning_, escape_name
from ingestd.premis import Digest, DigestAlgorithm, Event, EventOutcome, EventType, now

_WINDOW = 256
_OXUM = "Payload-Oxum"
_CHECKSUMS = tuple(f"checksum.{algorithm}" for algorithm in DigestAlgorithm)


async def assign_checksums_and_file_sizes(task: Task, services: Services) -> Outcome:
    """Say of each file when and how its message digest was calculated; calculate it where that was not done yet."""
    files = [await _with_digest(task, file, services.settings.digest_algorithm) for file in task.came_now]
    events = [
        Event(
            object=file.id,
            type=EventType.MESSAGE_DIGEST_CALCULATION,
            at=file.digest.calculated_at,
            detail=f'program="python"; module="hashlib.{file.digest.algorithm}()"',
            note=file.digest.value,
        )
        for file in files
        if file.digest
    ]
    return Outcome(facts=Facts(files=files, events=events))


async def _with_digest(task: Task, file: File, algorithm: DigestAlgorithm) -> File:
    if file.digest is not None:
        return file
    path = task.at(file.path)
    value = (await digest_file(path, [algorithm]))[algorithm]
    size = (await asyncio.to_thread(path.stat)).st_size
    return replace(file, size_bytes=size, digest=Digest(algorithm=algorithm, value=value, calculated_at=now()))


# --- bags ------------------------------------------------------------------------------------------------------------


async def verify_bag(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Prove a bag (RFC 8493, 3): complete, and every digest of every manifest is right. What is no bag passes.

    Each file gets a `fixity check` for each manifest that names it. Everything that is wrong is told in one
    `content.bag_invalid`.
    """
    if (await task.history.facts()).get(BAG) or task.package.type is TransferType.STANDARD:
        return
    if not await asyncio.to_thread(is_bag, task.root):
        if task.package.type is TransferType.BAG:
            raise no_bag()
        return
    declared = await asyncio.to_thread(read_declaration, task.at("bagit.txt"))
    manifests = await asyncio.to_thread(manifests_in, task.root)
    wrong = Wrong()
    for violation in (*declared.faults, *await asyncio.to_thread(lambda: _structure(task, manifests))):
        wrong.add(violation)
    for manifest in manifests:
        if manifest.word:
            async for outcome in _verify(task, _in_bag(task, manifest, declared), wrong):
                yield outcome
    checks = [_in_bag(task, manifest, declared) for manifest in manifests if manifest.word and not manifest.of_tags]
    await _all_listed(task, checks, "data", wrong, each=declared.version == "1.0")
    info = await _tags(task, declared, wrong)
    if wrong.total:
        raise ContentError(f"the bag is not valid: {wrong}", code=Code.CONTENT_BAG_INVALID, violations=wrong.listed)
    unread = [manifest.name for manifest in manifests if not manifest.word]
    warnings = [
        Warning_(code="content.bag_manifest_unread", detail="its algorithm is not known here", path=name)
        for name in unread
    ]
    said = Description(target=task.package.id, kind="BagIt", pairs=info, section=Section.SOURCE)
    descriptions = [said] if info else []
    yield Outcome(facts=Facts(warnings=warnings, descriptions=descriptions, package={BAG: BagState.VERIFIED}))


def _structure(task: Task, manifests: Sequence[Manifest]) -> Iterator[Violation]:
    if not task.at("data").is_dir():
        yield Violation(path="data", rule="payload", expected="a folder", actual="nothing of this name")
    if not any(manifest.word for manifest in manifests if not manifest.of_tags):
        names = ", ".join(manifest.name for manifest in manifests if not manifest.of_tags) or "none"
        expected = "manifest-ALGORITHM.txt with md5, sha1, sha256, sha512 or another that is known here"
        yield Violation(path="", rule="manifest", expected=expected, actual=names)


async def _tags(task: Task, declared: Declaration, wrong: Wrong) -> list[tuple[str, str]]:
    """Hold the bag's own counts, and what it says is yet to be fetched, against what is here. Gives its description."""
    totals = await task.history.totals(under="data")
    here = f"{totals.bytes}.{totals.files}"
    name = await asyncio.to_thread(info_of, task.root)
    lines_of_info = read_info(task.at(name), declared.encoding, name=name) if name else iter(())
    info = await asyncio.to_thread(list, lines_of_info)
    for item in info:
        if isinstance(item, Violation):
            wrong.add(item)
        elif item[0].lower() == _OXUM.lower() and item[1] != here:
            wrong.add(Violation(path="bag-info.txt", rule=_OXUM, expected=item[1][:200], actual=here))
    lines = read_fetch(task.at("fetch.txt"), declared.encoding)
    while window := await asyncio.to_thread(lambda: list(islice(lines, _WINDOW))):
        names = {line.path: spellings(line.path) for line in window if not isinstance(line, Violation)}
        there = await task.history.taken([name for some in names.values() for name in some])
        for line in window:
            if isinstance(line, Violation):
                wrong.add(line)
            elif not _of_payload(line.path):
                named = escape_name(line.path)
                expected = "a path below data/"
                place = f"fetch.txt:{line.line}"
                wrong.add(Violation(path=place, rule=Code.CONTENT_PATH_TRAVERSAL, expected=expected, actual=named))
            elif there.isdisjoint(names[line.path]):
                expected = "the file itself, or sources.fetch_txt switched on"
                wrong.add(
                    Violation(path=escape_name(line.path), rule="fetch", expected=expected, actual=line.url[:500])
                )
    return [item for item in info if not isinstance(item, Violation)]


# --- checksum files --------------------------------------------------------------------------------------------------


async def verify_checksum_manifests(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Hold `metadata/checksum.{md5,sha1,sha256,sha512}` against the objects: each names every object, and rightly.

    Paths are relative to `objects/`. Each file gets a `fixity check`. Everything that is wrong is told in one
    `content.checksum_manifest_mismatch`.
    """
    wrong = Wrong()
    for name in _CHECKSUMS:
        if not await asyncio.to_thread(task.at(f"metadata/{name}").is_file):
            continue
        check = _Check(
            name=f"metadata/{name}",
            word=name.partition(".")[2],
            places=_among_objects,
            detail=f'file="metadata/{name}"',
        )
        async for outcome in _verify(task, check, wrong):
            yield outcome
        await _all_listed(task, [check], "objects", wrong, each=True)
    if wrong.total:
        raise ContentError(
            f"checksum files do not match the files: {wrong}",
            code=Code.CONTENT_CHECKSUM_MANIFEST_MISMATCH,
            violations=wrong.listed,
        )


def _among_objects(path: str) -> list[str]:
    """Where a path of a checksum file leads: relative to `objects/`, to `metadata/`, or to the transfer."""
    plain = path.removeprefix("./")
    if plain.startswith("../objects/"):
        plain = plain.removeprefix("../")
        return [] if leads_out(plain) else [plain]
    return [] if leads_out(plain) else [f"objects/{plain}", plain]


# --- what both share -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Check:
    """One manifest that is held against the records.

    `places` gives where a path of it may be, best first; none where it may not be named at all. `detail` tells the
    manifest's events from others.
    """

    name: str
    word: str
    places: Callable[[str], list[str]]
    detail: str
    encoding: str = "utf-8"
    outcome: EventOutcome = EventOutcome.PASS

    @property
    def said(self) -> str:
        return f'program="python"; module="hashlib.{HASHES[self.word]}()"; {self.detail}'


@dataclass(kw_only=True, slots=True)
class _Found:
    """The files of one window of a manifest: by where they are, with what is known of each."""

    files: dict[str, File]
    digests: dict[tuple[uuid.UUID, str], str]
    told: set[tuple[uuid.UUID, str]]
    events: list[Event] = field(default_factory=list)
    warnings: list[Warning_] = field(default_factory=list)


def _in_bag(task: Task, manifest: Manifest, declared: Declaration) -> _Check:
    words = "Bagit - verifytagmanifests" if manifest.of_tags else "Bagit - verifypayloadmanifests"
    return _Check(
        name=manifest.name,
        word=manifest.word,
        places=_of_tags if manifest.of_tags else _of_payload,
        detail=f'{words}; manifest="{manifest.name}"',
        encoding=declared.encoding,
        outcome=EventOutcome.CLEAN,
    )


def _of_payload(path: str) -> list[str]:
    plain = path.removeprefix("./")
    return [each for each in spellings(plain) if each.startswith("data/") and not leads_out(each)]


def _of_tags(path: str) -> list[str]:
    return [each for each in spellings(path) if not each.startswith("data/") and not leads_out(each)]


async def _verify(task: Task, check: _Check, wrong: Wrong) -> AsyncIterator[Outcome]:
    """Go through a manifest in windows: compare, tell, and note what is wrong."""
    lines = read(task.at(check.name), check.word, name=check.name, encoding=check.encoding)
    while window := await asyncio.to_thread(lambda: list(islice(lines, _WINDOW))):
        found = await _find(task, check, [line for line in window if isinstance(line, Entry)])
        for line in window:
            violation = line if isinstance(line, Violation) else await _compare(task, check, line, found)
            if violation is not None:
                wrong.add(violation)
        if found.events or found.warnings:
            yield Outcome(facts=Facts(events=found.events, warnings=found.warnings))


async def _find(task: Task, check: _Check, entries: Sequence[Entry]) -> _Found:
    places = list(dict.fromkeys(place for entry in entries for place in check.places(entry.path)))
    files = dict(await task.history.files_at(places))
    if lost := [place for place in places if place not in files]:
        # Hidden and system files were removed, which is no fault of the manifest: what they were is still known.
        files |= await task.history.files_received_as(lost, removed=True)
    ids = [file.id for file in files.values()]
    events = await task.history.events(ids)
    told = {(event.object, event.note) for some in events.values() for event in some if event.detail == check.said}
    return _Found(files=files, digests=dict(await task.history.digests(ids)), told=told)


async def _compare(task: Task, check: _Check, entry: Entry, found: _Found) -> Violation | None:
    """Hold one line against its file; add the event of it. Gives what is wrong."""
    place = f"{check.name}:{entry.line}"
    named = escape_name(entry.path)
    places = check.places(entry.path)
    if not places:
        expected = "a path below data/" if check.places is _of_payload else "a path that stays within the transfer"
        return Violation(path=place, rule=Code.CONTENT_PATH_TRAVERSAL.value, expected=expected, actual=named)
    file = next((found.files[each] for each in places if each in found.files), None)
    if file is None:
        return Violation(path=named, rule="present", expected=f"a file, since {place} names it", actual="no such file")
    value = await _digest(task, check.word, file, found)
    if value is None:
        detail = f"{check.name} names it; it was removed, and its {check.word} is not known"
        found.warnings.append(Warning_(code="content.checksum_unverified", detail=detail, path=named))
        return None
    passed = value == entry.digest
    if (file.id, value) not in found.told:
        found.told.add((file.id, value))
        outcome = check.outcome if passed else EventOutcome.FAIL
        found.events.append(
            Event(object=file.id, type=EventType.FIXITY_CHECK, at=now(), detail=check.said, outcome=outcome, note=value)
        )
    if passed:
        return None
    return Violation(path=named, rule=check.word, expected=f"{entry.digest} ({place})", actual=value)


async def _digest(task: Task, word: str, file: File, found: _Found) -> str | None:
    """What is known of the file, or is read now; None for a removed file of which it is not known."""
    if file.digest is not None and file.digest.algorithm == word:
        return file.digest.value
    if (file.id, word) not in found.digests and not file.removed:
        name = HASHES[word]
        found.digests[file.id, word] = (await asyncio.to_thread(digest_with, task.at(file.path), [name]))[name]
    return found.digests.get((file.id, word))


async def _all_listed(task: Task, checks: Sequence[_Check], under: str, wrong: Wrong, *, each: bool) -> None:
    """Find the files that are not named by all manifests (`each`), or by none. The events tell which were named."""
    if not checks:
        return
    said = {check.said: check.name for check in checks}
    async for files in task.history.files(under=under, window=_WINDOW):
        events = await task.history.events([file.id for file in files])
        for file in files:
            named = {event.detail for event in events.get(file.id, ())}
            missing = [name for detail, name in said.items() if detail not in named]
            if missing and (each or len(missing) == len(said)):
                expected = f"a line in {', '.join(missing)}"
                wrong.add(Violation(path=escape_name(file.path), rule="listed", expected=expected, actual="none"))
