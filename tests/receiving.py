"""Receiving a source, as the step does it: what tests of folders, archives and object stores share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ingestd.config import SourceSettings, UnpackSettings
from ingestd.errors import IngestError
from ingestd.keeping import CredentialSettings
from ingestd.premis import Digest, DigestAlgorithm
from ingestd.sources import Received, Source, receive
from ingestd.tools.pool import Pool


@dataclass
class Desk:
    """A package's folder, a source beside it, and receiving the one into the other."""

    folder: Path
    pool: Pool
    settings: SourceSettings = field(default_factory=SourceSettings)
    unpack: UnpackSettings = field(default_factory=UnpackSettings)
    algorithm: DigestAlgorithm = DigestAlgorithm.SHA256
    credentials: CredentialSettings | None = None
    recorded: set[str] = field(default_factory=set)
    """Paths that were received before."""
    asked: list[int] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def into(self) -> Path:
        return self.folder / "into"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    async def known(self, paths: Sequence[str]) -> frozenset[str]:
        self.asked.append(len(paths))
        return frozenset(self.recorded & set(paths))

    async def windows(
        self, location: Path | str | None = None, checksum: Digest | None = None
    ) -> AsyncIterator[Sequence[Received]]:
        windows = receive(
            Source(location=str(location or self.source), checksum=checksum, credentials=self.credentials),
            self.into,
            settings=self.settings,
            unpack=self.unpack,
            algorithm=self.algorithm,
            pool=self.pool,
            trusted=True,
            known=self.known,
            scratch=self.scratch,
        )
        async with contextlib.aclosing(windows):
            async for window in windows:
                self.recorded.update(one.path for one in window)
                yield window

    async def receive(self, location: Path | str | None = None, checksum: Digest | None = None) -> list[Received]:
        return [one async for window in self.windows(location, checksum) for one in window]

    async def refused(self, location: Path | str | None = None, checksum: Digest | None = None) -> IngestError:
        """Receive what must be refused: nothing of it is left, in the folder or beside it, unless it was fetched from a
        store: then it stays for the next attempt.
        """
        before = {*self.folder.iterdir(), self.into, self.scratch}
        with pytest.raises(IngestError) as caught:
            await self.receive(location, checksum)
        assert before >= set(self.folder.iterdir())
        emptied = [] if self.credentials else [self.into, self.scratch]
        assert [] == [path for folder in emptied if folder.exists() for path in folder.iterdir()]
        return caught.value

    def there(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.into)): path.read_bytes() for path in self.into.rglob("*") if path.is_file()}
