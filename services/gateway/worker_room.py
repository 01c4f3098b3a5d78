"""The room that a worker says it has, less what was given to it since; as a placement sees it."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from services.core.reports import NO_LOAD_TIMES, LoadTimes, StepTimes
from services.core.types import Digest, Fingerprint, RequestId, Room, WorkerId
from services.gateway.course import Job
from services.policies.placement.views import UNKNOWN_EVICTS_MS, UNKNOWN_TIMES, WorkerView


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Does not change while a worker lives."""

    id: WorkerId
    address: str
    base_model: str
    base_fingerprint: Fingerprint


class WorkerRoom:
    """What is promised here counts against the room until the worker has said that it counts it
    too."""

    def __init__(self, identity: WorkerIdentity, changed: Callable[[], None]) -> None:
        """`changed` is called whenever it looks otherwise, before anybody could see that."""
        self.identity = identity
        self.has_ended = False
        self._changed = changed
        self._takes = True
        self._room = Room()
        self._resident: frozenset[Digest] = frozenset()
        self._adapters: frozenset[Digest] = frozenset()
        self._pace = UNKNOWN_TIMES
        self._load_times = NO_LOAD_TIMES
        self._promised: dict[RequestId, int] = {}  # tokens
        self._sent: deque[int] = deque()  # tokens, of starts that the room does not count yet
        self._dealt = 0  # starts that it does
        self._jobs: dict[RequestId, Job] = {}  # with adapters, that are promised or run
        self._view: WorkerView | None = None  # None once it is another

    @property
    def has_room(self) -> bool:
        return self._takes and self._room.sequences > self._ahead

    @property
    def free_tokens(self) -> float:
        """Without end if it is idle: what fits nowhere fits an idle worker, which says why not."""
        if self._is_idle:
            return math.inf
        return self._room.tokens - sum(self._promised.values()) - sum(self._sent)

    @property
    def output_share(self) -> float:
        """Of the most that requests may generate, which is expected of them."""
        return self._room.output_share

    @property
    def pool_tokens(self) -> int:
        """That the worker's pool can hold in all."""
        return self._room.pool_tokens

    @property
    def beat(self) -> float:
        """Seconds; 0 if it promises none."""
        return self._room.beat

    @property
    def adapters(self) -> frozenset[Digest]:
        """On the device, or asked for by a request that is there or on its way."""
        return self.view.resident

    @property
    def view(self) -> WorkerView:
        if self._view is None:
            ranks = {job.adapter: job.adapter_rank for job in self._jobs.values() if job.adapter}
            adapters = self._resident.union(ranks)
            if adapters != self._adapters:  # else it stays the same object: others need not look
                self._adapters = adapters
            self._view = WorkerView(
                id=self.identity.id,
                base_model=self.identity.base_model,
                base_fingerprint=self.identity.base_fingerprint,
                running=self._room.running + self._ahead,
                waiting=self._room.waiting,
                free_pages=self._room.tokens,
                resident=self._adapters,
                draining=False,
                step_times=self._pace,
                load_times=self._load_times,
                ranks=ranks,
                evicts_ms=UNKNOWN_EVICTS_MS,
                is_full=not self.has_room,
            )
        return self._view

    def serves(self, job: Job) -> bool:
        """Whether it would if it had room: workers of the release before begin anew."""
        return self._room.goes_on or not job.delivered

    def fits(self, job: Job) -> bool:
        """Whether it would start about now."""
        return self.has_room and self.tokens(job) <= self.free_tokens

    def tokens(self, job: Job) -> int:
        """That it is expected to come to hold."""
        return len(job.prompt) + math.ceil(job.sampling.max_tokens * self._room.output_share)

    def promise(self, job: Job) -> None:
        """It will be started here, or withdrawn."""
        self._promised[job.request_id] = self.tokens(job)
        if job.adapter is not None:
            self._jobs[job.request_id] = job
        self.look_again()

    def withdraw(self, request: RequestId) -> None:
        """It was promised and will not be started; if it was not, nothing changes."""
        if self._promised.pop(request, None) is not None:
            self.ended(request)

    def started(self, job: Job) -> None:
        """It is told to start it, promised or not."""
        if job.request_id not in self._promised:
            self.promise(job)
        self._sent.append(self._promised.pop(job.request_id))

    def ended(self, request: RequestId) -> None:
        """What runs there, or was promised, does so no more."""
        self._jobs.pop(request, None)
        self.look_again()

    def measured(
        self,
        room: Room,
        dealt: int,
        *,
        pace: StepTimes | None = None,
        load_times: LoadTimes | None = None,
        resident: frozenset[Digest] | None = None,
    ) -> None:
        """What the worker says; `dealt`: with so many starts. None: as it said last."""
        for _ in range(min(dealt - self._dealt, len(self._sent))):
            self._sent.popleft()
        self._dealt = dealt
        self._room = room
        self._pace = pace or self._pace
        self._load_times = load_times or self._load_times
        self._resident = self._resident if resident is None else resident
        self.look_again()

    def takes(self, *, requests: bool) -> None:
        """Whether anything may be sent there, whatever room it has."""
        if requests != self._takes:
            self._takes = requests
            self.look_again()

    def end(self) -> None:
        """It takes nothing any more, ever."""
        self.has_ended, self._takes = True, False
        self.look_again()

    def look_again(self) -> None:
        self._view = None
        self._changed()

    @property
    def _ahead(self) -> int:
        """Starts that the worker does not count yet."""
        return len(self._promised) + len(self._sent)

    @property
    def _is_idle(self) -> bool:
        return not (self._room.running or self._room.waiting or self._ahead)
