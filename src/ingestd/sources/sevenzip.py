"""Unpacks with the 7z program: 7z archives, and what nothing else here can read, such as zips with Deflate64.

7z is trusted with bytes, not with promises: what the archive says of itself is held against the limits first, what
comes out is watched while it comes, and is then received as any folder is.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ingestd.errors import Code, IngestError
from ingestd.premis import Program
from ingestd.sources.findings import Findings, failure
from ingestd.sources.names import NameRefused, split
from ingestd.sources.writer import KEPT_NAMES, Limits, Meter
from ingestd.together import tasks
from ingestd.walking import used

if TYPE_CHECKING:
    from ingestd.config import UnpackSettings
    from ingestd.tools.pool import Limits as RunLimits
    from ingestd.tools.pool import Pool, Run

_SEVEN_ZIP = ("7z", "7zz")
_SLOWEST_BYTES_PER_SECOND = 2**20
_LOOK_SECONDS = 1.0

_PASSWORD = re.compile(r"password|encrypted", re.IGNORECASE)
_LINK = re.compile(r"dangerous (symbolic )?link|link path was ignored", re.IGNORECASE)
_CUT = re.compile(r"unexpected end|headers error", re.IGNORECASE)
_VERSION = re.compile(rb"7-Zip.*?(\d+\.\d+)")
_METHOD = re.compile(r"unsupported|not implemented|cannot open the file as|can't open as archive", re.IGNORECASE)


def seven_zip(pool: Pool) -> str | None:
    """What the 7z program is called here; None where it is not installed."""
    return next((name for name in _SEVEN_ZIP if pool.which(name)), None)


async def unpack_with_7z(
    path: str, aside: Path, unpack: UnpackSettings, pool: Pool, *, unwrap: bool = True
) -> tuple[str, Program]:
    """Unpack with the 7z program into `aside`, made anew; give the folder that is to be received (with `unwrap`, the
    one folder around everything if there is one) and the program with the version that it says it is.

    Raises `ContentError` (`content.archive_unsupported`, `…_bomb`, `…_corrupt`, `content.path_traversal`,
    `content.name_collision`) or `ToolError`.
    """
    program = seven_zip(pool)
    if program is None:
        raise failure(
            Code.CONTENT_ARCHIVE_UNSUPPORTED,
            "the archive needs the 7z program to be opened, which is not installed",
        )
    meter = Meter(
        Limits(
            max_entries=unpack.max_entries,
            max_bytes=unpack.max_bytes,
            max_ratio=unpack.max_ratio,
            ratio_from_bytes=unpack.ratio_from_bytes,
            max_depth=unpack.max_depth,
            archive_bytes=await asyncio.to_thread(lambda: Path(path).stat().st_size),
        )
    )
    files = await _list(program, path, meter, pool)
    await asyncio.to_thread(_renew, aside)
    run = await _extract(program, path, aside, meter, pool)
    if not run.ok:
        raise _seven_zip_error(run)
    findings = Findings()
    there = await asyncio.to_thread(_count_files, aside, findings)
    findings.raise_any()
    if there != files:
        raise failure(
            Code.CONTENT_NAME_COLLISION,
            f"the archive lists {files} files and {there} came out: some names are the same, or of no use",
        )
    top = await asyncio.to_thread(lambda: str((_top(aside) if unwrap else aside).resolve()))
    version = _VERSION.search(run.stdout)
    return top, Program("7-Zip", version[1].decode() if version else "")


def limits_for(pool: Pool, path: str) -> RunLimits:
    """The pool's limits, with time for a large archive: unpacking is bounded by bytes, and by silence."""
    more = Path(path).stat().st_size / _SLOWEST_BYTES_PER_SECOND
    return replace(pool.limits, wall_seconds=pool.limits.wall_seconds + more)


async def _list(program: str, path: str, meter: Meter, pool: Pool) -> int:
    """Hold what the archive says of itself against the limits, before it is unpacked; give the number of files."""
    findings = Findings()
    files = 0
    async with aclosing(listed_by_7z(program, path, pool, limits_for(pool, path))) as entries:
        async for one in entries:
            meter.entry()
            _judge(one.raw, meter, findings)
            meter.count(one.size_bytes)
            files += not one.folder
    findings.raise_any()
    return files


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """An entry as the archive's own list has it."""

    raw: bytes
    size_bytes: int
    folder: bool
    link: bool
    encrypted: bool


async def listed_by_7z(program: str, path: str, pool: Pool, limits: RunLimits) -> AsyncGenerator[Listed, None]:
    """Give the list of an archive, as the 7z program reads it. Raises `ContentError`, `ToolError`."""
    argv = [program, "l", "-slt", "-ba", "-sccUTF-8", "-p", "--", path]
    said: dict[bytes, bytes] = {}
    async with pool.lines(argv, limits=limits, name=program) as lines:
        async for line in lines:
            key, _, value = line.partition(b" = ")
            if key == b"Path" and said:
                yield _listed(said)
                said = {}
            said[key] = value
    if not lines.result().ok:
        raise _seven_zip_error(lines.result())
    if said:
        yield _listed(said)


def _listed(said: Mapping[bytes, bytes]) -> Listed:
    size, (windows, _, posix) = said.get(b"Size", b""), said.get(b"Attributes", b"").partition(b" ")
    return Listed(
        raw=said.get(b"Path", b""),
        size_bytes=int(size) if size.isdigit() else 0,
        folder=b"D" in windows,  # `D`, or `RD` for one that is read-only
        link=posix.startswith(b"l"),
        encrypted=said.get(b"Encrypted") == b"+",
    )


async def take_with_7z(path: str, names: Sequence[str], into: Path, pool: Pool, limits: RunLimits) -> None:
    """Unpack single files into `into`, made anew; those that cannot be had are not there. Raises `ToolError`."""
    program = seven_zip(pool)
    if program is None:
        return
    await asyncio.to_thread(_renew, into)
    named = into.with_suffix(".txt")
    await asyncio.to_thread(named.write_text, "".join(f"{name}\n" for name in names), encoding="utf-8")
    argv = [program, "x", "-y", "-bd", "-bb0", "-p", "-spd", "-scsUTF-8", f"-o{into}", f"-i@{named}", "--", path]
    await pool.run(argv, limits=limits, writes=[into], name=program)


def _judge(raw: bytes, meter: Meter, findings: Findings) -> None:
    try:
        meter.depth(split(raw))
    except NameRefused as refusal:
        findings.add(refusal.code, os.fsdecode(raw), expected=refusal.expected, actual=os.fsdecode(raw))


async def _extract(program: str, path: str, aside: Path, meter: Meter, pool: Pool) -> Run:
    """Run 7z, and look while it runs whether more comes out than the archive said."""
    limits = limits_for(pool, path)
    argv = [program, "x", "-y", "-bd", "-bb0", "-p", f"-o{aside}", "--", path]
    async with tasks() as group:
        watch = group.create_task(_watch(aside, meter))
        run = await pool.run(argv, limits=limits, writes=[aside], name=program)
        watch.cancel()
    return run


async def _watch(folder: Path, meter: Meter) -> None:
    clock = asyncio.get_running_loop().time
    pause = _LOOK_SECONDS
    while True:
        await asyncio.sleep(pause)
        began = clock()
        written, _ = await asyncio.to_thread(used, folder)
        if written > meter.bytes:
            raise failure(
                Code.CONTENT_ARCHIVE_BOMB,
                f"the archive promised {meter.bytes} bytes and unpacked to more: it was stopped",
            )
        pause = max(_LOOK_SECONDS, 10 * (clock() - began))


def _count_files(folder: Path, findings: Findings) -> int:
    """Count files and links, and let them be read: the archive's permissions are not ours. 7z turns absolute links to
    below `folder`: they led out.
    """
    total = 0
    for parent, folders, names in os.walk(folder):
        links = [path for name in folders + names if (path := Path(parent) / name).is_symlink()]
        for some, needed in ((folders, stat.S_IRWXU), (names, stat.S_IRUSR)):
            for path in (Path(parent) / name for name in some):
                mode = path.lstat().st_mode
                if not stat.S_ISLNK(mode) and mode & needed != needed:
                    path.chmod(mode | needed)
        total += len(names) + sum(link.name in folders for link in links)
        for link in links:
            target = str(link.readlink())
            if target.startswith("/"):
                findings.add(
                    Code.CONTENT_PATH_TRAVERSAL,
                    str(link.relative_to(folder)),
                    expected="a link to something in the archive",
                    actual=target.removeprefix(str(folder)),
                )
    return total


def _seven_zip_error(run: Run) -> IngestError:
    said = run.stderr_tail + run.stdout[-8192:].decode("utf-8", errors="replace")
    if run.stopped or run.signal is not None:
        return run.error()
    tool = run.failure(Path(run.argv[0]).name)
    code, detail = Code.CONTENT_ARCHIVE_CORRUPT, "the archive is damaged"
    if _LINK.search(said):
        code, detail = Code.CONTENT_PATH_TRAVERSAL, "a link in the archive leads out of it"
    elif _PASSWORD.search(said):
        code = Code.CONTENT_ARCHIVE_ENCRYPTED
        detail = "the archive is encrypted: it cannot be opened without its password"
    elif _METHOD.search(said) and not _CUT.search(said):  # of a 7z that is cut short it says both
        code, detail = Code.CONTENT_ARCHIVE_UNSUPPORTED, "the archive uses a method that no installed program can read"
    return failure(code, detail, tool=tool, stderr_tail=run.stderr_tail)


def _top(folder: Path) -> Path:
    """The one folder around everything, if there is one; see `Writer.finish`."""
    inner = list(islice(folder.iterdir(), 2))
    if (
        len(inner) == 1
        and os.fsencode(inner[0].name) not in KEPT_NAMES
        and not inner[0].is_symlink()
        and inner[0].is_dir()
    ):
        return inner[0]
    return folder


def _renew(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
