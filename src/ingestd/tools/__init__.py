"""External programs, and the libraries that are treated like them: what is not ours and reads hostile files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Self

from ingestd.config import Settings
from ingestd.tools.exiftool import ExifTool
from ingestd.tools.ffprobe import Ffprobe
from ingestd.tools.inventory import ToolInfo, inventory
from ingestd.tools.mediainfo import MediaInfo
from ingestd.tools.pool import Pool
from ingestd.tools.siegfried import Siegfried

__all__ = ["ToolInfo", "Toolbox"]


class Toolbox:
    """The tools of one service, all on one pool. Each starts when it is first needed; leaving stops them all."""

    def __init__(self, settings: Settings) -> None:
        self.pool = Pool(settings.tools, scratch=settings.scratch_dir)
        self.siegfried = Siegfried(self.pool)
        self.exiftool = ExifTool(self.pool)
        self.mediainfo = MediaInfo(self.pool)
        self.ffprobe = Ffprobe(self.pool)

    async def inventory(self) -> Sequence[ToolInfo]:
        """List every program and library that is, or could be, used here, with its version where it is found."""
        return await inventory(self.pool)

    async def __aenter__(self) -> Self:
        await self.pool.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.pool.aclose)
            for tool in (self.siegfried, self.mediainfo, self.exiftool):
                stack.push_async_callback(tool.aclose)
