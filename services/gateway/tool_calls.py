"""Calls in what a model writes, found as it writes them.

Three forms are understood, with "arguments" or "parameters", of functions that were offered:

    <tool_call>{"name": ..., "arguments": {...}}</tool_call>   Hermes 2 Pro, Qwen 2.5 and 3, SmolLM2
    {"name": ..., "parameters": {...}}; ...                    Llama 3, where the answer begins
    [{"name": ..., "arguments": {...}}, ...]                   a list, in either place

Whatever else is written is text, unchanged but for white space around calls.
"""

import secrets
import string
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing
from dataclasses import replace
from enum import Enum, auto

from services.core.types import FinishReason
from services.gateway.course import CallPiece, TextPiece
from services.gateway.tool_objects import CallObject, State
from services.gateway.tools import Tools

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class _At(Enum):
    START = auto()  # only white space so far: a bare object or list may begin
    TEXT = auto()
    CALLS = auto()  # between objects
    OBJECT = auto()


class CallFinder:
    """The text and the calls of one answer. How it is cut into pieces changes neither."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._at = _At.START
        self._left: deque[str] = deque()
        self._held = ""  # read, and neither said as text nor part of a call yet
        self._tag = ""  # stands before `held` if that turns out to be text
        self._closing = ""  # of the closing tag, what was read
        self._listed = False
        self._tagged = False
        self._object = CallObject(names, needs_arguments=True)
        self._calls = 0
        self._calls_before = 0  # this group of calls

    @property
    def called(self) -> bool:
        return self._calls > 0

    def push(self, text: str) -> tuple[str, tuple[CallPiece, ...]]:
        """What is certainly text, and the next pieces of calls."""
        said, calls = "", list[CallPiece]()
        self._left.extend(text)
        while self._left:
            for found in self._read(self._left.popleft()):
                if isinstance(found, str):
                    said += found
                else:
                    calls.append(found)
        return said, _joined(calls)

    def flush(self) -> str:
        """At the end of the answer, the text that was held."""
        held, self._held = self._tag + self._held, ""
        called = self._calls > self._calls_before and self._at in (_At.CALLS, _At.OBJECT)
        return "" if called or (self.called and not held.strip()) else held

    def _read(self, character: str) -> Iterator[str | CallPiece]:
        if self._at is _At.START and character in "{[":
            self._begin_group(tag=self._held, tagged=False)
        match self._at:
            case _At.OBJECT:
                yield from self._in_object(character)
            case _At.CALLS:
                yield from self._between_objects(character)
            case _:
                yield from self._in_text(character)

    def _in_text(self, character: str) -> Iterator[str]:
        """White space is held back, and what may become a tag."""
        if not character.isspace():
            self._at = _At.TEXT
        self._held += character
        lengths = range(min(len(_OPEN), len(self._held)), 0, -1)
        partial = next((n for n in lengths if _OPEN.startswith(self._held[-n:])), 0)
        if partial == len(_OPEN):
            self._begin_group(tag=self._held, tagged=True)
            return
        said = self._held[: len(self._held) - partial].rstrip()
        self._held = self._held[len(said) :]
        yield said

    def _begin_group(self, *, tag: str, tagged: bool) -> None:
        self._at, self._tag, self._tagged = _At.CALLS, tag, tagged
        self._held, self._closing, self._listed = "", "", False
        self._calls_before = self._calls

    def _between_objects(self, character: str) -> Iterator[str]:
        fresh = self._calls == self._calls_before
        self._held += character
        if self._closing or (character == "<" and self._tagged):
            self._closing += character
            if self._closing == _CLOSE and not fresh:
                self._end_group()
            elif not _CLOSE.startswith(self._closing) or self._closing == _CLOSE:
                yield self._give_up()
        elif character == "{":
            self._at = _At.OBJECT
            self._object = CallObject(self._names, needs_arguments=not self._tagged)
            self._object.push(character)
        elif character == "[" and fresh and not self._listed:
            self._listed = True
        elif character == "]" and self._listed and not fresh:
            self._listed = False
            if not self._tagged:
                self._end_group()
        elif not (character.isspace() or (character in ",;" and not fresh)):
            yield self._give_up()

    def _in_object(self, character: str) -> Iterator[str | CallPiece]:
        reading = self._object.state is State.READING
        self._held += character
        arguments = self._object.push(character)
        state = self._object.state
        if state is State.FAILED and reading:
            yield self._give_up()
            return
        if reading and state is not State.READING:
            yield CallPiece(self._calls, _new_id(), self._object.name)
            self._calls += 1
        if state is not State.READING:
            self._tag = self._held = ""
        if arguments:
            yield CallPiece(self._calls - 1, arguments=arguments)
        if state is State.FAILED:  # a call, and then no JSON
            self._left.appendleft(character)
        if state in (State.DONE, State.FAILED):
            self._at = _At.CALLS

    def _end_group(self) -> None:
        self._at, self._held, self._tag = _At.TEXT, "", ""

    def _give_up(self) -> str:
        """It is no call: the tag is text, and what follows it is read again, as text."""
        tag, held = self._tag, self._held
        self._end_group()
        self._left.extendleft(reversed(held))
        return tag


async def with_calls(
    pieces: AsyncGenerator[TextPiece, None], tools: Tools
) -> AsyncGenerator[TextPiece, None]:
    """The same pieces, with calls taken out of the text. Closing it closes them."""
    finder = CallFinder(tools.names)
    async with aclosing(pieces):
        async for piece in pieces:
            text, calls = finder.push(piece.text)
            finish = piece.finish_reason
            if finish is not None:
                text += finder.flush()
            if finish is FinishReason.STOP and finder.called:
                finish = FinishReason.TOOL_CALLS
            calls = tuple(call for call in calls if tools.parallel or call.index == 0)
            yield replace(piece, text=text, calls=calls, finish_reason=finish)


def _joined(pieces: list[CallPiece]) -> tuple[CallPiece, ...]:
    """Neighbours of one call as one piece."""
    joined: list[CallPiece] = []
    for piece in pieces:
        if joined and joined[-1].index == piece.index:
            last = joined[-1]
            joined[-1] = replace(last, arguments=last.arguments + piece.arguments)
        else:
            joined.append(piece)
    return tuple(joined)


def _new_id() -> str:
    """Nine letters and digits: Mistral's templates take no other."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))
