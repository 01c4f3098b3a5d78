"""A gateway's own choice in a big fleet, for bench.decisions: a request comes, and a worker is
chosen for it. Each time a few workers say that their room is another, as they do after steps.

Workers have 8 seats and 30 of 100,000 adapters each; what is asked for is Zipf's. Three quarters
of the seats are taken, or all but one. Times are the core's.
"""

import random
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

from services.core.types import (
    Digest,
    Fingerprint,
    RequestId,
    Room,
    SamplingParams,
    TenantId,
    TokenPiece,
    WorkerId,
)
from services.gateway.base_models import ServedModel
from services.gateway.course import Completion, Job
from services.gateway.fair_queue import FairQueue
from services.gateway.lines import Lines
from services.gateway.worker_room import WorkerIdentity, WorkerRoom
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.tiers import Tiers

BASE = Fingerprint("f" * 64)
SEATS, RESIDENT, ADAPTERS, POOL_TOKENS = 8, 30, 100_000, 16_000
PROMPT, MOST = 300, 200  # tokens
NEWS = 4  # workers that say something from one request to the next


class Line(WorkerRoom):
    """Its worker is here."""

    def __init__(self, name: str, fleet: "Fleet", resident: frozenset[Digest]) -> None:
        identity = WorkerIdentity(WorkerId(name), "", "base", BASE)
        super().__init__(identity, lambda: fleet.note(self))
        self.jobs: dict[RequestId, Job] = {}
        self.dealt = 0
        self.say(resident)

    def prefetch(self, adapter: Digest) -> None:
        """It has no loads."""

    def follow(self, job: Job, seconds: float) -> AsyncGenerator[TokenPiece, None]:
        raise NotImplementedError

    def begin(self, job: Job) -> None:
        self.started(job)
        self.jobs[job.request_id] = job
        self.dealt += 1

    def say(self, resident: frozenset[Digest] | None = None) -> None:
        count = len(self.jobs)
        tokens = POOL_TOKENS - count * (PROMPT + MOST)
        room = Room(SEATS - count, tokens, running=count, pool_tokens=POOL_TOKENS)
        self.measured(room, self.dealt, resident=resident)


class Fleet:
    """As gateway.workers.Workers."""

    def __init__(self, workers: int, draw: random.Random, adapters: list[Digest]) -> None:
        self._stale: dict[Line, None] = {}
        self._lines = Lines()
        self.every = [
            Line(f"w{number:04}", self, frozenset(draw.sample(adapters, RESIDENT)))
            for number in range(workers)
        ]

    def note(self, line: Line) -> None:
        self._stale[line] = None

    def lines(self, base: Fingerprint) -> Lines:
        for line in self._stale:
            self._lines.put(line)
        self._stale.clear()
        return self._lines


@dataclass(slots=True)
class Asked:
    """Requests, each for an adapter of its own choice."""

    draw: random.Random
    adapters: list[Digest]
    count: int = 0

    def __iter__(self) -> Iterator[Completion]:
        sums = list(accumulate(1 / rank for rank in range(1, len(self.adapters) + 1)))
        base = cast(ServedModel, None)
        while True:
            self.count += 1
            (adapter,) = self.draw.choices(self.adapters, cum_weights=sums)
            sampling = SamplingParams(max_tokens=MOST)
            job = Job(
                RequestId(str(self.count)), "base", BASE, adapter, (1,) * PROMPT, sampling, "",
                adapter_rank=16, adapter_bytes=20_000_000,
            )  # fmt: skip
            yield Completion(TenantId(f"t{self.count % 1000}"), None, "m", base, job)


async def seconds(workers: int, times: int, taken: float) -> list[float]:
    """Of each choice. `taken`: share of the seats, before one is given back."""
    draw = random.Random(7)
    adapters = [Digest(f"{number:064x}") for number in range(ADAPTERS)]
    fleet, asked = Fleet(workers, draw, adapters), iter(Asked(draw, adapters))
    queue = FairQueue(fleet, lambda _: Tiers(lambda _: POLICIES["vtc"](Knobs())))
    running: list[tuple[Line, RequestId]] = []
    found: list[float] = []
    for _ in range(int(workers * SEATS * taken) + times):
        if len(running) >= int(workers * SEATS * taken):
            place = draw.randrange(len(running))
            running[place], running[-1] = running[-1], running[place]
            line, request = running.pop()
            del line.jobs[request]
            line.ended(request)
            line.say()
        for line in draw.sample(fleet.every, NEWS):
            line.say()
        completion = next(asked)
        begun = time.thread_time()
        async with queue.entered(completion) as ticket:
            chosen = await queue.turn(ticket)
            found.append(time.thread_time() - begun)
            assert isinstance(chosen, Line)
            chosen.begin(completion.job)
            chosen.say()
        running.append((chosen, completion.job.request_id))
    return found[-times:]
