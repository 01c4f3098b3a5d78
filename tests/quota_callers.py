"""A gateway's worth of callers in a process of its own: python -m tests.quota_callers URL TENANT

22 of them ask for budget until there is none, and use part of what they get. Says "ready" and
waits for a line; then "running" when the first is let in, and at the end how many tokens were used
and how many ran at once at most.
"""

import asyncio
import json
import random
import sys
from uuid import uuid4

from services.core.errors import QuotaExceeded, RateLimited
from services.core.types import TenantId
from services.gateway.course import Course
from services.gateway.leases import Recovery
from services.gateway.ledger import Ledger, Pace
from services.gateway.quotas import Quotas
from services.gateway.repositories.leases import SqlLeases
from services.gateway.repositories.ledger import SqlLedger
from services.gateway.repositories.quotas import SqlQuotaRepository
from services.gateway.reservations import Reservations
from services.policies.fairness.cost import WeightedTokens
from services.runtime.beside import beside
from services.runtime.db import close_sessions, open_sessions
from tests.completions import course

CALLERS = 22
MOST_PROMPT, MOST_COMPLETION = 4, 9
MOST_ASKED = MOST_PROMPT + MOST_COMPLETION
LEASE_SECONDS = 5.0


class Callers:
    def __init__(self, quotas: Quotas, tenant: TenantId) -> None:
        self._quotas = quotas
        self._tenant = tenant
        self._running = 0
        self.used = 0
        self.most_running = 0

    async def call(self, draw: random.Random) -> None:
        while True:
            asked = course(
                self._tenant,
                prompt=draw.randint(1, MOST_PROMPT),
                most=draw.randint(1, MOST_COMPLETION),
            )
            try:
                async with self._quotas.keep(asked):
                    await self._answer(asked, draw)
            except QuotaExceeded as refused:
                if refused.retry_seconds is None:
                    return
            except RateLimited:
                pass
            await asyncio.sleep(draw.random() / 10)

    async def _answer(self, asked: Course, draw: random.Random) -> None:
        self._running += 1
        self.most_running = max(self.most_running, self._running)
        if self._running == 1 and not self.used:
            print("running", flush=True)
        await asyncio.sleep(draw.random() / 100)
        asked.produced(draw.randint(0, asked.completion.job.sampling.max_tokens))
        self.used += len(asked.completion.job.prompt) + asked.completion_tokens
        self._running -= 1


async def main(url: str, tenant: str) -> None:
    sessions = open_sessions(url)
    instance, repository = uuid4().hex, SqlQuotaRepository(sessions)
    reservations = Reservations(repository, instance)
    pace = Pace(beat=LEASE_SECONDS / 10)
    ledger = Ledger(SqlLedger(sessions), instance=instance, cost=WeightedTokens(), pace=pace)
    leases = SqlLeases(sessions, repository)
    recovery = Recovery(leases, instance=instance, lease_seconds=LEASE_SECONDS)
    async with ledger.running(), reservations.kept(), beside(recovery.run()):
        callers = Callers(Quotas(reservations), TenantId(tenant))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*(callers.call(random.Random(seed)) for seed in range(CALLERS)))
    await close_sessions(sessions)
    print(json.dumps({"used": callers.used, "most_running": callers.most_running}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
