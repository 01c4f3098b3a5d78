"""Those who want the same base model, as they wait and run: what a queue knows of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.core.types import (
    Digest,
    Fingerprint,
    RequestId,
    Share,
    TenantId,
    TokenPiece,
)
from services.gateway.course import Completion, Job
from services.gateway.refusals import Refusals
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.policies.placement import WorkerView

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


@dataclass(slots=True, eq=False)
class Ticket:
    """A request's place: in the queue, and then with a worker."""

    completion: Completion
    lane: "Lane"
    since: float
    is_running: bool = False  # as far as the policy goes
    failed: frozenset[Line] = frozenset()  # a worker that comes back has another
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
    too_late: Refusals


@dataclass(slots=True, eq=False)
class Lane:
    """Those who want the same base model: they compete for the same workers."""

    base: Fingerprint
    base_model: str
    policy: AdmissionPolicy
    waiting: dict[RequestId, Ticket] = field(default_factory=dict)
    returning: list[Ticket] = field(default_factory=list)  # their worker failed: before all others
    tenants: Counter[TenantId] = field(default_factory=Counter)  # who wait
    running: Counter[TenantId] = field(default_factory=Counter)
    shares: dict[TenantId, Share] = field(default_factory=dict)  # who wait or run: the newest
    too_late: Refusals = field(default_factory=Refusals)
    longest_prompt: int = 0  # tokens, of all that ever waited
    worker_seen: float = 0.0
    pace: float | None = None  # seconds from one admission to the next, while somebody waits
    admitted: float | None = None  # when the one before was

    def enter(self, ticket: Ticket) -> None:
        """It waits. Raises ResourceExhausted if the policy does not even let it do that."""
        job, tenant = ticket.job, ticket.completion.tenant
        request = Request(
            id=job.request_id,
            tenant=tenant,
            prompt_tokens=len(job.prompt),
            max_tokens=job.sampling.max_tokens,
            adapter=job.adapter,
            share=ticket.completion.share,
        )
        self.policy.enqueue(request, ticket.since)
        self.waiting[job.request_id] = ticket
        self.tenants[tenant] += 1
        self.shares[tenant] = request.share
        self.longest_prompt = max(self.longest_prompt, len(job.prompt))

    def admit(self, ticket: Ticket, now: float) -> None:
        """It runs."""
        self.policy.admit(ticket.job.request_id, now)
        self._waits_no_more(ticket)
        ticket.is_running = True
        self.running[ticket.completion.tenant] += 1
        self._learn_pace(now)

    def end(self, ticket: Ticket) -> None:
        """It waits or runs no more; a second time is no error."""
        self._waits_no_more(ticket)
        if ticket.is_running:
            ticket.is_running = False
            _count_down(self.running, ticket.completion.tenant)
        tenant = ticket.completion.tenant
        if tenant not in self.tenants and tenant not in self.running:
            self.shares.pop(tenant, None)
        self.policy.end(ticket.job.request_id)

    @property
    def has_waiting(self) -> bool:
        return bool(self.waiting or self.returning)

    def newest_of_the_greediest(self) -> Ticket:
        """Of the tenant with most that wait, what came last."""
        greediest = max(self.tenants, key=lambda tenant: self.tenants[tenant])
        return next(
            ticket
            for ticket in reversed(self.waiting.values())
            if ticket.completion.tenant == greediest
        )

    def seconds_until(self, tenant: TenantId, share: Share) -> float:
        """Until one more of this tenant's would start, if tenants take turns by their weights; 0 if
        that is not known, or nobody waits."""
        if self.pace is None or not self.waiting:
            return 0.0
        weights = {each: self.shares[each].weight for each in self.tenants}
        weights[tenant] = share.weight
        turns = sum(weights.values()) / share.weight  # from one of its own to the next
        before = min(len(self.waiting), self.tenants[tenant] * turns)
        return (1 + before) * self.pace

    def standings(self, now: float) -> list[Standing]:
        """Who waits most first."""
        first: dict[TenantId, float] = {}
        for ticket in self.waiting.values():  # in the order they came
            first.setdefault(ticket.completion.tenant, ticket.since)
        standings = [
            Standing(
                tenant=tenant,
                waiting=self.tenants.get(tenant, 0),
                running=self.running.get(tenant, 0),
                longest_wait=now - first.get(tenant, now),
                share=self.shares[tenant],
            )
            for tenant in self.tenants | self.running
        ]
        return sorted(standings, key=lambda standing: (-standing.waiting, standing.tenant))

    def _waits_no_more(self, ticket: Ticket) -> None:
        if ticket in self.returning:
            self.returning.remove(ticket)
        if self.waiting.pop(ticket.job.request_id, None) is not None:
            _count_down(self.tenants, ticket.completion.tenant)

    def _learn_pace(self, now: float) -> None:
        if self.admitted is not None and self.waiting:
            apart = now - self.admitted
            before = apart if self.pace is None else self.pace
            self.pace = before + LEARNING_RATE * (apart - before)
        self.admitted = now if self.waiting else None


def _count_down(counts: Counter[TenantId], tenant: TenantId) -> None:
    counts[tenant] -= 1
    if not counts[tenant]:
        del counts[tenant]
