"""Format identification with Siegfried, through pygfried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingestd.premis import Format
from ingestd.pronom import is_puid
from ingestd.tools.alias import Alias
from ingestd.tools.crew import Answer, Crew
from ingestd.tools.pool import Pool

_NAMESPACE = "pronom"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identification:
    """What Siegfried found. `format` is None where PRONOM has no match; `error` where the file could not be read.

    `basis` says why (`extension match txt; text match ASCII`), `warning` what to beware of
    (`match on extension only`), both in Siegfried's words. `extension` is that by which a rule of the registry named
    what Siegfried does not know.
    """

    format: Format | None
    basis: str = ""
    warning: str = ""
    error: str = ""
    extension: str = ""


class Siegfried:
    """Identifies in worker processes: a call holds the interpreter's lock, and a file cut short meanwhile kills it."""

    def __init__(self, pool: Pool, *, count: int | None = None) -> None:
        workers = count or min(2, pool.settings.processes)
        # It maps whole files into memory: a limit of address space would be one of file size.
        self._crew = Crew(pool, "siegfried", count=workers, unbounded_memory=True)

    async def identify(self, paths: Sequence[Path]) -> Sequence[Identification]:
        """Identify files, in their order. A file that cannot be read, or that kills the worker, has an `error`.

        Raises `ToolError` only when Siegfried cannot be started at all.
        """
        return [_identification(alias, answer) for alias, answer in await self._crew.ask(paths)]

    async def version(self) -> str:
        """Give Siegfried's version, e.g. `1.11.9`."""
        return str((await self._crew.hello())["version"])

    async def signature(self) -> str:
        """Give the name of PRONOM's signature file, e.g. `DROID_SignatureFile_V125.xml`."""
        return str((await self._crew.hello())["signature"]).partition(";")[0].strip()

    async def aclose(self) -> None:
        await self._crew.aclose()


def _identification(alias: Alias, answer: Answer) -> Identification:
    if "error" in answer:
        return Identification(format=None, error=str(answer["error"]))
    matches = [match for match in answer.get("matches") or () if match.get("ns") == _NAMESPACE]
    found = next((match for match in matches if is_puid(match["id"])), None)
    if found:
        known = Format(
            name=found["format"] or "Unknown", version=found["version"], puid=found["id"], mime=found["mime"]
        )
        return Identification(format=known, basis=found["basis"], warning=found["warning"])
    errors = str(answer.get("errors") or "")
    if errors and not _is_empty(errors):
        # Siegfried names the file by its path on this server, which is nobody's business.
        return Identification(format=None, error=errors.replace(str(alias.told), alias.path.name))
    return Identification(format=None, warning=matches[0]["warning"] if matches else "")


def _is_empty(errors: str) -> bool:
    """An empty file is a fact about the file, not an error of reading it."""
    return "empty source" in errors
