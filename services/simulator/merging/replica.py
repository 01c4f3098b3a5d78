"""A replica that can fold an adapter into its weights, on a virtual clock, with a policy that says
what runs in every step. Steps are all alike until somebody comes or ends: up to `QUANTUM` of them
are counted as one, and the policy is asked in between."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.core.types import Digest, RequestId
from services.policies.merging.batches import Batch, Policy, Queued, Ran
from services.simulator.arrivals import Arrival

QUANTUM = 8


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Milliseconds of a step of requests of one adapter that is merged, of any that are not, and of
    one of both kinds, by their part of it; of a switch; of each token of a prompt."""

    merged: float = 15.0
    unmerged: float = 27.0
    switch: float = 20.0
    prompt_token: float = 0.1

    def of(self, batch: Batch) -> float:
        """Who runs beside a merged adapter is corrected twice."""
        if batch.merged is None or not batch.minority:
            return self.unmerged if batch.merged is None else self.merged
        part = 2 * batch.minority / len(batch.requests)
        return self.merged + part * (self.unmerged - self.merged)


@dataclass(slots=True)
class _Sequence:
    arrival: Arrival
    queued: Queued
    left: int
    has_begun: bool = False


@dataclass(slots=True)
class Outcome:
    """`latencies`: seconds from arrival to end by token of output; `waits`: to the first step;
    `gap`: the most that `gap_of` found."""

    latencies: list[float] = field(default_factory=list)
    waits: defaultdict[Digest | None, list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    switches: int = 0
    steps: int = 0
    merged_steps: int = 0
    seconds: float = 0.0
    tokens: int = 0

    @property
    def mean_latency(self) -> float:
        return statistics.fmean(self.latencies)

    @property
    def throughput(self) -> float:
        return self.tokens / self.seconds

    def longest_wait(self, adapter: Digest) -> float:
        return max(self.waits[adapter])


class _Replica:
    def __init__(self, policy: Policy, times: StepTimes) -> None:
        self._policy = policy
        self._times = times
        self._now = 0.0
        self._merged: Digest | None = None
        self._sequences: dict[RequestId, _Sequence] = {}
        self.outcome = Outcome()

    @property
    def is_idle(self) -> bool:
        return not self._sequences

    def add(self, arrival: Arrival) -> None:
        if self.is_idle:
            self._now = max(self._now, arrival.at)
        request = arrival.request
        queued = Queued(request.id, request.adapter, str(request.tenant))
        self._sequences[request.id] = _Sequence(arrival, queued, arrival.output_tokens)

    def advance(self, until: float) -> None:
        while self._sequences and self._now < until:
            self._run(self._policy.choose([each.queued for each in self._sequences.values()]))
        self.outcome.seconds = self._now

    def _run(self, batch: Batch) -> None:
        if batch.merged != self._merged:
            self._now += self._times.switch / 1000
            self._merged = batch.merged
            self.outcome.switches += 1
        running = [self._sequences[queued.id] for queued in batch.requests]
        prompts = self._begin(running)
        steps = 1 if prompts else min(QUANTUM, *(each.left for each in running))
        milliseconds = self._times.of(batch) + self._times.prompt_token * sum(prompts.values())
        self._now += steps * milliseconds / 1000
        self._policy.ran(Ran(batch, steps, milliseconds, prompts))
        self.outcome.steps += steps
        self.outcome.merged_steps += steps if batch.merged is not None else 0
        self.outcome.tokens += steps * len(running)
        for each in running:
            each.left -= steps
            if not each.left:
                self._end(each)

    def _begin(self, running: Sequence[_Sequence]) -> dict[str, int]:
        """Tokens of the prompts that are computed now, by client."""
        prompts: dict[str, int] = defaultdict(int)
        for each in running:
            if not each.has_begun:
                each.has_begun = True
                self.outcome.waits[each.queued.adapter].append(self._now - each.arrival.at)
                prompts[each.queued.client] += each.arrival.request.prompt_tokens
        return prompts

    def _end(self, each: _Sequence) -> None:
        del self._sequences[each.queued.id]
        taken = self._now - each.arrival.at
        self.outcome.latencies.append(taken / each.arrival.output_tokens)


def replay_merging(
    arrivals: Sequence[Arrival], policy: Policy, times: StepTimes | None = None
) -> Outcome:
    """All requests to their end."""
    replica = _Replica(policy, times or StepTimes())
    for arrival in arrivals:
        replica.advance(arrival.at)
        replica.add(arrival)
    replica.advance(float("inf"))
    return replica.outcome
