"""The ways in of content (OAIS, Ingest: Receive Submission).

A source is a folder, a file or an archive, here or at a URL. `check` says whether it may be read, before anything is
accepted; `receive` puts its content into a package's folder, or nothing.

The process that unpacks an archive is a module of this package, so settings and pool are only imported for their types.
"""

from __future__ import annotations

from ingestd.sources.changes import written_since
from ingestd.sources.locations import check, source_of
from ingestd.sources.receiving import receive
from ingestd.sources.records import Checked, Checksum, Kind, Note, NoteCode, Received, Source

__all__ = [
    "Checked",
    "Checksum",
    "Kind",
    "Note",
    "NoteCode",
    "Received",
    "Source",
    "check",
    "receive",
    "source_of",
    "written_since",
]
