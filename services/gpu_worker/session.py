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

    async def outcomes(self) -> Sequence[tuple[RequestId, Outcome]]:
        """All since this was asked last, in order; none if nothing runs and nothing more will."""
        while not self._arrived and not (self._finishing and not self.running):
            self._changed.clear()
            await self._changed.wait()
        arrived, self._arrived = self._arrived, []
        return arrived
