"""A source as the transfer that it will become: where it lies that a path of the transfer means."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ingestd.errors import Code, IngestError, Violation
from ingestd.manifests import Wrong
from ingestd.metadata.mail import ATTACHMENTS
from ingestd.oais import safe_name
from ingestd.references import PACKAGE, paths_of
from ingestd.sources.contents import hidden
from ingestd.sources.copying import CHUNK_BYTES
from ingestd.sources.findings import failure
from ingestd.sources.overview import Overview

TOP_LEVEL = ("logs", "metadata", "objects")
PAYLOAD = "data/"
_NUMBER = re.compile(r"_\d+(?=\.|$)")


class OutOfTimeError(Exception):
    """The time for the look is over."""


@dataclass(kw_only=True, slots=True)
class Transfer:
    """What a source holds, seen as a transfer. `bag`: it is one. `system_names`: files that will be removed. `mail`: of
    hidden folders, those that are maildirs stay.
    """

    overview: Overview
    bag: bool
    system_names: Collection[str]
    most_bytes: int
    most_digested_bytes: int
    mail: bool
    watch: Callable[[], None]
    """Raises `OutOfTimeError` when the look must end; to be called now and then."""
    digested_bytes: int = 0
    undigested: bool = False
    """Whether something was not held against its digest."""
    errors: list[IngestError] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    later: frozenset[str] = frozenset()
    """Files that a bag says are to be fetched, by their paths in it."""
    _renamed: frozenset[str] | None = None

    @property
    def standard(self) -> bool:
        """Whether a bag's payload has the folders of a transfer; then they are the transfer's."""
        return any(self.overview.is_folder(f"{PAYLOAD}{name}") for name in TOP_LEVEL)

    @property
    def base(self) -> str:
        """Where the transfer's own top is in the source."""
        return PAYLOAD if self.bag else ""

    def has(self, names: Sequence[str]) -> bool:
        """Whether one of the names that something may be called by is that of a file, a folder or the package, or the
        one that a file will have when names have been made safe.
        """
        paths = paths_of(names)
        return PACKAGE in paths or any(map(self._is_received_as, paths)) or self._will_be(paths)

    def _is_received_as(self, path: str) -> bool:
        """Whether this is the path of something when it is taken for an object; what is removed keeps its own."""
        if path.partition("/")[0] not in TOP_LEVEL:
            return path in self.overview.entries and self.removed(path)
        there = (place for place in self.places(path) if place in self.overview.entries)
        return any(self.bag or place == path or not self.removed(place) for place in there)

    def may_get(self, names: Sequence[str]) -> bool:
        """Whether what is not there may come: from an archive among the objects, from a mail, by being fetched, or
        since not all was seen.
        """
        return bool(self.overview.said) or any(map(self._may_come, paths_of(names)))

    def _may_come(self, path: str) -> bool:
        if self.mail and path.startswith(ATTACHMENTS):
            return True
        places = self.places(path)
        folders = (str(parent) for place in places for parent in PurePosixPath(place).parents)
        return not self.later.isdisjoint(places) or any(map(self.overview.is_file, folders))

    def _will_be(self, paths: Sequence[str]) -> bool:
        """Whether an object has one of these paths when names have been made safe."""
        if self._renamed is None:
            inside = (path.removeprefix(self.base).removeprefix("objects/") for path in self.objects())
            self._renamed = frozenset(_safe(f"objects/{path}") for path in inside)
        return not self._renamed.isdisjoint(map(_safe, paths))

    def has_object(self, paths: Sequence[str]) -> bool:
        """Whether one of these is a file, by its path in the source or in the transfer."""
        inside = [path if path.startswith("objects/") else f"objects/{path}" for path in paths]
        return any(self.overview.is_file(place) for path in inside for place in (path, *self.places(path))) or any(
            map(self.overview.is_file, paths)
        )

    def has_file(self, names: Sequence[str]) -> bool:
        return any(self.overview.is_file(place) for path in paths_of(names) for place in self.places(path))

    def keeps_file(self, names: Sequence[str]) -> bool:
        """Whether one of these is a file that will not be removed."""
        paths = paths_of(names)
        places = [place for path in paths for place in self.places(path)]
        kept = any(self.overview.is_file(place) and not self.removed(place) for place in places)
        return kept or self._will_be(paths)

    def places(self, path: str) -> list[str]:
        """Where a path of the transfer may be in the source: `objects` is made of all that is not the transfer's."""
        inside = path.removeprefix("objects/")
        if self.bag and not self.standard:
            return [f"{PAYLOAD}{inside}", path] if inside != path else [path]
        moved = inside != path and inside.partition("/")[0] not in TOP_LEVEL
        return [self.base + path, *([self.base + inside] if moved else []), path]

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[Path | None]:
        """Give a file of the source; None, with a word to the limits, where it is not to be looked into."""
        size = self.overview.entries.get(path)
        if size is None or self.overview.opened is None:
            yield None
            return
        if size > self.most_bytes:
            self.limits.append(f"{path} is longer than {self.most_bytes} bytes (preflight.max_metadata_bytes)")
            yield None
            return
        self.watch()
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self.overview.opened(path))
            except OSError as error:
                self.limits.append(f"{path} could not be read: {error.strerror or error}")
                yield None
                return
            yield file

    def digest(self, path: str, algorithm: str) -> str | None:
        """The digest of a file of the source; None where that is left to who receives it."""
        size = self.overview.entries.get(path) or 0
        opened = self.overview.opened if self.overview.opens_all else None
        if opened is None or self.digested_bytes + size > self.most_digested_bytes:
            self.undigested = True
            return None
        self.digested_bytes += size
        digest = hashlib.new(algorithm, usedforsecurity=False)
        try:
            with opened(path) as place, place.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    self.watch()
                    digest.update(chunk)
        except OSError:
            self.undigested = True
            return None
        return digest.hexdigest()

    def objects(self) -> Iterator[str]:
        """The files that will be objects, by their paths in the source; not those that will be removed."""
        below = f"{self.base}objects/"
        for path, size in self.overview.entries.items():
            top = path.removeprefix(self.base).partition("/")[0]
            among = path.startswith(below) or top not in TOP_LEVEL
            if size is not None and path.startswith(self.base) and among and not self.removed(path):
                yield path

    def removed(self, path: str) -> bool:
        """Whether it will be removed: hidden, or left behind by an operating system."""
        *_, name = parts = path.split("/")
        return name in self.system_names or any(self._hides(parts[: depth + 1]) for depth in range(len(parts)))

    def _hides(self, parts: Sequence[str]) -> bool:
        if not hidden(parts[-1]):
            return False
        return not (self.mail and parts[-1].startswith(".") and self.overview.is_folder("/".join([*parts, "cur"])))

    def refuse(self, code: Code, detail: str, wrong: Wrong | Sequence[Violation]) -> None:
        """Note an error with everything that was found wrong, if anything was."""
        violations = wrong.listed if isinstance(wrong, Wrong) else tuple(wrong)
        if violations:
            said = f"{detail}: {wrong}" if isinstance(wrong, Wrong) else detail
            self.errors.append(failure(code, said, violations=violations))


def _safe(path: str) -> str:
    """A path with names as they are made safe, without the numbers that tell apart what becomes the same."""
    return "/".join(_NUMBER.sub("", safe_name(name), count=1) for name in path.split("/"))
