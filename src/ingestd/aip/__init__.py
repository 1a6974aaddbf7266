"""Reading AIPs: those of ingestd, of Archivematica (0.x to 1.17) and of a3m; folders and packages, however large.

::

    from ingestd import aip

    found = await aip.inspect(Path("NAME-UUID.7z"))
    print(found.files, [format.puid for format in found.formats])

Nothing is unpacked and nothing is believed: what the METS or a package says never leads to a path outside.
"""

from __future__ import annotations

from ingestd.aip.inspection import inspect
from ingestd.aip.records import Concern, Counted, Description, Entry, EventCount, FormatCount, Inspection

__all__ = [
    "Concern",
    "Counted",
    "Description",
    "Entry",
    "EventCount",
    "FormatCount",
    "Inspection",
    "inspect",
]
