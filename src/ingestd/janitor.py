"""The janitor: removes what no live package owns, and nothing else.

Whether a package lives, its lock and the service's journal say: a folder that some process holds, or whose request has
no result yet, is never touched. What failed is kept for a set time, so that somebody can look at it and go on with it.
A folder is moved away under its lock before it is removed: nobody takes it up half removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from ingestd.config import Settings
from ingestd.errors import Code, RequestError, ResourceError
from ingestd.journal import RequestRecord, ServiceJournal
from ingestd.messages import RequestState
from ingestd.premis import now
from ingestd.tools.pool import sweep_scratch
from ingestd.workfolder import FolderBusy, is_busy, locked

log = structlog.get_logger(__name__)

_TRASH = ".removed-"
_STORED = {RequestState.SUCCEEDED, RequestState.SUCCEEDED_WITH_WARNINGS}
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A package's working folder. `state` is its request's, or `unknown`; `since` when it ended, or was last touched.

    `at_work`: some process holds it now. `why` says for what reason it is to be removed; empty: it is kept.
    """

    package: uuid.UUID
    folder: Path
    state: str
    since: datetime
    at_work: bool
    name: str = ""
    code: str = ""
    why: str = ""


class Janitor:
    """Looks after the working folders of one data folder."""

    def __init__(self, settings: Settings, journal: ServiceJournal) -> None:
        self._settings = settings
        self._journal = journal
        self.swept = asyncio.Event()
        """Set when `run` has swept once."""

    async def run(self) -> None:
        """Sweep now and at intervals; does not end by itself."""
        while True:
            try:
                await self.sweep()
            except OSError as error:
                log.warning("janitor_failed", reason=error.strerror or str(error))
            self.swept.set()
            await asyncio.sleep(self._settings.janitor.interval_seconds)

    async def sweep(self, *, dry_run: bool = False) -> Sequence[Kept]:
        """Remove what no live package owns; give what was removed, or would be."""
        removed = []
        for kept in await self.packages():
            if not kept.why:
                continue
            if not dry_run:
                try:
                    await asyncio.to_thread(_remove, kept.folder)
                except FolderBusy:
                    continue  # somebody took it up in this moment
                log.info("package_removed", package=str(kept.package), state=kept.state, why=kept.why)
            removed.append(kept)
        if not dry_run:
            await asyncio.to_thread(_empty_trash, self._settings.work_dir)
            await asyncio.to_thread(sweep_scratch, self._settings.scratch_dir)
        return removed

    async def packages(self) -> Sequence[Kept]:
        """Every package that has a working folder, the oldest first."""
        found = []
        for folder in await asyncio.to_thread(lambda: list(_folders(self._settings.work_dir))):
            package = uuid.UUID(folder.name)
            with contextlib.suppress(FileNotFoundError):  # it ended in this moment
                touched = await asyncio.to_thread(_touched, folder)
                at_work = await asyncio.to_thread(is_busy, folder)
                found.append(self._judged(package, folder, await self._journal.get(package), touched, at_work=at_work))
        return sorted(found, key=lambda kept: kept.since)

    def _judged(
        self, package: uuid.UUID, folder: Path, record: RequestRecord | None, touched: datetime, *, at_work: bool
    ) -> Kept:
        since = (record.finished_at or touched) if record is not None else touched
        error = record.result.data.error if record is not None and record.result is not None else None
        return Kept(
            package=package,
            folder=folder,
            state=record.state.value if record is not None else UNKNOWN,
            since=since,
            at_work=at_work,
            name=(record.result.data.package_name if record and record.result else None) or "",
            code=error.code.value if error is not None else "",
            why="" if at_work else self._why(record, now() - since),
        )

    def _why(self, record: RequestRecord | None, age: timedelta) -> str:
        """Why a package that nobody is at work on is to be removed; empty where it is not."""
        settings = self._settings.janitor
        if record is None:
            old = age > timedelta(seconds=settings.keep_unknown_seconds)
            return "no request of this service is about it" if old else ""
        if record.result is None:
            return ""
        if record.state in _STORED:
            return "" if self._settings.keep_work else "its AIP is stored"
        old = age > timedelta(seconds=settings.keep_failed_seconds)
        return f"it ended ({record.state}) more than {settings.keep_failed_seconds:g} seconds ago" if old else ""

    # --- by hand -----------------------------------------------------------------------------------------------------

    async def remove(self, package: uuid.UUID) -> Kept:
        """Remove a package's working folder now. Raises `RequestError` where there is none, or it is not to end."""
        kept = await self._kept(package)
        record = await self._journal.get(package)
        if kept.at_work or (record is not None and record.result is None):
            raise _alive(package)
        try:
            await asyncio.to_thread(_remove, kept.folder)
        except FolderBusy as error:
            raise _alive(package) from error
        return kept

    async def fetch(self, package: uuid.UUID, to: Path) -> Path:
        """Copy a package's working folder into the folder `to`, which need not exist; give where it is then.

        Raises `RequestError` where there is no such package, or a process is at work on it, or the place is taken.
        """
        kept = await self._kept(package)
        place = to / str(package)
        if place.exists():
            raise RequestError(
                f"there is something at {place} already", remediation="Name a folder that does not have it."
            )
        try:
            await asyncio.to_thread(_copy, kept.folder, place)
        except FolderBusy as error:
            raise _alive(package) from error
        except (OSError, shutil.Error) as error:
            detail = f"it could not be copied to {place}: {error}"
            raise ResourceError(detail, remediation="Make room there, or name another folder.") from error
        return place

    async def _kept(self, package: uuid.UUID) -> Kept:
        for kept in await self.packages():
            if kept.package == package:
                return kept
        raise RequestError(
            f"no package {package} is kept in {self._settings.work_dir}",
            code=Code.REQUEST_IDENTIFIER_INVALID,
            remediation="`ingestd packages` lists those that are; name the data folder of the service "
            "(INGESTD_DATA_DIR).",
        )


def _alive(package: uuid.UUID) -> RequestError:
    return RequestError(
        f"package {package} is at work, or is to be gone on with",
        remediation="Wait until it has ended, or end it: ingestd cancel PACKAGE.",
    )


def _folders(work: Path) -> Iterator[Path]:
    """The packages' folders; what is not named by a UUID is not ours."""
    for path in work.iterdir() if work.is_dir() else ():
        with contextlib.suppress(ValueError):
            if path.is_dir() and not path.is_symlink() and str(uuid.UUID(path.name)) == path.name:
                yield path


def _touched(folder: Path) -> datetime:
    times = [folder.stat().st_mtime]
    for name in ("journal.db", "journal.db-wal"):
        with contextlib.suppress(FileNotFoundError):
            times.append((folder / name).stat().st_mtime)
    return datetime.fromtimestamp(max(times), UTC)


def _remove(folder: Path) -> None:
    """Move a folder away while nobody has it, then remove it. Raises `FolderBusy`."""
    away = folder.with_name(f"{_TRASH}{uuid.uuid4()}")
    with contextlib.suppress(FileNotFoundError), locked(folder / "lock"):
        folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def _empty_trash(work: Path) -> None:
    """Remove what a janitor that died had moved away."""
    for path in work.glob(f"{_TRASH}*"):
        shutil.rmtree(path, ignore_errors=True)


def _copy(folder: Path, to: Path) -> None:
    with locked(folder / "lock"):
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, to, symlinks=True, ignore=shutil.ignore_patterns("lock"))
