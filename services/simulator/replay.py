"""Requests wait in the production policy and run in the production engine, on a virtual clock."""

import heapq
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable
from operator import attrgetter

from services.core.clock import ManualClock
from services.core.errors import ResourceExhausted
from services.core.types import Digest, RequestId
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.sequence import EngineRequest
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.simulator.arrivals import Arrival
from services.simulator.recording import Recorder, Recording
from services.simulator.replica import engine_request, replica
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
    resident: Collection[Digest] = (),
) -> Recording:
    """Late binding: a request waits in the policy until there is room for it to start in the next
    step. Who comes first among those that fit is the policy's choice, before every step anew.

    `until`: seconds; the last step may end later. `watch` is called with the time before every
    admission. The engine knows of no adapters: `resident` is for the policy alone.
    Requests that can never fit are rejected as those are that the policy refuses.
    Raises ValueError if two requests have one id, and RuntimeError if the policy holds everybody
    back for an hour while nothing runs.
    """
    clock = ManualClock()
    engine = replica(clock, step_time, kv_tokens=kv_tokens, max_sequences=max_sequences)
    coming = sorted(arrivals, key=attrgetter("at"))
    if len({arrival.request.id for arrival in coming}) < len(coming):
        raise ValueError("two requests have one id")
    show = _Replay(coming, policy, clock, engine, kv_tokens=kv_tokens)
    return show.run(until, watch or _look_away, resident)


class _Replay:
    def __init__(
        self,
        coming: list[Arrival],
        policy: AdmissionPolicy,
        clock: ManualClock,
        engine: Engine,
        *,
        kv_tokens: int,
    ) -> None:
        self._coming = deque(coming)
        self._policy = policy
        self._clock = clock
        self._engine = engine
        self._kv_tokens = kv_tokens
        self._recorder = Recorder()
        self._waiting: dict[RequestId, EngineRequest] = {}
        self._running: set[RequestId] = set()
        self._cancels: list[tuple[float, RequestId]] = []  # a heap
        self._too_many = math.inf  # tokens, for which there was no room when last asked
        self._held_since: float | None = None

    def run(
        self, until: float, watch: Callable[[float], None], resident: Collection[Digest]
    ) -> Recording:
        while self._clock.now() < until:
            self._arrive()
            self._cancel()
            self._admit(watch, resident)
            if self._running:
                self._step()
            elif not self._wait(until):
                break
        return self._recorder.recording(self._clock.now())

    def _arrive(self) -> None:
        now = self._clock.now()
        while self._coming and self._coming[0].at <= now:
            arrival = self._coming.popleft()
            request = arrival.request
            try:
                if request.prompt_tokens + arrival.output_tokens > self._kv_tokens:
                    raise ResourceExhausted("the request needs more memory than the worker has")
                self._policy.enqueue(request, arrival.at)
            except ResourceExhausted:
                self._recorder.reject(request, arrival.output_tokens, arrival.at)
                continue
            self._recorder.enqueue(request, arrival.output_tokens, arrival.at)
            self._waiting[request.id] = engine_request(arrival)
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
            self._waiting.pop(request, None)
            self._end(request)

    def _admit(self, watch: Callable[[float], None], resident: Collection[Digest]) -> None:
        now = self._clock.now()
        while (chosen := self._first_that_fits(resident)) is not None:
            watch(now)
            self._policy.admit(chosen.id, now)
            self._recorder.admit(chosen.id, now)
            self._engine.submit(self._waiting.pop(chosen.id), now)
            self._running.add(chosen.id)

    def _first_that_fits(self, resident: Collection[Digest]) -> Request | None:
        candidates = self._policy.candidates(self._clock.now(), resident)
        return next((request for request in candidates if self._fits(request)), None)

    def _fits(self, request: Request) -> bool:
        """Room comes only when a request ends: until then what did not fit is not asked again."""
        wanted = self._waiting[request.id]
        tokens = len(wanted.prompt) + wanted.sampling.max_tokens
        if tokens >= self._too_many:
            return False
        if self._engine.has_room(wanted):
            return True
        self._too_many = tokens
        return False

    def _step(self) -> None:
        report = self._engine.step(self._clock.now())
        assert not report.refused
        assert not report.waiting, "what there was room for did not start"
        self._arrive()  # while the step ran, so before it is charged
        now = self._clock.now()
        self._recorder.produce((request for request, _ in report.pieces), now)
        for request, piece in report.pieces:
            self._policy.produced(request)
            if piece.finish_reason is not None:
                self._recorder.finish(request, now)
                self._end(request)

    def _end(self, request: RequestId) -> None:
        self._policy.end(request)
        self._running.discard(request)
        self._too_many = math.inf
        self._held_since = None

    def _wait(self, until: float) -> bool:
        """Nothing runs: on to what comes next. False if nothing does."""
        now = self._clock.now()
        if not self._recorder.num_waiting:
            if not self._coming:
                return False
            self._clock.advance(min(self._coming[0].at, until) - now)
            return True
        self._held_since = now if self._held_since is None else self._held_since
        if now - self._held_since > LONGEST_HOLD_SECONDS:
            raise RuntimeError("the policy has held back everybody for an hour")
        coming = self._coming[0].at if self._coming else math.inf
        self._clock.advance(min(now + HOLD_SECONDS, coming, until) - now)
        return True


def _look_away(now: float) -> None:
    """Nobody watches."""
