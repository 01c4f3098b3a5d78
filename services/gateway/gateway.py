"""From a tenant's request to the text that it gets: resolve, tokenise, place, follow, say it."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import structlog

from services.core.base_model import BaseModel
from services.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    ServingError,
    Unavailable,
)
from services.core.types import (
    BatchFacts,
    Digest,
    Fingerprint,
    FinishReason,
    PositionLogprobs,
    RequestId,
    SamplingParams,
    TenantId,
    TokenPiece,
    WorkerId,
)
from services.gateway.base_models import BaseModels, ServedModel
from services.gateway.chat import ChatMessage
from services.gateway.prompts import Prompts
from services.gateway.sampling import Asked, checked
from services.gateway.text import Detokenizer, StopText

log = structlog.get_logger()

MOST_PLACEMENTS = 3
COMMON_SALT = "*"  # no tenant is called that


@dataclass(frozen=True, slots=True)
class Adapter:
    """A version of an adapter, as the store resolved it."""

    name: str  # as the tenant that asked calls it
    owner: TenantId
    number: int
    digest: Digest
    base_model: str
    base_fingerprint: Fingerprint
    created_seconds: int


@dataclass(frozen=True, slots=True)
class Job:
    """A request made ready for a worker: nothing in it is a name any more."""

    request_id: RequestId
    base_model: str
    base_fingerprint: Fingerprint
    adapter: Digest | None
    prompt: tuple[int, ...]
    sampling: SamplingParams
    cache_salt: str
    first_token_within_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    worker: WorkerId
    address: str


@dataclass(frozen=True, slots=True)
class Completion:
    """A request that was found good, ready to be streamed."""

    tenant: TenantId
    model: str
    base: ServedModel
    job: Job


@dataclass(frozen=True, slots=True)
class TextPiece:
    """The next part of a completion; the last has `finish_reason`, usage and batch facts."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[PositionLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    completion_tokens: int = 0
    batch: BatchFacts | None = None


class AdapterStore(Protocol):
    async def resolve(self, tenant: TenantId, reference: str, request: RequestId) -> Adapter: ...
    async def adapters(self, tenant: TenantId) -> list[Adapter]: ...


class Scheduler(Protocol):
    async def place(self, job: Job, excluded: frozenset[WorkerId]) -> Placement: ...


class Workers(Protocol):
    def generate(
        self, placement: Placement, job: Job, seconds: float
    ) -> AsyncIterator[TokenPiece]: ...


class Gateway:
    def __init__(
        self,
        *,
        base_models: BaseModels,
        store: AdapterStore,
        scheduler: Scheduler,
        workers: Workers,
        prompts: Prompts,
    ) -> None:
        self._base_models = base_models
        self._store = store
        self._scheduler = scheduler
        self._workers = workers
        self._prompts = prompts

    async def prepare(
        self,
        *,
        tenant: TenantId,
        request_id: RequestId,
        model: str,
        prompt: str | tuple[int, ...] | tuple[ChatMessage, ...],
        asked: Asked,
    ) -> Completion:
        """Raises InvalidRequest or ModelNotFound before anything runs."""
        base, adapter = await self._resolve(tenant, model, request_id)
        tokens = await self._prompts.tokens(base, prompt)
        sampling = checked(asked, base.card, prompt_tokens=len(tokens))
        job = Job(
            # Callers choose request ids; two that choose the same must not meet at a worker.
            request_id=RequestId(f"{request_id}.{secrets.token_hex(4)}"),
            base_model=base.card.name,
            base_fingerprint=base.card.fingerprint,
            adapter=adapter,
            prompt=tokens,
            sampling=sampling,
            cache_salt=COMMON_SALT if asked.share_prefix and adapter is None else tenant,
            first_token_within_ms=asked.first_token_within_ms,
        )
        return Completion(tenant, model, base, job)

    async def stream(
        self, completion: Completion, *, seconds: float
    ) -> AsyncGenerator[TextPiece, None]:
        """Pieces until the last. Closing it cancels the work. Raises DeadlineExceeded."""
        started = time.monotonic()
        outcome, count = "cancelled", 0
        try:
            async with aclosing(self._text(completion, started + seconds)) as pieces:
                async for piece in pieces:
                    count = piece.completion_tokens
                    yield piece
            outcome = "finished"
        except ServingError as error:
            outcome = error.reason
            raise
        finally:
            log.info(
                "request_finished",
                request=completion.job.request_id,
                tenant=completion.tenant,
                model=completion.model,
                adapter=completion.job.adapter,
                prompt_tokens=len(completion.job.prompt),
                completion_tokens=count,
                seconds=round(time.monotonic() - started, 3),
                outcome=outcome,
            )

    async def models(self, tenant: TenantId) -> tuple[list[BaseModel], list[Adapter]]:
        """What this tenant may name: base models, its own adapters and those shared with it."""
        return await self._base_models.cards(), await self._store.adapters(tenant)

    async def _resolve(
        self, tenant: TenantId, model: str, request_id: RequestId
    ) -> tuple[ServedModel, Digest | None]:
        if not model:
            raise InvalidRequest.of("model", "name a model")
        base = await self._base_models.find(model)
        if base is not None:
            return base, None
        adapter = await self._store.resolve(tenant, model, request_id)
        base = await self._base_models.find(adapter.base_model)
        if base is None or base.card.fingerprint != adapter.base_fingerprint:
            raise ModelNotFound.named(model)
        return base, adapter.digest

    async def _text(
        self, completion: Completion, deadline: float
    ) -> AsyncGenerator[TextPiece, None]:
        detokenizer = Detokenizer(completion.base.tokenizer)
        stop = StopText(completion.job.sampling.stop)
        count = 0
        async with aclosing(self._follow(completion.job, deadline)) as pieces:
            async for piece in pieces:
                text, taken = "", 0
                for token in piece.tokens:
                    if token not in completion.job.sampling.stop_tokens:
                        text += stop.push(detokenizer.push(token))
                    taken += 1
                    if stop.found:
                        break
                count += taken
                finish = FinishReason.STOP if stop.found else piece.finish_reason
                if finish is not None and not stop.found:
                    text += stop.push(detokenizer.flush()) + stop.flush()
                yield TextPiece(
                    text=text,
                    tokens=piece.tokens[:taken],
                    logprobs=piece.logprobs[:taken],
                    finish_reason=FinishReason.STOP if stop.found else finish,
                    completion_tokens=count,
                    batch=piece.batch,
                )
                if stop.found:
                    return

    async def _follow(self, job: Job, deadline: float) -> AsyncGenerator[TokenPiece, None]:
        """The worker's tokens; another worker's if the first fails before its first token."""
        failed: frozenset[WorkerId] = frozenset()
        why: Unavailable | None = None
        while True:
            try:
                placement = await self._scheduler.place(job, failed)
            except Unavailable as error:
                raise why or error from error
            begun = False
            try:
                stream = self._workers.generate(placement, job, _left(deadline))
                async with aclosing(stream) as pieces:  # type: ignore[type-var]
                    async for piece in pieces:
                        begun = True
                        yield piece
                return
            except Unavailable as error:
                failed, why = failed | {placement.worker}, error
                log.warning("worker_failed", worker=placement.worker, begun=begun, why=str(error))
                if begun:
                    raise Unavailable("the worker was lost in the middle of the stream") from error
                if len(failed) == MOST_PLACEMENTS:
                    raise
            await asyncio.sleep(0)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded("the deadline passed before a worker could start")
    return left
