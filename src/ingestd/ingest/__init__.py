"""OAIS Ingest: take preservation requests, see each to its one result, and say so.

`service.Ingest` is the whole; within it `running` has the packages in hand, `answers` what is told without any work,
`commands` cancels and retries.
"""

from ingestd.ingest.dispositions import Disposition
from ingestd.ingest.handles import Preservation
from ingestd.ingest.service import Ingest

__all__ = ["Disposition", "Ingest", "Preservation"]
