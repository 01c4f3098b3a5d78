"""Every answer over HTTP names its request, whatever becomes of it."""

import uuid

import structlog
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.types import RequestId

NAME = "x-request-id"
_HINTS = ("x-client-request-id", NAME)
_LONGEST_HINT = 64


class RequestIds:
    """Draws the id. What a client calls its request is written to the logs beside it, no more:
    ids that callers choose could be made to meet."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["request_id"] = drawn = RequestId(uuid.uuid4().hex)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault(NAME, drawn)
            await send(message)

        hint = _hint(Headers(scope=scope))
        said = {"client_request_id": hint} if hint else {}
        with structlog.contextvars.bound_contextvars(request_id=drawn, **said):
            await self._app(scope, receive, named)


def request_id_of(request: Request) -> RequestId:
    drawn: RequestId = request.state.request_id
    return drawn


def _hint(headers: Headers) -> str:
    hint = next((headers[name] for name in _HINTS if headers.get(name)), "")
    return "".join(character for character in hint if character.isprintable())[:_LONGEST_HINT]
