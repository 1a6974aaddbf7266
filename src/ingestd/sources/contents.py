"""What came out of a container among the objects: surveyed, given safe names, and moved to its place.

`survey` looks at what a program left in a folder, and believes nothing of it. `Plan` gives everything its safe name
before anything is moved, from the content alone: the same container always gets the same names, so that a run after a
crash meets the traces of the one before.
"""

# Names are bytes, or str that stands for bytes, and are joined exactly as they are: that is not what pathlib is for.
# ruff: noqa: PTH101, PTH105, PTH118

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ingestd.errors import Code
from ingestd.fixity import digest_now
from ingestd.oais import safe_name
from ingestd.premis import Digest, DigestAlgorithm, now
from ingestd.sources.findings import failure
from ingestd.sources.names import PATH_BYTES
from ingestd.sources.records import WINDOW, Note, NoteCode, Received, modified_at
from ingestd.sources.writer import Limits, Meter
from ingestd.walking import in_order

if TYPE_CHECKING:
    from ingestd.config import UnpackSettings

MAX_NAME_BYTES = 240
"""Room for what later steps add to a name (file systems allow 255 bytes)."""
_FOLDER_MODE = 0o755
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """Something with its safe name. `path` and `received.path` are relative to the container's content.

    What is `removed` is hidden, or left behind by an operating system: it is not moved.
    """

    received: Received
    path: str
    removed: bool = False


def limits_of(unpack: UnpackSettings, container_bytes: int) -> Limits:
    """Give the settings as limits for one container of this size."""
    return Limits(
        max_entries=unpack.max_entries,
        max_bytes=unpack.max_bytes,
        max_ratio=unpack.max_ratio,
        ratio_from_bytes=unpack.ratio_from_bytes,
        max_depth=unpack.max_depth,
        archive_bytes=container_bytes,
    )


async def watch_folder(folder: Path, limits: Limits) -> None:
    """Raise `content.archive_bomb` when a program has left more in `folder` than it may. Does not end by itself."""
    clock = asyncio.get_running_loop().time
    pause = _LOOK_SECONDS
    while True:
        await asyncio.sleep(pause)
        began = clock()
        await asyncio.to_thread(_weigh, folder, Meter(limits))
        pause = max(_LOOK_SECONDS, 10 * (clock() - began))


def _weigh(folder: Path, meter: Meter) -> None:
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            meter.entry()
            try:
                seen = (Path(parent) / name).lstat()
            except OSError:  # it went in this moment, or its path is too long: whoever surveys it says so
                continue
            if not stat.S_ISDIR(seen.st_mode):
                meter.count(seen.st_size)


async def survey(folder: Path, algorithm: DigestAlgorithm, meter: Meter) -> AsyncIterator[Sequence[Received]]:
    """Tell of everything in `folder` in windows, parents before children, in the order of the names' bytes.

    Files and folders get usual modes. Links, devices and the like are removed, and told of as left out. Raises
    `content.archive_bomb` when `meter` has enough, `content.structure_invalid` for what is too deep to be opened.
    """
    found = _survey(folder, algorithm, meter)
    try:
        while window := await asyncio.to_thread(lambda: list(islice(found, WINDOW))):
            yield window
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _too_long() from error
        raise


def _survey(folder: Path, algorithm: DigestAlgorithm, meter: Meter) -> Iterator[Received]:
    at = now()
    os.chmod(folder, _FOLDER_MODE)
    levels = [_names(folder, "")]
    while levels:
        path = next(levels[-1], None)
        if path is None:
            levels.pop()
            continue
        meter.entry()
        place = os.path.join(folder, path)
        seen = os.lstat(place)
        if stat.S_ISDIR(seen.st_mode):
            os.chmod(place, _FOLDER_MODE)
            meter.depth(tuple(map(os.fsencode, path.split("/"))))
            levels.append(_names(folder, path))
            yield Received(path=path, directory=True)
        elif stat.S_ISREG(seen.st_mode):
            os.chmod(place, 0o644)
            meter.count(seen.st_size)
            value = digest_now(Path(place), (algorithm,))[algorithm]
            yield Received(
                path=path,
                size_bytes=seen.st_size,
                digest=Digest(algorithm=algorithm, value=value, calculated_at=at),
                modified_at=modified_at(seen.st_mtime_ns),
            )
        else:
            os.unlink(place)  # noqa: PTH108  as above
            what = "a symbolic link" if stat.S_ISLNK(seen.st_mode) else "neither a file nor a folder"
            note = Note(code=NoteCode.LINK_LEFT_OUT, detail=f"{what}: left out")
            yield Received(path=path, left_out=True, note=note)


def _names(folder: Path, path: str) -> Iterator[str]:
    below = f"{path}/" if path else ""
    with os.scandir(os.path.join(folder, path)) as entries:
        return (below + name for name in in_order(entry.name for entry in entries))


@dataclass(kw_only=True, slots=True)
class _Level:
    """A folder of the content whose children are being named: the new names that were given in it, and how often each
    was wanted, since thousands of names may come down to one.
    """

    raw: str = ""
    safe: str = ""
    removed: bool = False
    given: set[str] = field(default_factory=set)
    wanted: Counter[str] = field(default_factory=Counter)


class Plan:
    """The names of everything in a container, on disk: memory does not grow with what it holds.

    `folder` has the whole content, as it came out. `scratch` is where the plan is written, and `system_names` what
    operating systems leave behind. What is hidden (a name that begins with a dot or ends with `~`) is not kept either.
    """

    def __init__(self, folder: Path, scratch: Path, *, system_names: Collection[str]) -> None:
        self._folder = folder
        self._listing = scratch / "contents.jsonl"
        self._planned = scratch / "planned.jsonl"
        self._system_names = system_names
        self.entries = 0
        self.bytes = 0

    async def note(self, windows: AsyncIterator[Sequence[Received]]) -> None:
        """Take down what the container holds, as it is told: parents before children."""
        self.entries = self.bytes = 0
        with self._listing.open("w", encoding="ascii") as out:
            async for window in windows:
                out.writelines(_line(received) for received in window)
                self.entries += len(window)
                self.bytes += sum(received.size_bytes for received in window)

    def name(self, target: str) -> None:
        """Give everything its safe name; blocking. Raises `content.structure_invalid` where a path below `target` is
        longer than paths may be.
        """
        levels = [_Level()]
        with self._listing.open(encoding="ascii") as lines, self._planned.open("w", encoding="ascii") as out:
            for line in lines:
                said = json.loads(line)
                while not _within(levels[-1].raw, said["p"]):
                    levels.pop()
                safe, removed = self._place(levels, said)
                if len(os.fsencode(f"{target}/{safe}")) > PATH_BYTES:
                    raise _too_long()
                out.write(json.dumps({**said, "t": safe, "r": removed}) + "\n")

    def _place(self, levels: list[_Level], said: dict[str, Any]) -> tuple[str, bool]:
        level = levels[-1]
        name = said["p"].rpartition("/")[2]
        system = not said.get("d") and name in self._system_names
        removed = level.removed or hidden(name) or system
        free = self._free(level, name)
        safe = f"{level.safe}/{free}" if level.safe else free
        if said.get("d"):
            levels.append(_Level(raw=said["p"], safe=safe, removed=removed))
        return safe, removed

    def _free(self, level: _Level, name: str) -> str:
        """Give a safe name that nothing else in the folder has, nor will have."""
        safe = short(safe_name(name))
        if safe == name:
            return name
        place = os.path.join(self._folder, level.raw)
        stem, dot, suffix = safe.partition(".") if not safe.startswith(".") else (safe, "", "")
        while True:
            number = level.wanted[safe]
            level.wanted[safe] += 1
            candidate = f"{stem}_{number}{dot}{suffix}" if number else safe
            if candidate not in level.given and not os.path.lexists(os.path.join(place, candidate)):
                level.given.add(candidate)
                return candidate

    def windows(self) -> Iterator[Sequence[Placed]]:
        """Give what was planned, window by window; blocking."""
        with self._planned.open(encoding="ascii") as lines:
            while window := [_placed(json.loads(line)) for line in islice(lines, WINDOW)]:
                yield window

    def move(self, window: Sequence[Placed], target: Path) -> None:
        """Move a window to below `target`, or find that it was; blocking."""
        for one in window:
            if one.removed or one.received.left_out:
                continue
            if one.received.directory:
                (target / one.path).mkdir(exist_ok=True)
            else:
                os.replace(self._folder / one.received.path, target / one.path)


def _too_long() -> Exception:
    return failure(Code.CONTENT_STRUCTURE_INVALID, "the paths within are longer than paths may be")


def hidden(name: str) -> bool:
    return name.startswith(".") or name.endswith("~")


def short(name: str, room: int = 0) -> str:
    """Cut a safe name to what file systems take with `room` bytes more, its extension kept."""
    most = MAX_NAME_BYTES - room
    if len(name) <= most:
        return name
    suffix = PurePosixPath(name).suffix[:20]
    return f"{name[: most - len(suffix)]}{suffix}"


def _within(folder: str, path: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _line(received: Received) -> str:
    said: dict[str, object] = {"p": received.path, "s": received.size_bytes}
    if received.digest:
        digest = received.digest
        said["h"] = [digest.algorithm.value, digest.value, digest.calculated_at.isoformat()]
    if received.modified_at:
        said["m"] = received.modified_at.isoformat()
    if received.note:
        said["n"] = [received.note.code.value, received.note.detail]
    return json.dumps({**said, "d": received.directory, "o": received.left_out}) + "\n"


def _placed(said: dict[str, Any]) -> Placed:
    digest, note = said.get("h"), said.get("n")
    received = Received(
        path=said["p"],
        size_bytes=said["s"],
        digest=Digest(
            algorithm=DigestAlgorithm(digest[0]), value=digest[1], calculated_at=datetime.fromisoformat(digest[2])
        )
        if digest
        else None,
        modified_at=datetime.fromisoformat(said["m"]) if "m" in said else None,
        directory=said["d"],
        left_out=said["o"],
        note=Note(code=NoteCode(note[0]), detail=note[1]) if note else None,
    )
    return Placed(received=received, path=said["t"], removed=said["r"])
