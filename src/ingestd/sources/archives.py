"""Receives an archive: a child process unpacks it, and only what came out whole and harmless is handed on.

7z archives, and what the child cannot read, go to the 7z program, if it is installed, and through the same checks:
listed first, unpacked beside, then received as a folder would be.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import ingestd
from ingestd.errors import Code, IngestError, Violation
from ingestd.oais import unescape_name
from ingestd.premis import Digest, DigestAlgorithm, Program, now
from ingestd.sources.findings import failure
from ingestd.sources.folders import Known, receive_folder
from ingestd.sources.kinds import Archive
from ingestd.sources.lister import no_entries
from ingestd.sources.records import WINDOW, Note, NoteCode, Received, modified_at
from ingestd.sources.sevenzip import limits_for, seven_zip, unpack_with_7z
from ingestd.together import Worker

if TYPE_CHECKING:
    from ingestd.config import UnpackSettings
    from ingestd.tools.pool import Pool, Run

Acted: TypeAlias = Callable[[Program], object]
"""Is told of a program that acted."""
_UNPACK = "ingestd.sources.unpack"
_NOT_AN_ARCHIVE = "not_an_archive"
_UNSUPPORTED = "unsupported"


class NotAnArchive(Exception):
    """What is compressed is a file, not a tar: it is to be received as it is."""


async def receive_archive(
    path: str,
    archive: Archive,
    into: Path,
    *,
    unpack: UnpackSettings,
    algorithm: DigestAlgorithm,
    pool: Pool,
    known: Known,
    scratch: Path,
    unwrap: bool = True,
    acted: Acted = lambda _: None,
) -> AsyncGenerator[Sequence[Received], None]:
    """Unpack the archive at the real path `path` into `into`, which is emptied first; yield what is there, in windows.

    With `unwrap`, one folder around everything is dropped: it is not part of a transfer. `acted` is told the program
    that unpacked it, if that was another one than ours.

    Nothing is yielded before everything is unpacked and checked; on any failure `into` is left empty. What is `known`
    from an earlier run is not yielded again. Raises `NotAnArchive`, `ContentError` (`content.archive_*`,
    `content.path_traversal`, `content.name_collision`, `content.structure_invalid`), `ResourceError`, `ToolError`.
    """
    worker = Worker()
    listing = scratch / "unpacked.jsonl"
    aside = scratch / "unpacked"
    try:
        await worker.run(partial(_clear, into))
        # 7z knows its own format best, and leaves names as they are: libarchive composes them (NFC).
        own = archive.form == "7zip" and seven_zip(pool) is not None
        if not own and await _unpack(path, archive, into, listing, unpack, algorithm, pool, acted, unwrap=unwrap):
            async with aclosing(_listed(listing, algorithm, known, worker)) as windows:
                async for window in windows:
                    yield window
            return
        await worker.run(partial(_clear, into))
        top, program = await unpack_with_7z(path, aside, unpack, pool, unwrap=unwrap)
        acted(program)
        from ingestd.config import SourceSettings

        settings = SourceSettings(max_bytes=unpack.max_bytes, max_files=unpack.max_entries)
        async with aclosing(receive_folder(top, into, settings=settings, algorithm=algorithm, known=known)) as windows:
            async for window in windows:
                yield window
    except (IngestError, NotAnArchive, OSError):
        await worker.run(partial(_clear, into))
        raise
    finally:
        await asyncio.to_thread(_tidy, listing, aside)


async def _unpack(
    path: str,
    archive: Archive,
    into: Path,
    listing: Path,
    unpack: UnpackSettings,
    algorithm: DigestAlgorithm,
    pool: Pool,
    acted: Acted,
    *,
    unwrap: bool,
) -> bool:
    """Run the child; False where it cannot read this and another program may."""
    argv = [sys.executable, "-P", "-m", _UNPACK, "--format", archive.form, "--filter", archive.filter_name]
    argv += ["--algorithm", algorithm.value, "--max-entries", str(unpack.max_entries)]
    argv += ["--max-bytes", str(unpack.max_bytes), "--max-ratio", str(unpack.max_ratio)]
    argv += ["--ratio-from-bytes", str(unpack.ratio_from_bytes), "--max-depth", str(unpack.max_depth)]
    argv += [] if unwrap else ["--keep-top"]
    argv += ["--", path, str(into), str(listing)]
    # The child finds this very package, also where it is not installed.
    env = {"PYTHONPATH": str(Path(ingestd.__file__).parent.parent)}
    run = await pool.run(argv, limits=limits_for(pool, path), env=env, writes=[into, listing.parent], name="unpack")
    answer = _answer(run)
    code = answer.get("code")
    if code == _NOT_AN_ARCHIVE:
        if archive.certain:
            raise no_entries()
        raise NotAnArchive
    if code is None and answer.get("program"):
        acted(Program(*answer["program"]))
    if code is None or code == _UNSUPPORTED:
        return code is None
    violations = [Violation(**each) for each in answer.get("violations", ())]
    raise failure(Code(code), answer["detail"], violations=violations)


def _answer(run: Run) -> dict[str, Any]:
    """Read the child's last line. A child that died without one was killed by the archive, or by a limit."""
    if run.stopped:
        raise run.error("unpack")
    try:
        answer = json.loads(run.stdout.strip().rpartition(b"\n")[2])
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    if run.signal is None:
        raise run.error("unpack")
    raise failure(
        Code.CONTENT_ARCHIVE_CORRUPT,
        f"the archive is damaged in a way that ended the program that read it (signal {run.signal})",
        tool=run.failure("unpack"),
        stderr_tail=run.stderr_tail,
    )


async def _listed(
    listing: Path, algorithm: DigestAlgorithm, known: Known, worker: Worker
) -> AsyncGenerator[Sequence[Received], None]:
    at = now()
    with listing.open(encoding="utf-8") as lines:
        while window := await worker.run(partial(_read, lines, algorithm, at)):
            skipped = await known([received.path for received in window])
            if fresh := [received for received in window if received.path not in skipped]:
                yield fresh


def _read(lines: IO[str], algorithm: DigestAlgorithm, at: datetime) -> list[Received]:
    return [_received(json.loads(line), algorithm, at) for line in islice(lines, WINDOW)]


def _received(line: dict[str, Any], algorithm: DigestAlgorithm, at: datetime) -> Received:
    value, note = line.get("h"), line.get("n")
    return Received(
        path=unescape_name(line["p"]),
        size_bytes=line.get("s", 0),
        digest=Digest(algorithm=algorithm, value=value, calculated_at=at) if value else None,
        modified_at=modified_at(line.get("m")),
        directory=line.get("d", False),
        left_out=line.get("o", False),
        note=Note(code=NoteCode(note[0]), detail=note[1]) if note else None,
        more=line.get("a", {}),
    )


def _tidy(listing: Path, aside: Path) -> None:
    listing.unlink(missing_ok=True)
    shutil.rmtree(aside, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Empty a folder that is ours, or make it."""
    folder.mkdir(parents=True, exist_ok=True)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()
