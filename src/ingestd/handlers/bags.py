"""What a bag lacks is fetched; what was proved becomes a transfer of the usual layout, as in Archivematica.

The payload becomes the objects, or, where it is a transfer itself, what it says it is; manifests become metadata, and
all other tag files go to `logs/BagIt`.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ingestd.bag import BAG, BagState, ToFetch, is_bag, manifests_in, read_declaration, read_fetch
from ingestd.errors import Code, ContentError, Violation
from ingestd.fixity import digest_with
from ingestd.job import Outcome, Services, Task
from ingestd.manifests import HASHES, leads_out, spellings, word_of
from ingestd.oais import Directory, Facts, File, MoreDigest, Rename, TransferType, escape_name
from ingestd.premis import Digest, now
from ingestd.sources.downloads import download, forget_download

_TAGS = "bag_tags"
_TOP_LEVEL = ("logs", "metadata", "objects")
_WINDOW = 256
_LISTED = 100


async def fetch_bag_files(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Fetch what the `fetch.txt` of a bag names and the bag lacks, if that is switched on (`sources.fetch_txt`).

    The hosts, sizes and redirects of sources are allowed, and no others. What cannot be fetched, or is not as large as
    it should be, is told by the verification, which finds it missing or wrong. Raises what `download` raises.
    """
    settings = services.settings.sources
    bagged = not (await task.history.facts()).get(BAG) and await asyncio.to_thread(is_bag, task.root)
    if not bagged or not settings.fetch_txt or task.package.type is TransferType.STANDARD:
        return
    declared = await asyncio.to_thread(read_declaration, task.at("bagit.txt"))
    words = [manifest.word for manifest in await asyncio.to_thread(manifests_in, task.root) if manifest.word]
    names = [HASHES[word] for word in {*words, services.settings.digest_algorithm.value}]
    lines = read_fetch(task.at("fetch.txt"), declared.encoding)
    while window := await asyncio.to_thread(lambda: list(islice(lines, _WINDOW))):
        for line in (line for line in window if isinstance(line, ToFetch)):
            path = _place_of(line)
            if path and path not in await task.history.taken([path]):
                left = settings.max_bytes - (await task.history.totals()).bytes
                limited = settings.model_copy(update={"max_bytes": max(left, 0)})
                fetched = await download(line.url, task.folder / "scratch", settings=limited, trusted=task.trusted)
                yield await _take(task, services, path, fetched.path, names)


def _place_of(line: ToFetch) -> str:
    """Where a line's file is to be; empty where it is not below `data` (which is told when the bag is verified)."""
    path = spellings(line.path)[0]
    return path if path.startswith("data/") and not leads_out(path) and not path.endswith("/") else ""


async def _take(task: Task, services: Services, path: str, fetched: Path, names: Sequence[str]) -> Outcome:
    def place() -> tuple[int, Mapping[str, str]]:
        to = task.at(path)
        to.parent.mkdir(parents=True, exist_ok=True)
        fetched.rename(to)
        forget_download(fetched.parent)
        return to.stat().st_size, digest_with(to, names)

    size, digests = await asyncio.to_thread(place)
    algorithm = services.settings.digest_algorithm
    parts = path.split("/")[:-1]
    parents = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    known = await task.history.taken(parents)
    id_ = uuid.uuid5(task.package.id, f"file:{escape_name(path)}")
    file = File(
        id=id_,
        path=path,
        original=path,
        size_bytes=size,
        digest=Digest(algorithm=algorithm, value=digests[algorithm], calculated_at=now()),
    )
    more = [MoreDigest(file=id_, algorithm=word_of(name), value=value) for name, value in digests.items()]
    folders = [Directory(path=parent, original=parent) for parent in parents if parent not in known]
    return Outcome(facts=Facts(directories=folders, files=[file], digests=more))


async def lay_out_bag(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Take a proved bag apart: `data` → `objects` (or its own `logs`, `metadata`, `objects`), tag files → `logs/BagIt`.

    Every move is recorded before any is made; then a walk through the disk makes what is not made yet.
    """
    facts = await task.history.facts()
    state = facts.get(BAG, "")
    tags = facts.get(_TAGS, "")
    if state == BagState.VERIFIED:
        await _refuse_collisions(task)
        tags = await asyncio.to_thread(_free_place, task.root)
        async for outcome in _plan(task, tags):
            yield outcome
    if state in {BagState.VERIFIED, BagState.MOVING}:
        await asyncio.to_thread(_move, task.root, task.folder / "scratch", tags)
        yield Outcome(facts=Facts(package={BAG: BagState.LAID_OUT}))


async def _plan(task: Task, tags: str) -> AsyncIterator[Outcome]:
    """Record where everything will be. Nothing on disk changes meanwhile, so it may be begun again.

    Tag files come first: a folder of them may have a name that the transfer needs.
    """
    root = task.root
    standard = await asyncio.to_thread(_folders_of_transfer, root / "data")
    for moves in (_moves_of_tags(root, tags), _moves_of_others(root / "data", standard)):
        while window := await asyncio.to_thread(lambda moves=moves: list(islice(moves, _WINDOW))):  # type: ignore[misc]
            yield Outcome(facts=Facts(renames=await _undone(task, window)))
    last = [(f"data/{name}", name) for name in standard] or [("data", "objects")]
    emptied = await task.history.directory_received_as("data") if standard else None
    directories = [Directory(path=path, original=path) for path in ("logs", tags, "metadata", "objects")]
    yield Outcome(
        facts=Facts(
            renames=await _undone(task, last),
            directories=[*directories, *([replace(emptied, removed=True)] if emptied else [])],
            package={BAG: BagState.MOVING, _TAGS: tags},
        )
    )


async def _undone(task: Task, moves: Sequence[tuple[str, str]]) -> list[Rename]:
    done = await task.history.taken([new for _, new in moves])
    return [Rename(old=old, new=new, as_received=True) for old, new in moves if new not in done]


def _moves_of_tags(root: Path, tags: str) -> Iterator[tuple[str, str]]:
    manifests = _manifests_for_metadata(root)
    # A folder that is called as one that is made here goes first, before there is anything else of that name.
    for name in [*_folders_of_transfer(root), *_children(root, but=["data", *_TOP_LEVEL, *manifests])]:
        yield name, f"{tags}/{name}"
    for name in manifests:
        yield name, f"metadata/{name}"


def _moves_of_others(payload: Path, standard: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Give the moves of what lies beside the payload's own `objects`, `metadata` or `logs`."""
    for name in _children(payload, but=standard) if standard else ():
        yield f"data/{name}", f"objects/{name}"


def _manifests_for_metadata(root: Path) -> list[str]:
    """The payload's manifests, but those whose name the payload's own metadata has."""
    names = [manifest.name for manifest in manifests_in(root) if not manifest.of_tags]
    return [name for name in names if not os.path.lexists(root / "data" / "metadata" / name)]


def _children(folder: Path, but: Sequence[str]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in but:
                yield entry.name


def _folders_of_transfer(payload: Path) -> list[str]:
    return [name for name in _TOP_LEVEL if (payload / name).is_dir()]


def _free_place(root: Path) -> str:
    """Where the tag files go: never where the payload's own logs are."""
    names = ("BagIt", *(f"BagIt-{number}" for number in range(1, 1000)))
    logs = (root / "logs", root / "data" / "logs")
    return next(f"logs/{name}" for name in names if not any(os.path.lexists(folder / name) for folder in logs))


async def _refuse_collisions(task: Task) -> None:
    def look() -> list[Violation]:
        payload = task.root / "data"
        standard = _folders_of_transfer(payload)
        if "objects" not in standard:
            return []
        twice = (name for name in _children(payload, but=standard) if os.path.lexists(payload / "objects" / name))
        return [
            Violation(path=escape_name(f"data/{name}"), rule="unique", expected=f"nothing else at data/objects/{name}")
            for name in islice(twice, _LISTED)
        ]

    if violations := await asyncio.to_thread(look):
        raise ContentError(
            "two things of the bag would have the same place in objects/",
            code=Code.CONTENT_NAME_COLLISION,
            violations=tuple(violations),
        )


def _move(root: Path, scratch: Path, tags: str) -> None:
    """Make the moves that are not made yet. Tags and payload are set aside first: their names may be each other's.

    What is aside tells how far an interrupted call came; without either, there are tags to set aside or nothing.
    """
    stage, payload = scratch / "bag-tags", scratch / "bag-payload"
    if (root / "data").is_dir() and not payload.exists() and not (root / tags).exists():
        stage.mkdir(parents=True, exist_ok=True)
        for name in list(_children(root, but=["data"])):
            (root / name).rename(stage / name)
        (root / "data").rename(payload)
    if payload.exists():
        _place_payload(root, payload)
    if stage.exists():
        (root / "metadata").mkdir(exist_ok=True)
        (root / tags).parent.mkdir(exist_ok=True)
        for manifest in manifests_in(stage):
            if not manifest.of_tags and not os.path.lexists(root / "metadata" / manifest.name):
                (stage / manifest.name).rename(root / "metadata" / manifest.name)
        stage.rename(root / tags)


def _place_payload(root: Path, payload: Path) -> None:
    if not _folders_of_transfer(payload) and not (root / "objects").exists():
        payload.rename(root / "objects")
        return
    for name in _folders_of_transfer(payload):
        if not (root / name).exists():
            (payload / name).rename(root / name)
    (root / "objects").mkdir(exist_ok=True)
    while names := list(islice(_children(payload, but=[]), _WINDOW)):
        for name in names:
            (payload / name).rename(root / "objects" / name)
    payload.rmdir()
