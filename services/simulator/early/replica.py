"""A replica that batches as dLoRA does (OSDI'24), without an engine: between two events all of its
iterations are the same, so they are counted, not run. Eight of them and six thousand requests take
a second instead of minutes. Its policies of migration are those of the service.

What is left out: limits of memory, the credit that keeps an adapter from starving (it never acts
as published) and the tuning of the merge threshold.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from services.core.reports import SequenceLoad, StepTimes
from services.core.types import Digest, RequestId
from services.simulator.arrivals import Arrival


@dataclass(frozen=True, slots=True)
class Iterations:
    """Seconds of an iteration of up to `seats` sequences; the artifact's figures, of Llama-2-7B on
    an A800. `token`: of each token of a prompt. `merge_at`, `unmerge_at`: requests of one adapter
    by those of the batch of all."""

    merged: float = 0.015
    unmerged: float = 0.027
    switch: float = 0.02
    token: float = 0.0001
    seats: int = 16
    merge_at: float = 0.7
    unmerge_at: float = 0.556


@dataclass(slots=True)
class Sequence:
    """A request on a replica."""

    arrival: Arrival
    left: int
    to_compute: int  # tokens, before the next is made

    @classmethod
    def of(cls, arrival: Arrival) -> "Sequence":
        return cls(arrival, arrival.output_tokens, arrival.request.prompt_tokens)

    @property
    def id(self) -> RequestId:
        return self.arrival.request.id

    @property
    def adapter(self) -> Digest:
        assert self.arrival.request.adapter is not None
        return self.arrival.request.adapter

    @property
    def made(self) -> int:
        return self.arrival.output_tokens - self.left

    @property
    def tokens(self) -> int:
        return self.arrival.request.prompt_tokens + self.made

    def load(self, expected: float) -> SequenceLoad:
        """`expected`: tokens of output; nobody knows how many it will have."""
        left = max(expected - self.made, expected / 4)
        return SequenceLoad(self.id, self.adapter, self.tokens, round(left), self.made == 0)


class Replica:
    """Runs the oldest, or merges an adapter that has nearly as many and runs only that."""

    def __init__(self, iterations: Iterations) -> None:
        self._iterations = iterations
        self._now = 0.0
        self._merged: Digest | None = None
        self._batch: list[Sequence] | None = None  # None: to be formed anew
        self._seconds = 0.0  # of its next iteration
        self._usual = iterations.unmerged
        self.sequences: dict[RequestId, Sequence] = {}  # in order of arrival
        self.requests: Counter[Digest] = Counter()

    @property
    def step_times(self) -> StepTimes:
        """As measured."""
        return StepTimes(1000 * self._usual, 0.0, 1000 * self._iterations.token)

    def add(self, sequence: Sequence, now: float) -> None:
        if not self.sequences:
            self._now = max(self._now, now)
        last = next(reversed(self.sequences.values()), sequence)
        self.sequences[sequence.id] = sequence
        self.requests[sequence.adapter] += 1
        if sequence.arrival.at < last.arrival.at:  # it moved
            ordered = sorted(self.sequences.values(), key=lambda each: each.arrival.at)
            self.sequences = {each.id: each for each in ordered}
        self._batch = None

    def remove(self, request: RequestId) -> Sequence:
        sequence = self.sequences.pop(request)
        self.requests[sequence.adapter] -= 1
        if not self.requests[sequence.adapter]:
            del self.requests[sequence.adapter]
        self._batch = None
        return sequence

    def advance(self, until: float) -> list[tuple[Sequence, float]]:
        """Who ended, and when; the last iteration may end after `until`."""
        ended: list[tuple[Sequence, float]] = []
        while self.sequences and self._now < until:
            if self._batch is None:
                self._batch, self._seconds = self._form()
            batch = self._batch
            prompts = sum(each.to_compute for each in batch)
            count, seconds = self._count(batch, prompts, until)
            self._now += seconds
            self._usual += (1 - 0.99**count) * (self._seconds - self._usual)
            for each in batch:
                each.to_compute = 0
                each.left -= count
            for each in [each for each in batch if not each.left]:
                ended.append((self.remove(each.id), self._now))
        return ended

    def _count(self, batch: Iterable[Sequence], prompts: int, until: float) -> tuple[int, float]:
        """Iterations until something changes, and their seconds."""
        if prompts:
            return 1, self._seconds + prompts * self._iterations.token
        fewest = min(each.left for each in batch)
        until_then = max(1.0, (until - self._now) / self._seconds)  # a switch may have passed it
        count = math.ceil(min(fewest, until_then))
        return count, count * self._seconds

    def _form(self) -> tuple[list[Sequence], float]:
        times, queued = self._iterations, list(self.sequences.values())
        oldest = queued[: times.seats]
        wanted = self._to_merge(len(oldest))
        if wanted != self._merged:
            self._now += times.switch
            self._merged = wanted
        if wanted is None:
            return oldest, times.unmerged
        return [each for each in queued if each.adapter == wanted][: times.seats], times.merged

    def _to_merge(self, oldest: int) -> Digest | None:
        """The one that is merged as long as it has enough, or another that has more."""
        times = self._iterations
        if self._merged is not None and self.requests[self._merged] >= times.unmerge_at * oldest:
            return self._merged
        adapter, count = self.requests.most_common(1)[0]
        return adapter if count >= times.merge_at * oldest else None


class CopyReplica(Replica):
    """Whole models in place of adapters (what dLoRA calls vLLM): one at a time runs, `copies` are
    on the device, another comes in `swap` seconds."""

    def __init__(self, iterations: Iterations, *, copies: int = 4, swap: float = 0.42) -> None:
        super().__init__(iterations)
        self._copies = copies
        self._swap = swap
        self._there: list[Digest] = []  # the last used is the last
        self._runs: Digest | None = None

    def _form(self) -> tuple[list[Sequence], float]:
        """Of one model until it has no more, then of the oldest's."""
        queued = list(self.sequences.values())
        if self._runs is None or not self.requests[self._runs]:
            self._runs = queued[0].adapter
            if self._runs in self._there:
                self._there.remove(self._runs)
            else:
                self._now += self._swap
            self._there = [*self._there, self._runs][-self._copies :]
        batch = [each for each in queued if each.adapter == self._runs]
        return batch[: self._iterations.seats], self._iterations.merged
