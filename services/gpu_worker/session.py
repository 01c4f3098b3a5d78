"""What becomes of one caller's sequences, kept until the caller asks."""

import asyncio
from collections.abc import Sequence

from services.core.errors import ServingError
from services.core.types import RequestId, TokenPiece

Outcome = TokenPiece | ServingError


class Session:
    """What one step made for a caller reaches it together; so does all that came while it was slow.

    Not thread-safe: the event loop's.
    """

    def __init__(self) -> None:
        self.running: set[RequestId] = set()
        self._arrived: list[tuple[RequestId, Outcome]] = []
        self._finishing = False
        self._failure: Exception | None = None
        self._changed = asyncio.Event()

    def put(self, request: RequestId, outcome: Outcome) -> None:
        """A failure or a piece with a finish reason is the last of its request."""
        self._arrived.append((request, outcome))
        if isinstance(outcome, ServingError) or outcome.finish_reason is not None:
            self.running.discard(request)
        self._changed.set()

    def finish(self) -> None:
        """Nothing more will be started."""
        self._finishing = True
        self._changed.set()

    def fail(self, error: Exception) -> None:
        """The caller did what makes no sense, or we did: there is no going on."""
        self._failure = error
        self._changed.set()

    async def outcomes(self) -> Sequence[tuple[RequestId, Outcome]]:
        """All since this was asked last, in order; none if nothing runs and nothing more will.

        Raises what it failed with.
        """
        while not (self._arrived or self._failure or (self._finishing and not self.running)):
            self._changed.clear()
            await self._changed.wait()
        if self._failure is not None:
            raise self._failure
        arrived, self._arrived = self._arrived, []
        return arrived
