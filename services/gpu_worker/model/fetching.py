"""Adapters made ready beside the steps, in processes of their own."""

import asyncio
import contextlib
import mmap
import os
import pickle
import socket
import sys
from asyncio.subprocess import Process
from pathlib import Path

import structlog
import torch

from services.core.errors import ServingError
from services.core.types import Digest
from services.gpu_worker.model.adapters import AdapterReader, AdapterWeights
from services.gpu_worker.model.fetch_process import MOST_MESSAGE_BYTES, Source
from services.gpu_worker.model.layout import Layout
from services.gpu_worker.model.packing import Packing
from services.gpu_worker.model.unpacking import Unpacker

log = structlog.get_logger()

PATIENCE_SECONDS = 4.0
LOOK_SECONDS = 0.25
MOST_ASKED = 64  # at a time: what surely fits into the socket
NICENESS = 5  # of the process that does not give way


class Fetcher:
    """Fetches adapters in two processes.

    One gives way to whatever else wants a processor, so that a cold adapter now and then costs
    running streams nothing. What comes while it is busy, or waits too long for a processor, goes
    to the other: when many wait for adapters, steps with few sequences are no use to anybody.

    Threads will not do. While one holds the interpreter's lock the engine waits, however little
    processor it gets.
    """

    def __init__(
        self, source: Source, reader: AdapterReader, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """`patience_seconds`: for how long the threads of the process that gives way, together,
        may wait for a processor before the other process is asked.
        """
        self._source = source
        self._reader = reader
        self._patience = patience_seconds
        self.yielding = Service(source, reader.unpacker, gives_way=True)
        self.prompt = Service(source, reader.unpacker, gives_way=False)

    async def start(self) -> None:
        """Optional: the first fetches do it, and wait for it."""
        if sys.platform == "linux":
            await asyncio.gather(self.yielding.start(), self.prompt.start())

    async def fetch(self, digest: Digest) -> AdapterWeights:
        """Raises what Source.download and Unpacker.unpack do."""
        packing = await self._beside(digest) if sys.platform == "linux" else None
        if packing is None:
            return await asyncio.to_thread(self._here, digest)
        return await asyncio.to_thread(self._reader.stage, packing)

    async def close(self) -> None:
        await asyncio.gather(self.yielding.close(), self.prompt.close())

    async def _beside(self, digest: Digest) -> Packing | None:
        found = None
        if not self.yielding.is_busy:
            found = await self.yielding.fetch(digest, self._patience)
        return found or await self.prompt.fetch(digest)

    def _here(self, digest: Digest) -> AdapterWeights:
        return self._reader.read(self._source.download(digest), digest)


class Service:
    """A process that fetches, and the next one when it breaks."""

    def __init__(self, source: Source, unpacker: Unpacker, *, gives_way: bool) -> None:
        self._source = source
        self._unpacker = unpacker
        self._gives_way = gives_way
        self._child: _Child | None = None
        self._starting = asyncio.Lock()
        self._asked = asyncio.Semaphore(MOST_ASKED)

    @property
    def process_id(self) -> int | None:
        return self._child.process_id if self._child else None

    @property
    def is_busy(self) -> bool:
        return self._child is not None and self._child.is_busy

    async def start(self) -> "_Child":
        async with self._starting:
            if self._child is None:
                self._child = await _Child.start(self._source, self._unpacker)
                _take_a_step_back(self._child.process_id, gives_way=self._gives_way)
            return self._child

    async def fetch(self, digest: Digest, patience_seconds: float | None = None) -> Packing | None:
        """None if it broke, could not start or was starved."""
        async with self._asked:
            child = None
            try:
                child = await self.start()
                return await child.fetch(digest, patience_seconds)
            except TimeoutError:
                log.info("fetch_starved", digest=digest)
            except OSError as error:
                log.warning("fetch_broke", digest=digest, why=str(error))
                if child is not None and self._child is child:
                    await self.close()
        return None

    async def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.close()


def _take_a_step_back(process: int, *, gives_way: bool) -> None:
    with contextlib.suppress(OSError):  # forbidden, or it has ended already
        if gives_way:
            os.sched_setscheduler(process, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.setpriority(os.PRIO_PROCESS, process, NICENESS)


class _Child:
    def __init__(self, process: Process, line: socket.socket) -> None:
        self.process_id = process.pid
        self._process = process
        self._line = line
        self._waiting: dict[Digest, asyncio.Future[Packing]] = {}
        asyncio.get_running_loop().add_reader(line, self._take)

    @classmethod
    async def start(cls, source: Source, unpacker: Unpacker) -> "_Child":
        line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "services.gpu_worker.model.fetch_process",
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                )
        except BaseException:
            line.close()
            raise
        line.setblocking(False)
        line.send(pickle.dumps((source, unpacker)))
        return cls(process, line)

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting)

    async def fetch(self, digest: Digest, patience_seconds: float | None) -> Packing:
        """Raises OSError if the process has ended, TimeoutError if it had to wait too long."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting[digest] = answer
        try:
            self._line.send(digest.encode())
            if patience_seconds is not None:
                await self._unless_starved(answer, patience_seconds)
            return await answer
        finally:
            del self._waiting[digest]

    async def close(self) -> None:
        self._give_up("it was closed")
        with contextlib.suppress(ProcessLookupError):  # it has ended
            self._process.kill()
        await self._process.wait()
        self._line.close()

    async def _unless_starved(self, answer: asyncio.Future[Packing], seconds: float) -> None:
        before = self._starved_seconds()
        while not (await asyncio.wait([answer], timeout=LOOK_SECONDS))[0]:
            if self._starved_seconds() - before > seconds:
                raise TimeoutError

    def _starved_seconds(self) -> float:
        """For how long its threads, taken together, have waited for a processor."""
        waited = 0
        for path in Path(f"/proc/{self.process_id}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                waited += int(path.read_text().split()[1])
        return waited / 1e9

    def _take(self) -> None:
        try:
            message, files, _, _ = socket.recv_fds(self._line, MOST_MESSAGE_BYTES, 1)
        except ConnectionResetError:  # it ended with something unread
            message = b""
        if not message:
            self._give_up("it ended")
            return
        digest, found = pickle.loads(message)
        answer = self._waiting.get(digest)
        if answer is None or answer.done():  # nobody waits any more
            for file in files:
                os.close(file)
        elif isinstance(found, ServingError):
            answer.set_exception(found)
        elif not files:  # no descriptor was left for it
            answer.set_exception(OSError("an adapter came without its file"))
        else:
            try:
                with os.fdopen(files[0], "rb") as image:
                    answer.set_result(_packing_in(image.fileno(), found))
            except OSError as error:  # no memory to map it
                answer.set_exception(error)

    def _give_up(self, why: str) -> None:
        asyncio.get_running_loop().remove_reader(self._line)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError(f"fetching in a process broke: {why}"))


def _packing_in(file: int, layout: Layout) -> Packing:
    """The image stays where the process put it, shared."""
    shared = mmap.mmap(file, 0)
    return Packing(torch.frombuffer(shared, dtype=torch.float32).view(layout.pages, -1), layout)
