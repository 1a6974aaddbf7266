"""What a step is: told everything by its task, tells everything by its outcome.

A step never writes to a journal, never publishes and never calls another step. Three shapes, one type each:

- `FilesHandler`: works on one window of files; links with `linkTaskManagerFiles`.
- `PackageHandler`: works on the package at once and returns one outcome.
- `WalkHandler`: works through the package and yields outcomes, each recorded in its own transaction before the next
  is asked for. After a crash it is called again with the last `cursor` it yielded.

A step may be run again after it was half done: it plans from what is recorded, and finds its own traces on disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ingestd.config import Settings
from ingestd.oais import Facts, File, FileUse, History, Package, Reingest

if TYPE_CHECKING:
    from ingestd.fpr.commands import Commands
    from ingestd.fpr.registry import Registry
    from ingestd.messages import RequestSource
    from ingestd.storage import Locations
    from ingestd.tools import Toolbox
    from ingestd.tools.pool import Pool

UNPACKED_BY = "unpacked_by"
"""The fact of a package that has, as JSON, the programs that unpacked a transfer which came as an archive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """What steps work with; made once by `app`, shared by all packages in hand."""

    settings: Settings
    tools: Toolbox
    registry: Registry
    commands: Commands
    locations: Locations

    @property
    def pool(self) -> Pool:
        return self.tools.pool


CONTENT = frozenset({FileUse.ORIGINAL, FileUse.SERVICE, FileUse.ACCESS, FileUse.LICENSE, FileUse.DERIVATIVE})
"""Uses of what was received to be preserved: what a full reingest examines anew."""
Fence = Callable[[], Awaitable[None]]


async def _open() -> None:
    """Nobody else works on the package."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Everything a step is told.

    `folder` is the package's working folder, `root` the transfer within it: what paths in records are relative to.
    `options` are the link's arguments. `files` is the window of a files job. `cursor` is where a walk goes on.
    """

    package: Package
    folder: Path
    root: Path
    history: History
    source: RequestSource
    target: str
    added: RequestSource | None = None
    """Metadata that a reingest adds."""
    trusted: bool = False
    fence: Fence = _open
    """To be awaited right before the AIP is committed to archival storage: raises when that is not ours to do."""
    options: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[File] = ()
    cursor: int = 0

    @property
    def came_now(self) -> Sequence[File]:
        """Of the window, what this request brought or made: in a reingest, all but what the AIP had."""
        kept = self.package.kept_rows
        return [file for file in self.files if file.row > kept] if kept else self.files

    @property
    def at_hand(self) -> Sequence[File]:
        """Of the window, what is to be examined: all of it, but in a reingest only what came now, and, where that is
        full, the content.
        """
        if self.package.reingest is not Reingest.FULL:
            return self.came_now
        return [file for file in self.files if file.row > self.package.kept_rows or file.use in CONTENT]

    def at(self, path: str) -> Path:
        """Where a recorded path is on disk."""
        return self.root / path


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolUse:
    """A program or library that worked on the package: it is named in the result and in the PREMIS events."""

    name: str
    version: str
    used_for: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Everything a step tells: an exit code, which chooses the next link, and facts to record."""

    exit_code: int = 0
    facts: Facts = Facts()
    cursor: int = 0
    tools: Sequence[ToolUse] = ()
    now_with: str = ""
    """For whoever watches: the tool at work."""


FilesHandler = Callable[[Task, Services], Awaitable[Outcome]]
PackageHandler = Callable[[Task, Services], Awaitable[Outcome]]
WalkHandler = Callable[[Task, Services], AsyncIterator[Outcome]]
Handler = FilesHandler | WalkHandler
