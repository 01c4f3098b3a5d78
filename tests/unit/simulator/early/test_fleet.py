"""Replicas behind a dispatcher: what moves, and what that costs."""

from collections.abc import Sequence

import pytest

from services.core.types import Digest, WorkerId
from services.policies.dispatch.min_cost import MinCost, RandomHost
from services.policies.migration.loads import PlannedMove, Reason, WorkerLoad
from services.simulator.arrivals import arrivals
from services.simulator.early.arms import ARMS, play
from services.simulator.early.fleet import Fleet, Outcome, Planner, replay_early
from services.simulator.early.replica import Iterations
from services.simulator.early.workload import Bursts

A, B = Digest("a"), Digest("b")
TOKENS = 1000  # an iteration takes 27 ms: 27 seconds


def one_request(planner: Planner | None = None, *, token: float = 0.001) -> Outcome:
    """On the first of two replicas, each with an adapter."""
    fleet = Fleet(replicas=2, slots=1, iterations=Iterations(token=token, merge_at=100))
    coming = arrivals("t", [0.0], [(100, TOKENS)], A)
    first = RandomHost(lambda _: 0)
    return replay_early(coming, [A, B], first, fleet=fleet, planner=planner)


def once(loads: Sequence[WorkerLoad], now: float) -> list[PlannedMove]:
    """What there is, to the other replica, in the first round."""
    moves = [
        PlannedMove(each.request, each.adapter, load.id, WorkerId(str(1 - int(load.id))),
                    Reason.BALANCE)
        for load in loads for each in load.sequences
    ]  # fmt: skip
    return moves if now == 10.0 else []


def test_who_had_begun_has_its_keys_and_values_computed_again() -> None:
    stays, moves = one_request(), one_request(once)
    assert (moves.moves, moves.begun) == (1, 1)
    made = moves.recomputed - 100
    assert 0 < made < TOKENS
    assert moves.seconds == pytest.approx(stays.seconds + 0.001 * moves.recomputed, abs=0.03)
    assert moves.tokens == stays.tokens == TOKENS


def test_an_adapter_comes_along_and_an_idle_one_leaves() -> None:
    seen: list[frozenset[Digest]] = []

    def watched(loads: Sequence[WorkerLoad], now: float) -> list[PlannedMove]:
        seen.append(loads[1].resident)
        return once(loads, now)

    assert one_request(watched).loads == 1
    assert seen[:2] == [{B}, {A}]


def test_a_round_is_told_how_long_outputs_were_and_not_how_long_they_will_be() -> None:
    lefts: list[int] = []

    def watched(loads: Sequence[WorkerLoad], now: float) -> list[PlannedMove]:
        lefts.extend(each.tokens_left for load in loads for each in load.sequences)
        return []

    one_request(watched)
    assert lefts == [50, 50]  # 200 were expected; a quarter, when there were more


def test_those_who_end_later_are_not_counted() -> None:
    coming = arrivals("t", [0.0, 0.0], [(1, 100), (1, TOKENS)], A)
    outcome = replay_early(coming, [A], MinCost(), fleet=Fleet(replicas=1), until=10.0)
    assert len(outcome.latencies) == 1


@pytest.mark.parametrize("arm", list(ARMS))
def test_every_way_ends_every_request(arm: str) -> None:
    """The same ones, whose tokens are those that were to come."""
    asked = Bursts(24.0, seconds=20.0)
    outcome, static = play(arm, asked, 0), play("static", asked, 0)
    assert len(outcome.latencies) == len(static.latencies)
    assert outcome.tokens == static.tokens
