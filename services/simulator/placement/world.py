"""A fleet on a virtual clock, under a placement, and what came of it."""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.core.types import Digest, WorkerId
from services.policies.placement.cost import urgency
from services.policies.placement.preload import Preload
from services.policies.placement.views import Wish, WorkerView
from services.simulator.placement.hardware import SLOW, Adapter, Hardware
from services.simulator.placement.traces import Asked, Trace
from services.simulator.placement.worker import BASE_MODEL, FINGERPRINT, Job, LeanWorker

WARM_UP = 0.25  # of the trace, that is not measured


class Steering(Protocol):
    """A placement, and what it has done about once a second."""

    def update(self, view: WorkerView) -> None: ...
    def remove(self, worker: WorkerId) -> None: ...
    def place(self, wish: Wish) -> WorkerId | None: ...
    def arrived(self, adapter: Digest, now: float) -> None: ...
    def tick(self, now: float) -> Iterable[Preload]: ...


@dataclass(slots=True)
class Measured:
    """`waits`, `lives`: seconds to first and to last tokens. `uneven`: each second, the load of the
    most loaded worker by the mean; a load is sequences by slots. `moved`: requests whose worker was
    lost."""

    requests: int = 0
    loads: int = 0
    fetches: int = 0
    moved: int = 0
    waits: list[float] = field(default_factory=list)
    lives: list[float] = field(default_factory=list)
    uneven: list[float] = field(default_factory=list)

    def __sub__(self, before: "Measured") -> "Measured":
        """What came after."""
        return Measured(
            self.requests - before.requests,
            self.loads - before.loads,
            self.fetches - before.fetches,
            self.moved - before.moved,
            self.waits[len(before.waits) :],
            self.lives[len(before.lives) :],
            self.uneven[len(before.uneven) :],
        )


class World:
    def __init__(
        self,
        trace: Trace,
        hardware: Sequence[Hardware],
        adapters: Sequence[Adapter],
        steering: Steering,
        *,
        each_second: Callable[["World", float], None] = lambda _, __: None,
    ) -> None:
        self.workers = {
            worker.id: worker
            for number, machine in enumerate(hardware)
            for worker in (LeanWorker(f"w{number:04}", machine),)
        }
        self.measured = Measured()
        self.placed: dict[int, WorkerId] = {}  # requests that wait or run
        self._gone = Measured()  # what lost workers had counted
        self._trace, self._adapters, self._steering = trace, adapters, steering
        self._by_digest = {adapter.digest: adapter for adapter in adapters}
        self._each_second = each_second
        self._queue: deque[Job] = deque()
        self._events: list[tuple[float, WorkerId]] = []
        self._due: dict[WorkerId, float] = {}
        self._debts = _Debts()

    def run(self) -> Measured:
        """To the end of the trace; what is measured begins when it is warm."""
        warm = self._trace.shape.seconds * WARM_UP
        before: Measured | None = None
        second = 1.0
        for worker in self.workers.values():
            self._steering.update(worker.view(0.0))
        for number, asked in enumerate(self._trace.requests):
            while second <= asked.at:
                self._go_on(second)
                self._tick(second)
                second += 1.0
            if before is None and asked.at >= warm:
                before = self._so_far()
            self._go_on(asked.at)
            self._arrive(number, asked)
        return self._so_far() - (before or Measured())

    def lose(self, workers: Iterable[WorkerId], now: float) -> None:
        """What was there is placed anew, before all who wait."""
        jobs: list[Job] = []
        for name in workers:
            worker = self.workers.pop(name)
            self._gone.loads += worker.loads
            self._gone.fetches += worker.fetches
            self._steering.remove(name)
            self._due.pop(name, None)
            jobs += [*(job for _, _, job in sorted(worker.running)), *worker.waiting]
        self.measured.moved += len(jobs)
        self._queue.extendleft(reversed(jobs))
        self._dispatch(now)

    def _arrive(self, number: int, asked: Asked) -> None:
        adapter = self._adapters[asked.adapter]
        job = Job(number, asked.at, asked.tenant, adapter, asked.prompt_tokens, asked.output_tokens)
        self.measured.requests += 1
        self._steering.arrived(adapter.digest, asked.at)
        self._queue.append(job)
        self._dispatch(asked.at)

    def _dispatch(self, now: float) -> None:
        """Late binding: who is first waits for a worker that has room."""
        while self._queue:
            job = self._queue[0]
            chosen = self._steering.place(self._wish(job))
            if chosen is None:
                return
            self._queue.popleft()
            self.placed[job.number] = chosen
            self._debts.serve(job.tenant, job.output_tokens)
            worker = self.workers[chosen]
            self._ended(worker.give(job, now), now)
            self._refresh(worker, now)

    def _wish(self, job: Job) -> Wish:
        return Wish(
            base_model=BASE_MODEL,
            base_fingerprint=FINGERPRINT,
            adapter=job.adapter.digest,
            prompt_tokens=job.prompt_tokens,
            output_tokens=self._trace.shape.output_tokens,
            rank=job.adapter.rank,
            fetch_ms=job.adapter.fetch_ms(SLOW),
            copy_ms=job.adapter.copy_ms(SLOW),
            urgency=self._debts.urgency(job.tenant),
            needs_room=True,
        )

    def _go_on(self, now: float) -> None:
        """All that happens before now."""
        while self._events and self._events[0][0] <= now:
            at, name = heapq.heappop(self._events)
            if self._due.get(name) != at:
                continue
            worker = self.workers[name]
            self._ended(worker.go_on(at), at)
            self._refresh(worker, at)
            self._dispatch(at)

    def _ended(self, jobs: Iterable[Job], now: float) -> None:
        for job in jobs:
            self.measured.waits.append(job.first_token - job.at)
            self.measured.lives.append(now - job.at)
            del self.placed[job.number]

    def _refresh(self, worker: LeanWorker, now: float) -> None:
        self._steering.update(worker.view(now))
        due = worker.next_event(now)
        self._due[worker.id] = due
        if due < math.inf:
            heapq.heappush(self._events, (due, worker.id))

    def _tick(self, now: float) -> None:
        for at, share in self._trace.lost.items():
            if now - 1 < at <= now:
                step = round(1 / share)
                self.lose(list(self.workers)[::step], now)
        for preload in self._steering.tick(now):
            worker = self.workers[preload.worker]
            worker.preload(self._by_digest[preload.adapter], now)
            self._refresh(worker, now)
        loads = [worker.held / worker.hardware.slots for worker in self.workers.values()]
        if any(loads):
            self.measured.uneven.append(max(loads) * len(loads) / sum(loads))
        self._each_second(self, now)

    def _so_far(self) -> Measured:
        workers = self.workers.values()
        measured = self.measured
        return Measured(
            measured.requests,
            self._gone.loads + sum(worker.loads for worker in workers),
            self._gone.fetches + sum(worker.fetches for worker in workers),
            measured.moved,
            list(measured.waits),
            list(measured.lives),
            list(measured.uneven),
        )


class _Debts:
    """What tenants are owed: by how much they had less than the mean of those who had any."""

    def __init__(self) -> None:
        self._served: dict[int, float] = {}
        self._total = 0.0

    def serve(self, tenant: int, tokens: int) -> None:
        self._served[tenant] = self._served.get(tenant, 0.0) + tokens
        self._total += tokens

    def urgency(self, tenant: int) -> float:
        if tenant not in self._served:
            return 1.0
        mean = self._total / len(self._served)
        return urgency(mean - self._served[tenant], 2 * mean)
