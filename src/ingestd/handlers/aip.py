"""The AIP: METS, bag, package, and its verification and storage."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path

from ingestd import __version__
from ingestd.bag import COUNTED, Payload, described, read_manifest, write_tags
from ingestd.config import MetsProfile
from ingestd.errors import Code, StorageError, SystemFault, Violation
from ingestd.fixity import digest_file, digest_many
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.messages import CompressionAlgorithm
from ingestd.mets import structmap, validate, write
from ingestd.oais import KEPT, VERSIONS, Facts, File, Warning_, escape_name
from ingestd.premis import DigestAlgorithm, Event, EventOutcome, EventType, Program, now
from ingestd.results import of_replica, record_with_pointer
from ingestd.storage import Deposit
from ingestd.tools.packed import Member, digests
from ingestd.tools.packing import algorithm_of, pack, packed_name, stored_name
from ingestd.walking import WINDOW, used, walked

_IDENTIFIER = "External-Identifier"
_LISTED = 100


def mets_name(task: Task) -> str:
    return f"METS.{task.package.id}.xml"


async def generate_mets(task: Task, services: Services) -> Outcome:
    """Write the AIP's METS and prove it: METS and PREMIS schemas, Archivematica's schematron."""
    known = await task.history.facts()
    recorded = known.get("mets_created_at")
    created_at = datetime.fromisoformat(recorded) if recorded else now()
    path = task.at(mets_name(task))
    written = await write(
        task.history,
        task.package,
        path,
        created_at=created_at,
        document_empty_directories=task.options["normative-structmap"] == "yes",
        algorithm=services.settings.digest_algorithm,
        struct_map=task.folder / structmap.KEPT if structmap.FACT in known else None,
        compact=services.settings.mets.profile is MetsProfile.COMPACT,
        first_created_at=_first_created_at(known),
    )
    violations = await validate(path, event_types=await task.history.imported_event_types())
    if violations:
        raise SystemFault(
            f"the METS that was written is not valid: {violations[0].rule} {violations[0].actual}",
            violations=tuple(violations[:_LISTED]),
        )
    warnings = [
        Warning_(code=Code.TOOL_BAD_OUTPUT, detail=f"left out of the METS: {problem.actual}", path=problem.path)
        for problem in written.problems
    ]
    facts = {"mets_created_at": created_at.isoformat(), "mets_digest": written.digest.value}
    return Outcome(facts=Facts(package=facts, warnings=warnings))


def _first_created_at(facts: Mapping[str, str]) -> datetime | None:
    said = json.loads(facts.get(KEPT, "{}")).get("created_at")
    return datetime.fromisoformat(said) if said else None


# --- bag -------------------------------------------------------------------------------------------------------------


def bag_folder(task: Task) -> Path:
    return task.folder / "aip" / task.package.label


async def prepare_aip(task: Task, services: Services) -> Outcome:
    """Make the bag: the transfer becomes its payload by one rename, tags are written from the recorded digests."""
    algorithm = services.settings.digest_algorithm
    bag = bag_folder(task)
    await asyncio.to_thread(_become_payload, task.root, bag)
    information: dict[str, Sequence[str]] = {
        _IDENTIFIER: [text for text in (str(task.package.id), task.package.external_identifier) if text],
        "Bag-Software-Agent": [f"ingestd {__version__}"],
        "Source-Organization": [services.settings.organization.name],
    }
    facts = await task.history.facts()
    if KEPT in facts:
        before = bag / "data" / VERSIONS / str(json.loads(facts[KEPT])["version"])
        information = _with_former(information, await asyncio.to_thread(described, before))
    created_at = datetime.fromisoformat(facts["mets_created_at"])
    payload = _payload(task, bag / "data", algorithm)
    async with aclosing(payload):
        made = await write_tags(bag, payload, algorithm=algorithm, info=information, bagging_date=created_at.date())
    return Outcome(
        facts=Facts(
            package={
                "payload_files": str(made.files),
                "payload_bytes": str(made.size_bytes),
                "bag_digest": made.digest,
            }
        )
    )


def _with_former(
    information: Mapping[str, Sequence[str]], former: Mapping[str, Sequence[str]]
) -> dict[str, Sequence[str]]:
    """Add what the bag of the version before said of itself, and the new one does not say anew."""
    more = {label: values for label, values in former.items() if label not in {*information, *COUNTED}}
    identifiers = dict.fromkeys([*information[_IDENTIFIER], *former.get(_IDENTIFIER, ())])
    return {**more, **information, _IDENTIFIER: list(identifiers)}


def _become_payload(root: Path, bag: Path) -> None:
    data = bag / "data"
    if data.exists():
        return
    bag.mkdir(parents=True, exist_ok=True)
    root.rename(data)


async def _payload(task: Task, data: Path, algorithm: DigestAlgorithm) -> AsyncGenerator[list[Payload], None]:
    """Give every file of the payload with its digest: the recorded one, or, for what was written since, a new one.

    What is on disk and what is recorded must be the same, both ways.
    """
    seen = 0
    async for paths in walked(data):
        files = await task.history.files_at(paths)
        strange = [path for path in paths if path.startswith("objects/") and path not in files]
        if strange:
            raise SystemFault(f"{escape_name(strange[0])} is in the AIP but not in the records")
        seen += len(files)
        others = [path for path in paths if path not in files]
        sizes = await asyncio.to_thread(_sizes, data, paths)
        known = {path: file.digest.value for path, file in files.items() if file.digest}
        known |= await _digests(data, others, algorithm)
        _same_sizes(files, sizes)
        yield [Payload(path=path, digest=known[path], size_bytes=sizes[path]) for path in paths]
    recorded = (await task.history.totals()).files
    if seen != recorded:
        raise SystemFault(f"{recorded} files are recorded and {seen} are in the AIP")


def _sizes(root: Path, paths: Sequence[str]) -> dict[str, int]:
    return {path: os.lstat(root / path).st_size for path in paths}


async def _digests(root: Path, paths: Sequence[str], algorithm: DigestAlgorithm) -> dict[str, str]:
    full = [root / path for path in paths]
    values = [value async for batch in digest_many(full, algorithm) for _, value in batch]
    return dict(zip(paths, values, strict=True))


def _same_sizes(files: Mapping[str, File], sizes: Mapping[str, int]) -> None:
    for path, file in files.items():
        if file.size_bytes != sizes[path]:
            raise SystemFault(f"{path} has {sizes[path]} bytes; {file.size_bytes} were received")


# --- package ---------------------------------------------------------------------------------------------------------


def packed_path(task: Task) -> Path:
    """Where the AIP is once it is packed: the packed file, or the bag's folder."""
    return task.folder / "aip" / packed_name(task.package)


async def compress_aip(task: Task, services: Services) -> Outcome:
    """Pack the bag as the request asks, or leave it a folder."""
    algorithm = algorithm_of(task.package)
    path = packed_path(task)
    if algorithm is CompressionAlgorithm.UNCOMPRESSED:
        facts = await task.history.facts()
        size, _ = await asyncio.to_thread(used, path)
        return Outcome(facts=Facts(package={"aip_digest": facts["bag_digest"], "aip_size": str(size)}))
    await asyncio.to_thread(path.unlink, missing_ok=True)
    made = await pack(services.pool, bag_folder(task), path, algorithm, int(task.options["level"]))
    packed_at = now()
    digest_algorithm = services.settings.digest_algorithm
    digest = (await digest_file(path, [digest_algorithm]))[digest_algorithm]
    size = (await asyncio.to_thread(path.stat)).st_size
    package = {
        "aip_digest": digest,
        "aip_size": str(size),
        "packed_by": made.program,
        "packed_by_version": made.version,
        "packed_at": packed_at.isoformat(),
    }
    packed = Event(
        object=task.package.id, type=EventType.COMPRESSION, at=packed_at, detail=made.detail, programs=made.programs
    )
    return Outcome(
        facts=Facts(package=package, events=[packed]),
        tools=[ToolUse(name=made.program, version=made.version, used_for="packing")],
        now_with=made.program,
    )


# --- verification and storage ----------------------------------------------------------------------------------------


async def verify_aip(task: Task, services: Services) -> Outcome:
    """Read the packed AIP from its first byte to its last; hold every file against the bag's manifests, both ways."""
    algorithm = services.settings.digest_algorithm
    bag = bag_folder(task)
    expected = await _Expected.of(task, bag, algorithm)
    unpacked = algorithm_of(task.package) is CompressionAlgorithm.UNCOMPRESSED
    members = _folder_members(bag, algorithm) if unpacked else digests(packed_path(task), algorithm)
    async for window in members:
        await expected.meet(window)
    violations = await expected.violations()
    if violations:
        raise StorageError(
            f"the packed AIP differs from its bag in {expected.differences} place(s)",
            code=Code.STORAGE_VERIFY_MISMATCH,
            violations=tuple(violations),
        )
    verified_at = now()
    how = f"each of {expected.met} files read from the package, by {algorithm}"
    checked = Event(
        object=task.package.id,
        type=EventType.FIXITY_CHECK,
        at=verified_at,
        detail=Program("ingestd", __version__).words(method=how),
        outcome=EventOutcome.PASS,
    )
    package = {"verified_at": verified_at.isoformat(), "verified_files": str(expected.met), "verified_by": how}
    return Outcome(facts=Facts(package=package, events=[checked]))


async def _folder_members(bag: Path, algorithm: DigestAlgorithm) -> AsyncIterator[Sequence[Member]]:
    async for paths in walked(bag):
        values = await _digests(bag, paths, algorithm)
        sizes = await asyncio.to_thread(_sizes, bag, paths)
        yield [Member(path=f"{bag.name}/{path}", size_bytes=sizes[path], digest=values[path]) for path in paths]


class _Expected:
    """What must be in the package: recorded files by the journal, the few others by the manifests.

    Of the recorded files, one bit each is kept: whether it was met.
    """

    def __init__(self, task: Task, manifest: Path, others: Mapping[str, str]) -> None:
        self._history = task.history
        self._manifest = manifest
        self._prefix = f"{manifest.parent.name}/"
        self._others = others
        self._others_met: set[str] = set()
        self._rows_met = bytearray()
        self._found: list[Violation] = []
        self.differences = 0
        self.met = 0

    @classmethod
    async def of(cls, task: Task, bag: Path, algorithm: DigestAlgorithm) -> _Expected:
        others = await asyncio.to_thread(_other_files, bag, algorithm)
        return cls(task, bag / f"manifest-{algorithm}.txt", others)

    async def meet(self, members: Sequence[Member]) -> None:
        paths = [member.path.removeprefix(self._prefix) for member in members]
        files = await self._history.files_at([path.removeprefix("data/") for path in paths if path.startswith("data/")])
        for path, member in zip(paths, members, strict=True):
            file = files.get(path.removeprefix("data/")) if path.startswith("data/") else None
            expected = file.digest.value if file and file.digest else self._others.get(path)
            self.met += 1
            if expected is None:
                self._report(path, "manifest", actual="not in the manifests")
            elif expected != member.digest:
                self._report(path, "digest", expected=expected, actual=member.digest)
            if self._met_before(path, file):
                self._report(path, "manifest", expected="one file", actual="two of that name")

    def _met_before(self, path: str, file: File | None) -> bool:
        """Note that a file was met; say whether it had been before."""
        before = path in self._others_met
        if path in self._others:
            self._others_met.add(path)
        if file is None:
            return before
        before = self._is_met(file)
        self._rows_met.extend(bytes(max(0, file.row // 8 + 1 - len(self._rows_met))))
        self._rows_met[file.row // 8] |= 1 << file.row % 8
        return before

    def _is_met(self, file: File) -> bool:
        return file.row // 8 < len(self._rows_met) and bool(self._rows_met[file.row // 8] >> file.row % 8 & 1)

    async def violations(self) -> Sequence[Violation]:
        """Give the first differences, when all members have been met: what is missing is named too."""
        for path in sorted(self._others.keys() - self._others_met):
            self._report(path, "missing", expected="a file", actual="none")
        listed = (path.removeprefix("data/") for path, _ in read_manifest(self._manifest))
        while paths := await asyncio.to_thread(lambda: list(islice(listed, WINDOW))):
            for path, file in (await self._history.files_at(paths)).items():
                if not self._is_met(file) and f"data/{path}" not in self._others:
                    self._report(f"data/{path}", "missing", expected="a file", actual="none")
        return self._found

    def _report(self, path: str, rule: str, *, expected: str = "", actual: str) -> None:
        self.differences += 1
        if len(self._found) < _LISTED:
            self._found.append(Violation(path=escape_name(path), rule=rule, expected=expected, actual=actual))


def _other_files(bag: Path, algorithm: DigestAlgorithm) -> dict[str, str]:
    """The files of a bag that are not under `data/objects`, with their digests."""
    tag_manifest = bag / f"tagmanifest-{algorithm}.txt"
    others = dict(read_manifest(tag_manifest))
    payload = read_manifest(bag / f"manifest-{algorithm}.txt")
    others |= {path: digest for path, digest in payload if not path.startswith("data/objects/")}
    others[tag_manifest.name] = hashlib.new(algorithm, tag_manifest.read_bytes()).hexdigest()
    return others


async def store_aip(task: Task, services: Services) -> Outcome:
    """Hand the AIP to archival storage, which proves that it has it; then the working copy may go."""
    facts = await task.history.facts()
    path = task.folder / "aip" / stored_name(task.package)
    target = services.locations.get(task.target, trusted=task.trusted)
    await task.fence()
    copies = await target.store(
        path,
        Deposit(
            package=task.package.id,
            name=path.name,
            size_bytes=int(facts["aip_size"]),
            algorithm=services.settings.digest_algorithm,
            digest=facts["aip_digest"],
            companions=await asyncio.to_thread(_companions, task.folder / "companions"),
            supersedes=json.loads(facts.get(KEPT, "{}")).get("digest", ""),
        ),
        of_copy=partial(of_replica, task.package.id),
    )
    await asyncio.to_thread(shutil.rmtree, bag_folder(task), ignore_errors=True)
    warnings = [
        Warning_(code=error.code, detail=f"not stored on {place}: {error.detail}") for place, error in copies.failed
    ]
    records = [await record_with_pointer(target, one, task.package.id) for one in copies.stored]
    package = {"stored_url": copies.stored[0].url, "stored": json.dumps(records)}
    return Outcome(facts=Facts(package=package, warnings=warnings))


def _companions(folder: Path) -> dict[str, bytes]:
    """Small files that are to lie beside the AIP: its pointer file."""
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


async def keep_failed_package(task: Task, services: Services) -> Outcome:
    """The package failed. Its folder is kept as it is, to be looked at and resumed; what was only scratch goes."""
    await asyncio.to_thread(shutil.rmtree, task.folder / "scratch", ignore_errors=True)
    return Outcome()
