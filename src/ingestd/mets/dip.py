"""Writing the METS of a DIP: the originals as the AIP's METS has them, and what the DIP has of them.

Whoever reads Archivematica's DIPs looks for the originals, with their descriptions and identifiers; their places are
those in the AIP. Groups `access`, `thumbnail` and `text/ocr` name the files that are in the DIP, each in the group of
its original. The physical structMap has both, so that readers that know no other find everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path, PurePosixPath

from ingestd.mets.tree import Node, merged
from ingestd.mets.vocabulary import OBJECTS
from ingestd.mets.writer import WINDOW, Document, Written, write_down
from ingestd.oais import DIP, File, FileUse, History, Package
from ingestd.premis import DigestAlgorithm

TEXTS = "OCRfiles"
"""The folder of a DIP for text that was read from pictures."""


async def write_dip(
    history: History,
    package: Package,
    path: Path,
    *,
    created_at: datetime,
    algorithm: DigestAlgorithm = DigestAlgorithm.SHA256,
) -> Written:
    """Write the METS of the package's DIP to `path`, whole or not at all. Limits and errors as of the AIP's."""
    return await write_down(_Dip(history, package, created_at, normative=False), path, algorithm)


def place_in_dip(file: File) -> str:
    """Say where a file is in the DIP; a text is one of the AIP's files, of which the DIP has a copy."""
    if file.use is FileUse.TEXT_OCR:
        return f"{TEXTS}/{PurePosixPath(file.path).name}"
    return file.path.removeprefix(f"{DIP}/")


class _Dip(Document):
    uses = (FileUse.ORIGINAL,)

    async def described(self) -> AsyncIterator[Sequence[File]]:
        for walk in (super().described(), self._made(), self._texts()):
            async for files in walk:
                yield files

    async def removed(self) -> AsyncIterator[Sequence[File]]:
        """Nothing: that is the AIP's history."""
        nothing: Sequence[Sequence[File]] = ()
        for files in nothing:
            yield files

    def holds(self, file: File) -> bool:
        return file.path.startswith(f"{DIP}/") or file.use is FileUse.TEXT_OCR

    async def group(self, use: FileUse) -> AsyncIterator[Sequence[File]]:
        if use is FileUse.ORIGINAL:
            async for files in super().group(use):
                yield files
            return
        walk = self._texts() if use is FileUse.TEXT_OCR else self._made(use)
        async for files in walk:
            yield [_placed(file) for file in files]

    async def file_nodes(self) -> AsyncIterator[Node]:
        made = merged(_nodes(self._made(by_path=True)), _nodes(self._texts(by_path=True)))
        async for node in merged(super().file_nodes(), made):
            yield node

    def _made(self, *uses: FileUse, by_path: bool = False) -> AsyncIterator[Sequence[File]]:
        return self._history.files(under=DIP, uses=uses, by_path=by_path, window=WINDOW)

    def _texts(self, *, by_path: bool = False) -> AsyncIterator[Sequence[File]]:
        return self._history.files(under=OBJECTS, uses=(FileUse.TEXT_OCR,), by_path=by_path, window=WINDOW)


def _placed(file: File) -> File:
    return replace(file, path=place_in_dip(file))


async def _nodes(walk: AsyncIterator[Sequence[File]]) -> AsyncIterator[Node]:
    async for files in walk:
        for file in files:
            yield Node(entry=_placed(file))
