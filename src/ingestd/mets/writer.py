"""Writing the METS of an AIP, in flat memory however many files there are.

The history is walked once for each section: dmdSecs, amdSecs, fileSec (once for each use), structMaps. The same history
and the same time give the same bytes. What a reader finds where is Archivematica's convention.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ingestd import premis
from ingestd.errors import Violation
from ingestd.mets import sections
from ingestd.mets.described import DC_KIND, Descriptions, request_description
from ingestd.mets.problems import Problems
from ingestd.mets.sections import AmdSecs, Window
from ingestd.mets.structmap import DESCRIBED
from ingestd.mets.tree import Node, StructMap, as_folders, merged
from ingestd.mets.vocabulary import COMPACT, OBJECTS, PACKAGE_DMD, REQUEST_DMD, description_dmd, directory_dmd
from ingestd.oais import Description, File, FileUse, History, Package, Section
from ingestd.premis import Digest, DigestAlgorithm

WINDOW = 64
"""Files at once: tool output of each is in memory meanwhile."""
_CHUNK_CHARACTERS = 1 << 20
_Said: TypeAlias = Sequence[tuple[int, Description]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A METS that is on disk: its digest and size, and what had to be left out of it.

    `problems` has the first thousand; `left_out` counts all.
    """

    digest: Digest
    size_bytes: int
    files: int
    problems: Sequence[Violation] = ()
    left_out: int = 0


async def write(
    history: History,
    package: Package,
    path: Path,
    *,
    created_at: datetime,
    document_empty_directories: bool,
    algorithm: DigestAlgorithm = DigestAlgorithm.SHA256,
    struct_map: Path | None = None,
    compact: bool = False,
    first_created_at: datetime | None = None,
) -> Written:
    """Write the METS of the files under `objects/` to `path`, whole or not at all.

    What was removed keeps an amdSec, which no file refers to. A `compact` document names `COMPACT` as its PROFILE and
    says nothing twice; Archivematica's schematron wants that. `struct_map` is one more structMap, as `structmap.cut`
    gives it, with `structmap.DESCRIBED` beside it; `first_created_at` is when the METS of the AIP's first version was
    written. Tool output that cannot stand in the METS is left out and reported in `Written.problems`.
    Raises `OSError` from the disk, `SystemFault` if the history is out of order.
    """
    document = Document(history, package, created_at, normative=document_empty_directories)
    document.struct_map = struct_map
    document.compact = compact
    document.first_created_at = first_created_at
    return await write_down(document, path, algorithm)


async def write_down(document: Document, path: Path, algorithm: DigestAlgorithm) -> Written:
    """Write a document to `path`, whole or not at all."""
    partial = path.with_name(f"{path.name}.part")
    sink = await asyncio.to_thread(_Sink, partial, algorithm)
    try:
        async for text in document.parts():
            sink.parts.append(text)
            sink.characters += len(text)
            if sink.characters >= _CHUNK_CHARACTERS:
                await asyncio.to_thread(sink.flush)
        await asyncio.to_thread(sink.finish, path)
    finally:
        await asyncio.to_thread(sink.close)
    return Written(
        digest=Digest(algorithm=algorithm, value=sink.hash.hexdigest(), calculated_at=premis.now()),
        size_bytes=sink.size_bytes,
        files=document.files,
        problems=tuple(document.problems.kept),
        left_out=document.problems.count,
    )


class _Sink:
    """A file that takes its name only when it is whole and on disk. Its methods block."""

    def __init__(self, partial: Path, algorithm: DigestAlgorithm) -> None:
        self.parts: list[str] = []
        self.characters = 0
        self.size_bytes = 0
        self.hash = hashlib.new(algorithm, usedforsecurity=False)
        self._partial = partial
        self._file: BinaryIO = partial.open("wb")

    def flush(self) -> None:
        chunk = "".join(self.parts).encode()
        self.parts.clear()
        self.characters = 0
        self._file.write(chunk)
        self.hash.update(chunk)
        self.size_bytes += len(chunk)

    def finish(self, path: Path) -> None:
        self.flush()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Leave nothing half-written; does nothing after `finish`."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._partial.unlink()


class Document:
    """The parts of the METS of an AIP, in order; of another package, where its walks are other ones."""

    uses: Sequence[FileUse] = ()
    """Uses of the files below `objects` that are in the document; none given: all."""

    def __init__(self, history: History, package: Package, created_at: datetime, *, normative: bool) -> None:
        self._history = history
        self._package = package
        self._created_at = created_at
        self.problems = Problems()
        self._normative = normative
        self._package_amd = ""
        self.struct_map: Path | None = None
        self.compact = False
        self.first_created_at: datetime | None = None
        self.files = 0

    async def parts(self) -> AsyncIterator[str]:
        yield sections.head(self._created_at, COMPACT if self.compact else "", self.first_created_at)
        for section in (self._package_dmd_secs(), self._directory_dmd_secs(), self._file_dmd_secs()):
            async for text in section:
                yield text
        async for text in _text_of(self.struct_map.with_name(DESCRIBED) if self.struct_map else None):
            yield text
        async for text in self._amd_secs():
            yield text
        async for text in self._file_sec():
            yield text
        for normative in (False, True) if self._normative else (False,):
            async for text in self._struct_map(normative=normative):
                yield text
        async for text in _text_of(self.struct_map):
            yield text
        yield "</mets:mets>\n"

    # dmdSecs: the AIP, what is said of it, its directories, its files

    async def _package_dmd_secs(self) -> AsyncIterator[str]:
        package = self._package
        identifiers = (await self._history.identifiers([package.id])).get(package.id, ())
        first = self.first_created_at or self._created_at
        yield sections.package_entity(PACKAGE_DMD, package, identifiers, first)
        said = await self._said_of_package()
        if package.metadata:
            before = next((one for _, one in said if one.kind == DC_KIND and one.created_at), None)
            yield request_description(REQUEST_DMD, package.metadata, self._created_at, before)
        yield await self._dmd_secs(said)

    async def _said_of_package(self) -> _Said:
        return (await self._history.descriptions([self._package.id])).get(self._package.id, ())

    async def _dmd_secs(self, said: _Said) -> str:
        wanted = _descriptive(said)
        writer = Descriptions(self._created_at, self.problems, await self._referred_to(said))
        return "".join(writer.dmd_sec(description_dmd(row), one) for row, one in wanted)

    async def _referred_to(self, said: _Said) -> Mapping[uuid.UUID, File]:
        """The files that descriptions refer to, those that the METS names."""
        ids = [one.reference for _, one in said if one.reference]
        files = await self._history.files_by_id(ids) if ids else {}
        return {id_: file for id_, file in files.items() if file.path.startswith(f"{OBJECTS}/")}

    async def _directory_dmd_secs(self) -> AsyncIterator[str]:
        async for window in self._history.directories(under=OBJECTS):
            ids = [directory.id for directory in window if directory.id]
            descriptions = await self._history.descriptions(ids)
            identifiers = await self._history.identifiers(ids)
            for directory in window:
                if directory.id is None:
                    continue
                dmd, more = directory_dmd(directory.row), identifiers.get(directory.id, ())
                first = self.first_created_at or self._created_at
                yield sections.directory_entity(dmd, directory.id, more, directory.original, first)
                yield await self._dmd_secs(descriptions.get(directory.id, ()))

    async def _file_dmd_secs(self) -> AsyncIterator[str]:
        async for window in self._history.files(under=OBJECTS, uses=self.uses, window=WINDOW):
            descriptions = await self._history.descriptions([file.id for file in window])
            for file in window:
                if file.id in descriptions:
                    yield await self._dmd_secs(descriptions[file.id])

    # amdSecs: one for each file, and, last, one of the package if there is something to be said in it

    async def _amd_secs(self) -> AsyncIterator[str]:
        package = self._package.id
        rights = (await self._history.rights([package])).get(package, ())
        rights_agents = await self._history.linked_agents(sections.links_of((), rights))
        agents = await self._history.agents()
        writer = AmdSecs(agents, self._created_at, self.problems, rights, rights_agents, compact=self.compact)
        last = 0
        async for files in self.described():
            window = await self._window(files)
            self.files += len(files)
            last = max(last, *(file.row for file in files))
            yield await asyncio.to_thread(writer.write, window)
        async for files in self.removed():
            last = max(last, *(file.row for file in files))
            yield await asyncio.to_thread(writer.write, await self._window(files))
        said = [(row, one) for row, one in await self._said_of_package() if one.section is not Section.DESCRIPTIVE]
        if said:
            self._package_amd = f"amdSec_{last + 1}"
            yield writer.package(self._package_amd, said, await self._referred_to(said))

    async def _window(self, files: Sequence[File]) -> Window:
        ids = [file.id for file in files]
        sources = [file.derived_from for file in files if file.derived_from]
        said = await self._history.descriptions(ids)
        known = await self._history.derivatives(ids)
        derivatives = {id_: [file for file in several if self.holds(file)] for id_, several in known.items()}
        made = [file.id for several in derivatives.values() for file in several]
        events = await self._history.events(list(dict.fromkeys([*ids, *sources, *made])))
        rights = await self._history.rights(ids)
        links = sections.links_of(itertools.chain(*events.values()), itertools.chain(*rights.values()))
        return Window(
            files=files,
            events=events,
            extensions=await self._history.extensions(ids),
            derivatives=derivatives,
            rights=rights,
            identifiers=await self._history.identifiers(ids),
            agents=await self._history.linked_agents(links) if links else {},
            said=said,
            references=await self._referred_to([one for several in said.values() for one in several]),
        )

    def described(self) -> AsyncIterator[Sequence[File]]:
        """Walk through all files of the document."""
        return self._history.files(under=OBJECTS, uses=self.uses, window=WINDOW)

    def removed(self) -> AsyncIterator[Sequence[File]]:
        """Walk through what was removed: what it was and what became of it is a part of the package's history."""
        return self._history.files(removed=True, window=WINDOW)

    def holds(self, file: File) -> bool:
        """Say whether a derivative is in the document."""
        return file.path.startswith(f"{OBJECTS}/")

    def group(self, use: FileUse) -> AsyncIterator[Sequence[File]]:
        """Walk through the files of one use, as they lie in the package."""
        return self._history.files(under=OBJECTS, uses=(use,))

    # fileSec: a group for each use that has files

    async def _file_sec(self) -> AsyncIterator[str]:
        if not self.files:
            return  # METS wants at least one group in a fileSec
        yield "  <mets:fileSec>\n"
        for use in FileUse:
            opened = False
            async for window in self.group(use):
                if window and not opened:
                    opened = True
                    yield f'    <mets:fileGrp USE="{use}">\n'
                yield "".join(sections.file_entry(file) for file in window)
            if opened:
                yield "    </mets:fileGrp>\n"
        yield "  </mets:fileSec>\n"

    # structMaps

    async def _struct_map(self, *, normative: bool) -> AsyncIterator[str]:
        whole = [REQUEST_DMD] if self._package.metadata else []
        whole += [description_dmd(row) for row, _ in _descriptive(await self._said_of_package())]
        struct_map = StructMap(
            label=self._package.label,
            root_dmd=PACKAGE_DMD,
            top_dmds={OBJECTS: whole},
            top_amds={OBJECTS: self._package_amd} if self._package_amd else {},
            normative=normative,
        )
        yield struct_map.start
        async for node in merged(as_folders(self._directory_nodes()), self.file_nodes()):
            yield struct_map.add(node)
        yield struct_map.end()

    async def _directory_nodes(self) -> AsyncIterator[Node]:
        async for window in self._history.directories(under=OBJECTS, by_path=True):
            descriptions = await self._history.descriptions([directory.id for directory in window if directory.id])
            for directory in window:
                dmds: list[str] = []
                if directory.id:
                    said = descriptions.get(directory.id, ())
                    dmds = [directory_dmd(directory.row), *(description_dmd(row) for row, _ in _descriptive(said))]
                yield Node(entry=directory, dmds=dmds)

    async def file_nodes(self) -> AsyncIterator[Node]:
        """Walk through the files of the document in the order of their paths in the package."""
        async for window in self._history.files(under=OBJECTS, uses=self.uses, by_path=True, window=WINDOW):
            descriptions = await self._history.descriptions([file.id for file in window])
            for file in window:
                said = descriptions.get(file.id, ())
                yield Node(entry=file, dmds=[description_dmd(row) for row, _ in _descriptive(said)])


async def _text_of(path: Path | None) -> AsyncIterator[str]:
    if path is None:
        return
    with await asyncio.to_thread(path.open, encoding="utf-8") as file:
        while text := await asyncio.to_thread(file.read, _CHUNK_CHARACTERS):
            yield text


def _descriptive(said: _Said) -> _Said:
    """Of what is said of something, that which stands in dmdSecs."""
    return [(row, one) for row, one in said if one.section is Section.DESCRIPTIVE]
