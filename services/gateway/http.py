"""The OpenAI API over the same gateway."""

from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import Depends, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from services.core.errors import ModelNotFound, ServingError
from services.core.types import TenantId
from services.gateway.course import Adapter
from services.gateway.gateway import Gateway
from services.gateway.http_completions import AskedCompletion, Completions
from services.gateway.http_errors import (
    on_bad_body,
    on_crash,
    on_http_error,
    on_serving_error,
)
from services.gateway.http_server import BodyLimit
from services.gateway.intake import Doorkeeper, Intake
from services.gateway.openai_requests import ChatCompletionRequest, CompletionRequest
from services.runtime.auth import Authenticator, Caller, Scope, bearer_of

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HttpLimits:
    longest_seconds: float
    most_body_bytes: int


def build_app(
    gateway: Gateway, authenticator: Authenticator, limits: HttpLimits, intake: Intake
) -> FastAPI:
    app = FastAPI(
        title="Lorikeet",
        version="1",
        description="The OpenAI API, with an adapter or a base model as `model`. A tenant that has "
        "limits is told of them in the x-ratelimit-* headers; 429 is a limit of its own (with a "
        "Retry-After, unless no wait makes room), 503 the system's.",
    )
    app.add_exception_handler(ServingError, on_serving_error)
    app.add_exception_handler(RequestValidationError, on_bad_body)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_crash)
    app.add_middleware(BodyLimit, most_bytes=limits.most_body_bytes)
    app.add_middleware(Doorkeeper, intake=intake)

    async def caller(authorization: Annotated[str, Header()] = "") -> Caller:
        return await authenticator.authenticate(bearer_of(authorization), {})

    def speaker(caller: Annotated[Caller, Depends(caller)]) -> Caller:
        caller.need(Scope.GENERATE)
        return caller

    def tenant(caller: Annotated[Caller, Depends(caller)]) -> TenantId:
        return caller.acting_for("")

    Speaker = Annotated[Caller, Depends(speaker)]
    Tenant = Annotated[TenantId, Depends(tenant)]
    completions = Completions(gateway, limits.longest_seconds)

    @app.post("/v1/chat/completions")
    async def chat_completions(
        body: ChatCompletionRequest, request: Request, caller: Speaker
    ) -> Response:
        """Answer a conversation. Needs a key with the scope `generate`."""
        body.refuse_unsupported()
        asked = AskedCompletion(caller, body.model, body.prompt(), body.asked(), body.n)
        return await completions.respond(
            "chat", asked, request, stream=body.stream, with_usage=body.includes_usage
        )

    @app.post("/v1/completions")
    async def text_completions(
        body: CompletionRequest, request: Request, caller: Speaker
    ) -> Response:
        """Continue a text. Needs a key with the scope `generate`."""
        body.refuse_unsupported()
        asked = AskedCompletion(caller, body.model, body.one_prompt(), body.asked(), body.n)
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
    return cards + [_adapter_card(adapter, contexts) for adapter in adapters]


def _adapter_card(adapter: Adapter, contexts: dict[str, int]) -> dict[str, Any]:
    return {
        "id": adapter.name,
        "object": "model",
        "created": adapter.created_seconds,
        "owned_by": adapter.owner,
        "root": f"{adapter.name}@{adapter.number}",
        "parent": adapter.base_model,
        "max_model_len": contexts.get(adapter.base_model),
    }
