"""Requests wait in the production policy and run in the production engine, on a virtual clock."""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from operator import attrgetter

from services.core.clock import ManualClock
from services.core.errors import ResourceExhausted
from services.core.types import AdapterWait, RequestId
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.simulator.arrivals import Arrival
from services.simulator.recording import Recorder, Recording
from services.simulator.replica import engine_request, replica
from services.simulator.residence import Residence
from services.simulator.step_time import A10G, StepTime

HOLD_SECONDS = 0.1  # how long nothing happens before a policy that admits nobody is asked again
LONGEST_HOLD_SECONDS = 3600.0


def replay(
    arrivals: Iterable[Arrival],
    policy: AdmissionPolicy,
    *,
    kv_tokens: int = 10_000,
    max_sequences: int = 256,
    step_time: StepTime = A10G,
    until: float = math.inf,
    watch: Callable[[float], None] | None = None,
    slots: int | None = None,
    load_seconds: float = 0.1,
) -> Recording:
    """Late binding: a request waits in the policy until there is room for it to start in the next
    step. Who comes first among those that fit is the policy's choice, before every step anew.

    `until`: seconds; the last step may end later. `watch` is called with the time before every
    admission.
    `slots`: how many adapters may be resident or loading at once; None: every request is the base
    model's. A request whose adapter has no slot must wait, even if there is room for its tokens;
    one whose adapter must be loaded is charged when that begins, and starts `load_seconds` later.
    `policy` is told of every admission what it waits for its adapter.
    Requests that can never fit are rejected as those are that the policy refuses.
    Raises ValueError if two requests have one id, `slots` is below 1 or `load_seconds` below 0, and
    RuntimeError if the policy holds everybody back for an hour while nothing runs.
    """
    clock = ManualClock()
    pool = Pool(kv_tokens, page_tokens=1, keeps_prefixes=False)
    engine = replica(clock, step_time, pool, max_sequences=max_sequences)
    residence = Residence(engine, pool, slots=slots, load_seconds=load_seconds)
    coming = sorted(arrivals, key=attrgetter("at"))
    if len({arrival.request.id for arrival in coming}) < len(coming):
        raise ValueError("two requests have one id")
    show = _Replay(coming, policy, clock, engine, residence)
    return show.run(until, watch or _look_away)


class _Replay:
    def __init__(
        self,
        coming: list[Arrival],
        policy: AdmissionPolicy,
        clock: ManualClock,
        engine: Engine,
        residence: Residence,
    ) -> None:
        self._coming = deque(coming)
        self._policy = policy
        self._clock = clock
        self._engine = engine
        self._residence = residence
        self._recorder = Recorder()
        self._waiting: dict[RequestId, EngineRequest] = {}
        self._running: set[RequestId] = set()
        self._cancels: list[tuple[float, RequestId]] = []  # a heap
        self._too_many = math.inf  # tokens, for which there was no room when last asked
        self._held_since: float | None = None
        self._wants_slot: dict[RequestId, float] = {}  # since when, and nothing else

    def run(self, until: float, watch: Callable[[float], None]) -> Recording:
        while self._clock.now() < until:
            if self._residence.end_loads(self._clock.now()):
                self._too_many = math.inf  # nobody may want it any more
            self._arrive()
            self._cancel()
            self._admit(watch)
            if not self._step() and not self._wait(until):
                break
        return self._recorder.recording(self._clock.now())

    def _arrive(self) -> None:
        now = self._clock.now()
        while self._coming and self._coming[0].at <= now:
            arrival = self._coming.popleft()
            request = arrival.request
            wanted = engine_request(arrival, self._residence.adapter_of(request))
            try:
                if not self._residence.can_ever_fit(wanted):
                    raise ResourceExhausted("the request needs more memory than the worker has")
                self._policy.enqueue(request, arrival.at)
            except ResourceExhausted:
                self._recorder.reject(request, arrival.output_tokens, arrival.at)
                continue
            self._recorder.enqueue(request, arrival.output_tokens, arrival.at)
            self._waiting[request.id] = wanted
            if arrival.cancel_at is not None:
                heapq.heappush(self._cancels, (arrival.cancel_at, request.id))

    def _cancel(self) -> None:
        now = self._clock.now()
        while self._cancels and self._cancels[0][0] <= now:
            _, request = heapq.heappop(self._cancels)
            if not self._recorder.is_open(request):
                continue
            self._recorder.cancel(request, now)
            self._engine.cancel(request)
            self._residence.cancel(request)
            self._waiting.pop(request, None)
            self._end(request)

    def _admit(self, watch: Callable[[float], None]) -> None:
        now = self._clock.now()
        while (chosen := self._first_that_fits()) is not None:
            watch(now)
            self._policy.admit(chosen.id, now)
            self._recorder.admit(chosen.id, now)
            wanted = self._waiting.pop(chosen.id)
            self._running.add(chosen.id)
            self._tell_wait(wanted, now)
            self._residence.submit(wanted, now)

    def _first_that_fits(self) -> Request | None:
        candidates = self._policy.candidates(self._clock.now(), self._residence.adapters)
        return next((request for request in candidates if self._fits(request)), None)

    def _fits(self, request: Request) -> bool:
        """Room comes only when a request ends: until then what did not fit is not asked again."""
        wanted = self._waiting[request.id]
        tokens = self._residence.tokens(wanted)
        if tokens >= self._too_many:
            return False
        if not self._residence.has_room(wanted):
            self._too_many = tokens
            return False
        if self._residence.has_slot(wanted.adapter):
            return True
        self._wants_slot.setdefault(request.id, self._clock.now())
        return False

    def _tell_wait(self, request: EngineRequest, now: float) -> None:
        """Of one that is about to be submitted."""
        since = self._wants_slot.pop(request.id, now)
        if (slots := self._residence.slots) is not None:
            waits = now - since + self._residence.seconds_to_load(request.adapter, now)
            self._policy.awaited(AdapterWait(waits, len(self._running), slots), now)

    def _step(self) -> bool:
        """False if nobody runs, but some may wait for their adapters."""
        if not self._running:
            return False
        report = self._engine.step(self._clock.now())
        self._residence.started()
        assert not report.refused
        assert report.waiting == self._residence.num_held, "what there was room for did not start"
        if report.is_idle:
            return False
        self._arrive()  # while the step ran, so before it is charged
        now = self._clock.now()
        self._recorder.produce((request for request, _ in report.pieces), now)
        for request, piece in report.pieces:
            self._policy.produced(request)
            if piece.finish_reason is not None:
                self._recorder.finish(request, now)
                self._end(request)
        return True

    def _end(self, request: RequestId) -> None:
        self._policy.end(request)
        self._running.discard(request)
        self._wants_slot.pop(request, None)
        self._too_many = math.inf
        self._held_since = None

    def _wait(self, until: float) -> bool:
        """Nothing runs: on to what comes next. False if nothing does."""
        now = self._clock.now()
        coming = self._coming[0].at if self._coming else math.inf
        then = min(coming, self._residence.next_end)
        if self._recorder.num_waiting:
            self._hold(now)
            then = min(then, now + HOLD_SECONDS)
        if then == math.inf:
            return False
        self._clock.advance(min(then, until) - now)
        return True

    def _hold(self, now: float) -> None:
        self._held_since = now if self._held_since is None else self._held_since
        if self._running:  # they wait for their adapters
            self._held_since = None
        elif now - self._held_since > LONGEST_HOLD_SECONDS:
            raise RuntimeError("the policy has held back everybody for an hour")


def _look_away(now: float) -> None:
    """Nobody watches."""
