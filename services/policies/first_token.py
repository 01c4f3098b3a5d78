"""When will a request that waits have its first token? Learnt, where S-LoRA has constants.

S-LoRA (arXiv 2311.03285, section 4.2) drops a request when waiting so far plus half a second
exceeds six. Here both are predictions: of the queue before it, of its adapter and of its prefill.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

RATE = 0.05  # of learning


class StepTimes:
    """Seconds of a step as a line over its tokens: least squares that forgets."""

    def __init__(self) -> None:
        self._tokens = self._seconds = self._squares = self._products = 0.0
        self._weight = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        keep = 1 - RATE
        self._weight = keep * self._weight + RATE
        self._tokens = keep * self._tokens + RATE * tokens
        self._seconds = keep * self._seconds + RATE * seconds
        self._squares = keep * self._squares + RATE * tokens * tokens
        self._products = keep * self._products + RATE * tokens * seconds

    def predict(self, steps: int, tokens: int) -> float:
        """Of so many steps with so many tokens in all.

        0 before anything was seen: nobody is turned away by a guess.
        """
        if not self._weight:
            return 0.0
        mean, seconds = self._tokens / self._weight, self._seconds / self._weight
        variance = self._squares / self._weight - mean * mean
        shared = self._products / self._weight - mean * seconds
        slope = max(0.0, shared / variance) if variance > 1e-9 else 0.0
        return max(0.0, steps * (seconds - slope * mean) + slope * tokens)


@dataclass(frozen=True, slots=True)
class Holder:
    """A sequence: pages it holds, tokens it prefills, steps until it is expected to end."""

    pages: int
    prefill_tokens: int
    steps: int


class Forecast:
    """Plays the queue forward: each who waits takes the pages and the place of those who end."""

    def __init__(
        self,
        running: Sequence[Holder],
        *,
        free_pages: int,
        free_slots: int,
        step_tokens: int,
        times: StepTimes,
    ) -> None:
        self._ends = [(holder.steps, holder.pages) for holder in running]
        heapify(self._ends)
        self._pages = free_pages
        self._slots = free_slots
        self._steps = 0  # decoded before there is room
        self._prefill = sum(holder.prefill_tokens for holder in running)
        decodes = sum(holder.prefill_tokens == 0 for holder in running)
        self._decodes = decodes
        self._room = max(1, step_tokens - decodes)
        self._times = times

    def seconds(self, holder: Holder) -> float:
        """Until the first token of the next in the queue, whose adapter is there."""
        while self._ends and (self._slots < 1 or self._pages < holder.pages):
            end, pages = heappop(self._ends)
            self._steps = max(self._steps, end)
            self._pages += pages
            self._slots += 1
        steps = self._last_step(holder)
        tokens = self._decodes * steps + self._prefill + holder.prefill_tokens
        return self._times.predict(steps, tokens)

    def admit(self, holder: Holder) -> None:
        """It stays in the queue, before all who are asked about later."""
        heappush(self._ends, (self._last_step(holder) + holder.steps, holder.pages))
        self._pages -= holder.pages
        self._slots -= 1
        self._prefill += holder.prefill_tokens

    def _last_step(self, holder: Holder) -> int:
        """Of its prefill: prompts before it are prefilled while it waits for room."""
        own = max(1, -(-holder.prefill_tokens // self._room))
        return max(self._steps + own, -(-(self._prefill + holder.prefill_tokens) // self._room))
