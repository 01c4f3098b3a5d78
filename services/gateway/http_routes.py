"""How routes read bodies."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from services.gateway.strict_json import BODY, loads


class StrictRoute(APIRoute):
    """Bodies are read by strict_json. Whoever goes away before the end of his is not answered."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if self.body_field is None:
                return await handle(request)
            try:
                raw = await request.body()
            except ClientDisconnect as error:
                raise HTTPException(499, "the client went away") from error
            return await handle(_Read(request, raw, loads(raw, BODY)))

        return strict


class _Read(Request):
    """A request whose body was read and found good."""

    def __init__(self, request: Request, raw: bytes, body: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._raw = raw
        self._parsed = body

    async def body(self) -> bytes:
        return self._raw

    async def json(self) -> Any:
        return self._parsed
