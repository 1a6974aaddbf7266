"""The package as a whole: its encryption, and the pointer file that goes beside it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path

from ingestd.errors import Code, RequestError, Violation
from ingestd.fixity import digest_file
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.messages import CompressionAlgorithm
from ingestd.mets import Pointer, Transform, pointer_name, write_pointer
from ingestd.oais import Facts
from ingestd.premis import Digest, Event, EventType, Format, Program, now
from ingestd.tools import gpg
from ingestd.tools.packing import algorithm_of, packed_name, stored_name

_7Z = Format(name="7Zip", puid="fmt/484")
_TAR = Format(name="Tape Archive Format", puid="x-fmt/265")
_BZIP2 = Format(name="BZIP2 Compressed Archive", puid="x-fmt/268")
_GZIP = Format(name="GZIP", puid="x-fmt/266")
_PACKED_AS = {
    CompressionAlgorithm.S7_COPY: (_7Z, "copy"),
    CompressionAlgorithm.S7_LZMA: (_7Z, "lzma"),
    CompressionAlgorithm.S7_BZIP2: (_7Z, "bzip2"),
    CompressionAlgorithm.TAR: (_TAR, "tar"),
    CompressionAlgorithm.TAR_BZIP2: (_BZIP2, "pbzip2"),
    CompressionAlgorithm.TAR_GZIP: (_GZIP, "tar.gzip"),
    CompressionAlgorithm.TAR_ZSTD: (Format(name="Zstandard"), "zstd"),
}
"""The package's format, and what unpacks it in the words of Archivematica's pointer files."""
_OF_PACKAGE = (
    EventType.COMPRESSION,
    EventType.FIXITY_CHECK,
    EventType.ENCRYPTION,
    EventType.MESSAGE_DIGEST_CALCULATION,
)


async def encrypt_aip(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Encrypt the packed AIP, which was verified before: nobody here can decrypt it. Then what was not encrypted goes.

    Raises `RequestError` for an AIP that is to stay a folder, and what `gpg.encrypt` raises.
    """
    if algorithm_of(task.package) is CompressionAlgorithm.UNCOMPRESSED:
        raise _not_packed()
    plain = task.folder / "aip" / packed_name(task.package)
    facts = await task.history.facts()
    if "encryption" not in facts:
        yield await _encrypted(task, services, plain)
    await asyncio.to_thread(plain.unlink, missing_ok=True)
    await asyncio.to_thread(shutil.rmtree, task.folder / "aip" / task.package.label, ignore_errors=True)


async def _encrypted(task: Task, services: Services, plain: Path) -> Outcome:
    facts = await task.history.facts()
    path = task.folder / "aip" / stored_name(task.package)
    done = await gpg.encrypt(services.pool, services.settings.encryption, plain, path)
    algorithm = services.settings.digest_algorithm
    digest = (await digest_file(path, [algorithm]))[algorithm]
    program = Program(gpg.NAME, done.version)
    event = Event(
        object=task.package.id,
        type=EventType.ENCRYPTION,
        at=now(),
        detail=program.words(key=" ".join(done.keys)),
        programs=[program],
        note=f"before: {plain.name}, {facts['aip_size']} bytes, {algorithm} {facts['aip_digest']}",
    )
    package = {
        "aip_digest": digest,
        "aip_size": str((await asyncio.to_thread(path.stat)).st_size),
        "verified_by": f"{facts['verified_by']}, before it was encrypted",
        "encryption": json.dumps({"program": gpg.NAME, "version": done.version, "keys": list(done.keys)}),
    }
    tool = ToolUse(name="GnuPG", version=done.version, used_for="encryption")
    return Outcome(facts=Facts(package=package, events=[event]), tools=[tool], now_with="GnuPG")


def _not_packed() -> RequestError:
    violation = Violation(path="processing.aip_compression_algorithm", rule="unpacked", actual="uncompressed")
    return RequestError(
        "an AIP that is left a folder cannot be encrypted",
        code=Code.REQUEST_SCHEMA_INVALID,
        violations=(violation,),
        remediation="Let it be packed (`aip_compression_algorithm`), or do without `encrypt_aip`.",
    )


async def write_pointer_file(task: Task, services: Services) -> Outcome:
    """Write the pointer file of a packed AIP, to be stored beside it. An AIP that is a folder has none."""
    algorithm = algorithm_of(task.package)
    if algorithm is CompressionAlgorithm.UNCOMPRESSED:
        return Outcome()
    facts = await task.history.facts()
    format_, unpacks = _PACKED_AS[algorithm]
    keys = json.loads(facts["encryption"])["keys"] if "encryption" in facts else []
    packed_at = datetime.fromisoformat(facts["packed_at"])
    events = await _events(task)
    digest = Digest(
        algorithm=services.settings.digest_algorithm, value=facts["aip_digest"], calculated_at=events[-1].at
    )
    said = Pointer(
        package=task.package.id,
        name=stored_name(task.package),
        label=task.package.label,
        size_bytes=int(facts["aip_size"]),
        digest=digest,
        format=format_,
        program=facts["packed_by"],
        version=facts["packed_by_version"],
        packed_at=packed_at,
        transforms=_transforms(unpacks, keys),
        events=events,
        agents=await task.history.agents(),
        created_at=now(),
        keys=keys,
    )
    text = await asyncio.to_thread(write_pointer, said)
    await asyncio.to_thread(_write, task.folder / "companions" / pointer_name(task.package.id), text)
    return Outcome()


async def _events(task: Task) -> Sequence[Event]:
    """What happened to the package, each once: where something had to be done anew, the last time counts."""
    known = (await task.history.events([task.package.id])).get(task.package.id, ())
    last = {event.type: event for event in known if event.type in _OF_PACKAGE}
    return sorted(last.values(), key=lambda event: event.at)


def _transforms(unpacks: str, keys: Sequence[str]) -> Sequence[Transform]:
    decrypt = [Transform(kind="decryption", algorithm=gpg.NAME, order="1", key=" ".join(keys))] if keys else []
    return [*decrypt, Transform(kind="decompression", algorithm=unpacks, order=str(len(decrypt) + 1))]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    partial = path.parent.with_name("pointer.part")
    partial.write_bytes(content)
    partial.replace(path)
