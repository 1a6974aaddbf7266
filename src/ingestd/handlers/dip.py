"""The DIP: access copies, thumbnails, texts and a METS in Archivematica's layout, packed, verified and stored.

::

    NAME-UUID/  METS.UUID.xml  objects/UUID-name  thumbnails/UUID.jpg  OCRfiles/name-UUID.txt

UUIDs are the AIP's and the originals'. What goes wrong here is a warning (`storage.dip_failed`): the AIP is not less
for it. So every error becomes one at which the workflow does not stop.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ingestd.errors import Cancelled, Code, IngestError, StorageError, SystemFault, Violation
from ingestd.fixity import digest_file
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.messages import CompressionAlgorithm
from ingestd.mets import Written, place_in_dip, validate, write_dip
from ingestd.oais import DIP, Facts, File, FileUse, escape_name
from ingestd.premis import DigestAlgorithm, now
from ingestd.storage import Deposit, PackageKind
from ingestd.tools.packed import Member, digests
from ingestd.tools.packing import pack, suffix

_FORM = CompressionAlgorithm.TAR
_LISTED = 100


def dip_id(task: Task) -> uuid.UUID:
    """Give the DIP's own identifier, under which it is stored: the same one in every attempt at the same request."""
    return uuid.uuid5(task.package.request_id or task.package.id, "dip")


def dip_folder(task: Task) -> Path:
    return task.folder / "dip" / task.package.label


def _packed(task: Task) -> Path:
    return task.folder / "dip" / f"{task.package.label}{suffix(_FORM)}"


async def set_dip_aside(task: Task, services: Services) -> Outcome:
    """Move what was made for the DIP out of the transfer, which becomes the AIP's payload."""
    await asyncio.to_thread(_set_aside, task.at(DIP), dip_folder(task))
    return Outcome()


def _set_aside(made: Path, folder: Path) -> None:
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    made.rename(folder)


async def make_dip(task: Task, services: Services) -> Outcome:
    """Add texts and METS, pack the folder, and read the packed bytes back: every file by its recorded digest."""
    packed = _packed(task)
    with _as_warning("made"):
        try:
            return await _make(task, services, packed)
        except BaseException:
            await asyncio.to_thread(packed.unlink, missing_ok=True)
            raise


async def _make(task: Task, services: Services, packed: Path) -> Outcome:
    folder, algorithm = dip_folder(task), services.settings.digest_algorithm
    texts = await _add_texts(task, folder)
    written = await _write_mets(task, folder, algorithm)
    made = await pack(services.pool, folder, packed, _FORM, 1)
    await _verify(task, packed, _Rest(mets=written.digest.value, files=texts + 1), algorithm)
    digest = (await digest_file(packed, [algorithm]))[algorithm]
    totals = await task.history.totals(under=DIP)
    facts = {
        "dip_id": str(dip_id(task)),
        "dip_digest": digest,
        "dip_size": str((await asyncio.to_thread(packed.stat)).st_size),
        "dip_mets_digest": written.digest.value,
        "dip_access": str(totals.by_use.get(FileUse.ACCESS, 0)),
        "dip_thumbnails": str(totals.by_use.get(FileUse.THUMBNAIL, 0)),
        "dip_texts": str(texts),
    }
    tools = [ToolUse(name=made.program, version=made.version, used_for="packing the DIP")]
    return Outcome(facts=Facts(package=facts), tools=tools, now_with=made.program)


async def _add_texts(task: Task, folder: Path) -> int:
    """Copy the texts that were read from pictures; give their number."""
    count = 0
    async for files in task.history.files(under="objects", uses=(FileUse.TEXT_OCR,)):
        await asyncio.to_thread(_copy, [(task.at(file.path), folder / place_in_dip(file)) for file in files])
        count += len(files)
    return count


def _copy(pairs: Sequence[tuple[Path, Path]]) -> None:
    for source, target in pairs:
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)


async def _write_mets(task: Task, folder: Path, algorithm: DigestAlgorithm) -> Written:
    path = folder / _mets(task)
    written = await write_dip(task.history, task.package, path, created_at=now(), algorithm=algorithm)
    violations = await validate(path, event_types=await task.history.imported_event_types())
    if violations:
        fault = f"the METS that was written is not valid: {violations[0].rule} {violations[0].actual}"
        raise SystemFault(fault, violations=tuple(violations[:_LISTED]))
    return written


def _mets(task: Task) -> str:
    return f"METS.{task.package.id}.xml"


# --- verification ----------------------------------------------------------------------------------------------------


class _Rest:
    """What is in a DIP beside the files that are recorded below `DIP`: digest of the METS, number of files."""

    def __init__(self, *, mets: str, files: int) -> None:
        self.mets = mets
        self.files = files


async def _verify(task: Task, packed: Path, rest: _Rest, algorithm: DigestAlgorithm) -> None:
    """Hold every packed file against the records, both ways. Raises `StorageError`."""
    expected = (await task.history.totals(under=DIP)).files + rest.files
    met = 0
    async for members in digests(packed, algorithm):
        met += len(members)
        for path, member, digest in await _known(task, members, rest):
            if digest != member.digest:
                _differs(Violation(path=path, rule="digest", expected=digest or "no such file", actual=member.digest))
    if met != expected:
        _differs(Violation(path="", rule="count", expected=str(expected), actual=str(met)))


async def _known(task: Task, members: Sequence[Member], rest: _Rest) -> Sequence[tuple[str, Member, str | None]]:
    """Give each member with its path in the DIP and the digest that it should have."""
    inside = {member.path.removeprefix(f"{task.package.label}/"): member for member in members}
    recorded = await task.history.files_at([place for path in inside for place in _places(path)])
    known = {place_in_dip(file): _digest(file) for file in recorded.values()} | {_mets(task): rest.mets}
    return [(escape_name(path), member, known.get(path)) for path, member in inside.items()]


def _places(path: str) -> Sequence[str]:
    """Say where a file of the DIP may be recorded: below `DIP`, or, a text, where it is in the AIP."""
    return [f"{DIP}/{path}", f"objects/metadata/{path}"]


def _digest(file: File) -> str | None:
    return file.digest.value if file.digest else None


def _differs(violation: Violation) -> None:
    detail = f"the packed DIP differs from its records: {violation.path or 'all'}: {violation.rule}"
    raise StorageError(detail, code=Code.STORAGE_VERIFY_MISMATCH, violations=(violation,))


# --- storage ---------------------------------------------------------------------------------------------------------


async def store_dip(task: Task, services: Services) -> Outcome:
    """Hand the DIP to the archival storage that has the AIP. Where none could be made, there is nothing to do."""
    facts = await task.history.facts()
    if "dip_digest" not in facts:
        return Outcome()
    path = _packed(task)
    with _as_warning("stored"):
        copies = await services.locations.get(task.target, trusted=task.trusted).store(
            path,
            Deposit(
                package=dip_id(task),
                name=path.name,
                size_bytes=int(facts["dip_size"]),
                algorithm=services.settings.digest_algorithm,
                digest=facts["dip_digest"],
                kind=PackageKind.DIP,
            ),
        )
    await asyncio.to_thread(shutil.rmtree, path.parent, ignore_errors=True)
    stored = json.dumps([one.record() for one in copies.stored])
    return Outcome(facts=Facts(package={"dip_stored_url": copies.stored[0].url, "dip_stored": stored}))


@contextmanager
def _as_warning(done: str) -> Iterator[None]:
    """Make of any error, a full disk and a store that is away too, one that the workflow walks past."""
    try:
        yield
    except Cancelled:
        raise
    except IngestError as error:
        detail = f"the DIP was not {done}: {error.detail} ({error.code})"
        raise StorageError(detail, code=Code.STORAGE_DIP_FAILED) from error
    except OSError as error:
        said = error.strerror or os.strerror(error.errno or 0)
        raise StorageError(f"the DIP was not {done}: {said}", code=Code.STORAGE_DIP_FAILED) from error
