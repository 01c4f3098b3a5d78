"""Completions over HTTP, whole or as events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from services.core.errors import RateLimited, ServingError
from services.gateway.choices import AskedCompletion, Choice, Choices, Pieces, collect
from services.gateway.course import Completion, TextPiece
from services.gateway.http_errors import error_body, error_response
from services.gateway.http_request_ids import request_id_of
from services.gateway.openai_responses import Form, Kind

T = TypeVar("T")


class Completions:
    """Runs the choices of a request and writes them down."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices

    async def respond(
        self,
        kind: Kind,
        asked: AskedCompletion,
        request: Request,
        *,
        stream: bool,
        with_usage: bool,
    ) -> Response:
        completions = await self._choices.prepare(asked, request_id_of(request))
        form = Form(kind, completions[:: asked.choices], int(time.time()))
        job, count = completions[0].job, len(completions)
        headers: dict[str, str] = {"x-request-id": job.request_id}
        if job.adapter is not None:
            headers["x-lorikeet-adapter"] = job.adapter
        pieces = self._choices.run(completions, asked.tools)
        try:
            if not stream:
                done = await unless_disconnected(request, collect(pieces, count=count))
                return JSONResponse(form.whole(done), headers=headers | _told(completions))
            # Until the first piece is there a failure is an HTTP status, not an event.
            first = await unless_disconnected(request, anext(pieces))
        except RateLimited as error:
            response = error_response(error)
            response.headers.update(headers | _told(completions))
            return response
        events = _events(form, first, pieces, count=count, with_usage=with_usage)
        headers |= {"cache-control": "no-cache"} | _told(completions)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
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


async def _events(
    form: Form, first: tuple[int, TextPiece], rest: Pieces, *, count: int, with_usage: bool
) -> AsyncIterator[str]:
    """Server-sent events; a failure in the middle is the last of them."""
    choices = [Choice() for _ in range(count)]

    def event_of(index: int, piece: TextPiece) -> str:
        choices[index].add(piece)
        chunk = form.piece(index, piece, with_usage=with_usage)
        return _event(chunk) if chunk else ""

    async with aclosing(rest):
        for index in range(count):
            if opening := form.opening(index, with_usage=with_usage):
                yield _event(opening)
        if event := event_of(*first):
            yield event
        try:
            async for index, piece in rest:
                if event := event_of(index, piece):
                    yield event
        except ServingError as error:
            yield _event(error_body(error))
            return
    if with_usage:
        yield _event(form.closing(choices))
    yield "data: [DONE]\n\n"


def _told(completions: Sequence[Completion]) -> dict[str, str]:
    """What those who keep the books have to say, as headers."""
    return {name: value for each in completions for name, value in each.told.items()}


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
