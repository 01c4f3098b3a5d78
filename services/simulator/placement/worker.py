"""A worker as its steps and loads take time, without its engine.

Steps are counted, not run: between two changes of the batch they all take the same time.
"""

import heapq
import math
from collections import Counter, deque
from dataclasses import dataclass

from services.core.types import Digest, Fingerprint, WorkerId
from services.policies.placement.cost import DISTINCT_SHARE, GAP_SHARE
from services.policies.placement.views import WorkerView
from services.simulator.placement.cache import Cache
from services.simulator.placement.hardware import Adapter, Hardware

BASE_MODEL = "base"
FINGERPRINT = Fingerprint("f" * 64)
REUSED = 0.5
"""How often what is evicted from host memory is wanted again while it would have been there."""


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way. `first_token`: when, in seconds; infinity if it has none yet."""

    number: int
    at: float
    tenant: int
    adapter: Adapter
    prompt_tokens: int
    output_tokens: int
    first_token: float = math.inf


class LeanWorker:
    def __init__(self, name: str, hardware: Hardware) -> None:
        self.id = WorkerId(name)
        self.hardware = hardware
        self.fetches = 0  # from the store
        self.loads = 0  # onto the device
        self.running: list[tuple[float, int, Job]] = []  # by the step at which they end
        self.waiting: deque[Job] = deque()
        self._device = Cache(hardware.device_mib)
        self._host = Cache(hardware.host_mib)
        self._used: Counter[Digest] = Counter()  # by those who run or wait
        self._ranks: dict[Digest, int] = {}  # of those who run
        self._loading: dict[Digest, tuple[float, Adapter]] = {}  # until when; onto the device
        self._fetching: dict[Digest, tuple[float, Adapter]] = {}  # for nobody yet
        self._link_free = 0.0
        self._steps, self._at = 0.0, 0.0  # that were run by then; later than now in a prompt

    @property
    def held(self) -> int:
        return len(self.running) + len(self.waiting)

    def give(self, job: Job, now: float) -> list[Job]:
        """What has ended by now, as go_on."""
        self._used[job.adapter.digest] += 1
        self.waiting.append(job)
        if job.adapter.digest not in self._device and job.adapter.digest not in self._loading:
            self._load(job.adapter, now)
        return self.go_on(now)

    def preload(self, adapter: Adapter, now: float) -> None:
        """Into host memory."""
        digest = adapter.digest
        if digest not in self._host and digest not in self._loading:
            self._fetching.setdefault(digest, (self._fetched(adapter, now), adapter))

    def go_on(self, now: float) -> list[Job]:
        """What has ended by now; what can start is started."""
        self._run_to(now)
        ended: list[Job] = []
        while self.running and self.running[0][0] <= self._steps + 1e-6:
            ended.append(heapq.heappop(self.running)[-1])
        for job in ended:
            self._leave(job.adapter.digest)
        self._land(now)
        self._start(now)
        self._ranks = {job.adapter.digest: job.adapter.rank for _, _, job in self.running}
        return ended

    def next_event(self, now: float) -> float:
        """When something ends of itself; infinity if nothing does."""
        ends = [until for until, _ in self._loading.values()]
        ends += [until for until, _ in self._fetching.values()]
        if self.running:
            left = max(0.0, self.running[0][0] - self._steps)
            ends.append(max(now, self._at) + left * self._step_seconds())
        return min(ends, default=math.inf)

    def view(self, now: float) -> WorkerView:
        held, slots = self.held, self.hardware.slots
        behind = max(0.0, self._at - now) * 1000 / self.hardware.times.token
        return WorkerView(
            id=self.id,
            base_model=BASE_MODEL,
            base_fingerprint=FINGERPRINT,
            running=min(held, slots),
            waiting=max(0, held - slots),
            free_pages=0,
            resident=self._device.names,
            draining=False,
            step_times=self.hardware.times,
            most_sequences=slots,
            queued_tokens=int(behind) + sum(job.prompt_tokens for job in self.waiting),
            loading={name: 1000 * (until - now) for name, (until, _) in self._loading.items()},
            host=self._host.names,
            ranks=self._ranks,
            evicts_ms=self._evicts_ms(),
        )

    def _load(self, adapter: Adapter, now: float) -> None:
        self.loads += 1
        copy = adapter.copy_ms(self.hardware) / 1000
        if adapter.digest in self._host:
            until = now + copy
            self._host.touch(adapter.digest)
        elif adapter.digest in self._fetching:
            until = self._fetching.pop(adapter.digest)[0] + copy
        else:
            until = self._fetched(adapter, now) + copy
        self._loading[adapter.digest] = (until, adapter)

    def _fetched(self, adapter: Adapter, now: float) -> float:
        """When it will be; one after the other crosses the link."""
        self.fetches += 1
        self._link_free = max(now, self._link_free) + adapter.mib / self.hardware.link_mib
        return self._link_free + self.hardware.link_ms / 1000

    def _land(self, now: float) -> None:
        for digest in [d for d, (until, _) in self._fetching.items() if until <= now]:
            self._host.put(self._fetching.pop(digest)[1], ())
        for digest in [d for d, (until, _) in self._loading.items() if until <= now]:
            adapter = self._loading.pop(digest)[1]
            self._host.put(adapter, ())
            self._device.put(adapter, self._used)

    def _start(self, now: float) -> None:
        ready = [job for job in self.waiting if job.adapter.digest in self._device]
        for job in ready[: max(0, self.hardware.slots - len(self.running))]:
            self.waiting.remove(job)
            self._device.touch(job.adapter.digest)
            times = self.hardware.times
            self._at = max(now, self._at) + times.of(0, job.prompt_tokens) / 1000
            job.first_token = min(job.first_token, self._at)
            heapq.heappush(self.running, (self._steps + job.output_tokens, job.number, job))

    def _run_to(self, now: float) -> None:
        """Steps, but while a prompt runs there are none."""
        if now > self._at:
            if self.running:
                self._steps += (now - self._at) / self._step_seconds()
            self._at = now

    def _step_seconds(self) -> float:
        times, ranks = self.hardware.times, self._ranks.values()
        mix = DISTINCT_SHARE * sum(ranks) + GAP_SHARE * (max(ranks) - min(ranks)) if ranks else 0.0
        return (times.of(len(self.running), 0) + times.base * mix) / 1000

    def _leave(self, digest: Digest) -> None:
        self._used[digest] -= 1
        if not self._used[digest]:
            del self._used[digest]

    def _evicts_ms(self) -> float:
        """Of having back what goes when an adapter of common size comes."""
        cost = 0.0
        if self._device.is_full(80.0) and (victim := self._device.victim(self._used)):
            cost += victim.copy_ms(self.hardware)
        if self._host.is_full(80.0) and (victim := self._host.victim(())):
            cost += REUSED * victim.fetch_ms(self.hardware)
        return cost
