"""Completions over HTTP: the choices of a request side by side, whole or as events."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from services.core.errors import RateLimited, ServingError
from services.core.types import RequestId
from services.gateway.chat import ChatMessage
from services.gateway.course import Completion, TextPiece
from services.gateway.gateway import Gateway
from services.gateway.http_errors import error_body, error_response
from services.gateway.openai_responses import Choice, Form, Kind
from services.gateway.sampling import Asked
from services.runtime.auth import Caller

T = TypeVar("T")
Pieces = AsyncGenerator[tuple[int, TextPiece], None]  # the choice's index, and its next piece


@dataclass(frozen=True, slots=True)
class AskedCompletion:
    caller: Caller
    model: str
    prompt: str | tuple[int, ...] | tuple[ChatMessage, ...]
    asked: Asked
    choices: int


class Completions:
    """Runs the choices of a request side by side and writes them down."""

    def __init__(self, gateway: Gateway, longest_seconds: float) -> None:
        self._gateway = gateway
        self._seconds = longest_seconds

    async def respond(
        self,
        kind: Kind,
        asked: AskedCompletion,
        request: Request,
        *,
        stream: bool,
        with_usage: bool,
    ) -> Response:
        completion = await self._gateway.prepare(
            caller=asked.caller,
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
        pieces = self._merged(choices)
        try:
            if not stream:
                done = await _unless_disconnected(request, _collect(pieces, count=len(choices)))
                return JSONResponse(form.whole(done), headers=headers | completion.told)
            # Until the first piece is there a failure is an HTTP status, not an event.
            first = await _unless_disconnected(request, anext(pieces))
        except RateLimited as error:
            response = error_response(error)
            response.headers.update(headers | completion.told)
            return response
        events = _events(form, first, pieces, count=len(choices), with_usage=with_usage)
        headers |= {"cache-control": "no-cache"} | completion.told
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _merged(self, completions: Sequence[Completion]) -> Pieces:
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


async def _collect(pieces: Pieces, *, count: int) -> list[Choice]:
    choices = [Choice() for _ in range(count)]
    async with aclosing(pieces):
        async for index, piece in pieces:
            choices[index].add(piece)
    return choices


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


def _choices(completion: Completion, count: int) -> list[Completion]:
    """The same request `count` times, each with its own name and seed."""
    job = completion.job
    return [
        replace(
            completion,
            choices=count,
            party=job.request_id,
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


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
