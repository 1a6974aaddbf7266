"""Characterization of sound and moving image with ffprobe."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from ingestd.errors import Code
from ingestd.oais import escape_name
from ingestd.tools.pool import Pool
from ingestd.tools.xml import Described, element

# A name is never an address or an option (`file:`), and a playlist leads nowhere but to files.
ARGV = (
    "ffprobe", "-hide_banner", "-loglevel", "error", "-protocol_whitelist", "file",
    "-show_format", "-show_streams", "-show_chapters", "-show_programs", "-of", "xml",
)  # fmt: skip

_FILENAME = re.compile(r'(<format [^>]*?filename=")[^"]*(")')
_VERSION = re.compile(rb"ffprobe version (\S+)")


class Ffprobe:
    """Writes what `ffprobe -of xml` writes: one `ffprobe` element."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._version = ""

    async def describe(self, paths: Sequence[Path]) -> Sequence[Described]:
        """Describe files, in order, as many at once as the pool allows; no path of this server is in the XML.

        A file that ffprobe cannot read, or on which it was stopped by a limit, gets an `error`. Raises `ToolError` if
        ffprobe is not installed.
        """
        return await asyncio.gather(*(self._one(path) for path in paths))

    async def _one(self, path: Path) -> Described:
        # Run from within the file's folder: what it names is the file alone.
        run = await self._pool.run([*ARGV, "-i", f"file:{path.name}"], cwd=path.parent, name="ffprobe")
        if run.stopped:
            return Described(error=run.error("ffprobe", self._version).detail)
        if not run.ok:
            return Described(error=_last_line(run.stderr_tail, path.name) or f"ffprobe ended with {run.exit_code}")
        try:
            return Described(xml=_named(element(run.stdout.decode("utf-8", errors="replace")), path.name))
        except ValueError as error:
            return Described(error=str(error))

    async def version(self) -> str:
        """Give ffprobe's version, e.g. `5.1.9-0+deb12u1`; asked once."""
        if not self._version:
            run = (await self._pool.run(["ffprobe", "-version"], name="ffprobe")).check("ffprobe")
            found = _VERSION.match(run.stdout)
            if not found:
                raise run.error("ffprobe", code=Code.TOOL_BAD_OUTPUT, detail="does not say its version")
            self._version = found[1].decode("ascii", errors="replace")
        return self._version


def _named(xml: str, name: str) -> str:
    """Write the file's name as it is written everywhere else in an AIP."""
    from xml.sax.saxutils import escape

    text = escape(escape_name(name), {'"': "&quot;"})
    return _FILENAME.sub(lambda match: f"{match[1]}{text}{match[2]}", xml, count=1)


def _last_line(stderr: str, name: str) -> str:
    lines = stderr.strip().splitlines()
    return lines[-1].removeprefix(f"file:{name}: ") if lines else ""
