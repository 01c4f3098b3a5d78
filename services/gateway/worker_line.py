"""One call to a worker, with all its requests on it, and the room that the worker says it has."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import grpc
from google.rpc import status_pb2

from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2 as pb
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as rpc
from services.core.errors import DeadlineExceeded, ServingError, Unavailable
from services.core.reports import NO_LOAD_TIMES, StepTimes
from services.core.types import (
    AdapterWait,
    Digest,
    Fingerprint,
    RequestId,
    Room,
    TokenPiece,
    WorkerId,
)
from services.gateway.course import Job
from services.gateway.lane import MovedOn
from services.policies.placement.views import UNKNOWN_EVICTS_MS, UNKNOWN_TIMES, WorkerView
from services.policies.silence import is_doubtful, is_lost
from services.runtime import wire
from services.runtime.client import bearer, open_channel
from services.runtime.status import from_status
from services.runtime.wire_loading import load_times_from_wire

_Outcome = TokenPiece | MovedOn | ServingError

MOST_PREFETCHED = 64  # that it is remembered of


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Does not change while a worker lives."""

    id: WorkerId
    address: str
    base_model: str
    base_fingerprint: Fingerprint


class WorkerLine:
    """Failures of requests come as pieces; when the call itself fails, for whatever reason, all
    that is on it was lost with the worker.

    What is promised here counts against the room until the worker has said that it counts it too.
    """

    def __init__(
        self,
        identity: WorkerIdentity,
        token: str,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called whenever there may be more room, and when the call has ended."""
        self.identity = identity
        self.has_ended = False
        self._heard = True  # anything, since `listen`
        self._silent = 0.0  # seconds
        self._why = "the worker ended the call"
        self._changed = changed
        self._room = Room()
        self._resident: frozenset[Digest] = frozenset()
        self._pace = UNKNOWN_TIMES
        self._load_times = NO_LOAD_TIMES
        self._promised: dict[RequestId, int] = {}  # tokens
        self._sent: deque[int] = deque()  # tokens, of starts that the room does not count yet
        self._dealt = 0  # starts that it does
        self._jobs: dict[RequestId, Job] = {}  # with adapters, that are promised or run
        self._view: WorkerView | None = None  # None once it is another
        self._prefetched: deque[Digest] = deque(maxlen=MOST_PREFETCHED)
        self._commands: asyncio.Queue[pb.RunRequest] = asyncio.Queue()
        self._streams: dict[RequestId, asyncio.Queue[_Outcome]] = {}
        self._channel = open_channel(identity.address)
        stub = rpc.GpuWorkerServiceStub(self._channel)
        self._call = stub.Run(self._outgoing(), metadata=bearer(token))
        self._reading = asyncio.create_task(self._read())

    @property
    def has_room(self) -> bool:
        ahead = len(self._promised) + len(self._sent)
        return self._takes_requests and self._room.sequences > ahead

    @property
    def pool_tokens(self) -> int:
        """That the worker's pool can hold in all."""
        return self._room.pool_tokens

    @property
    def adapters(self) -> frozenset[Digest]:
        """On the device, or asked for by a request that is there or on its way."""
        return self.view.resident

    @property
    def view(self) -> WorkerView:
        if self._view is None:
            ranks = {job.adapter: job.adapter_rank for job in self._jobs.values() if job.adapter}
            ahead = len(self._promised) + len(self._sent)
            self._view = WorkerView(
                id=self.identity.id,
                base_model=self.identity.base_model,
                base_fingerprint=self.identity.base_fingerprint,
                running=self._room.running + ahead,
                waiting=self._room.waiting,
                free_pages=self._room.tokens,
                resident=self._resident.union(ranks),
                draining=False,
                step_times=self._pace,
                load_times=self._load_times,
                ranks=ranks,
                evicts_ms=UNKNOWN_EVICTS_MS,
            )
        return self._view

    def serves(self, job: Job) -> bool:
        """Whether it would if it had room: workers of the release before begin anew."""
        return self._room.goes_on or not job.delivered

    def fits(self, job: Job) -> bool:
        """Whether it would start about now. What fits nowhere fits an idle worker, which says why
        it does not."""
        ahead = [*self._promised.values(), *self._sent]
        if not self._takes_requests or self._room.sequences <= len(ahead):
            return False
        if not (self._room.running or self._room.waiting or ahead):
            return True
        return self._tokens(job) <= self._room.tokens - sum(ahead)

    def promise(self, job: Job) -> None:
        """It will be started here, or withdrawn."""
        self._promised[job.request_id] = self._tokens(job)
        if job.adapter is not None:
            self._jobs[job.request_id] = job
        self._view = None

    def withdraw(self, request: RequestId) -> None:
        if self._promised.pop(request, None) is not None:
            self._jobs.pop(request, None)
            self._view = None
            self._changed()

    def prefetch(self, adapter: Digest) -> None:
        """Once; the worker may have forgotten it by the time it is needed."""
        if adapter not in self._prefetched:
            self._prefetched.append(adapter)
            self._commands.put_nowait(pb.RunRequest(prefetch=adapter))

    async def follow(self, job: Job, seconds: float) -> AsyncGenerator[TokenPiece, None]:
        """Closing it cancels the sequence. Raises DeadlineExceeded after `seconds`, and MovedOn if
        it goes on elsewhere."""
        if self.has_ended:
            self.withdraw(job.request_id)
            raise Unavailable("the worker is gone")
        deadline = asyncio.get_running_loop().time() + seconds
        if job.request_id not in self._promised:
            self.promise(job)
        self._sent.append(self._promised.pop(job.request_id))
        self._commands.put_nowait(pb.RunRequest(start=_start(job)))
        stream = self._streams[job.request_id] = asyncio.Queue()
        ended = False
        try:
            while not ended:
                async with asyncio.timeout_at(deadline):
                    outcome = await stream.get()
                if isinstance(outcome, ServingError | MovedOn):
                    ended = True
                    raise outcome
                ended = outcome.finish_reason is not None
                yield outcome
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed") from error
        finally:
            del self._streams[job.request_id]
            self._jobs.pop(job.request_id, None)
            self._view = None
            if not ended:
                self._commands.put_nowait(pb.RunRequest(cancel=job.request_id))

    def listen(self, seconds: float, *, named: bool) -> None:
        """Called every so many seconds: ends the call if its worker has been silent too long.
        When we were stopped ourselves, that is none of its silence. `named`: by the scheduler."""
        self._silent = 0.0 if self._heard else self._silent + seconds
        self._heard = False
        if not self.has_ended and is_lost(self._silent, self._room.beat, named=named):
            self._why = "the worker fell silent"
            self._call.cancel()

    async def close(self) -> None:
        """What runs on it is cancelled."""
        self._call.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    @property
    def _takes_requests(self) -> bool:
        return not self.has_ended and not is_doubtful(self._silent, self._room.beat)

    def _tokens(self, job: Job) -> int:
        """That it is expected to come to hold."""
        return len(job.prompt) + math.ceil(job.sampling.max_tokens * self._room.output_share)

    async def _outgoing(self) -> AsyncIterator[pb.RunRequest]:
        while True:
            yield await self._commands.get()

    async def _read(self) -> None:
        """Hand out what comes, until the call ends; then say so to all who still wait."""
        try:
            async for response in self._call:
                self._heard = True
                for piece in response.pieces:
                    stream = self._streams.get(RequestId(piece.request_id))
                    if stream is not None:  # cancelled while it was under way
                        stream.put_nowait(_outcome(piece, self.identity.address))
                if response.HasField("room"):
                    self._measured(response.room)
        except grpc.aio.AioRpcError as error:
            self._why = f"the call to the worker broke: {error.code().name} {error.details()}"
        finally:
            self.has_ended = True
            for stream in self._streams.values():
                stream.put_nowait(Unavailable(self._why))
            self._changed()
            await self._channel.close()

    def _measured(self, room: pb.Room) -> None:
        for _ in range(min(room.started - self._dealt, len(self._sent))):
            self._sent.popleft()
        self._dealt = room.started
        self._room = Room(
            sequences=room.sequences,
            tokens=room.tokens,
            output_share=room.output_share,
            running=room.running,
            waiting=room.waiting,
            pool_tokens=room.pool_tokens,
            goes_on=room.goes_on,
            beat=room.beat_ms / 1000,
        )
        if room.HasField("pace"):
            pace = room.pace
            self._pace = StepTimes(pace.base_ms, pace.sequence_ms, pace.token_ms)
        if room.HasField("load_times"):
            self._load_times = load_times_from_wire(room.load_times)
        if room.HasField("resident"):
            self._resident = frozenset(Digest(digest) for digest in room.resident.digests)
        self._view = None
        self._changed()


def _start(job: Job) -> pb.Start:
    return pb.Start(
        request_id=job.request_id,
        base_fingerprint=job.base_fingerprint,
        adapter_digest=job.adapter or "",
        prompt=job.prompt,
        sampling=wire.sampling_to_wire(job.sampling),
        cache_salt=job.cache_salt,
        first_token_within_ms=job.first_token_within_ms,
        delivered=job.delivered,
        moved_from=job.moved_from,
        movable=True,
    )


def _wait(wait: pb.AdapterWait) -> AdapterWait:
    return AdapterWait(wait.seconds, wait.sequences, max(1, wait.slots))


def _outcome(piece: pb.Piece, source: str) -> _Outcome:
    if piece.error:
        return from_status(status_pb2.Status.FromString(piece.error))
    if piece.HasField("moved"):
        return MovedOn(WorkerId(piece.moved.worker_id), source, piece.cached_tokens)
    return TokenPiece(
        tokens=tuple(piece.tokens),
        logprobs=tuple(wire.logprobs_from_wire(position) for position in piece.logprobs),
        finish_reason=wire.finish_from_wire(piece.finish_reason),
        batch=wire.batch_from_wire(piece.batch) if piece.HasField("batch") else None,
        cached_tokens=piece.cached_tokens,
        adapter_wait=_wait(piece.adapter_wait) if piece.HasField("adapter_wait") else None,
    )
