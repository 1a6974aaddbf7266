"""What JHOVE prints of many files in one run, taken apart: its start takes longer than most files do.

JHOVE reads names as UTF-8 and calls a file that it cannot open neither well-formed nor valid; so it is told links with
plain names, and a report that is about itself and not about the file is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_REPORT = re.compile(rb'<repInfo uri="(?:[^"]*/)?(\d{1,9})(?:\.[^"/]*)?">.*?</repInfo>', re.DOTALL)
_ROOT = re.compile(rb"<jhove(?:\s[^>]*)?>")
_OF_ITSELF = re.compile(rb'<message[^>]* id="JHOVE-CORE-[^>]*>([^<]*)</message>')
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,16}")


@contextmanager
def told(paths: Sequence[Path], scratch: Path) -> Iterator[Sequence[Path]]:
    """Give a link in a folder of its own for each of the absolute `paths`, called after its place in the order."""
    with TemporaryDirectory(prefix="jhove-", dir=scratch) as name:
        links = [Path(name) / f"{number}{_extension(path)}" for number, path in enumerate(paths)]
        for link, path in zip(links, paths, strict=True):
            link.symlink_to(path)
        yield links


def reports(printed: bytes) -> Mapping[int, bytes]:
    """Give JHOVE's report (`-h XML`) on each file that `told` stood for, by its place in the order.

    A file that it could not open, or did not come to the end of, has none.
    """
    found = ((int(match[1]), match[0]) for match in _REPORT.finditer(printed))
    return {number: report for number, report in found if not _OF_ITSELF.search(report)}


def documents(printed: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the report on each file, by its place in the order, as a document of its own: JHOVE's root with its
    namespaces, and the report alone.
    """
    root = _ROOT.search(printed)
    if root:
        yield from ((number, root[0] + report + b"</jhove>") for number, report in reports(printed).items())


def trouble(printed: bytes) -> str:
    """Give what JHOVE says of itself, where it gives no report on a file; empty where it says nothing."""
    said = _OF_ITSELF.search(printed)
    return said[1].decode("utf-8", errors="replace").strip() if said else ""


def _extension(path: Path) -> str:
    return path.suffix if _EXTENSION.fullmatch(path.suffix) else ""
