"""A fair queue before workers on paper, and a clock that is set."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from services.core.types import Fingerprint, Tier
from services.gateway.course import Completion
from services.gateway.fair_queue import FairQueue
from services.gateway.lane import Ticket
from services.gateway.lines import Lines
from services.policies.fairness.admission import AdmissionPolicy
from services.policies.fairness.levels import by_organisation, by_tenant
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.tiers import Tiers
from tests.completions import completion
from tests.paper_worker import PaperWorker, lines_to


@dataclass(eq=False)
class World:
    """Whoever asks is served until `end`."""

    workers: list[PaperWorker] = field(default_factory=lambda: [PaperWorker(slots=1)])
    policy: str = "vtc"
    most_waiting: int = 100
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.policies: dict[Tier, AdmissionPolicy] = {}
        self.queue = FairQueue(
            self,
            lambda base: Tiers(lambda tier: self.made(base, tier)),
            levels=by_organisation if self.policy == "vtc-hierarchy" else by_tenant,
            most_waiting=self.most_waiting,
            now=lambda: self.now,
        )
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ends: dict[str, asyncio.Event] = {}
        self.tickets: list[Ticket] = []

    def made(self, base: Fingerprint, tier: Tier) -> AdmissionPolicy:
        """A tier's policy."""
        self.policies[tier] = POLICIES[self.policy](Knobs())
        return self.policies[tier]

    def lines(self, base: Fingerprint) -> Lines:
        return lines_to(worker for worker in self.workers if worker.base == base)

    async def ask(self, name: str, tenant: str = "t", **job: Any) -> asyncio.Task[None]:
        """Returns once it waits or runs; `end` ends it."""
        self.ends[name] = asyncio.Event()
        task = asyncio.create_task(self._course(name, waiting(name, tenant, **job)))
        self.tasks[name] = task
        await settle()
        return task

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await settle()

    async def _course(self, name: str, asked: Completion) -> None:
        async with self.queue.entered(asked) as ticket:
            self.tickets.append(ticket)
            await self.queue.turn(ticket)
            self.order.append(name)
            ticket.produced([1])
            await self.ends[name].wait()


def waiting(name: str, tenant: str = "t", **facts: Any) -> Completion:
    """Ten tokens of prompt and ten of completion, unless it says otherwise."""
    return completion(tenant, request=name, **{"prompt": 10, "most": 10} | facts)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
