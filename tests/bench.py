"""A transfer in a folder with the services that steps work with, for tests of steps that run programs on files."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingestd.config import Settings, ToolSettings
from ingestd.fpr.commands import Commands
from ingestd.fpr.registry import Registry
from ingestd.job import Outcome, Services, Task
from ingestd.messages import ProcessingConfig, RequestSource
from ingestd.oais import Facts, File, Package
from ingestd.premis import Format
from ingestd.storage import Locations
from ingestd.tools import Toolbox
from ingestd.tools.pool import Pool
from tests.fakes import FakeHistory
from tests.fpr_samples import Maker

PACKAGE = Package(
    id=uuid.UUID("11111111-1111-4111-8111-111111111111"),
    name="test",
    created_at=datetime(2026, 11, 20, 18, 57, 41, tzinfo=UTC),
    processing=ProcessingConfig().as_options(),
)


class OwnPool(Pool):
    """A pool that finds programs in a folder of its own first, and some not at all."""

    programs: Path
    missing: frozenset[str] = frozenset()

    def which(self, name: str) -> str | None:
        if name in self.missing:
            return None
        return shutil.which(name, path=self.programs) or super().which(name)

    def environment(self) -> dict[str, str]:
        before = super().environment()
        return {**before, "PATH": f"{self.programs}:{before['PATH']}"}

    def pretend(self, name: str, script: str) -> None:
        # What is pretended writes down that it ran.
        self.confined = False
        self.missing -= {name}
        (self.programs / name).write_text(script)
        (self.programs / name).chmod(0o755)


@dataclass(kw_only=True)
class Bench:
    """The transfer is `folder/transfer`; what steps tell is recorded in `history`."""

    folder: Path
    services: Services
    pool: OwnPool
    history: FakeHistory = field(default_factory=FakeHistory)
    files: list[File] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "transfer"

    def put(self, name: str, puid: str, content: bytes = b"x", *, make: Maker | None = None) -> File:
        """Put a file among the objects, as one of this format, and into the window."""
        path = self.root / "objects" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if make:
            make(path)
        else:
            path.write_bytes(content)
        relative = f"objects/{name}"
        file = File(
            id=uuid.uuid5(PACKAGE.id, repr(relative)),
            path=relative,
            original=relative,
            size_bytes=path.stat().st_size,
            format=Format(name="?", puid=puid),
        )
        self.files.append(file)
        return file

    def task(self, **options: str) -> Task:
        return Task(
            package=PACKAGE,
            folder=self.folder,
            root=self.root,
            history=self.history,
            source=RequestSource(location="/somewhere"),
            target="primary",
            options=options,
            files=self.files,
        )

    def record(self, outcome: Outcome) -> Facts:
        self.history.record(outcome.facts)
        return outcome.facts


@asynccontextmanager
async def open_bench(folder: Path, registry: Registry, settings: Settings | None = None) -> AsyncIterator[Bench]:
    settings = settings or Settings(data_dir=folder / "data", tools=ToolSettings(processes=2, wall_seconds=60))
    settings.data_dir.mkdir()
    (folder / "transfer" / "objects").mkdir(parents=True)
    tools = Toolbox(settings)
    pool = OwnPool(settings.tools, scratch=settings.data_dir / "scratch")
    pool.programs = folder / "programs"
    pool.programs.mkdir()
    tools.pool = pool
    async with tools:
        services = Services(
            settings=settings,
            tools=tools,
            registry=registry,
            commands=Commands(registry, pool, pool.home()),
            locations=Locations.open(settings.all_locations, settings.default_location),
        )
        yield Bench(folder=folder, services=services, pool=pool)


def need(*programs: str) -> None:
    """Skip the test, and name what is missing for it."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)}")
