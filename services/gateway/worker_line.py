"""One call to a worker, with all its requests on it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import grpc
from google.rpc import status_pb2

from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2 as pb
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as rpc
from services.core.errors import DeadlineExceeded, ServingError, Unavailable
from services.core.reports import StepTimes
from services.core.types import AdapterWait, Digest, RequestId, Room, TokenPiece, WorkerId
from services.gateway.course import Job
from services.gateway.lane import MovedOn
from services.gateway.worker_room import WorkerIdentity, WorkerRoom
from services.policies.silence import is_doubtful, is_lost
from services.runtime import wire
from services.runtime.client import bearer, open_channel
from services.runtime.status import from_status
from services.runtime.wire_loading import load_times_from_wire

_Outcome = TokenPiece | MovedOn | ServingError

MOST_PREFETCHED = 64  # that it is remembered of


class WorkerLine(WorkerRoom):
    """Failures of requests come as pieces; when the call itself fails, for whatever reason, all
    that is on it was lost with the worker."""

    def __init__(
        self,
        identity: WorkerIdentity,
        token: str,
        changed: Callable[["WorkerLine"], None],
        has_more: Callable[[], None],
    ) -> None:
        """`changed` is called whenever it looks otherwise, `has_more` when there may be more room,
        and when the call has ended."""
        super().__init__(identity, lambda: changed(self))
        self._heard = True  # anything, since `listen`
        self._silent = 0.0  # seconds
        self._why = "the worker ended the call"
        self._has_more = has_more
        self._prefetched: deque[Digest] = deque(maxlen=MOST_PREFETCHED)
        self._commands: asyncio.Queue[pb.RunRequest] = asyncio.Queue()
        self._streams: dict[RequestId, asyncio.Queue[_Outcome]] = {}
        self._channel = open_channel(identity.address)
        stub = rpc.GpuWorkerServiceStub(self._channel)
        self._call = stub.Run(self._outgoing(), metadata=bearer(token))
        self._reading = asyncio.create_task(self._read())

    def withdraw(self, request: RequestId) -> None:
        if request in self._promised:
            super().withdraw(request)
            self._has_more()

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
        self.started(job)
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
            self.ended(job.request_id)
            if not ended:
                self._commands.put_nowait(pb.RunRequest(cancel=job.request_id))

    def listen(self, seconds: float, *, named: bool) -> None:
        """Called every so many seconds: ends the call if its worker has been silent too long.
        When we were stopped ourselves, that is none of its silence. `named`: by the scheduler."""
        self._silent = 0.0 if self._heard else self._silent + seconds
        self._heard = False
        self.takes(requests=not self.has_ended and not is_doubtful(self._silent, self.beat))
        if not self.has_ended and is_lost(self._silent, self.beat, named=named):
            self._why = "the worker fell silent"
            self._call.cancel()

    async def close(self) -> None:
        """What runs on it is cancelled."""
        self._call.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

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
                    self._told(response.room)
        except grpc.aio.AioRpcError as error:
            self._why = f"the call to the worker broke: {error.code().name} {error.details()}"
        finally:
            self.end()
            for stream in self._streams.values():
                stream.put_nowait(Unavailable(self._why))
            self._has_more()
            await self._channel.close()

    def _told(self, room: pb.Room) -> None:
        pace, resident = room.pace, room.resident.digests
        self.measured(
            Room(
                sequences=room.sequences,
                tokens=room.tokens,
                output_share=room.output_share,
                running=room.running,
                waiting=room.waiting,
                pool_tokens=room.pool_tokens,
                goes_on=room.goes_on,
                beat=room.beat_ms / 1000,
            ),
            room.started,
            pace=StepTimes(pace.base_ms, pace.sequence_ms, pace.token_ms)
            if room.HasField("pace")
            else None,
            load_times=load_times_from_wire(room.load_times)
            if room.HasField("load_times")
            else None,
            resident=frozenset(map(Digest, resident)) if room.HasField("resident") else None,
        )
        self._has_more()


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
