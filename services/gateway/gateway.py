"""From a tenant's request to the text that it gets: resolve, tokenise, queue, follow, say it."""

import asyncio
import math
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Protocol

import structlog

from services.core.base_model import BaseModel
from services.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    ServingError,
    TooLate,
    Unavailable,
)
from services.core.types import FinishReason, RequestId, TenantId, Tier, TokenPiece
from services.gateway.base_models import BaseModels, ServedModel
from services.gateway.course import (
    Adapter,
    Bookkeeper,
    Completion,
    Course,
    Job,
    TextPiece,
)
from services.gateway.fair_queue import FairQueue
from services.gateway.lane import MovedOn, Ticket
from services.gateway.line import Line
from services.gateway.prompts import Prompt, Prompts
from services.gateway.sampling import Asked, checked
from services.gateway.text import Detokenizer, StopText
from services.gateway.tiers import granted
from services.runtime.auth import Caller

log = structlog.get_logger()

MOST_LOST = 3  # workers, one after the other, without a token between
TOO_LONG = "the deadline passed before a worker could start"
LOST = "the worker was lost in the middle of the stream, and no other could go on"
COMMON_SALT = "*"  # no tenant is called that


class AdapterStore(Protocol):
    async def resolve(self, tenant: TenantId, reference: str, request: RequestId) -> Adapter: ...
    async def adapters(self, tenant: TenantId) -> list[Adapter]: ...


class Gateway:
    def __init__(
        self,
        *,
        base_models: BaseModels,
        store: AdapterStore,
        queue: FairQueue,
        prompts: Prompts,
        bookkeepers: Sequence[Bookkeeper] = (),
        first_tokens_ms: Mapping[Tier, float] | None = None,
    ) -> None:
        """`first_tokens_ms`: how long they may take, of requests that do not say it."""
        self._base_models = base_models
        self._store = store
        self._queue = queue
        self._prompts = prompts
        self._bookkeepers = bookkeepers
        self._first_tokens_ms = first_tokens_ms or {}

    async def prepare(
        self,
        *,
        caller: Caller,
        request_id: RequestId,
        model: str,
        prompt: Prompt,
        asked: Asked,
    ) -> Completion:
        """Raises InvalidRequest, ModelNotFound or PermissionDenied before anything runs."""
        tenant = caller.acting_for("")
        tier = granted(asked.service_tier, caller.share.highest_tier)
        base, adapter = await self._resolve(tenant, model, request_id)
        tokens = await self._prompts.tokens(base, prompt)
        sampling = checked(asked, base.card, prompt_tokens=len(tokens))
        job = Job(
            # Callers choose request ids; two that choose the same must meet nowhere.
            request_id=RequestId(f"{request_id}.{secrets.token_hex(8)}"),
            base_model=base.card.name,
            base_fingerprint=base.card.fingerprint,
            adapter=adapter.digest if adapter is not None else None,
            prompt=tokens,
            sampling=sampling,
            cache_salt=COMMON_SALT if asked.share_prefix and adapter is None else tenant,
            first_token_within_ms=self._within_ms(asked, tier),
            adapter_rank=adapter.rank if adapter is not None else 0,
            adapter_bytes=adapter.size_bytes if adapter is not None else 0,
        )
        return Completion(tenant, caller.key, model, base, job, share=caller.share, tier=tier)

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
                text = self._text(course, course.accepted + seconds)
                async with aclosing(text) as pieces:
                    async for piece in pieces:
                        while course.before_first and piece.finish_reason is None:
                            await course.before_first.pop()()
                        course.produced(len(piece.tokens))
                        if piece.finish_reason is None:
                            yield piece
                        else:
                            last, course.outcome = piece, piece.finish_reason.name
                            course.cached_tokens = piece.cached_tokens
            except Exception as error:
                of = error if isinstance(error, ServingError) else ServingError
                course.outcome = of.reason
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

    def _within_ms(self, asked: Asked, tier: Tier) -> int | None:
        usual = self._first_tokens_ms.get(tier)
        if asked.first_token_within_ms is not None or usual is None:
            return asked.first_token_within_ms
        return math.ceil(usual)

    async def _resolve(
        self, tenant: TenantId, model: str, request_id: RequestId
    ) -> tuple[ServedModel, Adapter | None]:
        if not model:
            raise InvalidRequest.of("model", "name a model")
        base = await self._base_models.find(model)
        if base is not None:
            return base, None
        adapter = await self._store.resolve(tenant, model, request_id)
        base = await self._base_models.find(adapter.base_model)
        if base is None or base.card.fingerprint != adapter.base_fingerprint:
            raise ModelNotFound.named(model)
        return base, adapter

    async def _text(self, course: Course, deadline: float) -> AsyncGenerator[TextPiece, None]:
        completion = course.completion
        detokenizer = Detokenizer(completion.base.tokenizer)
        stop = StopText(completion.job.sampling.stop)
        made = 0
        async with aclosing(self._follow(course, deadline)) as pieces:
            async for piece in pieces:
                text, taken = "", 0
                for token in piece.tokens:
                    if token not in completion.job.sampling.stop_tokens:
                        text += stop.push(detokenizer.push(token))
                    taken += 1
                    if stop.found:
                        break
                made += taken
                finish = FinishReason.STOP if stop.found else piece.finish_reason
                if finish is not None and not stop.found:
                    text += stop.push(detokenizer.flush()) + stop.flush()
                yield TextPiece(
                    text=text,
                    tokens=piece.tokens[:taken],
                    logprobs=piece.logprobs[:taken],
                    finish_reason=FinishReason.STOP if stop.found else finish,
                    completion_tokens=made,
                    cached_tokens=piece.cached_tokens,
                    batch=piece.batch,
                )
                if stop.found:
                    return

    async def _follow(self, course: Course, deadline: float) -> AsyncGenerator[TokenPiece, None]:
        """The tokens of the worker whose turn it is, and if it fails, of others from there on."""
        why: Unavailable | None = None
        async with self._queue.entered(course.completion) as ticket:
            lost = 0  # workers, since the last token
            while True:
                line = await self._turn(ticket, deadline, why)
                course.worker = line.view.id
                if not ticket.delivered:
                    course.started = time.monotonic()
                try:
                    stream = line.follow(
                        _hurried(ticket.job, self._queue.left(ticket)), _left(deadline)
                    )
                    async with aclosing(stream) as pieces:
                        async for piece in pieces:
                            lost = 0
                            if piece.adapter_wait is not None:
                                self._queue.awaited(ticket, piece.adapter_wait)
                            ticket.produced(piece.tokens)
                            yield ticket.as_it_began(piece)
                    return
                except MovedOn as moved:
                    self._queue.go_on(ticket, moved)
                    log.info("request_moved", source=course.worker, to=moved.worker)
                except TooLate:
                    raise
                except Unavailable as error:
                    why, lost = error, lost + 1
                    log.warning(
                        "worker_failed",
                        worker=course.worker,
                        delivered=len(ticket.delivered),
                        why=str(error),
                    )
                    if lost == MOST_LOST:
                        raise _given_up(ticket, error) from error

    async def _turn(self, ticket: Ticket, deadline: float, why: Unavailable | None) -> Line:
        """`why`: what went wrong with the worker before."""
        try:
            async with asyncio.timeout(_left(deadline)):
                return await self._queue.turn(ticket)
        except TimeoutError as error:
            raise DeadlineExceeded(TOO_LONG) from error
        except Unavailable as error:
            raise _given_up(ticket, why or error) from error


def _given_up(ticket: Ticket, why: Unavailable) -> Unavailable:
    return Unavailable(LOST, why.retry_seconds) if ticket.delivered else why


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
        raise DeadlineExceeded(TOO_LONG)
    return left


def _hurried(job: Job, left: float | None) -> Job:
    """Its first token may take no longer, though it has waited."""
    return job if left is None else replace(job, first_token_within_ms=max(1, int(left * 1000)))
