"""The app: OpenAI's API and the Open Inference Protocol over the same gateway."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from services.core.errors import ServingError
from services.core.types import TenantId
from services.gateway.choices import Choices
from services.gateway.gateway import Gateway
from services.gateway.http_completions import Completions
from services.gateway.http_errors import (
    on_bad_body,
    on_crash,
    on_http_error,
    on_serving_error,
)
from services.gateway.http_kserve import kserve_router
from services.gateway.http_openai import completions_router, models_router
from services.gateway.http_request_ids import RequestIds
from services.gateway.http_server import BodyLimit
from services.gateway.intake import Doorkeeper, Intake
from services.gateway.kserve import Inferences
from services.gateway.openai_schemas import Health
from services.runtime.auth import Authenticator, Caller, Scope, bearer_of

_KEY = HTTPBearer(auto_error=False, description="A key of yours: lk_...")
_ABOUT = """The OpenAI API, with an adapter or a base model as `model`, and the Open Inference
Protocol. Every answer has an `x-request-id`; what a client sends under that name, or as
`x-client-request-id`, is only written to the logs. Fields that change nothing here (`user`,
`metadata`, `store`, `reasoning_effort` ...) are ignored; those that would change the answer and are
not supported (`echo`, `suffix`, `functions` ...) are refused by name. A tenant that has limits is
told of them in the `x-ratelimit-*` headers; 429 is a limit of its own (with a `retry-after`, unless
no wait makes room), 503 the system's.
"""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    longest_seconds: float
    most_body_bytes: int


def build_app(
    gateway: Gateway, authenticator: Authenticator, limits: HttpLimits, intake: Intake
) -> FastAPI:
    app = FastAPI(title="Lorikeet", version="1", description=_ABOUT)
    app.add_exception_handler(ServingError, on_serving_error)
    app.add_exception_handler(RequestValidationError, on_bad_body)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_crash)
    app.add_middleware(BodyLimit, most_bytes=limits.most_body_bytes)
    app.add_middleware(Doorkeeper, intake=intake)
    app.add_middleware(RequestIds)
    speaker, tenant = _who_asks(authenticator)
    choices = Choices(gateway, limits.longest_seconds)
    app.include_router(completions_router(Completions(choices), speaker))
    app.include_router(models_router(gateway, tenant))

    @app.get("/health", response_model=Health)
    async def health() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    app.include_router(kserve_router(Inferences(gateway, choices), speaker, tenant))
    return app


def _who_asks(
    authenticator: Authenticator,
) -> tuple[Callable[..., Caller], Callable[..., TenantId]]:
    """Dependencies: the caller, who needs a key for completions; the tenant, by any key."""

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

    return speaker, tenant
