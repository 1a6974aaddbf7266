"""A TCP proxy that can cut, stall, slow and refuse, to put between a client and a broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 65_536


class Proxy:
    """Passes what comes to `port` on to `target_port`, both on this machine, with the trouble that a test asks for."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.accepted = 0
        """Connections taken since the start."""
        self.refusing = False
        """Whether new connections are closed at once."""
        self.delay_seconds = 0.0
        """How long each chunk waits, each way."""
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._answering = asyncio.Event()
        self._answering.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """How many connections are open, counted at the client's side."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """Reset every open connection, as a broken network does; new ones work."""
        for writer in list(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Let no byte through, in either way, while every connection stays open."""
        self._flowing.clear()

    def hold_answers(self) -> None:
        """Let through what clients send, and nothing of what they are answered."""
        self._answering.clear()

    def resume(self) -> None:
        """End a stall: what was held back goes through."""
        self._flowing.set()
        self._answering.set()

    async def serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either end closes it."""
        self.accepted += 1
        if self.refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, far_writer, self._flowing))
                group.create_task(self._carry(far_reader, writer, self._flowing, self._answering))
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *gates: asyncio.Event) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                for gate in gates:
                    await gate.wait()
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                writer.write(chunk)
                await writer.drain()
            if not writer.is_closing():
                writer.write_eof()


@asynccontextmanager
async def proxy(target_port: int) -> AsyncIterator[Proxy]:
    """Run a `Proxy` on a free port; leaving cuts what is still open."""
    one = Proxy(target_port)
    server = await asyncio.start_server(one.serve_client, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        one.resume()
        one.cut()
        await server.wait_closed()


async def until(condition: Callable[[], bool], limit_seconds: float = 10) -> None:
    """Wait until `condition` holds. Raises `TimeoutError`."""
    async with asyncio.timeout(limit_seconds):
        while not condition():
            await asyncio.sleep(0.01)
