"""Late binding: requests wait here, ranked by a policy, until a worker has room for them."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from services.core.errors import TooLate, Unavailable
from services.core.types import Digest, Fingerprint, RequestId, TenantId, TokenPiece, WorkerId
from services.gateway.course import Completion, Job
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.policies.placement import Wish, WorkerView, place

FIRST_IN_LINE = 4  # whose adapters are fetched while they wait
TICK_SECONDS = 0.25
WORKERLESS_SECONDS = 3.0
"""How long requests wait for a worker that went away to come back."""
LEARNING_RATE = 0.1


class Line(Protocol):
    """A worker that can be given requests; worker_line.WorkerLine is one."""

    @property
    def has_room(self) -> bool: ...
    @property
    def pool_tokens(self) -> int: ...
    @property
    def adapters(self) -> frozenset[Digest]: ...
    @property
    def view(self) -> WorkerView: ...
    def fits(self, job: Job) -> bool: ...
    def promise(self, job: Job) -> None: ...
    def withdraw(self, request: RequestId) -> None: ...
    def prefetch(self, adapter: Digest) -> None: ...
    def follow(self, job: Job, seconds: float) -> AsyncGenerator[TokenPiece, None]: ...


class Fleet(Protocol):
    def lines(self, base: Fingerprint) -> Sequence[Line]: ...


@dataclass(slots=True, eq=False)
class Ticket:
    """A request's place: in the queue, and then with a worker."""

    completion: Completion
    lane: "_Lane"
    since: float
    is_running: bool = False  # as far as the policy goes
    failed: frozenset[WorkerId] = frozenset()
    line: Line | None = None
    turn: asyncio.Future[Line] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def job(self) -> Job:
        return self.completion.job

    def produced(self, tokens: int) -> None:
        self.lane.policy.produced(self.job.request_id, tokens)


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant in a lane: requests, and the seconds that the first of those who wait has waited."""

    tenant: TenantId
    waiting: int
    running: int
    longest_wait: float


@dataclass(frozen=True, slots=True)
class LaneView:
    """Those who want a base model. `longest_prompt`: tokens, of all that ever waited.
    `pool_tokens`: that the workers can hold together."""

    base: Fingerprint
    base_model: str
    policy: AdmissionPolicy
    workers: int
    standings: Sequence[Standing]
    longest_prompt: int
    pool_tokens: int


@dataclass(slots=True, eq=False)
class _Lane:
    """Those who want the same base model: they compete for the same workers."""

    base: Fingerprint
    base_model: str
    policy: AdmissionPolicy
    waiting: dict[RequestId, Ticket] = field(default_factory=dict)
    returning: list[Ticket] = field(default_factory=list)  # their worker failed: before all others
    tenants: Counter[TenantId] = field(default_factory=Counter)  # who wait
    running: Counter[TenantId] = field(default_factory=Counter)
    longest_prompt: int = 0  # tokens, of all that ever waited
    worker_seen: float = 0.0
    pace: float | None = None  # seconds from one admission to the next, while somebody waits
    admitted: float | None = None  # when the one before was


class FairQueue:
    def __init__(
        self,
        fleet: Fleet,
        policy: Callable[[Fingerprint], AdmissionPolicy],
        *,
        most_waiting: int = 4096,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`policy` makes one for each base model."""
        self._fleet = fleet
        self._policy = policy
        self._most_waiting = most_waiting
        self._now = now
        self._lanes: dict[Fingerprint, _Lane] = {}

    def look(self) -> list[LaneView]:
        """Every base model that was asked for; who waits most first."""
        return [
            LaneView(
                base=base,
                base_model=lane.base_model,
                policy=lane.policy,
                workers=len(self._fleet.lines(base)),
                standings=self._standings(lane),
                longest_prompt=lane.longest_prompt,
                pool_tokens=sum(line.pool_tokens for line in self._fleet.lines(base)),
            )
            for base, lane in self._lanes.items()
        ]

    @asynccontextmanager
    async def entered(self, completion: Completion) -> AsyncIterator[Ticket]:
        """From now on it waits, and later runs. Raises Unavailable, TooLate or ResourceExhausted if
        it is not even to wait."""
        lane, now = self._lane(completion.job), self._now()
        ticket = Ticket(completion, lane, since=now)
        self._refuse_the_hopeless(ticket)
        lane.policy.enqueue(_request(completion), now)
        lane.waiting[ticket.job.request_id] = ticket
        lane.tenants[completion.tenant] += 1
        lane.longest_prompt = max(lane.longest_prompt, len(ticket.job.prompt))
        try:
            self._make_place(lane)
            self.dispatch()
            yield ticket
        finally:
            self._leave(ticket)

    async def turn(self, ticket: Ticket) -> Line:
        """The worker it goes to. Asked again, another one: that one has failed it. Raises TooLate,
        or Unavailable if there is no worker, or too many wait and most of them are its tenant's."""
        if ticket.line is not None:
            self._return(ticket, ticket.line)
        try:
            async with asyncio.timeout(self.left(ticket)):
                ticket.line = await ticket.turn
        except TimeoutError as error:
            raise TooLate("no worker had room in the time that the first token may take") from error
        except BaseException:
            self._leave(ticket)
            raise
        return ticket.line

    def left(self, ticket: Ticket) -> float | None:
        """Seconds that its first token may take from now."""
        within = ticket.job.first_token_within_ms
        return None if within is None else ticket.since + within / 1000 - self._now()

    def dispatch(self) -> None:
        """Whoever may start now is given a worker."""
        for lane in self._lanes.values():
            while (lane.waiting or lane.returning) and self._admit(lane):
                pass

    async def run(self) -> None:
        """What time alone changes, until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.dispatch()
            for lane in self._lanes.values():
                if (lane.waiting or lane.returning) and self._is_workerless(lane):
                    for ticket in [*lane.returning, *lane.waiting.values()]:
                        self._refuse(ticket, _no_worker(ticket.job))

    def _return(self, ticket: Ticket, failing: Line) -> None:
        lane = ticket.lane
        ticket.failed |= {failing.view.id}
        ticket.line = None
        lines = self._fleet.lines(lane.base)
        if lines and all(line.view.id in ticket.failed for line in lines):
            raise Unavailable("every worker has failed it")
        ticket.turn = asyncio.get_running_loop().create_future()
        lane.returning.append(ticket)
        self.dispatch()

    def _admit(self, lane: _Lane) -> bool:
        """The next who can start, if there is one."""
        lines = [line for line in self._fleet.lines(lane.base) if line.has_room]
        for ticket in [each for each in lane.returning if not each.turn.cancelled()]:
            line = _choose(ticket, [line for line in lines if line.fits(ticket.job)])
            if line is not None:
                lane.returning.remove(ticket)
                _grant(ticket, line)
                return True
        if not lane.waiting or not lines:
            self._prefetch(lane)
            return False
        now = self._now()
        resident = frozenset().union(*(line.adapters for line in lines))
        for request in lane.policy.candidates(now, resident):
            ticket = lane.waiting[request.id]
            if ticket.turn.cancelled():  # its client has gone, and it has yet to notice
                self._end(ticket)
                return True
            line = _choose(ticket, [line for line in lines if line.fits(ticket.job)])
            if line is not None:
                lane.policy.admit(request.id, now)
                self._waits_no_more(ticket)
                ticket.is_running = True
                lane.running[ticket.completion.tenant] += 1
                self._learn_pace(lane, now)
                _grant(ticket, line)
                return True
        self._prefetch(lane)
        return False

    def _prefetch(self, lane: _Lane) -> None:
        """Of those who are next, the adapters that no worker has."""
        lines = self._fleet.lines(lane.base)
        if not lines or not lane.waiting:
            return
        known = frozenset().union(*(line.adapters for line in lines))
        for request in islice(lane.policy.candidates(self._now(), known), FIRST_IN_LINE):
            ticket = lane.waiting[request.id]
            if request.adapter is not None and request.adapter not in known:
                line = _choose(ticket, lines)
                if line is not None:
                    line.prefetch(request.adapter)

    def _refuse(self, ticket: Ticket, error: Unavailable) -> None:
        self._end(ticket)
        if not ticket.turn.done():
            ticket.turn.set_exception(error)

    def _leave(self, ticket: Ticket) -> None:
        """It has ended, wherever it was; a second time is no error."""
        self._end(ticket)
        granted = ticket.turn.done() and not ticket.turn.cancelled()
        if granted and ticket.turn.exception() is None:
            ticket.turn.result().withdraw(ticket.job.request_id)
        ticket.turn.cancel()
        self.dispatch()

    def _end(self, ticket: Ticket) -> None:
        self._waits_no_more(ticket)
        if ticket.is_running:
            ticket.is_running = False
            _count_down(ticket.lane.running, ticket.completion.tenant)
        ticket.lane.policy.end(ticket.job.request_id)

    def _waits_no_more(self, ticket: Ticket) -> None:
        lane, tenant = ticket.lane, ticket.completion.tenant
        if ticket in lane.returning:
            lane.returning.remove(ticket)
        if lane.waiting.pop(ticket.job.request_id, None) is not None:
            _count_down(lane.tenants, tenant)

    def _make_place(self, lane: _Lane) -> None:
        """Where too many wait the newest of the tenant with the most of them has to go."""
        if sum(len(each.waiting) for each in self._lanes.values()) <= self._most_waiting:
            return
        greediest = max(lane.tenants, key=lambda tenant: lane.tenants[tenant])
        newest = next(
            ticket
            for ticket in reversed(lane.waiting.values())
            if ticket.completion.tenant == greediest
        )
        seconds = (lane.pace or 1.0) * len(lane.waiting)
        self._refuse(newest, Unavailable("too many of your requests wait here", seconds))

    def _refuse_the_hopeless(self, ticket: Ticket) -> None:
        lane, job = ticket.lane, ticket.job
        if self._is_workerless(lane):
            raise _no_worker(job)
        if job.first_token_within_ms is None or lane.pace is None or not lane.waiting:
            return
        tenants = len(lane.tenants) + (ticket.completion.tenant not in lane.tenants)
        before = min(len(lane.waiting), lane.tenants[ticket.completion.tenant] * tenants)
        if (1 + before) * lane.pace > job.first_token_within_ms / 1000:
            raise TooLate("its first token would come later than it may", (1 + before) * lane.pace)

    def _is_workerless(self, lane: _Lane) -> bool:
        now = self._now()
        if self._fleet.lines(lane.base):
            lane.worker_seen = now
        return now - lane.worker_seen > WORKERLESS_SECONDS

    def _learn_pace(self, lane: _Lane, now: float) -> None:
        if lane.admitted is not None and lane.waiting:
            apart = now - lane.admitted
            before = apart if lane.pace is None else lane.pace
            lane.pace = before + LEARNING_RATE * (apart - before)
        lane.admitted = now if lane.waiting else None

    def _lane(self, job: Job) -> _Lane:
        base = job.base_fingerprint
        lane = self._lanes.get(base)
        if lane is None:
            lane = self._lanes[base] = _Lane(base, job.base_model, self._policy(base))
        return lane

    def _standings(self, lane: _Lane) -> list[Standing]:
        first: dict[TenantId, float] = {}
        for ticket in lane.waiting.values():  # in the order they came
            first.setdefault(ticket.completion.tenant, ticket.since)
        now = self._now()
        standings = [
            Standing(
                tenant=tenant,
                waiting=lane.tenants.get(tenant, 0),
                running=lane.running.get(tenant, 0),
                longest_wait=now - first.get(tenant, now),
            )
            for tenant in lane.tenants | lane.running
        ]
        return sorted(standings, key=lambda standing: (-standing.waiting, standing.tenant))


def _choose(ticket: Ticket, lines: Sequence[Line]) -> Line | None:
    job = ticket.job
    wish = Wish(job.base_model, job.base_fingerprint, job.adapter, ticket.failed)
    by_id = {line.view.id: line for line in lines}
    chosen = place(wish, [line.view for line in lines])
    return None if chosen is None else by_id[chosen]


def _grant(ticket: Ticket, line: Line) -> None:
    line.promise(ticket.job)
    ticket.turn.set_result(line)


def _request(completion: Completion) -> Request:
    job = completion.job
    return Request(
        id=job.request_id,
        tenant=completion.tenant,
        prompt_tokens=len(job.prompt),
        max_tokens=job.sampling.max_tokens,
        adapter=job.adapter,
    )


def _no_worker(job: Job) -> Unavailable:
    return Unavailable(f"no worker for {job.base_model} is live; try again later")


def _count_down(counts: Counter[TenantId], tenant: TenantId) -> None:
    counts[tenant] -= 1
    if not counts[tenant]:
        del counts[tenant]
