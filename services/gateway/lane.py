"""Those who want the same base model, as they wait and run: what a queue knows of them."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from services.core.types import (
    Digest,
    Fingerprint,
    RequestId,
    Share,
    TenantId,
    Tier,
    TokenPiece,
    WorkerId,
)
from services.gateway.course import Completion, Job
from services.gateway.line import Line
from services.gateway.refusals import Refusals
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.policies.fairness.cost import bound
from services.policies.fairness.levels import Levels, Parts, by_tenant
from services.policies.fairness.tiers import WEIGHTS
from services.policies.fairness.vtc import Rules
from services.policies.placement.cost import urgency

LEARNING_RATE = 0.1
MOST_OWED = 2000  # requests, of which the scheduler is told what is owed

Member = tuple[Tier, TenantId]


class MovedOn(Exception):
    """What a worker ran goes on at another. `source`: host:port of the one that it leaves, which
    has its keys and values for a while, and knew `cached_tokens` of its prompt."""

    def __init__(self, worker: WorkerId, source: str, cached_tokens: int = 0) -> None:
        super().__init__(f"it goes on at {worker}")
        self.worker = worker
        self.source = source
        self.cached_tokens = cached_tokens


@dataclass(slots=True, eq=False)
class Ticket:
    """A request's place: in the queue, and then with a worker."""

    completion: Completion
    lane: "Lane"
    since: float
    levels: Levels  # tier, and by which policies compare below it
    is_running: bool = False  # as far as the policy goes
    failed: frozenset[Line] = frozenset()  # a worker that comes back has another
    line: Line | None = None
    fetching: Line | None = None  # which was told to fetch its adapter
    delivered: list[int] = field(default_factory=list)  # tokens
    moved: MovedOn | None = None  # the last time
    cached_tokens: int | None = None  # of its prompt, if it does not run where it began
    turn: asyncio.Future[Line] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def job(self) -> Job:
        """As a worker may be given it now."""
        job = self.completion.job
        if not self.delivered:
            return job
        source = self.moved.source if self.moved is not None else ""
        return replace(job, delivered=tuple(self.delivered), moved_from=source)

    @property
    def member(self) -> Member:
        return self.completion.tier, self.completion.tenant

    def may_run(self, line: Line) -> bool:
        """There, if it had room."""
        return line not in self.failed and line.serves(self.job)

    def urgency(self, pool_tokens: int) -> float:
        """By what its tenant is owed, beside the most that counters may come apart."""
        longest = max(1, self.lane.longest_prompt)
        most = bound(Rules().cost, longest_prompt=longest, pool_tokens=pool_tokens)
        return urgency(self.lane.policy.owed(self.completion.job.request_id), most)

    def as_it_began(self, piece: TokenPiece) -> TokenPiece:
        """What was cached is what the first worker knew: another also knows what was moved."""
        if piece.finish_reason is None or self.cached_tokens is None:
            return piece
        return replace(piece, cached_tokens=self.cached_tokens)

    def produced(self, tokens: Sequence[int]) -> None:
        self.delivered += tokens
        self.lane.policy.produced(self.completion.job.request_id, len(tokens))


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant in a tier of a lane: requests, and the seconds that the first of those who wait has
    waited."""

    tenant: TenantId
    tier: Tier
    waiting: int
    running: int
    longest_wait: float
    share: Share


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
    too_late: Mapping[Tier, Refusals]


@dataclass(frozen=True, slots=True)
class LaneDemand:
    """Requests by adapter, those that came and those that wait. `longest_wait`: seconds."""

    base: Fingerprint
    base_model: str
    longest_wait: float
    arrived: Mapping[Digest | None, int]
    waiting: Mapping[Digest | None, int]
    debts: Sequence["TenantDebt"] = ()


@dataclass(frozen=True, slots=True)
class TenantDebt:
    """Service by which a tenant is behind those who wait here, and what it has running."""

    tenant: TenantId
    owed: float
    requests: Sequence[RequestId]


@dataclass(slots=True, eq=False)
class Lane:
    """Those who want the same base model: they compete for the same workers."""

    base: Fingerprint
    base_model: str
    policy: AdmissionPolicy
    weights: Mapping[Tier, float] = field(default_factory=lambda: WEIGHTS)
    levels: Callable[[Request], Levels] = by_tenant  # below tiers
    waiting: dict[RequestId, Ticket] = field(default_factory=dict)
    returning: list[Ticket] = field(default_factory=list)  # their worker failed: before all others
    parts: Parts = field(default_factory=Parts)  # of who wait
    queued: Counter[Member] = field(default_factory=Counter)
    running: dict[Member, dict[RequestId, None]] = field(default_factory=dict)
    shares: dict[Member, Share] = field(default_factory=dict)  # who wait or run: the newest
    too_late: defaultdict[Tier, Refusals] = field(default_factory=lambda: defaultdict(Refusals))
    longest_prompt: int = 0  # tokens, of all that ever waited
    worker_seen: float = 0.0
    arrived: Counter[Digest | None] = field(default_factory=Counter)  # since it was last taken
    pace: float | None = None  # seconds from one admission to the next, while somebody waits
    admitted: float | None = None  # when the one before was

    def ticket(self, completion: Completion, since: float) -> Ticket:
        """For one that does not wait yet."""
        request = _request(completion)
        tier = (request.tier.value, self.weights[request.tier])
        return Ticket(completion, self, since, (tier, *self.levels(request)))

    def enter(self, ticket: Ticket) -> None:
        """It waits. Raises ResourceExhausted if the policy does not even let it do that."""
        job = ticket.job
        self.policy.enqueue(_request(ticket.completion), ticket.since)
        self.waiting[job.request_id] = ticket
        self.arrived[job.adapter] += 1
        self.parts.add(ticket.levels)
        self.queued[ticket.member] += 1
        self.shares[ticket.member] = ticket.completion.share
        self.longest_prompt = max(self.longest_prompt, len(job.prompt))

    def admit(self, ticket: Ticket, now: float) -> None:
        """It runs."""
        self.policy.admit(ticket.job.request_id, now)
        self._waits_no_more(ticket)
        ticket.is_running = True
        self.running.setdefault(ticket.member, {})[ticket.completion.job.request_id] = None
        self._learn_pace(now)

    def end(self, ticket: Ticket) -> None:
        """It waits or runs no more; a second time is no error."""
        self._waits_no_more(ticket)
        if ticket.is_running:
            ticket.is_running = False
            del self.running[ticket.member][ticket.completion.job.request_id]
            if not self.running[ticket.member]:
                del self.running[ticket.member]
        if ticket.member not in self.queued and ticket.member not in self.running:
            self.shares.pop(ticket.member, None)
        self.policy.end(ticket.job.request_id)

    def demand(self, now: float) -> LaneDemand:
        """What is wanted here; the next one counts arrivals anew."""
        waiting = [*self.returning, *self.waiting.values()]
        arrived, self.arrived = self.arrived, Counter()
        return LaneDemand(
            base=self.base,
            base_model=self.base_model,
            longest_wait=now - min((ticket.since for ticket in waiting), default=now),
            arrived=arrived,
            waiting=Counter(ticket.job.adapter for ticket in waiting),
            debts=list(self._debts()),
        )

    @property
    def has_waiting(self) -> bool:
        return bool(self.waiting or self.returning)

    def newest_of_the_greediest(self) -> Ticket:
        """Of those with most that wait for their weight, what came last."""
        greediest = self.parts.greediest()
        return next(
            ticket for ticket in reversed(self.waiting.values()) if ticket.levels == greediest
        )

    def seconds_until(self, ticket: Ticket) -> float:
        """Until it would start if it came now and all took turns by their weights; 0 if that is not
        known, or nobody waits."""
        if self.pace is None or not self.waiting:
            return 0.0
        return (1 + self.parts.before(ticket.levels)) * self.pace

    def standings(self, now: float) -> list[Standing]:
        """Who waits most first."""
        first: dict[Member, float] = {}
        for ticket in self.waiting.values():  # in the order they came
            first.setdefault(ticket.member, ticket.since)
        standings = [
            Standing(
                tenant=member[1],
                tier=member[0],
                waiting=self.queued.get(member, 0),
                running=len(self.running.get(member, ())),
                longest_wait=now - first.get(member, now),
                share=self.shares[member],
            )
            for member in self.queued.keys() | self.running
        ]
        return sorted(standings, key=lambda standing: (-standing.waiting, standing.tenant))

    def _debts(self) -> Iterator[TenantDebt]:
        """Of those to whom most is owed, as many as have MOST_OWED requests together."""
        owed = {member: self.policy.owed(next(iter(own))) for member, own in self.running.items()}
        left = MOST_OWED
        for member in sorted(filter(owed.get, owed), key=lambda member: -owed[member]):
            requests = list(islice(self.running[member], left))
            left -= len(requests)
            if requests:
                yield TenantDebt(member[1], owed[member], requests)

    def _waits_no_more(self, ticket: Ticket) -> None:
        if ticket in self.returning:
            self.returning.remove(ticket)
        if self.waiting.pop(ticket.job.request_id, None) is not None:
            self.parts.remove(ticket.levels)
            _count_down(self.queued, ticket.member)

    def _learn_pace(self, now: float) -> None:
        if self.admitted is not None and self.waiting:
            apart = now - self.admitted
            before = apart if self.pace is None else self.pace
            self.pace = before + LEARNING_RATE * (apart - before)
        self.admitted = now if self.waiting else None


def _request(completion: Completion) -> Request:
    job = completion.job
    return Request(
        id=job.request_id,
        tenant=completion.tenant,
        prompt_tokens=len(job.prompt),
        max_tokens=job.sampling.max_tokens,
        adapter=job.adapter,
        share=completion.share,
        tier=completion.tier,
    )


def _count_down(counts: Counter[Member], member: Member) -> None:
    counts[member] -= 1
    if not counts[member]:
        del counts[member]
