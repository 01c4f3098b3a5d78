"""Replicas behind a dispatcher that binds requests when they come, and moves them in rounds.

Late binding, which the gateway does, leaves less to repair: what is shown here is what migration
can repair, on dLoRA's own ground.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.core.types import Digest, Fingerprint, RequestId, WorkerId
from services.policies.dispatch.hosts import spread
from services.policies.dispatch.min_cost import Dispatch, Host
from services.policies.migration.loads import PlannedMove, WorkerLoad
from services.simulator.arrivals import Arrival
from services.simulator.early.replica import Iterations, Replica
from services.simulator.early.replica import Sequence as Running

Planner = Callable[[Sequence[WorkerLoad], float], Sequence[PlannedMove]]
BASE = Fingerprint("base")
EXPECTED_TOKENS = 200.0  # of output, before anybody's are known
KV_TOKENS = 120_000  # what an 80 GB device has beside a model of 7B


@dataclass(frozen=True, slots=True)
class Fleet:
    """`slots`: adapters that a replica has resident. `load_seconds`: of one, from the host's
    memory."""

    replicas: int = 8
    slots: int = 5
    load_seconds: float = 0.005
    round_seconds: float = 10.0
    iterations: Iterations = field(default_factory=Iterations)
    build: Callable[[Iterations], Replica] = Replica


@dataclass(frozen=True, slots=True)
class Outcome:
    """`latencies`: seconds from arrival to end by token of output. `recomputed`: tokens of keys and
    values that moves had computed once more; `begun`: moves of requests that had begun."""

    latencies: tuple[float, ...]
    seconds: float
    tokens: int
    moves: int = 0
    begun: int = 0
    recomputed: int = 0
    rounds: int = 0
    loads: int = 0

    @property
    def mean_latency(self) -> float:
        return statistics.fmean(self.latencies)

    @property
    def throughput(self) -> float:
        return self.tokens / self.seconds


def replay_early(
    arrivals: Sequence[Arrival],
    adapters: Sequence[Digest],
    dispatch: Dispatch,
    *,
    fleet: Fleet | None = None,
    planner: Planner | None = None,
    until: float = math.inf,
) -> Outcome:
    """All requests to their end, or those that end before `until`. What begun moves has its keys
    and values computed anew."""
    return _Replay(fleet or Fleet(), adapters, dispatch).run(arrivals, planner, until)


class _Replay:
    def __init__(self, fleet: Fleet, adapters: Sequence[Digest], dispatch: Dispatch) -> None:
        self._fleet = fleet
        self._dispatch = dispatch
        self._replicas = [fleet.build(fleet.iterations) for _ in range(fleet.replicas)]
        self._resident = spread(adapters, fleet.replicas, slots=fleet.slots)
        self._ended: list[tuple[Running, float]] = []
        self._expected: dict[Digest, float] = {}
        self._moves: list[tuple[bool, int]] = []  # whether it had begun, tokens
        self._rounds = self._loads = 0

    def run(self, arrivals: Sequence[Arrival], planner: Planner | None, until: float) -> Outcome:
        next_round = self._fleet.round_seconds
        for arrival in arrivals:
            while planner is not None and next_round <= arrival.at:
                self._round(planner, next_round)
                next_round += self._fleet.round_seconds
            self._advance(arrival.at)
            self._arrive(arrival)
        while any(replica.sequences for replica in self._replicas):
            if next_round >= until:
                break
            if planner is not None:
                self._round(planner, next_round)
            else:
                self._advance(next_round)
            next_round += self._fleet.round_seconds
        self._advance(until if until < math.inf else next_round)
        return self._outcome(until)

    def _outcome(self, until: float) -> Outcome:
        ended = [(each, at) for each, at in self._ended if at <= until]
        return Outcome(
            tuple((at - each.arrival.at) / each.arrival.output_tokens for each, at in ended),
            max((at for _, at in ended), default=0.0),
            sum(each.arrival.output_tokens for each, _ in ended),
            moves=len(self._moves),
            begun=sum(begun for begun, _ in self._moves),
            recomputed=sum(tokens for begun, tokens in self._moves if begun),
            rounds=self._rounds,
            loads=self._loads,
        )

    def _advance(self, now: float) -> None:
        for replica in self._replicas:
            for ended, at in replica.advance(now):
                self._ended.append((ended, at))
                made, before = ended.arrival.output_tokens, self._expect(ended.adapter)
                self._expected[ended.adapter] = before + 0.05 * (made - before)

    def _expect(self, adapter: Digest) -> float:
        return self._expected.get(adapter, EXPECTED_TOKENS)

    def _arrive(self, arrival: Arrival) -> None:
        sequence = Running.of(arrival)
        hosts = [
            Host(replica.requests, resident, self._fleet.slots)
            for replica, resident in zip(self._replicas, self._resident, strict=True)
        ]
        chosen = self._dispatch.dispatch(sequence.adapter, hosts)
        resident = self._resident[chosen.host]
        if sequence.adapter not in resident:
            resident -= {chosen.instead_of}
            self._bring(chosen.host, sequence.adapter)
        self._replicas[chosen.host].add(sequence, arrival.at)

    def _bring(self, host: int, adapter: Digest) -> None:
        self._loads += 1
        self._resident[host].add(adapter)

    def _round(self, planner: Planner, now: float) -> None:
        self._advance(now)
        self._rounds += 1
        for move in planner([self._load(number) for number in range(len(self._replicas))], now):
            self._move(move.request, int(move.source), int(move.target), now)

    def _load(self, number: int) -> WorkerLoad:
        replica = self._replicas[number]
        there = [s.load(self._expect(s.adapter)) for s in replica.sequences.values()]
        return WorkerLoad(
            id=WorkerId(str(number)),
            base=BASE,
            sequences=tuple(there),
            most_sequences=self._fleet.iterations.seats,
            total_tokens=KV_TOKENS,
            free_tokens=KV_TOKENS - sum(each.tokens for each in there if not each.waiting),
            resident=frozenset(self._resident[number]),
            step_times=replica.step_times,
            load_ms=1000 * self._fleet.load_seconds,
            most_waiting=10_000,
            most_adapters=self._fleet.slots,
        )

    def _move(self, request: RequestId, source: int, target: int, now: float) -> None:
        sequence = self._replicas[source].remove(request)
        self._moves.append((sequence.made > 0, sequence.tokens))
        sequence.to_compute = sequence.tokens
        resident = self._resident[target]
        if sequence.adapter not in resident:
            if len(resident) >= self._fleet.slots:
                resident.remove(self._least_missed(target))
            self._bring(target, sequence.adapter)
        self._replicas[target].add(sequence, now)

    def _least_missed(self, number: int) -> Digest:
        """Nobody there uses it, and it has most hosts elsewhere."""
        idle = [k for k in self._resident[number] if not self._replicas[number].requests[k]]
        return max(sorted(idle), key=lambda k: sum(k in each for each in self._resident))
