"""The GPU worker on the wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2 as pb
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as rpc
from services.core.base_model import BaseModel
from services.core.errors import FailedPrecondition, InvalidRequest
from services.core.types import BatchFacts, Digest, RequestId, TokenPiece
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.grammar import Grammars
from services.gpu_worker.worker import Worker
from services.runtime import wire
from services.runtime.interceptors import Context


class GpuWorkerServicer(rpc.GpuWorkerServiceServicer):
    def __init__(self, worker: Worker, card: BaseModel) -> None:
        self._worker = worker
        self._fingerprint = card.fingerprint
        self._grammars = Grammars(card)

    async def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        if request.base_fingerprint != self._fingerprint:
            raise FailedPrecondition("the request is for another base model")
        asked = _from_wire(request)
        if asked.sampling.constraint is not None:
            filtered = await asyncio.to_thread(self._grammars.filter, asked.sampling.constraint)
            asked = replace(asked, filter=filtered)
        async with aclosing(self._worker.generate(asked)) as pieces:
            async for piece in pieces:
                yield _to_wire(piece)


def _from_wire(request: pb.GenerateRequest) -> EngineRequest:
    if not (request.request_id and request.prompt and request.sampling.max_tokens):
        raise InvalidRequest.of("request", "needs request_id, prompt and sampling.max_tokens")
    return EngineRequest(
        id=RequestId(request.request_id),
        prompt=tuple(request.prompt),
        sampling=wire.sampling_from_wire(request.sampling),
        adapter=Digest(request.adapter_digest) if request.adapter_digest else None,
        cache_salt=request.cache_salt or request.request_id,
        first_token_within=(
            request.first_token_within_ms / 1000
            if request.HasField("first_token_within_ms")
            else None
        ),
    )


def _to_wire(piece: TokenPiece) -> pb.GenerateResponse:
    return pb.GenerateResponse(
        tokens=piece.tokens,
        logprobs=[wire.logprobs_to_wire(position) for position in piece.logprobs],
        finish_reason=wire.finish_to_wire(piece.finish_reason),
        batch=None
        if piece.finish_reason is None
        else wire.batch_to_wire(piece.batch or BatchFacts()),
    )
