"""The workers that take requests, as the scheduler names them, with a line to each."""

import asyncio
import time
from collections.abc import Callable, Iterable

import grpc
import structlog

from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.core.types import Digest, Fingerprint, WorkerId
from services.gateway.lines import Lines
from services.gateway.worker_line import WorkerLine
from services.gateway.worker_room import WorkerIdentity
from services.runtime.client import Channels, bearer

log = structlog.get_logger()

RECONNECT_SECONDS = 0.5
SILENT_SECONDS = 15.0  # a scheduler says something once a lease
GRACE_SECONDS = 5.0
"""For workers that a scheduler which came back does not know yet."""


class Workers:
    """Keeps a line open to each; one that breaks is opened anew while its worker is named."""

    def __init__(self, token: str, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called whenever one of them may have more room, or is another."""
        self.changed = changed
        self._token = token
        self._named: dict[WorkerId, WorkerIdentity] = {}
        self._lines: dict[WorkerId, WorkerLine] = {}
        self._former: list[WorkerLine] = []  # of workers that are at another address now
        self._believed_until = 0.0  # those that were named by the scheduler before it went away
        self._remembered: dict[WorkerId, WorkerIdentity] = {}
        self._counts: dict[Digest, int] = {}  # of homes, where it is not one
        self._serving: dict[Fingerprint, Lines] = {}
        self._stale: dict[WorkerLine, None] = {}  # which are others than those know
        self._term = 0  # the highest that was heard
        self._is_away = False

    def lines(self, base: Fingerprint) -> Lines:
        """To those that serve this base model now, as they are now."""
        self._refresh()
        return self._serving_of(base)

    def name(self, workers: Iterable[WorkerIdentity]) -> None:
        """These, and no others, take requests; what runs elsewhere goes on."""
        told = {worker.id: worker for worker in workers}
        if time.monotonic() < self._believed_until:
            told = self._remembered | told
        before, self._named = self._named, told
        for worker, identity in before.items() - told.items():
            self._serving_of(identity.base_fingerprint).drop(worker)
        self._dial()
        for worker, _ in told.items() - before.items():
            self._note(self._lines[worker])
        self.changed()

    async def follow(self, channels: Channels) -> None:
        """The leading scheduler's word, until cancelled. While it is away its last word holds."""
        while True:
            channel = channels.current
            try:
                await self._hear(channel)
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                if not self._is_away:
                    log.warning("scheduler_away", why=_why(error))
                self._is_away = True
            channels.leave(channel)
            self._remembered = dict(self._named)
            self._believed_until = time.monotonic() + GRACE_SECONDS
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _hear(self, channel: grpc.aio.Channel) -> None:
        """Until it has no more to say, or what it says was superseded. Raises TimeoutError."""
        stub = rpc.SchedulerServiceStub(channel)
        call = stub.WatchWorkers(pb.WatchWorkersRequest(), metadata=bearer(self._token))
        try:
            while True:
                async with asyncio.timeout(SILENT_SECONDS):
                    response = await call.read()
                if not isinstance(response, pb.WatchWorkersResponse):  # the end
                    return
                if not self._is_news(response.term):
                    return
                self._is_away = False
                if response.HasField("homes"):
                    self._counts = {Digest(d): n for d, n in response.homes.counts.items()}
                self.name(_identity(worker) for worker in response.workers)
        finally:
            call.cancel()

    def _is_news(self, term: int) -> bool:
        """A scheduler of the release before has no terms."""
        self._term = max(self._term, term)
        return term in {0, self._term}

    async def redial(self) -> None:
        """Ends what fell silent and opens what broke, until cancelled."""
        while True:
            await asyncio.sleep(RECONNECT_SECONDS)
            for worker, line in self._lines.items():
                line.listen(RECONNECT_SECONDS, named=worker in self._named)
            for line in self._former:
                line.listen(RECONNECT_SECONDS, named=False)
            self._dial()
            self._refresh()
            if self._remembered and time.monotonic() > self._believed_until:
                self._remembered = {}

    async def close(self) -> None:
        for line in [*self._lines.values(), *self._former]:
            await line.close()

    def _serving_of(self, base: Fingerprint) -> Lines:
        if base not in self._serving:
            self._serving[base] = Lines(lambda adapter: self._counts.get(adapter, 1))
        return self._serving[base]

    def _note(self, line: WorkerLine) -> None:
        """It is another: that is told when somebody asks."""
        self._stale[line] = None

    def _refresh(self) -> None:
        for line in self._stale:
            worker = line.identity.id
            if worker in self._named and self._lines.get(worker) is line:
                self._serving_of(line.identity.base_fingerprint).put(line)
        self._stale.clear()

    def _dial(self) -> None:
        for worker, identity in self._named.items():
            line = self._lines.get(worker)
            if line is None or line.has_ended or line.identity != identity:
                self._lines[worker] = WorkerLine(identity, self._token, self._note, self._tell)
                self._note(self._lines[worker])
                if line is not None:
                    self._former.append(line)
        self._former = [line for line in self._former if not line.has_ended]
        for worker in [w for w, line in self._lines.items() if line.has_ended]:
            if worker not in self._named:
                del self._lines[worker]

    def _tell(self) -> None:
        self.changed()


def _identity(worker: pb.WorkerIdentity) -> WorkerIdentity:
    return WorkerIdentity(
        id=WorkerId(worker.id),
        address=worker.address,
        base_model=worker.base_model,
        base_fingerprint=Fingerprint(worker.base_fingerprint),
    )


def _why(error: grpc.aio.AioRpcError | TimeoutError) -> str:
    return (error.details() or "") if isinstance(error, grpc.aio.AioRpcError) else "silent"
