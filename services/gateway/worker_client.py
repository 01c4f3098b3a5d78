"""The workers, as the gateway calls them: one call to each, with all its requests on it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import grpc
from google.rpc import status_pb2

from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2 as pb
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as rpc
from services.core.errors import DeadlineExceeded, ServingError, Unavailable
from services.core.types import RequestId, TokenPiece
from services.gateway.course import Job, Placement
from services.runtime import wire
from services.runtime.client import bearer, open_channel
from services.runtime.status import from_status


class WorkerClient:
    """A line to each worker that is in use, opened anew when it breaks."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._lines: dict[str, _Line] = {}

    async def generate(
        self, placement: Placement, job: Job, seconds: float
    ) -> AsyncIterator[TokenPiece]:
        """Closing the iterator cancels the sequence. Raises DeadlineExceeded after `seconds`."""
        async with aclosing(self._line(placement.address).follow(job, seconds)) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    def _line(self, address: str) -> "_Line":
        line = self._lines.get(address)
        if line is None or line.has_ended:
            channel = self._channels.get(address)
            if channel is None:
                channel = self._channels[address] = open_channel(address)
            line = self._lines[address] = _Line(channel, self._token)
        return line


class _Line:
    """One call. Failures of requests come as pieces; when the call itself fails, for whatever
    reason, all that is on it was lost with the worker.
    """

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._commands: asyncio.Queue[pb.RunRequest] = asyncio.Queue()
        self._streams: dict[RequestId, asyncio.Queue[TokenPiece | ServingError]] = {}
        self._call = rpc.GpuWorkerServiceStub(channel).Run(self._outgoing(), metadata=bearer(token))
        self._reading = asyncio.create_task(self._read())
        self.has_ended = False

    async def follow(self, job: Job, seconds: float) -> AsyncGenerator[TokenPiece, None]:
        deadline = asyncio.get_running_loop().time() + seconds
        self._commands.put_nowait(pb.RunRequest(start=_start(job)))
        stream = self._streams[job.request_id] = asyncio.Queue()
        ended = False
        try:
            while not ended:
                async with asyncio.timeout_at(deadline):
                    outcome = await stream.get()
                if isinstance(outcome, ServingError):
                    ended = True
                    raise outcome
                ended = outcome.finish_reason is not None
                yield outcome
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed") from error
        finally:
            del self._streams[job.request_id]
            if not ended:
                self._commands.put_nowait(pb.RunRequest(cancel=job.request_id))

    async def _outgoing(self) -> AsyncIterator[pb.RunRequest]:
        while True:
            yield await self._commands.get()

    async def _read(self) -> None:
        """Hand out what comes, until the call ends; then say so to all who still wait."""
        why = "the worker ended the call"
        try:
            async for response in self._call:
                for piece in response.pieces:
                    stream = self._streams.get(RequestId(piece.request_id))
                    if stream is not None:  # cancelled while it was under way
                        stream.put_nowait(_outcome(piece))
        except grpc.aio.AioRpcError as error:
            why = f"the call to the worker broke: {error.code().name} {error.details()}"
        finally:
            self.has_ended = True
            for stream in self._streams.values():
                stream.put_nowait(Unavailable(why))


def _start(job: Job) -> pb.Start:
    return pb.Start(
        request_id=job.request_id,
        base_fingerprint=job.base_fingerprint,
        adapter_digest=job.adapter or "",
        prompt=job.prompt,
        sampling=wire.sampling_to_wire(job.sampling),
        cache_salt=job.cache_salt,
        first_token_within_ms=job.first_token_within_ms,
    )


def _outcome(piece: pb.Piece) -> TokenPiece | ServingError:
    if piece.error:
        return from_status(status_pb2.Status.FromString(piece.error))
    return TokenPiece(
        tokens=tuple(piece.tokens),
        logprobs=tuple(wire.logprobs_from_wire(position) for position in piece.logprobs),
        finish_reason=wire.finish_from_wire(piece.finish_reason),
        batch=wire.batch_from_wire(piece.batch) if piece.HasField("batch") else None,
    )
