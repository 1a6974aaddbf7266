"""What tests of steps, engine and journals share: a package on disk and in a journal, and services with nothing behind."""

from __future__ import annotations

import hashlib
import inspect
import os
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from ingestd.config import Settings
from ingestd.job import Handler, Outcome, Services, Task
from ingestd.journal import PackageJournal
from ingestd.messages import ProcessingConfig, RequestSource
from ingestd.oais import Directory, Facts, File, FileUse, Package
from ingestd.premis import Digest, DigestAlgorithm
from ingestd.storage import Locations

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
PACKAGE_ID = uuid.UUID("0b9f2f1e-8c1d-5a53-9f5e-6a2f6d0c7b11")


def a_package(**more: Any) -> Package:
    processing = more.pop("processing", {})
    fields: dict[str, Any] = {
        "id": PACKAGE_ID,
        "name": "letters",
        "created_at": AT,
        "processing": ProcessingConfig.resolve(processing).as_options(),
    }
    return Package(**{**fields, **more})


def file_id(path: str) -> uuid.UUID:
    return uuid.uuid5(PACKAGE_ID, os.fsencode(path).hex())


def a_file(path: str, content: bytes = b"x", **more: Any) -> File:
    value = hashlib.sha256(content).hexdigest()
    fields: dict[str, Any] = {
        "id": file_id(path),
        "path": path,
        "original": path,
        "size_bytes": len(content),
        "digest": Digest(algorithm=DigestAlgorithm.SHA256, value=value, calculated_at=AT),
        "modified_at": AT,
    }
    return File(**{**fields, **more})


def services(tmp_path: Path, **settings: Any) -> Services:
    """Services for steps that run no program: settings and a folder that keeps AIPs, and nothing else."""
    made = Settings(data_dir=tmp_path / "data", **settings)
    locations = Locations.open(made.all_locations, made.default_location)
    return cast(
        "Services",
        SimpleNamespace(
            settings=made, locations=locations, tools=SimpleNamespace(), registry=SimpleNamespace(version="0" * 16)
        ),
    )


@dataclass(kw_only=True)
class Bench:
    """One package: its folder, its journal, its services."""

    folder: Path
    journal: PackageJournal
    services: Services
    package: Package = field(default_factory=a_package)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "transfer"

    @classmethod
    async def open(cls, tmp_path: Path, **more: Any) -> Bench:
        folder = tmp_path / "work"
        (folder / "transfer").mkdir(parents=True, exist_ok=True)
        journal = await PackageJournal.open(folder / "journal.db")
        return cls(folder=folder, journal=journal, services=more.pop("services", services(tmp_path)), **more)

    async def receive(self, contents: Mapping[str, bytes], folders: Iterable[str] = ()) -> None:
        """Put files and empty folders on disk, and record them with all their parents, parents first."""
        wanted = {*folders}
        for path, content in contents.items():
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            wanted |= set(_parents(path))
        for path in list(wanted):
            (self.root / path).mkdir(parents=True, exist_ok=True)
            wanted |= set(_parents(path))
        directories = [Directory(path=path, original=path) for path in sorted(wanted)]
        files = [a_file(path, content) for path, content in contents.items()]
        await self.journal.record(Facts(directories=directories, files=files))

    def task(self, **more: Any) -> Task:
        fields: dict[str, Any] = {
            "package": self.package,
            "folder": self.folder,
            "root": self.root,
            "history": self.journal,
            "source": RequestSource(location="/nowhere"),
            "target": "primary",
            "options": self.options,
        }
        return Task(**{**fields, **more})

    async def outcomes(self, step: Handler, **more: Any) -> AsyncIterator[Outcome]:
        result = step(self.task(**more), self.services)
        if inspect.isawaitable(result):
            yield await result
            return
        async for outcome in result:
            yield outcome

    async def run(self, step: Handler, *, stop_after: int | None = None, **more: Any) -> list[Outcome]:
        """Run a step as the engine does: each outcome is recorded before the next is asked for.

        With `stop_after`, the process dies once that many outcomes are recorded: nothing after is run.
        """
        done: list[Outcome] = []
        outcomes = self.outcomes(step, **more)
        async for outcome in outcomes:
            if stop_after is not None and len(done) == stop_after:
                break  # what the step did to reach this outcome is on disk, and not recorded
            await self.journal.record(outcome.facts)
            done.append(outcome)
        await cast("Any", outcomes).aclose()
        return done

    async def run_files(self, step: Handler, under: str = "", **more: Any) -> list[Outcome]:
        done: list[Outcome] = []
        async for files in self.journal.files(under=under, window=64):
            done += await self.run(step, files=files, **more)
        return done

    async def files(self, **more: Any) -> list[File]:
        return [file async for window in self.journal.files(**more) for file in window]

    async def paths(self, **more: Any) -> list[str]:
        return sorted(file.path for file in await self.files(**more))

    def on_disk(self) -> list[str]:
        return sorted(
            os.path.relpath(Path(folder) / name, self.root) for folder, _, names in os.walk(self.root) for name in names
        )

    def contents(self) -> dict[str, bytes]:
        return {path: (self.root / path).read_bytes() for path in self.on_disk()}


def _parents(path: str) -> Sequence[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def submission(file: File) -> File:
    return replace(file, use=FileUse.SUBMISSION_DOCUMENTATION)


def inside(folder: Path) -> list[str]:
    """Paths of the files in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
