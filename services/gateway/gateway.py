"""From a tenant's request to the text that it gets: resolve, tokenise, place, follow, say it."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
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
from services.core.types import Digest, FinishReason, RequestId, TenantId, TokenPiece, WorkerId
from services.gateway.base_models import BaseModels, ServedModel
from services.gateway.course import (
    Adapter,
    Bookkeeper,
    Completion,
    Course,
    Job,
    Placement,
    TextPiece,
)
from services.gateway.prompts import Prompt, Prompts
from services.gateway.sampling import Asked, checked
from services.gateway.text import Detokenizer, StopText
from services.runtime.auth import Caller

log = structlog.get_logger()

MOST_PLACEMENTS = 3
COMMON_SALT = "*"  # no tenant is called that


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
        bookkeepers: Sequence[Bookkeeper] = (),
    ) -> None:
        self._base_models = base_models
        self._store = store
        self._scheduler = scheduler
        self._workers = workers
        self._prompts = prompts
        self._bookkeepers = bookkeepers

    async def prepare(
        self,
        *,
        caller: Caller,
        request_id: RequestId,
        model: str,
        prompt: Prompt,
        asked: Asked,
    ) -> Completion:
        """Raises InvalidRequest or ModelNotFound before anything runs."""
        tenant = caller.acting_for("")
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
        return Completion(tenant, caller.key, model, base, job)

    async def stream(
        self, completion: Completion, *, seconds: float
    ) -> AsyncGenerator[TextPiece, None]:
        """Pieces until the last. Closing it cancels the work. Raises DeadlineExceeded, and what
        those who keep the books refuse it with."""
        course = Course(completion)
        last: TextPiece | None = None
        async with AsyncExitStack() as books:
            books.callback(_note, course)
            try:
                for bookkeeper in self._bookkeepers:
                    await books.enter_async_context(bookkeeper.keep(course))
                text = self._text(completion, course.accepted + seconds)
                async with aclosing(text) as pieces:
                    async for piece in pieces:
                        course.produced(len(piece.tokens))
                        if piece.finish_reason is None:
                            yield piece
                        else:
                            last, course.outcome = piece, piece.finish_reason.name
            except ServingError as error:
                course.outcome = error.reason
                raise
            finally:
                course.ended = time.monotonic()
        if last is not None:
            yield last

    async def models(self, tenant: TenantId) -> tuple[list[BaseModel], list[Adapter]]:
        """What this tenant may name: base models, its own adapters and those shared with it."""
        return await self._base_models.cards(), await self._store.adapters(tenant)

    async def model(
        self, tenant: TenantId, reference: str, request_id: RequestId
    ) -> BaseModel | Adapter:
        """What a request that names it now would get. Raises ModelNotFound."""
        if not reference:
            raise InvalidRequest.of("model", "name a model")
        base = await self._base_models.find(reference)
        if base is not None:
            return base.card
        return await self._store.resolve(tenant, reference, request_id)

    @property
    def serves_models(self) -> bool:
        return self._base_models.any_known

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


def _note(course: Course) -> None:
    completion, job = course.completion, course.completion.job
    ended = time.monotonic() if course.ended is None else course.ended
    log.info(
        "request_finished",
        request=job.request_id,
        tenant=completion.tenant,
        model=completion.model,
        adapter=job.adapter,
        prompt_tokens=len(job.prompt),
        completion_tokens=course.completion_tokens,
        seconds=round(ended - course.accepted, 3),
        outcome=course.outcome,
    )


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded("the deadline passed before a worker could start")
    return left
