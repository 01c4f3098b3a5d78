"""Keys and values of sequences that move, to other workers and from them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import structlog

from services.core.errors import ServingError
from services.gpu_worker.engine.carrying import Carrying, Expected, Held, Space
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.worker import Worker
from services.policies.migration.carriage import Carriage

log = structlog.get_logger()

MESSAGE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Beginning:
    """Of a sequence: all its tokens, and how many of its first pages who asks has already."""

    space: Space
    tokens: tuple[int, ...]
    known_pages: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """Of its keys and values: whole pages, in order. The first says how they are laid out."""

    data: bytes = b""
    layout: str = ""
    page_tokens: int = 0
    pages: int = 0


class Peers(Protocol):
    """The other workers."""

    def read(self, address: str, wanted: Beginning) -> AsyncGenerator[Part, None]:
        """Raises ServingError."""
        ...


class Handover:
    """What cannot be had in time is computed again: nothing here fails a request. Pages that were
    taken are given back, and none while it is written, whoever stops waiting meanwhile."""

    def __init__(self, worker: Worker, carrying: Carrying, peers: Peers) -> None:
        self._worker = worker
        self._carrying = carrying
        self._peers = peers
        self._carriage = Carriage()
        self._going_on: set[asyncio.Task[None]] = set()

    async def read(self, wanted: Beginning) -> AsyncGenerator[Part, None]:
        """What there is of it."""
        memory = self._carrying.memory
        taking = asyncio.ensure_future(
            self._worker.change(lambda _: self._carrying.hold(wanted.space, wanted.tokens))
        )
        try:
            pages = (await asyncio.shield(taking)).pages[wanted.known_pages :]
            yield Part(
                layout=memory.layout, page_tokens=self._carrying.page_tokens, pages=len(pages)
            )
            each = max(1, MESSAGE_BYTES // memory.page_bytes)
            for at in range(0, len(pages), each):
                data = await asyncio.to_thread(memory.read, pages[at : at + each])
                yield Part(data)
        finally:
            await self._to_its_end(self._release(taking))

    async def fetch(self, request: EngineRequest, source: str) -> None:
        """What the worker at `source` has of it, where that is cheaper than to compute it."""
        await self._to_its_end(self._fetch(request, source))

    async def _to_its_end(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)
        await asyncio.shield(task)

    async def _release(self, taking: asyncio.Future[Held]) -> None:
        held = await taking
        await self._worker.change(lambda _: self._carrying.release(held))

    async def _fetch(self, request: EngineRequest, source: str) -> None:
        tokens = (*request.prompt, *request.delivered)
        expected = await self._worker.change(
            lambda engine: self._carrying.expect(
                (request.cache_salt, request.adapter), tokens, keep=engine.promised()
            )
        )
        if expected is None:
            return
        count = 0
        try:
            count = await self._receive(request, expected, source)
        finally:
            await self._worker.change(lambda _: self._carrying.arrived(expected, count))
            log.info("prefix_carried", request=request.id, pages=count, of=len(expected.pages))

    async def _receive(self, request: EngineRequest, expected: Expected, source: str) -> int:
        """Pages that came."""
        size = len(expected.pages) * self._carrying.memory.page_bytes
        times = await self._worker.between_steps(lambda _: self._worker.profile.times())
        again = len(expected.pages) * self._carrying.page_tokens * times.token if times else None
        if not self._carriage.pays(size, again):
            return 0
        arriving = _Arriving(self._carrying, expected)
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._carriage.patience_seconds(again)):
                async with aclosing(self._peers.read(source, _missing(expected))) as parts:
                    async for part in parts:
                        if not await arriving.take(part):
                            break
        except (ServingError, TimeoutError) as error:
            log.warning("prefix_not_carried", request=request.id, why=str(error) or "it took long")
        self._carriage.took(arriving.bytes, time.monotonic() - began)
        return arriving.pages


class _Arriving:
    """Pages as they come, in order."""

    def __init__(self, carrying: Carrying, expected: Expected) -> None:
        self._carrying = carrying
        self._expected = expected
        self._is_readable = False
        self.pages = 0
        self.bytes = 0

    async def take(self, part: Part) -> bool:
        """Whether more may come. When it is cancelled it first ends what it has begun to write."""
        memory, data = self._carrying.memory, part.data
        if not self._is_readable:
            tells = (part.layout, part.page_tokens)
            self._is_readable = tells == (memory.layout, self._carrying.page_tokens)
            return self._is_readable
        pages = self._expected.pages[self.pages :][: len(data) // memory.page_bytes]
        if not pages or len(data) != len(pages) * memory.page_bytes:
            return False
        writing = asyncio.ensure_future(asyncio.to_thread(memory.write, pages, data))
        try:
            await asyncio.shield(writing)
        finally:
            await writing
            self.pages += len(pages)
            self.bytes += len(data)
        return True


def _missing(expected: Expected) -> Beginning:
    known = expected.known
    return Beginning(known.space, known.tokens, len(known.pages))
