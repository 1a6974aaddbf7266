"""What an archive holds, without unpacking it: names and sizes, and the few small files that are asked for by name.

`Lister` is a `readers.Taker` that judges what it is told by the rules by which `writer.Writer` will. As a program,
`python -m ingestd.sources.lister ORDER`, it does that in a process of its own, since what reads archives other than
zips is not to be trusted with hostile ones: ORDER is JSON (see `Order`), and the last line of the standard output says
how it went, as `Writer`'s program does. What was found stands in `INTO/listing.jsonl`, whole when the program ends.
"""

from __future__ import annotations

import fnmatch
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ingestd.errors import Code, IngestError, Violation
from ingestd.oais import escape_name, unescape_name
from ingestd.sources.findings import Findings, failure
from ingestd.sources.links import LinkRefused, Parts, follow
from ingestd.sources.names import NameRefused, open_plain, split
from ingestd.sources.writer import Limits, Meter

LISTING = "listing.jsonl"
UNSUPPORTED = "unsupported"
OUT_OF_TIME = "the look into the archive ended before the archive did (preflight.max_seconds)"


class EnoughError(Exception):
    """A limit of the look is reached; the message says which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What is to be listed: `entries`, `seconds` and `bytes` limit the look; `wanted` are patterns of the names whose
    files are kept, each of at most `file_bytes`, all of at most `bytes`. `limits` are `writer.Limits`.
    """

    path: str
    form: str
    filter_name: str
    certain: bool
    into: str
    limits: Mapping[str, Any]
    entries: int
    seconds: float
    file_bytes: int
    bytes: int
    wanted: Sequence[str]

    def wants(self, path: str, size_bytes: int, kept_bytes: int) -> bool:
        """Whether a file is to be kept besides those of `kept_bytes`."""
        name = path.rpartition("/")[2]
        fits = size_bytes <= self.file_bytes and kept_bytes + size_bytes <= self.bytes
        return fits and any(fnmatch.fnmatchcase(name, pattern) for pattern in self.wanted)


@dataclass(kw_only=True, slots=True)
class Listing:
    """What was found: sizes by path (None: a folder), and where the files that were kept are. `said` tells of the
    limit that ended the look; `error` is what unpacking would refuse.
    """

    entries: dict[str, int | None] = field(default_factory=dict)
    kept: dict[str, Path] = field(default_factory=dict)
    said: str = ""
    error: IngestError | None = None


class Lister:
    """Takes down what an archive holds. `watch` is called now and then, and ends the look by an `EnoughError`."""

    def __init__(self, order: Order, watch: Callable[[], None]) -> None:
        self.meter = Meter(Limits(**order.limits))
        self.listing = Listing()
        self._order = order
        self._watch = watch
        self._findings = Findings()
        self._links: dict[Parts, bytes] = {}
        self._kept_bytes = 0

    def admit(self, raw: bytes | None, /) -> Parts | None:
        if len(self.listing.entries) >= self._order.entries:
            most = self._order.entries
            raise EnoughError(f"only the first {most} files and folders were looked at (preflight.max_entries)")
        self._watch()
        self.meter.entry()
        if raw is None:
            self._findings.add(Code.CONTENT_ARCHIVE_CORRUPT, "", expected="a name that can be read", actual="")
            return None
        try:
            parts = split(raw)
        except NameRefused as refusal:
            said = os.fsdecode(raw)
            self._findings.add(refusal.code, said, expected=refusal.expected, actual=said)
            return None
        self.meter.depth(parts)
        return parts

    def directory(self, parts: Parts, /) -> None:
        for length in range(1, len(parts) + 1):
            if (
                self.listing.entries.setdefault(_path(parts[:length]), None) is not None
                or parts[:length] in self._links
            ):
                self._collides(parts)
                return

    def file(
        self, parts: Parts, chunks: Iterable[memoryview], /, *, size_bytes: int | None, mtime_ns: int | None
    ) -> None:
        del mtime_ns
        path = _path(parts)
        there = not parts or path in self.listing.entries or parts in self._links
        if there:
            self._collides(parts)
        self.directory(parts[:-1])
        wanted = size_bytes is not None and not there and self._order.wants(path, size_bytes, self._kept_bytes)
        if size_bytes is None or wanted:
            size_bytes = self._keep(path, chunks, kept=wanted)
        self.meter.count(size_bytes)
        if not there:
            self.listing.entries[path] = size_bytes
        self.drain(chunks)

    def drain(self, chunks: Iterable[memoryview], /) -> None:
        """What is compressed as a whole is read on to what follows; all else is skipped."""
        if self._order.filter_name != "none":
            for _ in chunks:
                self._watch()

    def symlink(self, parts: Parts, target: bytes, /) -> None:
        if not parts or parts in self._links:
            self._collides(parts)
            return
        self.directory(parts[:-1])
        self._links[parts] = target

    def hard_link(self, parts: Parts, target: bytes, /) -> None:
        try:
            to = split(target)
        except NameRefused as refusal:
            said = os.fsdecode(target)
            self._findings.add(Code.CONTENT_PATH_TRAVERSAL, _path(parts), expected=refusal.expected, actual=said)
            return
        size = self.listing.entries.get(_path(to))
        if to in self._links:
            self.symlink(parts, self._links[to])
        elif size is None:
            said, expected = os.fsdecode(target), "a hard link to an earlier file"
            self._findings.add(Code.CONTENT_ARCHIVE_CORRUPT, _path(parts), expected=expected, actual=said)
        else:
            self.file(parts, (), size_bytes=size, mtime_ns=None)

    def special(self, parts: Parts, kind: int, /) -> None:
        del kind
        expected, actual = "files and folders", "something else"
        self._findings.add(Code.CONTENT_STRUCTURE_INVALID, _path(parts), expected=expected, actual=actual)

    def locked(self, parts: Parts) -> None:
        """Hear of a file that is encrypted."""
        expected, actual = "an archive without a password", "encrypted"
        self._findings.add(Code.CONTENT_ARCHIVE_ENCRYPTED, _path(parts), expected=expected, actual=actual)

    def finish(self, *, said: str = "", error: IngestError | None = None) -> Listing:
        """Follow the links, and give what was found. `error` ended the reading, `said` the look."""
        listing = self.listing
        for link in self._links:
            size, refused = self._linked(link)
            if refused is not None:
                if not said and error is None:
                    expected, actual = "a link to something in the archive", os.fsdecode(self._links[link])
                    self._findings.add(refused, _path(link), expected=expected, actual=actual)
            elif _path(link) in listing.entries:
                self._collides(link)
            elif size is not None:
                listing.entries[_path(link)] = size
        listing.said = said or ("what follows in the archive was not looked at" if error else "")
        listing.error = error or self._findings.error()
        return listing

    def _linked(self, link: Parts) -> tuple[int | None, Code | None]:
        """The size of the file that a link leads to, or what is wrong with the link; neither, where it is left out."""
        try:
            to = _path(follow(link, self._links))
        except LinkRefused as refusal:
            return None, Code.CONTENT_PATH_TRAVERSAL if refusal.out else Code.CONTENT_STRUCTURE_INVALID
        if to and to not in self.listing.entries:
            return None, Code.CONTENT_STRUCTURE_INVALID
        return self.listing.entries.get(to), None

    def _keep(self, path: str, chunks: Iterable[memoryview], *, kept: bool) -> int:
        """Read a file, and with `kept` keep it; give its size. No more of it is kept than its archive said."""
        to = Path(self._order.into) / str(len(self.listing.kept))
        size = 0
        with to.open("wb") if kept else open(os.devnull, "wb") as out:  # noqa: PTH123  a device
            for chunk in chunks:
                self._watch()
                size += len(chunk)
                if size <= self._order.file_bytes:
                    out.write(chunk)
        if kept:
            self._kept_bytes += size
            self.listing.kept[path] = to
        return size

    def _collides(self, parts: Parts) -> None:
        path = _path(parts)
        self._findings.add(Code.CONTENT_NAME_COLLISION, path, expected="one entry of this name", actual=path)


def _path(parts: Parts) -> str:
    return os.fsdecode(b"/".join(parts))


def no_entries() -> IngestError:
    return failure(Code.CONTENT_ARCHIVE_CORRUPT, "the archive is damaged: it holds no entries")


def list_file(file: IO[bytes], order: Order, watch: Callable[[], None]) -> Listing | None:
    """List an open archive; None for what is none, or what another program must read. Blocks; raises `OSError`."""
    # Slow to import: libarchive is a library of its own.
    from ingestd.sources import readers

    lister = Lister(order, watch)
    try:
        if order.form == "zip":
            readers.read_zip(file, lister)
        elif order.form == "tar":
            readers.read_tar(file, lister, filter_name=order.filter_name, skipping=True)
        else:
            readers.read_other(file, lister, form=order.form)
    except readers.Unsupported:
        return None
    except readers.NotAnArchive:
        return lister.finish(error=no_entries()) if order.certain else None
    except EnoughError as enough:
        return lister.finish(said=str(enough))
    except IngestError as error:
        return lister.finish(error=error)
    return lister.finish()


# --- as a program ----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    order = Order(**json.loads(argv[0]))
    until = time.monotonic() + order.seconds

    def watch() -> None:
        if time.monotonic() > until:
            raise EnoughError(OUT_OF_TIME)

    with os.fdopen(open_plain(order.path, os.O_RDONLY), "rb") as file:
        listing = list_file(file, order, watch)
    if listing is None:
        sys.stdout.write(json.dumps({"code": UNSUPPORTED}) + "\n")
        return 0
    with (Path(order.into) / LISTING).open("w", encoding="ascii") as out:
        for path, size in listing.entries.items():
            kept = listing.kept.get(path)
            out.write(json.dumps([escape_name(path), size, kept.name if kept else None]) + "\n")
    error = listing.error
    answer: dict[str, Any] = {"said": listing.said}
    if error is not None:
        violations = [asdict(violation) for violation in error.violations]
        answer["error"] = {"code": error.code.value, "detail": error.detail, "violations": violations}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def read_listing(into: Path, stdout: bytes) -> Listing | None:
    """Read what the program left; None for what it could not read. Raises `ValueError` where it did not end well."""
    answer = json.loads(stdout.strip().rpartition(b"\n")[2])
    if "code" in answer:
        return None
    listing = Listing(said=answer["said"])
    with (into / LISTING).open(encoding="ascii") as lines:
        for path, size, kept in map(json.loads, lines):
            listing.entries[unescape_name(path)] = size
            if kept is not None:
                listing.kept[unescape_name(path)] = into / kept
    if "error" in answer:
        said = answer["error"]
        violations = [Violation(**each) for each in said["violations"]]
        listing.error = failure(Code(said["code"]), said["detail"], violations=violations)
    return listing


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
