"""Callers of every manner, over one face of a gateway: python -m bench.soak_callers PLAN TOLD

Each of many callers asks again and again until the time is up, in a manner drawn anew each time.
Writes what each was told of its request, a line of JSON for each.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.soak_streams import LEFT, METERED, WHOLE, GrpcFace, HttpFace, Told, Wish

RAMP_SECONDS = 5.0

MANNERS = {
    "patient": 55,  # reads to the end
    "early": 10,  # goes away, maybe before anything came
    "midway": 15,  # goes away after some tokens
    "slow": 10,  # rests before each piece
    "deaf": 5,  # asks, reads nothing, holds on
    "half": 5,  # HTTP: sends a part of its request, and holds on
}


@dataclass(frozen=True, slots=True)
class Plan:
    """`metered` of the `streams` are callers of the tenant of that name; the others are drawn."""

    face: str
    address: str
    streams: int
    metered: int
    seconds: float
    patience: float
    models: Mapping[str, Sequence[str]]  # by tenant
    keys: Mapping[str, str]
    vocabulary: int
    seed: int


@dataclass(slots=True)
class Callers:
    plan: Plan
    face: GrpcFace | HttpFace
    told: list[Told] = field(default_factory=list)
    open: int = 0
    seen: list[int] = field(default_factory=list)
    """How many streams were open, once a second."""
    until: float = 0.0

    async def run(self) -> None:
        self.until = time.monotonic() + self.plan.seconds
        tasks = [asyncio.create_task(self._caller(n)) for n in range(self.plan.streams)]
        while time.monotonic() < self.until:
            await asyncio.sleep(1)
            self.seen.append(self.open)
        _, stuck = await asyncio.wait(tasks, timeout=self.plan.patience)
        for task in stuck:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        await self.face.close()

    async def _caller(self, number: int) -> None:
        draw = random.Random(f"{self.plan.seed} {self.plan.face} {number}")
        await asyncio.sleep(draw.random() * RAMP_SECONDS)
        tenants = [name for name in self.plan.models if name != METERED]
        while time.monotonic() < self.until:
            tenant = METERED if number < self.plan.metered else draw.choice(tenants)
            wish = self._wish(tenant, draw)
            told = Told(tenant, self.plan.face, wish.manner)
            self.told.append(told)
            self.open += 1
            try:
                await self._ask(wish, told)
            finally:
                self.open -= 1
            await asyncio.sleep(_pause(told, draw))

    async def _ask(self, wish: Wish, told: Told) -> None:
        if wish.manner != "early":
            await self.face.ask(wish, told)
            return
        try:
            async with asyncio.timeout(wish.leaves_after):
                await self.face.ask(wish, told)
        except TimeoutError:
            told.end = LEFT

    def _wish(self, tenant: str, draw: random.Random) -> Wish:
        plan = self.plan
        manner = draw.choices(list(MANNERS), list(MANNERS.values()))[0]
        left = max(1.0, self.until - time.monotonic())
        most = draw.randint(200, 1000) if manner == "deaf" else draw.randint(1, 64)
        if tenant == METERED:
            most = draw.randint(1, 24)
        return Wish(
            model=draw.choice(list(plan.models[tenant])),
            key=plan.keys[tenant],
            prompt=tuple(draw.randrange(plan.vocabulary) for _ in range(draw.randint(1, 48))),
            most=most,
            seed=draw.getrandbits(63),
            manner=manner,
            leaves_after=draw.expovariate(1.0),
            leaves_at=draw.randint(1, most),
            rests=draw.uniform(0.05, 0.5) if manner == "slow" else 0.0,
            holds=min(left, draw.choice((2.0, 10.0, 30.0, left))),
        )


def _pause(told: Told, draw: random.Random) -> float:
    """Seconds before the next request."""
    if told.end in (WHOLE, LEFT):
        return 0.0
    return draw.uniform(1, 3) if "can no longer fit" in told.end else draw.uniform(0.2, 1.5)


def read_told(path: Path) -> tuple[list[Told], list[int]]:
    """What `main` wrote."""
    *lines, seen = path.read_text().splitlines()
    return [Told(**json.loads(line)) for line in lines], json.loads(seen)


async def run(plan: Plan) -> Callers:
    face = GrpcFace(plan.address) if plan.face == "grpc" else HttpFace(plan.address)
    callers = Callers(plan, face)
    await callers.run()
    return callers


def main(plan: Path, told: Path) -> None:
    callers = asyncio.run(run(Plan(**json.loads(plan.read_text()))))
    lines = [json.dumps(asdict(each)) for each in callers.told]
    told.write_text("\n".join([*lines, json.dumps(callers.seen)]))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
