"""A way to a server that can go dead: nothing comes through, and nobody is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.cli.suite import free_addresses


class Relay:
    def __init__(self, target: str) -> None:
        self.address = free_addresses().worker
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """What is sent from now on waits."""
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection, both ways."""
        host, _, port = self._target.partition(":")
        onward, back = await asyncio.open_connection(host, int(port))
        self._writers += [writer, back]
        await asyncio.gather(self._pipe(reader, back), self._pipe(onward, writer))

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._open.wait()
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def a_relay(target: str) -> AsyncIterator[Relay]:
    relay = Relay(target)
    host, _, port = relay.address.partition(":")
    async with await asyncio.start_server(relay.carry, host, int(port)):
        try:
            yield relay
        finally:
            relay.heal()
            relay.close()
