"""How many requests a gateway takes on at once, from their first byte to their last."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from services.core.errors import Unavailable
from services.gateway.http_errors import error_response

RETRY_SECONDS = 1.0


class Intake:
    """For both of the gateway's faces together: what is beyond it costs no memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises Unavailable."""
        if self._taken >= self._most:
            raise Unavailable("this gateway has as many requests as it can take", RETRY_SECONDS)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Doorkeeper:
    """Answers HTTP requests that there is no room for, before anything of their body is read.
    Those without a body, who look whether the gateway lives, always come in."""

    def __init__(self, app: ASGIApp, intake: Intake) -> None:
        self._app = app
        self._intake = intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] == "GET":
            await self._app(scope, receive, send)
            return
        with ExitStack() as stack:
            app = self._app
            try:
                stack.enter_context(self._intake.place())
            except Unavailable as error:
                app = error_response(error)
            await app(scope, receive, send)
