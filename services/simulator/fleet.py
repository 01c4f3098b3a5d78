"""Several replicas behind one policy, and requests that move between them while they run."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from services.core.clock import ManualClock
from services.core.errors import ResourceExhausted
from services.core.types import RequestId, TenantId
from services.gpu_worker.engine.engine import Engine, StepReport
from services.gpu_worker.engine.pool import Pool
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.simulator.arrivals import Arrival
from services.simulator.recording import Recorder, Recording
from services.simulator.replica import engine_request, replica, resumed
from services.simulator.step_time import A10G, StepTime


@dataclass(frozen=True, slots=True)
class Move:
    """What of the tenant's runs on `source` goes on on `target`, as soon as there is room there and
    before anybody new. It leaves when the source's first step after `at` has ended."""

    at: float
    source: int
    target: int
    tenant: TenantId


@dataclass(frozen=True, slots=True)
class Moved:
    """`recomputed`: tokens of keys and values that moves had computed once more, by tenant."""

    recording: Recording
    recomputed: Mapping[TenantId, int]


@dataclass(slots=True)
class _Place:
    clock: ManualClock
    engine: Engine
    report: StepReport | None = None
    """What the step that runs will have done, when the clock's time comes."""

    def is_due(self, now: float) -> bool:
        return self.report is not None and self.clock.now() <= now


def replay_moving(
    arrivals: Iterable[Arrival],
    policy: AdmissionPolicy,
    moves: Sequence[Move],
    *,
    replicas: int = 2,
    kv_tokens: int = 10_000,
    step_time: StepTime = A10G,
    until: float = math.inf,
    watch: Callable[[float], None] = lambda now: None,
) -> Moved:
    """Late binding: whoever is about to step takes whom the policy ranks first. What moves has its
    keys and values computed anew; the policy is not told: nobody is admitted or charged again.

    `kv_tokens`: of each. `watch` is called with the time before every admission.
    """
    places = []
    for _ in range(replicas):
        clock, pool = ManualClock(), Pool(kv_tokens, page_tokens=1, keeps_prefixes=False)
        places.append(_Place(clock, replica(clock, step_time, pool, max_sequences=256)))
    coming = deque(sorted(arrivals, key=attrgetter("at")))
    return _Fleet(coming, policy, places, kv_tokens, watch).run(moves, until)


class _Fleet:
    def __init__(
        self,
        coming: deque[Arrival],
        policy: AdmissionPolicy,
        places: Sequence[_Place],
        kv_tokens: int,
        watch: Callable[[float], None],
    ) -> None:
        self._coming = coming
        self._policy = policy
        self._places = places
        self._kv_tokens = kv_tokens
        self._watch = watch
        self._recorder = Recorder()
        self._arrivals: dict[RequestId, Arrival] = {}  # of those who wait or run
        self._made: Counter[RequestId] = Counter()  # tokens
        self._where: dict[RequestId, _Place] = {}
        self._recomputed: Counter[TenantId] = Counter()

    def run(self, moves: Sequence[Move], until: float) -> Moved:
        now, ahead = 0.0, deque(sorted(moves, key=attrgetter("at")))
        while (then := self._next()) < until:
            now = max(now, then)
            self._arrive(now)
            for place in self._places:
                if place.is_due(now):
                    self._deliver(place, now)
            for move in [m for m in ahead if m.at <= now and not self._places[m.source].report]:
                ahead.remove(move)
                self._move(move, now)
            for place in self._places:
                if place.report is None:
                    self._step(place, now)
        return Moved(self._recorder.recording(now), dict(self._recomputed))

    def _next(self) -> float:
        """When a step ends, or somebody comes to a replica that has nothing to do."""
        ends = [place.clock.now() for place in self._places if place.report is not None]
        if len(ends) < len(self._places) and self._coming:
            ends.append(self._coming[0].at)
        return min(ends, default=math.inf)

    def _arrive(self, now: float) -> None:
        while self._coming and self._coming[0].at <= now:
            arrival = self._coming.popleft()
            request, wanted = arrival.request, arrival.output_tokens
            try:
                if request.prompt_tokens + wanted > self._kv_tokens:
                    raise ResourceExhausted("the request needs more memory than a worker has")
                self._policy.enqueue(request, arrival.at)
            except ResourceExhausted:
                self._recorder.reject(request, wanted, arrival.at)
                continue
            self._recorder.enqueue(request, wanted, arrival.at)
            self._arrivals[request.id] = arrival

    def _deliver(self, place: _Place, now: float) -> None:
        assert place.report is not None
        pieces, place.report = place.report.pieces, None
        self._recorder.produce((request for request, _ in pieces), now)
        for request, piece in pieces:
            self._policy.produced(request)
            self._made[request] += 1
            if piece.finish_reason is not None:
                self._recorder.finish(request, now)
                self._policy.end(request)
                del self._arrivals[request], self._made[request], self._where[request]

    def _move(self, move: Move, now: float) -> None:
        source, target = self._places[move.source], self._places[move.target]
        for request in [request for request, place in self._where.items() if place is source]:
            arrival = self._arrivals[request]
            if arrival.request.tenant == move.tenant:
                again = resumed(arrival, self._made[request])
                source.engine.cancel(request)
                target.engine.submit(again, now)
                self._where[request] = target
                self._recomputed[move.tenant] += len(again.prompt)

    def _step(self, place: _Place, now: float) -> None:
        place.clock.advance(now - place.clock.now())
        while (chosen := self._first_that_fits(place, now)) is not None:
            self._watch(now)
            self._policy.admit(chosen.id, now)
            self._recorder.admit(chosen.id, now)
            place.engine.submit(engine_request(self._arrivals[chosen.id], None), now)
            self._where[chosen.id] = place
        if place in self._where.values():
            place.report = place.engine.step(now)

    def _first_that_fits(self, place: _Place, now: float) -> Request | None:
        return next(
            (
                request
                for request in self._policy.candidates(now)
                if place.engine.has_room(engine_request(self._arrivals[request.id], None))
            ),
            None,
        )
