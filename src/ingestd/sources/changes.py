"""Whether a source was written since it was received."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ingestd.errors import IngestError
from ingestd.oais import escape_name
from ingestd.sources.findings import Findings
from ingestd.sources.folders import walk_folder
from ingestd.sources.locations import local_path
from ingestd.sources.names import Tree

if TYPE_CHECKING:
    from ingestd.config import SourceSettings


def written_since(location: str, settings: SourceSettings, at: float) -> str:
    """Name something in a local source that was written after `at` (seconds since the epoch), by the times of files
    and folders; a folder's is that of what was last added to it, renamed or removed. Blocks while it looks.

    Empty where there is nothing, and where nobody can tell: elsewhere, or what is gone or cannot be read.
    """
    try:
        real, name = local_path(location, settings, trusted=True)
        root = os.stat(real)  # noqa: PTH116  names are bytes
        if root.st_mtime > at:
            return escape_name(name)
        if stat.S_ISDIR(root.st_mode):
            with Tree(real) as tree:
                for found in walk_folder(tree, Findings()):
                    if found.stat.st_mtime > at:
                        return escape_name(found.path)
    except (OSError, IngestError):
        return ""
    return ""
