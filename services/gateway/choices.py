"""The completions of one request, side by side: for each prompt as many as were asked for."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from services.core.types import PositionLogprobs, RequestId
from services.gateway.course import CallPiece, Completion, TextPiece
from services.gateway.gateway import Gateway
from services.gateway.prompts import Prompt
from services.gateway.sampling import Asked
from services.gateway.tool_calls import with_calls
from services.gateway.tools import Tools
from services.runtime.auth import Caller
from services.runtime.beside import cancelled
from services.runtime.interceptors import to_serving

Pieces = AsyncGenerator[tuple[int, TextPiece], None]  # the choice's index, and its next piece


@dataclass(frozen=True, slots=True)
class AskedCompletion:
    caller: Caller
    model: str
    prompts: tuple[Prompt, ...]
    asked: Asked
    choices: int = 1  # of every prompt
    tools: Tools | None = None


@dataclass(slots=True)
class Choice:
    """One completion as it grows."""

    text: str = ""
    logprobs: list[PositionLogprobs] = field(default_factory=list)
    calls: list[CallPiece] = field(default_factory=list)  # whole ones, by index
    finish_reason: str | None = None
    completion_tokens: int = 0
    cached_tokens: int = 0

    def add(self, piece: TextPiece) -> None:
        self.text += piece.text
        self.logprobs += piece.logprobs
        self.completion_tokens = piece.completion_tokens
        self.cached_tokens = max(self.cached_tokens, piece.cached_tokens)
        for call in piece.calls:
            if call.index == len(self.calls):
                self.calls.append(call)
            else:
                known = self.calls[call.index]
                grown = known.arguments + call.arguments
                self.calls[call.index] = replace(known, arguments=grown)
        if piece.finish_reason is not None:
            self.finish_reason = piece.finish_reason.value


class Choices:
    """Prepares and runs them."""

    def __init__(self, gateway: Gateway, longest_seconds: float) -> None:
        self._gateway = gateway
        self._seconds = longest_seconds

    async def prepare(self, asked: AskedCompletion, request_id: RequestId) -> list[Completion]:
        """Of the first prompt all, then of the next. Raises what Gateway.prepare raises."""
        rules = asked.asked if asked.tools is None else asked.tools.constrained(asked.asked)
        prepared = [
            await self._gateway.prepare(
                caller=asked.caller,
                request_id=request_id,
                model=asked.model,
                prompt=prompt,
                asked=rules,
            )
            for prompt in asked.prompts
        ]
        return [each for completion in prepared for each in _copies(completion, asked.choices)]

    async def run(self, completions: Sequence[Completion], tools: Tools | None) -> Pieces:
        """Pieces of all as they come. Closing it cancels them all."""
        queue: asyncio.Queue[tuple[int, TextPiece | Exception | None]] = asyncio.Queue(maxsize=64)

        async def pump(index: int, completion: Completion) -> None:
            try:
                stream = self._gateway.stream(completion, seconds=self._seconds)
                if tools is not None:
                    stream = with_calls(stream, tools)
                async with aclosing(stream) as pieces:
                    async for piece in pieces:
                        await queue.put((index, piece))
                await queue.put((index, None))
            except Exception as error:  # or whoever waits for its pieces would wait for ever
                await queue.put((index, to_serving(error)))

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
            await cancelled(tasks)


async def collect(pieces: Pieces, *, count: int) -> list[Choice]:
    choices = [Choice() for _ in range(count)]
    async with aclosing(pieces):
        async for index, piece in pieces:
            choices[index].add(piece)
    return choices


def _copies(completion: Completion, count: int) -> list[Completion]:
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
