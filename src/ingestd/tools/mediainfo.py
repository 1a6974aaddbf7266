"""Characterization with MediaInfo, through its library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ingestd.tools.alias import Alias
from ingestd.tools.crew import Answer, Crew
from ingestd.tools.pool import Pool
from ingestd.tools.xml import Described, element


class MediaInfo:
    """Writes what `mediainfo --Output=XML --Full --Language=raw` writes, without a spawn per file."""

    def __init__(self, pool: Pool, *, count: int = 1) -> None:
        self._crew = Crew(pool, "mediainfo", count=count)

    async def describe(self, paths: Sequence[Path]) -> Sequence[Described]:
        """Describe files, in their order; no path of this server is in the XML.

        Raises `ToolError` only when the library cannot be loaded.
        """
        return [_described(alias, answer) for alias, answer in await self._crew.ask(paths)]

    async def version(self) -> str:
        return str((await self._crew.hello())["version"])

    async def aclose(self) -> None:
        await self._crew.aclose()


def _described(alias: Alias, answer: Answer) -> Described:
    if "error" in answer:
        return Described(error=str(answer["error"]))
    try:
        return Described(xml=element(alias.restore(answer["xml"])))
    except ValueError as error:
        return Described(error=str(error))
