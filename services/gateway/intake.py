"""How many requests a gateway takes on at once, from their first byte to their last."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from services.core.errors import Unavailable
from services.gateway.http_errors import error_response

log = structlog.get_logger()

RETRY_SECONDS = 1.0


class Intake:
    """For both of the gateway's faces together: what is beyond it costs no memory."""

    def __init__(self, most: int, *, longest_seconds: float = math.inf) -> None:
        """`longest_seconds`: that a place is held, by clients who do not take what they asked for
        too. It has to be more than a request may take otherwise."""
        self._most = most
        self._longest = longest_seconds
        self._taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises Unavailable. The task is cancelled when it has held the place for too long."""
        task = asyncio.current_task()
        assert task is not None, "places are for tasks"
        if self._taken >= self._most:
            raise Unavailable("this gateway has as many requests as it can take", RETRY_SECONDS)
        self._taken += 1
        end = asyncio.get_running_loop().call_later(self._longest, self._give_up, task)
        try:
            yield
        finally:
            end.cancel()
            self._taken -= 1

    def _give_up(self, task: "asyncio.Task[object]") -> None:
        log.warning("request_given_up", seconds=self._longest)
        task.cancel()


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
