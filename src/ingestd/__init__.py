"""ingestd: digital preservation ingest as one asyncio service.

As a library, with no broker::

    async with ingestd.open() as ingest:
        result = await ingest.preserve("photographs/", name="Photographs")
        print(result.outcome, result.aip)

or, with its events::

        preservation = await ingest.begin("photographs/", name="Photographs")
        async for event in preservation:
            print(event.type, event.data.link)
        result = await preservation

What was asked for before, by a process that died, is gone on with; what it came to and could not give is given now.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingestd.config import Settings
    from ingestd.ingest import Ingest

__version__ = "0.1.0"
__all__ = ["__version__", "open"]


def open(settings: Settings | None = None) -> AbstractAsyncContextManager[Ingest]:  # noqa: A001  `ingestd.open`
    """Open ingest in this process. `settings` default to those of the environment (`ingestd.config.Settings.load`)."""
    from ingestd.app import open_ingest

    return open_ingest(settings)
