"""The OpenAI API over HTTP."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from services.core.types import TenantId
from services.gateway import openai_models
from services.gateway.choices import AskedCompletion
from services.gateway.gateway import Gateway
from services.gateway.http_completions import Completions
from services.gateway.http_request_ids import request_id_of
from services.gateway.http_routes import StrictRoute
from services.gateway.openai_requests import ChatCompletionRequest, CompletionRequest
from services.gateway.openai_schemas import (
    ChatCompletion,
    Error,
    Model,
    ModelList,
    TextCompletion,
    refusals,
    streamed,
)
from services.runtime.auth import Caller

_ALL = refusals(Error)
_FACTS = refusals(Error, 400, 401, 403, 404, 500, 503, 504)


def completions_router(completions: Completions, speaker: Callable[..., Caller]) -> APIRouter:
    """`speaker` is a dependency: who asks, by a key for completions."""
    router = APIRouter(prefix="/v1", route_class=StrictRoute)
    Speaker = Annotated[Caller, Depends(speaker)]

    @router.post(
        "/chat/completions",
        response_model=ChatCompletion,
        responses=_ALL | streamed(ChatCompletion),
    )
    async def chat_completions(
        body: ChatCompletionRequest, request: Request, caller: Speaker
    ) -> Response:
        """Answer a conversation. Needs a key with the scope `generate`."""
        body.refuse_unsupported()
        tools = body.offered_tools()
        asked = AskedCompletion(
            caller, body.model, body.prompts(tools), body.asked(), body.n, tools
        )
        return await completions.respond(
            "chat", asked, request, stream=body.stream, with_usage=body.includes_usage
        )

    @router.post(
        "/completions",
        response_model=TextCompletion,
        responses=_ALL | streamed(TextCompletion),
    )
    async def text_completions(
        body: CompletionRequest, request: Request, caller: Speaker
    ) -> Response:
        """Continue a text, or several. Needs a key with the scope `generate`."""
        body.refuse_unsupported()
        asked = AskedCompletion(caller, body.model, body.prompts(), body.asked(), body.n)
        return await completions.respond(
            "text", asked, request, stream=body.stream, with_usage=body.includes_usage
        )

    return router


def models_router(gateway: Gateway, tenant: Callable[..., TenantId]) -> APIRouter:
    """`tenant` is a dependency: who asks, by any key."""
    router = APIRouter(prefix="/v1", route_class=StrictRoute)
    Tenant = Annotated[TenantId, Depends(tenant)]

    @router.get("/models", response_model=ModelList, responses=_FACTS)
    async def list_models(tenant: Tenant) -> dict[str, Any]:
        """The base models, this tenant's adapters, and those that others share with it."""
        return {"object": "list", "data": await openai_models.cards(gateway, tenant)}

    @router.get("/models/{model:path}", response_model=Model, responses=_FACTS)
    async def get_model(
        model: Annotated[str, Path(description="As in a request: adapter@version, too.")],
        tenant: Tenant,
        request: Request,
    ) -> dict[str, Any]:
        """One model."""
        return await openai_models.card(gateway, tenant, model, request_id_of(request))

    return router
