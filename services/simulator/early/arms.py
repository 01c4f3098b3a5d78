"""What is compared: a way to dispatch, with or without a way to move, by one name."""

import math
import random
from collections.abc import Callable, Sequence

from services.policies.dispatch.min_cost import Dispatch, MinCost, ProactiveMinCost, RandomHost
from services.policies.migration.loads import PlannedMove, WorkerLoad
from services.policies.migration.model import Effort
from services.policies.migration.published import decide_pair
from services.policies.migration.rounds import Knobs, Mover
from services.simulator.early.fleet import Fleet, Outcome, Planner, replay_early
from services.simulator.early.replica import Iterations
from services.simulator.early.workload import Bursts, adapter_names, bursts

EFFORT = Effort()
GREEDY = Knobs(uneven=math.inf)
ROUNDS = Knobs(effort=EFFORT)
PROGRAM = Knobs(uneven=0.0, effort=EFFORT)
UNMERGED = Fleet(iterations=Iterations(merge_at=math.inf))
"""Replicas whose iterations take the same whatever they run."""
EVEN_POPULARITY = 10.0  # an evenness of `Bursts`


def _published(loads: Sequence[WorkerLoad], now: float) -> list[PlannedMove]:
    return decide_pair(loads, EFFORT)


ARMS: dict[str, tuple[Callable[[int], Dispatch], Callable[[], Planner] | None]] = {
    "random": (lambda seed: RandomHost(random.Random(seed).randrange), None),
    "static": (lambda _: MinCost(), None),
    "proactive": (lambda _: ProactiveMinCost(), None),
    "published": (lambda _: MinCost(), lambda: _published),
    "greedy": (lambda _: MinCost(), lambda: Mover(GREEDY).plan),
    "rounds": (lambda _: MinCost(), lambda: Mover(ROUNDS).plan),
    "program": (lambda _: MinCost(), lambda: Mover(PROGRAM).plan),
    "proactive, greedy": (lambda _: ProactiveMinCost(), lambda: Mover(GREEDY).plan),
    "proactive, rounds": (lambda _: ProactiveMinCost(), lambda: Mover(ROUNDS).plan),
    "proactive, program": (lambda _: ProactiveMinCost(), lambda: Mover(PROGRAM).plan),
}
"""By name: how requests are dispatched, from a seed, and what moves them."""


def play(
    arm: str,
    asked: Bursts,
    seed: int,
    *,
    fleet: Fleet | None = None,
    watched: Callable[[Planner], Planner] = lambda planner: planner,
    until: float = math.inf,
) -> Outcome:
    """`watched`: around what moves them, to look on."""
    dispatch, planner = ARMS[arm]
    return replay_early(
        bursts(random.Random(seed), asked),
        adapter_names(asked.adapters),
        dispatch(seed),
        fleet=fleet,
        planner=watched(planner()) if planner else None,
        until=until,
    )
