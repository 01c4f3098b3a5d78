"""The OpenAI API over the same gateway."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from services.core.errors import ServingError
from services.core.types import TenantId
from services.gateway import openai_models
from services.gateway.choices import AskedCompletion, Choices
from services.gateway.gateway import Gateway
from services.gateway.http_completions import Completions
from services.gateway.http_errors import (
    on_bad_body,
    on_crash,
    on_http_error,
    on_serving_error,
)
from services.gateway.http_kserve import kserve_router
from services.gateway.http_request_ids import RequestIds, request_id_of
from services.gateway.http_routes import StrictRoute
from services.gateway.http_server import BodyLimit
from services.gateway.intake import Doorkeeper, Intake
from services.gateway.kserve import Inferences
from services.gateway.openai_requests import ChatCompletionRequest, CompletionRequest
from services.gateway.openai_schemas import (
    ChatCompletion,
    Error,
    Health,
    Model,
    ModelList,
    TextCompletion,
    refusals,
    streamed,
)
from services.runtime.auth import Authenticator, Caller, Scope, bearer_of

_KEY = HTTPBearer(auto_error=False, description="A key of yours: lk_...")
_ABOUT = """The OpenAI API, with an adapter or a base model as `model`, and the Open Inference
Protocol. Every answer has an `x-request-id`; what a client sends under that name, or as
`x-client-request-id`, is only written to the logs. Fields that change nothing here (`user`,
`metadata`, `store`, `service_tier`, `reasoning_effort` ...) are ignored; those that would change
the answer and are not supported (`echo`, `suffix`, `functions` ...) are refused by name. A tenant
that has limits is told of them in the `x-ratelimit-*` headers; 429 is a limit of its own (with a
`retry-after`, unless no wait makes room), 503 the system's.
"""


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
        description=_ABOUT,
    )
    app.router.route_class = StrictRoute
    app.add_exception_handler(ServingError, on_serving_error)
    app.add_exception_handler(RequestValidationError, on_bad_body)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_crash)
    app.add_middleware(BodyLimit, most_bytes=limits.most_body_bytes)
    app.add_middleware(Doorkeeper, intake=intake)
    app.add_middleware(RequestIds)

    async def caller(
        request: Request,
        documented: Annotated[HTTPAuthorizationCredentials | None, Security(_KEY)],
    ) -> Caller:
        authorization = request.headers.get("authorization", "")
        return await authenticator.authenticate(bearer_of(authorization), {})

    def speaker(caller: Annotated[Caller, Depends(caller)]) -> Caller:
        caller.need(Scope.GENERATE)
        return caller

    def tenant(caller: Annotated[Caller, Depends(caller)]) -> TenantId:
        return caller.acting_for("")

    Speaker = Annotated[Caller, Depends(speaker)]
    Tenant = Annotated[TenantId, Depends(tenant)]
    choices = Choices(gateway, limits.longest_seconds)
    completions = Completions(choices)
    refused = refusals(Error)

    @app.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=refused | streamed(ChatCompletion),
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

    @app.post(
        "/v1/completions",
        response_model=TextCompletion,
        responses=refused | streamed(TextCompletion),
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

    looked = refusals(Error, 400, 401, 403, 404, 500, 503, 504)

    @app.get("/v1/models", response_model=ModelList, responses=looked)
    async def list_models(tenant: Tenant) -> dict[str, Any]:
        """The base models, this tenant's adapters, and those that others share with it."""
        return {"object": "list", "data": await openai_models.cards(gateway, tenant)}

    @app.get("/v1/models/{model:path}", response_model=Model, responses=looked)
    async def get_model(
        model: Annotated[str, Path(description="As in a request: adapter@version, too.")],
        tenant: Tenant,
        request: Request,
    ) -> dict[str, Any]:
        """One model."""
        return await openai_models.card(gateway, tenant, model, request_id_of(request))

    @app.get("/health", response_model=Health)
    async def health() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    app.include_router(kserve_router(Inferences(gateway, choices), speaker, tenant))
    return app
