"""Late binding: requests wait here, ranked by a policy, until a worker has room for them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Protocol

from services.core.errors import TooLate, Unavailable
from services.core.types import AdapterWait, Digest, Fingerprint, Tier, WorkerId
from services.gateway.course import Completion, Job
from services.gateway.lane import Lane, LaneDemand, LaneView, Line, MovedOn, Ticket
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.policies.fairness.levels import Levels, by_tenant
from services.policies.fairness.tiers import WEIGHTS
from services.policies.placement.cost import fetch_ms, place
from services.policies.placement.views import Wish

NOWHERE: frozenset[WorkerId] = frozenset()
FIRST_IN_LINE = 4  # whose adapters are fetched while they wait
TICK_SECONDS = 0.25
WORKERLESS_SECONDS = 3.0
"""How long requests wait for a worker that went away to come back."""


class Fleet(Protocol):
    def lines(self, base: Fingerprint) -> Sequence[Line]: ...
    def homes(self, base: Fingerprint, adapter: Digest) -> frozenset[WorkerId]: ...


class FairQueue:
    def __init__(
        self,
        fleet: Fleet,
        policy: Callable[[Fingerprint], AdmissionPolicy],
        *,
        weights: Mapping[Tier, float] = WEIGHTS,
        levels: Callable[[Request], Levels] = by_tenant,
        most_waiting: int = 4096,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`policy` makes one for each base model; `weights` and `levels`: by which it compares, of
        tiers and of who is in one."""
        self._fleet = fleet
        self._policy = policy
        self._weights = weights
        self._levels = levels
        self._most_waiting = most_waiting
        self._now = now
        self._lanes: dict[Fingerprint, Lane] = {}

    def look(self) -> list[LaneView]:
        """Every base model that was asked for; who waits most first."""
        return [
            LaneView(
                base=base,
                base_model=lane.base_model,
                policy=lane.policy,
                workers=len(self._fleet.lines(base)),
                standings=lane.standings(self._now()),
                longest_prompt=lane.longest_prompt,
                pool_tokens=sum(line.pool_tokens for line in self._fleet.lines(base)),
                too_late=lane.too_late,
            )
            for base, lane in self._lanes.items()
        ]

    def demands(self) -> list[LaneDemand]:
        """Of every base model that was asked for, since it was looked at last."""
        return [lane.demand(self._now()) for lane in self._lanes.values()]

    @asynccontextmanager
    async def entered(self, completion: Completion) -> AsyncIterator[Ticket]:
        """From now on it waits, and later runs. Raises Unavailable, TooLate or ResourceExhausted if
        it is not even to wait. Who is refused too late, also while it waits or runs, is counted."""
        lane = self._lane(completion.job)
        ticket = lane.ticket(completion, self._now())
        with lane.too_late[completion.tier].counted(completion.tenant):
            self._refuse_the_hopeless(ticket)
            lane.enter(ticket)
            try:
                self._make_place(lane)
                self.dispatch()
                yield ticket
            finally:
                self._leave(ticket)

    def go_on(self, ticket: Ticket, moved: MovedOn) -> None:
        """It has left its worker, and `turn` says where it goes: to the one that it was sent to, if
        that has room, and otherwise to the first that has. It was admitted once and for all."""
        assert ticket.line is not None
        ticket.moved, ticket.line = moved, None
        if ticket.cached_tokens is None:
            ticket.cached_tokens = moved.cached_tokens
        ticket.turn = asyncio.get_running_loop().create_future()
        for line in self._fleet.lines(ticket.lane.base):
            sent_there = line.view.id == moved.worker and line.serves(ticket.job)
            if sent_there and line.fits(ticket.job):
                _grant(ticket, line)
                return
        ticket.lane.returning.append(ticket)
        self.dispatch()

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
        """Seconds that its first token may take from now; None if it has come."""
        within = ticket.job.first_token_within_ms
        if within is None or ticket.delivered:
            return None
        return ticket.since + within / 1000 - self._now()

    def awaited(self, ticket: Ticket, wait: AdapterWait) -> None:
        """What it waited for its adapter on its worker."""
        ticket.lane.policy.awaited(wait, self._now())

    def dispatch(self) -> None:
        """Whoever may start now is given a worker."""
        for lane in self._lanes.values():
            while lane.has_waiting and self._admit(lane):
                pass

    async def run(self) -> None:
        """What time alone changes, until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.dispatch()
            for lane in self._lanes.values():
                if lane.has_waiting and self._is_workerless(lane):
                    for ticket in [*lane.returning, *lane.waiting.values()]:
                        self._refuse(ticket, _no_worker(ticket.job))

    def _return(self, ticket: Ticket, failing: Line) -> None:
        lane = ticket.lane
        ticket.failed |= {failing}
        ticket.line = ticket.moved = None
        ticket.turn = asyncio.get_running_loop().create_future()
        lane.returning.append(ticket)
        self.dispatch()

    def _admit(self, lane: Lane) -> bool:
        """The next who can start, if there is one."""
        workers = self._fleet.lines(lane.base)
        lines = [line for line in workers if line.has_room]
        for ticket in [each for each in lane.returning if not each.turn.cancelled()]:
            left = [
                line for line in workers if line not in ticket.failed and line.serves(ticket.job)
            ]
            if workers and not left:
                self._refuse(ticket, Unavailable("every worker has failed it"))
                return True
            line = self._choose(ticket.job, [line for line in left if line.fits(ticket.job)])
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
                lane.end(ticket)
                return True
            line = self._choose(ticket.job, [line for line in lines if line.fits(ticket.job)])
            if line is not None:
                lane.admit(ticket, now)
                _grant(ticket, line)
                return True
        self._prefetch(lane)
        return False

    def _prefetch(self, lane: Lane) -> None:
        """Of those who are next, the adapters that no worker has."""
        lines = self._fleet.lines(lane.base)
        if not lines or not lane.waiting:
            return
        known = frozenset().union(*(line.adapters for line in lines))
        for request in islice(lane.policy.candidates(self._now(), known), FIRST_IN_LINE):
            ticket = lane.waiting[request.id]
            if request.adapter is not None and request.adapter not in known:
                line = self._choose(ticket.job, lines)
                if line is not None:
                    line.prefetch(request.adapter)

    def _choose(self, job: Job, lines: Sequence[Line]) -> Line | None:
        """The cheapest of them."""
        if len(lines) < 2:
            return lines[0] if lines else None
        views = [line.view for line in lines]
        wish = Wish(
            base_model=job.base_model,
            base_fingerprint=job.base_fingerprint,
            adapter=job.adapter,
            prompt_tokens=len(job.prompt) + len(job.delivered),
            output_tokens=job.sampling.max_tokens - len(job.delivered),
            rank=job.adapter_rank,
            fetch_ms=fetch_ms(job.adapter_bytes),
            adapter_bytes=job.adapter_bytes,
            homes=self._fleet.homes(job.base_fingerprint, job.adapter) if job.adapter else NOWHERE,
        )
        chosen = place(wish, views)
        return next(
            (line for line, view in zip(lines, views, strict=True) if view.id == chosen), None
        )

    def _refuse(self, ticket: Ticket, error: Unavailable) -> None:
        ticket.lane.end(ticket)
        if not ticket.turn.done():
            ticket.turn.set_exception(error)

    def _leave(self, ticket: Ticket) -> None:
        """It has ended, wherever it was; a second time is no error."""
        ticket.lane.end(ticket)
        granted = ticket.turn.done() and not ticket.turn.cancelled()
        if granted and ticket.turn.exception() is None:
            ticket.turn.result().withdraw(ticket.job.request_id)
        ticket.turn.cancel()
        self.dispatch()

    def _make_place(self, lane: Lane) -> None:
        """Where too many wait the newest of those with most for their weight has to go."""
        if sum(len(each.waiting) for each in self._lanes.values()) <= self._most_waiting:
            return
        newest = lane.newest_of_the_greediest()
        seconds = (lane.pace or 1.0) * len(lane.waiting)
        self._refuse(newest, Unavailable("too many of your requests wait here", seconds))

    def _refuse_the_hopeless(self, ticket: Ticket) -> None:
        lane, job = ticket.lane, ticket.job
        if self._is_workerless(lane):
            raise _no_worker(job)
        if job.first_token_within_ms is None:
            return
        expected = lane.seconds_until(ticket)
        if expected > job.first_token_within_ms / 1000:
            raise TooLate("its first token would come later than it may", expected)

    def _is_workerless(self, lane: Lane) -> bool:
        now = self._now()
        if self._fleet.lines(lane.base):
            lane.worker_seen = now
        return now - lane.worker_seen > WORKERLESS_SECONDS

    def _lane(self, job: Job) -> Lane:
        base = job.base_fingerprint
        lane = self._lanes.get(base)
        if lane is None:
            policy = self._policy(base)
            lane = Lane(base, job.base_model, policy, self._weights, self._levels)
            self._lanes[base] = lane
        return lane


def _grant(ticket: Ticket, line: Line) -> None:
    line.promise(ticket.job)
    ticket.turn.set_result(line)


def _no_worker(job: Job) -> Unavailable:
    return Unavailable(f"no worker for {job.base_model} is live; try again later")
