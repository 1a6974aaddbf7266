"""The pointer file of a packed AIP: a METS beside it that says what the package as a whole must be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ingestd.aip.container import FOLDER
from ingestd.aip.facts import algorithm_name
from ingestd.aip.mets_checks import FIXITY, IDENTIFIER, SIZE
from ingestd.aip.reading import ALGORITHMS, Reading, uuid_in
from ingestd.errors import ContentError, Violation
from ingestd.mets import ReadAgent, ReadFile, Transform, read, read_transforms, validate
from ingestd.premis import DigestAlgorithm, EventType

_UNPACKED_BY = {
    "bzip2": {"7z", "tar.bz2"},
    "pbzip2": {"tar.bz2"},
    "lzma": {"7z"},
    "lzma2": {"7z"},
    "copy": {"7z"},
    "gzip": {"tar.gz"},
    "tar.gzip": {"tar.gz"},
    "zstd": {"tar.zst"},
    "tar": {"tar"},
}
"""TRANSFORMALGORITHM, in Archivematica's words, and the packages that it may stand for."""

_OURS = "ingestd"
_VERSION = re.compile(r"v\d+")
_BEFORE = re.compile(r"before: [^,]+, (\d{1,18}) bytes, (\w+) ([0-9a-f]+)")
"""How `handlers.pointer` notes what was encrypted."""


async def check_pointer(reading: Reading, pointer: Path | None) -> tuple[Sequence[Violation], str]:
    """Hold a package against its pointer file: the findings, and the pointer file's name (empty if there is none).

    Where none is named, `pointer.UUID.xml` beside the package is taken; that it is not there is a finding for an AIP in
    archival storage. Raises `OSError` where one is named that cannot be read.
    """
    path = reading.container.path
    if reading.container.form == FOLDER:
        if pointer:
            reading.notes.append("the pointer file was not looked at: an AIP that is a folder has none")
        return [], ""
    identifier = await reading.run(lambda: reading.identifier) or uuid_in(path.name)
    pointer = pointer or path.with_name(f"pointer.{identifier}.xml")
    try:
        records = [record async for window in read(pointer) for record in window]
        transforms = await reading.run(partial(read_transforms, pointer))
    except ContentError as error:
        return [Violation(path=pointer.name, rule=v.rule, actual=v.actual) for v in error.violations], pointer.name
    except FileNotFoundError:
        if pointer.parent != path.parent or identifier not in pointer.name:
            raise
        return await asyncio.to_thread(_without, reading, pointer, identifier), ""
    entries = [record for record in records if isinstance(record, ReadFile)]
    locked = any(transform.kind == "decryption" for transform in transforms)
    if locked:
        entries = [_decrypted(reading, entry) for entry in entries]
    found = list(_shape(reading, pointer, entries, transforms, identifier))
    for entry in entries[:1]:
        if entry.digests or not locked:
            found += await _package(reading, pointer.name, entry)
    if any(isinstance(record, ReadAgent) and record.name == _OURS for record in records):
        found += await _valid(pointer)
    return found, pointer.name


def _without(reading: Reading, pointer: Path, identifier: str) -> list[Violation]:
    """What it is that there is no pointer file: of a lone package, a note."""
    if not _is_stored(reading.container.path, identifier):
        reading.notes.append("there is no pointer file beside the package")
        return []
    expected = "a pointer file beside the package, as archival storage keeps them"
    return [Violation(path=pointer.name, rule="package.pointer", expected=expected, actual="none")]


def _is_stored(path: Path, identifier: str) -> bool:
    """Whether a package lies as archival storage keeps it: in its place of a pairtree, committed by the checksum file
    beside it, or in an object of an OCFL storage root.
    """
    folder = path.absolute().parent
    if folder.name == "content" and _VERSION.fullmatch(folder.parent.name):
        return (folder.parent.parent / "inventory.json").is_file()
    digits = "".join((folder.parent if _VERSION.fullmatch(folder.name) else folder).parts[-8:])
    committed = any(path.with_name(f"{path.name}.{algorithm}").is_file() for algorithm in DigestAlgorithm)
    return committed and digits == identifier.replace("-", "")


async def _valid(pointer: Path) -> list[Violation]:
    """Hold a pointer file of ours against METS' and PREMIS' schemas; those of others are older than these are."""
    return [
        replace(violation, path=f"{pointer.name}{violation.path}")
        for violation in await validate(pointer, schematron=False)
    ]


def _decrypted(reading: Reading, entry: ReadFile) -> ReadFile:
    """What a pointer file says of a package that was encrypted, and is not any more: nothing encrypted can be read.

    What it was before, ingestd notes in the event; Archivematica does not.
    """
    name = Path(entry.path).name.removesuffix(".gpg")
    for event in entry.events:
        noted = _BEFORE.fullmatch(event.note) if event.type == EventType.ENCRYPTION else None
        if noted:
            return replace(entry, path=name, size_bytes=int(noted[1]), digests={noted[2]: noted[3]})
    reading.notes.append("the pointer file's checksum is of the encrypted package: this one was not compared with it")
    return replace(entry, path=name, size_bytes=None, digests={})


def _shape(
    reading: Reading, pointer: Path, entries: Sequence[ReadFile], transforms: Sequence[Transform], identifier: str
) -> Iterator[Violation]:
    name = pointer.name
    if len(entries) != 1:
        yield Violation(
            path=name, rule="mets.fileSec", expected="one file, the package", actual=f"{len(entries)} files"
        )
    for entry in entries[:1]:
        if identifier and uuid_in(entry.identifier) != identifier:
            yield Violation(path=name, rule=IDENTIFIER, expected=identifier, actual=entry.identifier or "none")
        if Path(entry.path).name != reading.container.path.name:
            actual = Path(entry.path).name or "none"
            yield Violation(path=name, rule="mets.FLocat", expected=reading.container.path.name, actual=actual)
    for transform in transforms:
        forms = _UNPACKED_BY.get(transform.algorithm.lower())
        if transform.kind == "decompression" and forms and reading.container.form not in forms:
            form = reading.container.form
            yield Violation(path=name, rule="mets.transformFile", expected=transform.algorithm, actual=form)


async def _package(reading: Reading, name: str, entry: ReadFile) -> list[Violation]:
    path = reading.container.path
    found = []
    size_bytes = (await asyncio.to_thread(path.stat)).st_size
    if entry.size_bytes is not None and entry.size_bytes != size_bytes:
        expected = f"{entry.size_bytes} bytes ({name})"
        found.append(Violation(path=path.name, rule=SIZE, expected=expected, actual=f"{size_bytes} bytes"))
    said = {algorithm_name(algorithm): value.strip().lower() for algorithm, value in entry.digests.items()}
    known = [DigestAlgorithm(algorithm) for algorithm in said if algorithm in ALGORITHMS]
    if not known:
        found.append(Violation(path=name, rule=FIXITY, expected="a message digest of the package", actual="none"))
    for algorithm, actual in (await reading.digests_of(path, known)).items():
        if actual != said[algorithm]:
            expected = f"{algorithm} {said[algorithm]} ({name})"
            found.append(Violation(path=path.name, rule=FIXITY, expected=expected, actual=f"{algorithm} {actual}"))
    return found
