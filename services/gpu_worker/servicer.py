"""The GPU worker on the wire."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2 as pb
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as rpc
from services.core.base_model import BaseModel
from services.core.errors import FailedPrecondition, InvalidRequest, ServingError
from services.core.reports import NO_LOAD_TIMES, LoadTimes, StepTimes
from services.core.types import AdapterWait, BatchFacts, Departure, Digest, RequestId
from services.gpu_worker.engine.sequence import EngineRequest, TokenFilter
from services.gpu_worker.handover import Beginning, Handover
from services.gpu_worker.model.grammar import Grammars
from services.gpu_worker.session import BEAT_SECONDS, News, Outcome, Session
from services.gpu_worker.worker import Worker
from services.runtime import wire
from services.runtime.interceptors import Context, to_serving
from services.runtime.status import to_status
from services.runtime.wire_loading import load_times_to_wire


class GpuWorkerServicer(rpc.GpuWorkerServiceServicer):
    def __init__(
        self,
        worker: Worker,
        card: BaseModel,
        handover: Handover,
        prefetch: Callable[[Digest], None] = lambda _: None,
    ) -> None:
        """`prefetch`: told of adapters that requests elsewhere wait for."""
        self._worker = worker
        self._handover = handover
        self._prefetch = prefetch
        self._fingerprint = card.fingerprint
        self._grammars = Grammars(card)

    async def Run(
        self, requests: AsyncIterator[pb.RunRequest], context: Context
    ) -> AsyncIterator[pb.RunResponse]:
        with self._worker.session() as session:
            reading = asyncio.create_task(self._obey(requests, session))
            told = _Told()
            try:
                while news := await session.news():
                    yield _to_wire(news, self._worker.pace, self._worker.load_times, told)
            finally:
                reading.cancel()

    async def ReadPrefix(
        self, request: pb.ReadPrefixRequest, context: Context
    ) -> AsyncIterator[pb.ReadPrefixResponse]:
        if request.base_fingerprint != self._fingerprint:
            raise FailedPrecondition("the prefix is another base model's")
        adapter = Digest(request.adapter_digest) if request.adapter_digest else None
        wanted = Beginning(
            (request.cache_salt, adapter), tuple(request.tokens), request.known_pages
        )
        async with aclosing(self._handover.read(wanted)) as parts:
            async for part in parts:
                yield pb.ReadPrefixResponse(
                    layout=part.layout,
                    page_tokens=part.page_tokens,
                    pages=part.pages,
                    data=part.data,
                )

    async def _obey(self, requests: AsyncIterator[pb.RunRequest], session: Session) -> None:
        """Until the caller has closed its side."""
        starting: dict[RequestId, asyncio.Task[None]] = {}
        try:
            async for request in requests:
                command = request.WhichOneof("command")
                if command == "prefetch":
                    self._prefetch(Digest(request.prefetch))
                    continue
                if command == "cancel":
                    cancelled = RequestId(request.cancel)
                    if cancelled in starting:
                        starting.pop(cancelled).cancel()
                    self._worker.cancel(session, cancelled)
                    continue
                name = RequestId(request.start.request_id)
                if name in session.running or name in starting:
                    raise InvalidRequest.of("start.request_id", "runs on this call already")
                task = asyncio.create_task(self._start(request.start, session), name=name)
                task.add_done_callback(partial(_started, starting, session))
                starting[name] = task
            await asyncio.gather(*starting.values(), return_exceptions=True)
            session.finish()
        except Exception as error:
            session.fail(error)
        finally:
            for task in starting.values():
                task.cancel()

    async def _start(self, start: pb.Start, session: Session) -> None:
        try:
            if start.base_fingerprint != self._fingerprint:
                raise FailedPrecondition("the request is for another base model")
            asked = _from_wire(start)
            if asked.sampling.constraint is not None:
                filtered = await asyncio.to_thread(self._filter, asked)
                asked = replace(asked, filter=filtered)
            if start.moved_from and asked.delivered:
                await self._handover.fetch(asked, start.moved_from)
            self._worker.start(session, asked, movable=start.movable)
        except Exception as error:
            failure = to_serving(error, request=start.request_id)
            session.refuse(RequestId(start.request_id), failure)

    def _filter(self, asked: EngineRequest) -> TokenFilter:
        """That has seen what was delivered."""
        assert asked.sampling.constraint is not None
        filtered = self._grammars.filter(asked.sampling.constraint)
        for token in asked.delivered:
            filtered.advance(token)
        return filtered


def _started(
    starting: dict[RequestId, asyncio.Task[None]], session: Session, task: asyncio.Task[None]
) -> None:
    name = RequestId(task.get_name())
    starting.pop(name, None)
    if task.cancelled():
        session.refuse(name, None)


def _from_wire(start: pb.Start) -> EngineRequest:
    if not (start.request_id and start.prompt and start.sampling.max_tokens):
        raise InvalidRequest.of("start", "needs request_id, prompt and sampling.max_tokens")
    within = start.HasField("first_token_within_ms")
    return EngineRequest(
        id=RequestId(start.request_id),
        prompt=tuple(start.prompt),
        sampling=wire.sampling_from_wire(start.sampling),
        adapter=Digest(start.adapter_digest) if start.adapter_digest else None,
        cache_salt=start.cache_salt or start.request_id,
        first_token_within=start.first_token_within_ms / 1000 if within else None,
        delivered=tuple(start.delivered),
    )


@dataclass(slots=True)
class _Told:
    """What a caller heard last."""

    resident: tuple[Digest, ...] = ()
    pace: StepTimes | None = None
    load_times: LoadTimes = NO_LOAD_TIMES


def _to_wire(
    news: News, pace: StepTimes | None, load_times: LoadTimes, told: _Told
) -> pb.RunResponse:
    response = pb.RunResponse(
        pieces=[_piece(request, outcome) for request, outcome in news.outcomes]
    )
    if news.offer is not None:
        room = news.offer.room
        response.room.sequences = room.sequences
        response.room.tokens = room.tokens
        response.room.output_share = room.output_share
        response.room.running = room.running
        response.room.waiting = room.waiting
        response.room.pool_tokens = room.pool_tokens
        response.room.started = news.offer.started
        response.room.goes_on = True
        response.room.beat_ms = int(BEAT_SECONDS * 1000)
        if news.offer.resident != told.resident:
            told.resident = news.offer.resident
            response.room.resident.SetInParent()
            response.room.resident.digests.extend(told.resident)
        if pace is not None and pace != told.pace:
            told.pace = pace
            response.room.pace.base_ms = pace.base
            response.room.pace.sequence_ms = pace.sequence
            response.room.pace.token_ms = pace.token
        if load_times != told.load_times:
            told.load_times = load_times
            response.room.load_times.CopyFrom(load_times_to_wire(load_times))
    return response


def _wait(wait: AdapterWait | None) -> pb.AdapterWait | None:
    if wait is None:
        return None
    return pb.AdapterWait(seconds=wait.seconds, sequences=wait.sequences, slots=wait.slots)


def _piece(request: RequestId, outcome: Outcome) -> pb.Piece:
    if isinstance(outcome, ServingError):
        return pb.Piece(request_id=request, error=to_status(outcome).SerializeToString())
    if isinstance(outcome, Departure):
        to = pb.Moved(worker_id=outcome.to.worker, address=outcome.to.address)
        return pb.Piece(request_id=request, moved=to, cached_tokens=outcome.cached_tokens)
    ended = outcome.finish_reason is not None
    return pb.Piece(
        request_id=request,
        tokens=outcome.tokens,
        logprobs=[wire.logprobs_to_wire(position) for position in outcome.logprobs],
        finish_reason=wire.finish_to_wire(outcome.finish_reason),
        batch=wire.batch_to_wire(outcome.batch or BatchFacts()) if ended else None,
        cached_tokens=outcome.cached_tokens,
        adapter_wait=_wait(outcome.adapter_wait),
    )
