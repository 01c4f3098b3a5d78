"""What becomes of one caller's sequences, kept until the caller asks."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from services.core.errors import ServingError
from services.core.types import Departure, Digest, RequestId, Room, TokenPiece

BEAT_SECONDS = 0.5

Outcome = TokenPiece | Departure | ServingError


@dataclass(frozen=True, slots=True)
class Offer:
    """Room, as a caller may know it. `started`: of its starts, how many were dealt with by then."""

    room: Room
    resident: tuple[Digest, ...]
    started: int


@dataclass(frozen=True, slots=True)
class News:
    """For a caller: what became of its sequences, in order, and the room there is now."""

    outcomes: Sequence[tuple[RequestId, Outcome]] = ()
    offer: Offer | None = None


class Session:
    """What one step made for a caller reaches it together; so does all that came while it was slow.

    Not thread-safe: the event loop's.
    """

    def __init__(self) -> None:
        self.running: set[RequestId] = set()
        self._arrived: list[tuple[RequestId, Outcome]] = []
        self._entered = 0  # starts that the engine was given
        self._seen = 0  # of those, how many it had when the room was measured
        self._failed = 0  # starts that never came to it
        self._room: Room | None = None
        self._resident: tuple[Digest, ...] = ()
        self._told: Offer | None = None
        self._finishing = False
        self._failure: Exception | None = None
        self._changed = asyncio.Event()

    @property
    def entered(self) -> int:
        return self._entered

    def enter(self, request: RequestId) -> None:
        """The engine is given it."""
        self.running.add(request)
        self._entered += 1

    def refuse(self, request: RequestId, error: ServingError | None) -> None:
        """It never comes to the engine; no error if its caller has cancelled it."""
        self._failed += 1
        if error is not None:
            self.put(request, error)
        self._changed.set()

    def put(self, request: RequestId, outcome: Outcome) -> None:
        """A failure, a departure or a piece with a finish reason is the last of its request."""
        self._arrived.append((request, outcome))
        if not isinstance(outcome, TokenPiece) or outcome.finish_reason is not None:
            self.running.discard(request)
        self._changed.set()

    def measure(self, room: Room, resident: tuple[Digest, ...], entered: int) -> None:
        """The room there was once the engine had so many of this caller's starts."""
        self._room, self._resident, self._seen = room, resident, entered
        self._changed.set()

    def finish(self) -> None:
        """Nothing more will be started."""
        self._finishing = True
        self._changed.set()

    def fail(self, error: Exception) -> None:
        """The caller did what makes no sense, or we did: there is no going on."""
        self._failure = error
        self._changed.set()

    async def news(self) -> News | None:
        """All since this was asked last; empty after BEAT_SECONDS without any. None if nothing runs
        and nothing more will.

        Raises what it failed with.
        """
        while not (self._arrived or self._failure or self._has_more_room()):
            if self._finishing and not self.running:
                return None
            self._changed.clear()
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                return News()
        if self._failure is not None:
            raise self._failure
        arrived, self._arrived = self._arrived, []
        self._told = self._offer()
        return News(arrived, self._told)

    async def outcomes(self) -> Sequence[tuple[RequestId, Outcome]]:
        """As `news`, for a caller that does not count room: none at the end."""
        while news := await self.news():
            if news.outcomes:
                return news.outcomes
        return ()

    def _has_more_room(self) -> bool:
        """Than the caller was told of: less it hears of with other news."""
        now, told = self._offer(), self._told
        if now is None or told is None:
            return now is not told
        return (
            now.room.sequences - now.started > told.room.sequences - told.started
            or now.room.tokens > told.room.tokens
            or now.started != told.started
            or now.resident != told.resident
        )

    def _offer(self) -> Offer | None:
        if self._room is None:
            return None
        return Offer(self._room, self._resident, self._seen + self._failed)
