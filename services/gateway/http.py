"""The OpenAI API over the same gateway."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import Depends, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from services.core.errors import ModelNotFound, ServingError
from services.core.types import RequestId, TenantId
from services.gateway.chat import ChatMessage
from services.gateway.gateway import Adapter, Completion, Gateway, TextPiece
from services.gateway.http_errors import (
    error_body,
    on_bad_body,
    on_crash,
    on_http_error,
    on_serving_error,
)
from services.gateway.http_server import BodyLimit
from services.gateway.openai_requests import ChatCompletionRequest, CompletionRequest
from services.gateway.openai_responses import Choice, Form, Kind
from services.gateway.sampling import Asked
from services.runtime.auth import Authenticator, bearer_of

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HttpLimits:
    longest_seconds: float
    most_body_bytes: int


def build_app(gateway: Gateway, authenticator: Authenticator, limits: HttpLimits) -> FastAPI:
    app = FastAPI(
        title="Lorikeet",
        version="1",
        description="The OpenAI API, with an adapter or a base model as `model`.",
    )
    app.add_exception_handler(ServingError, on_serving_error)
    app.add_exception_handler(RequestValidationError, on_bad_body)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_crash)
    app.add_middleware(BodyLimit, most_bytes=limits.most_body_bytes)

    async def tenant(authorization: Annotated[str, Header()] = "") -> TenantId:
        caller = await authenticator.authenticate(bearer_of(authorization), {})
        return caller.acting_for("")

    Tenant = Annotated[TenantId, Depends(tenant)]
    completions = _Completions(gateway, limits.longest_seconds)

    @app.post("/v1/chat/completions")
    async def chat_completions(
        body: ChatCompletionRequest, request: Request, tenant: Tenant
    ) -> Response:
        """Answer a conversation."""
        body.refuse_unsupported()
        asked = _Request(tenant, body.model, body.prompt(), body.asked(), body.n)
        return await completions.respond(
            "chat", asked, request, stream=body.stream, with_usage=body.includes_usage
        )

    @app.post("/v1/completions")
    async def text_completions(
        body: CompletionRequest, request: Request, tenant: Tenant
    ) -> Response:
        """Continue a text."""
        body.refuse_unsupported()
        asked = _Request(tenant, body.model, body.one_prompt(), body.asked(), body.n)
        return await completions.respond(
            "text", asked, request, stream=body.stream, with_usage=body.includes_usage
        )

    @app.get("/v1/models")
    async def list_models(tenant: Tenant) -> dict[str, Any]:
        """The base models and this tenant's adapters."""
        return {"object": "list", "data": await _cards(gateway, tenant)}

    @app.get("/v1/models/{model}")
    async def get_model(model: str, tenant: Tenant) -> dict[str, Any]:
        """One model."""
        for card in await _cards(gateway, tenant):
            if card["id"] == model:
                return card
        raise ModelNotFound.named(model)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    return app


@dataclass(frozen=True, slots=True)
class _Request:
    tenant: TenantId
    model: str
    prompt: str | tuple[int, ...] | tuple[ChatMessage, ...]
    asked: Asked
    choices: int


class _Completions:
    """Runs the choices of a request side by side and writes them down."""

    def __init__(self, gateway: Gateway, longest_seconds: float) -> None:
        self._gateway = gateway
        self._seconds = longest_seconds

    async def respond(
        self, kind: Kind, asked: _Request, request: Request, *, stream: bool, with_usage: bool
    ) -> Response:
        completion = await self._gateway.prepare(
            tenant=asked.tenant,
            request_id=RequestId(uuid.uuid4().hex),
            model=asked.model,
            prompt=asked.prompt,
            asked=asked.asked,
        )
        form = Form(kind, completion, int(time.time()))
        headers: dict[str, str] = {"x-request-id": completion.job.request_id}
        if completion.job.adapter is not None:
            headers["x-lorikeet-adapter"] = completion.job.adapter
        choices = _choices(completion, asked.choices)
        if stream:
            chunks = self._events(form, choices, with_usage=with_usage)
            headers["cache-control"] = "no-cache"
            return StreamingResponse(chunks, media_type="text/event-stream", headers=headers)
        done = await _unless_disconnected(request, self._collect(choices))
        return JSONResponse(form.whole(done), headers=headers)

    async def _collect(self, completions: Sequence[Completion]) -> list[Choice]:
        choices = [Choice() for _ in completions]
        async with aclosing(self._merged(completions)) as pieces:
            async for index, piece in pieces:
                choices[index].add(piece)
        return choices

    async def _events(
        self, form: Form, completions: Sequence[Completion], *, with_usage: bool
    ) -> AsyncIterator[str]:
        choices = [Choice() for _ in completions]
        try:
            for index in range(len(completions)):
                if opening := form.opening(index, with_usage=with_usage):
                    yield _event(opening)
            async with aclosing(self._merged(completions)) as pieces:
                async for index, piece in pieces:
                    choices[index].add(piece)
                    if chunk := form.piece(index, piece, with_usage=with_usage):
                        yield _event(chunk)
            if with_usage:
                yield _event(form.closing(choices))
            yield "data: [DONE]\n\n"
        except ServingError as error:
            yield _event(error_body(error))

    async def _merged(
        self, completions: Sequence[Completion]
    ) -> AsyncGenerator[tuple[int, TextPiece], None]:
        """Pieces of all choices as they come. Closing it cancels them all."""
        queue: asyncio.Queue[tuple[int, TextPiece | Exception | None]] = asyncio.Queue(maxsize=64)

        async def pump(index: int, completion: Completion) -> None:
            try:
                stream = self._gateway.stream(completion, seconds=self._seconds)
                async with aclosing(stream) as pieces:
                    async for piece in pieces:
                        await queue.put((index, piece))
                await queue.put((index, None))
            except ServingError as error:
                await queue.put((index, error))

        tasks = [asyncio.create_task(pump(i, c)) for i, c in enumerate(completions)]
        try:
            running = len(tasks)
            while running:
                index, piece = await queue.get()
                if isinstance(piece, Exception):
                    raise piece
                if piece is None:
                    running -= 1
                else:
                    yield index, piece
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _choices(completion: Completion, count: int) -> list[Completion]:
    """The same request `count` times, each with its own name and seed."""
    job = completion.job
    return [
        replace(
            completion,
            job=replace(
                job,
                request_id=RequestId(f"{job.request_id}-{i}" if i else job.request_id),
                sampling=replace(job.sampling, seed=(job.sampling.seed + i) % 2**64),
            ),
        )
        for i in range(count)
    ]


async def _unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """The work's result; the work is cancelled when the client goes away."""
    task = asyncio.ensure_future(work)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watcher = asyncio.create_task(watch())
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(499, "the client went away")
        return task.result()
    finally:
        watcher.cancel()
        task.cancel()


async def _cards(gateway: Gateway, tenant: TenantId) -> list[dict[str, Any]]:
    bases, adapters = await gateway.models(tenant)
    contexts = {base.name: base.context_tokens for base in bases}
    cards: list[dict[str, Any]] = [
        {
            "id": base.name,
            "object": "model",
            "created": base.created_seconds,
            "owned_by": "lorikeet",
            "root": base.name,
            "parent": None,
            "max_model_len": base.context_tokens,
        }
        for base in bases
    ]
    return cards + [_adapter_card(adapter, tenant, contexts) for adapter in adapters]


def _adapter_card(adapter: Adapter, tenant: TenantId, contexts: dict[str, int]) -> dict[str, Any]:
    return {
        "id": adapter.name,
        "object": "model",
        "created": adapter.created_seconds,
        "owned_by": tenant,
        "root": f"{adapter.name}@{adapter.number}",
        "parent": adapter.base_model,
        "max_model_len": contexts.get(adapter.base_model),
    }


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
