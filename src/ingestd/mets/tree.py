"""The structMaps: the tree of directories and files, written in one walk in the order of paths.

In the order of the bytes of their paths, all that is below one directory stands together, so that the open divs are a
stack. A directory itself comes before that stretch, not always right before it (`a`, `a-b`, `a/c`): `as_folders` brings
directories into the order in which the walk meets them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from ingestd.errors import SystemFault
from ingestd.mets.markup import attribute
from ingestd.mets.vocabulary import NORMATIVE_LABEL
from ingestd.oais import Directory, File, escape_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A file or a directory with the dmdSecs that describe it, in the order of their identifiers in DMDID."""

    entry: File | Directory
    dmds: Sequence[str] = ()

    @property
    def key(self) -> bytes:
        """Where it stands in the walk: a directory as its path with a slash."""
        return os.fsencode(self.entry.path) + (b"/" if isinstance(self.entry, Directory) else b"")


async def as_folders(nodes: AsyncIterator[Node]) -> AsyncIterator[Node]:
    """Bring directories that come in the order of their paths into that of their paths with a slash.

    What waits is a chain of names that begin with one another, so it is never long.
    """
    waiting: list[Node] = []
    async for node in nodes:
        path = os.fsencode(node.entry.path)
        while waiting and waiting[-1].key < path:
            yield waiting.pop()
        waiting.append(node)
    while waiting:
        yield waiting.pop()


async def merged(directories: AsyncIterator[Node], files: AsyncIterator[Node]) -> AsyncIterator[Node]:
    """Merge two walks into one. Raises `SystemFault` if a walk is out of order: the tree would come out wrong."""
    last = b""
    directory = await anext(directories, None)
    file = await anext(files, None)
    while directory or file:
        if directory and (file is None or directory.key < file.key):
            node, directory = directory, await anext(directories, None)
        elif file:
            node, file = file, await anext(files, None)
        else:
            break
        if node.key <= last:
            raise SystemFault(f"the history gives paths out of order: {escape_name(node.entry.path)}")
        last = node.key
        yield node


class StructMap:
    """Writes one structMap from nodes in the order of the walk. `add` and `end` return text.

    The physical map has the files and the directories that hold any, with `fptr`s; the normative (logical) one has
    every directory, empty ones too, and no `fptr`.
    """

    def __init__(
        self,
        *,
        label: str,
        root_dmd: str,
        top_dmds: Mapping[str, Sequence[str]],
        top_amds: Mapping[str, str],
        normative: bool,
    ) -> None:
        """Take the root div's label and dmdSec, and for folders by path dmdSecs besides those that the walk brings, and
        amdSecs.
        """
        self._normative = normative
        self._top_dmds = top_dmds
        self._top_amds = {} if normative else top_amds
        self._open: list[str] = []
        self._dmds: dict[str, Sequence[str]] = {}
        kind, number, title = ("logical", 2, NORMATIVE_LABEL) if normative else ("physical", 1, "Archivematica default")
        self.start = (
            f'  <mets:structMap TYPE="{kind}" ID="structMap_{number}" LABEL="{title}">\n'
            f'    <mets:div TYPE="Directory" LABEL="{attribute(escape_name(label))}" DMDID="{root_dmd}">\n'
        )

    def add(self, node: Node) -> str:
        path = node.entry.path
        if isinstance(node.entry, Directory):
            self._remember(path, node.dmds)
            return self._enter(path) if self._normative else ""
        folder, _, name = path.rpartition("/")
        entered = self._enter(folder)
        label = attribute(escape_name(node.entry.label or name))
        opening = f'{self._indent()}<mets:div TYPE="Item" LABEL="{label}"{_dmdid(node.dmds)}'
        if self._normative:
            return f"{entered}{opening}/>\n"
        pointer = f'{self._indent()}  <mets:fptr FILEID="file-{node.entry.id}"/>\n'
        return f"{entered}{opening}>\n{pointer}{self._indent()}</mets:div>\n"

    def end(self) -> str:
        return self._enter("") + "    </mets:div>\n  </mets:structMap>\n"

    def _remember(self, path: str, dmds: Sequence[str]) -> None:
        """Keep a directory's dmdSecs as long as the walk can still be above or below it."""
        self._dmds = {known: value for known, value in self._dmds.items() if path.startswith(f"{known}/")}
        self._dmds[path] = dmds

    def _enter(self, folder: str) -> str:
        """Close and open divs so that `folder` (from the root; empty for the root itself) is the innermost."""
        parts = folder.split("/") if folder else []
        same = 0
        while same < min(len(parts), len(self._open)) and parts[same] == self._open[same]:
            same += 1
        written = []
        while len(self._open) > same:
            self._open.pop()
            written.append(f"{self._indent()}</mets:div>\n")
        for part in parts[same:]:
            path = "/".join([*self._open, part])
            dmds = [*self._top_dmds.get(path, ()), *self._dmds.get(path, ())]
            amd = f' ADMID="{self._top_amds[path]}"' if path in self._top_amds else ""
            label = attribute(escape_name(part))
            written.append(f'{self._indent()}<mets:div TYPE="Directory" LABEL="{label}"{_dmdid(dmds)}{amd}>\n')
            self._open.append(part)
        return "".join(written)

    def _indent(self) -> str:
        return "  " * (len(self._open) + 3)


def _dmdid(dmds: Sequence[str]) -> str:
    return f' DMDID="{" ".join(dmds)}"' if dmds else ""
