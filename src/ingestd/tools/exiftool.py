"""Characterization with ExifTool: one process for all files, since starting Perl costs more than describing a file."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from ingestd.errors import Code, ToolError
from ingestd.tools.alias import Alias, alias
from ingestd.tools.pool import Pool, Process
from ingestd.tools.xml import Described, element

AHEAD = 8
"""How many files it is told of before it has answered for the first."""
FILE_SECONDS = 120.0
# No configuration file is read (it is Perl code). The folder of a file is this server's business.
ARGV = ("exiftool", "-config", "", "-stay_open", "True", "-@", "-", "-common_args", "-X", "--Directory")

_ABOUT = re.compile(r"rdf:about='[^']*/([^'/]*)'")


class ExifTool:
    """Writes what `exiftool -X` writes: RDF/XML, one `rdf:RDF` element per file."""

    def __init__(self, pool: Pool, *, file_seconds: float = FILE_SECONDS, argv: Sequence[str] = ARGV) -> None:
        self._pool = pool
        self._argv = argv
        self._file_seconds = file_seconds
        self._process: Process | None = None
        self._version = ""
        self._turn = asyncio.Lock()

    async def describe(self, paths: Sequence[Path]) -> Sequence[Described]:
        """Describe files, in their order; no path of this server is in the XML.

        A file on which ExifTool hangs or dies gets an `error`, and the next ones a new ExifTool. Raises `ToolError`
        `tool.not_installed` if there is none.
        """
        told = await asyncio.to_thread(self._tell, paths)
        try:
            async with self._turn, self._pool.slot():
                return await self._all(told)
        finally:
            for one in told:
                one.remove()

    async def version(self) -> str:
        """Give ExifTool's version, e.g. `12.57`; asked once."""
        if not self._version:
            run = await self._pool.run(["exiftool", "-config", "", "-ver"], name="ExifTool")
            self._version = run.check("ExifTool").stdout.decode("ascii", errors="replace").strip()
        return self._version

    async def aclose(self) -> None:
        if self._process:
            await self._process.aclose()
            self._process = None

    def _tell(self, paths: Sequence[Path]) -> list[Alias]:
        folder = self._pool.home()
        return [alias(path.absolute(), folder) for path in paths]

    async def _all(self, told: Sequence[Alias]) -> list[Described]:
        done: list[Described] = []
        while len(done) < len(told):
            try:
                await self._until_it_fails(told[len(done) :], done)
            except ToolError as error:
                await self.aclose()
                if error.code is Code.TOOL_NOT_INSTALLED:
                    raise
                done.append(Described(error=error.detail))
            except BaseException:
                # Answers are under way that nobody will read: the next caller must not get them.
                if self._process:
                    self._process.kill()
                await self.aclose()
                raise
        return done

    async def _until_it_fails(self, told: Sequence[Alias], done: list[Described]) -> None:
        process = self._process = await self._ready()
        # The mark of an answer's end cannot be guessed by what a file's metadata say.
        marks = [secrets.randbelow(10**12) + 10**12 for _ in told]
        for place, one in enumerate(told[:AHEAD]):
            await self._send(process, one, marks[place])
        for place, one in enumerate(told):
            done.append(_described(one, await self._answer(process, marks[place])))
            if place + AHEAD < len(told):
                await self._send(process, told[place + AHEAD], marks[place + AHEAD])

    async def _ready(self) -> Process:
        if self._process and not self._process.alive:
            await self.aclose()
        return self._process or await self._pool.open(self._argv, name="ExifTool")

    async def _send(self, process: Process, one: Alias, mark: int) -> None:
        await process.write(f"{one.told}\n-execute{mark}\n".encode())

    async def _answer(self, process: Process, mark: int) -> bytes:
        end = f"{{ready{mark}}}\n".encode()
        try:
            async with asyncio.timeout(self._file_seconds):
                return (await process.read_until(end)).removesuffix(end)
        except TimeoutError as error:
            process.kill()
            raise ToolError(f"ExifTool gave no answer within {self._file_seconds:.0f} seconds") from error


def _described(one: Alias, answer: bytes) -> Described:
    text = answer.decode("utf-8", errors="replace")
    if not text.strip():
        return Described(error="ExifTool could not read the file")
    try:
        return Described(xml=element(one.restore(_ABOUT.sub(r"rdf:about='\1'", text, count=1))))
    except ValueError as error:
        return Described(error=str(error))
