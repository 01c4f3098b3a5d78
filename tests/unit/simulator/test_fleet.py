"""Replicas behind one policy: requests that move lose nothing, and their tenants no turn (B6)."""

from functools import cache

import pytest

from services.core.types import TenantId
from services.policies.fairness.baselines import FirstComeFirstServed
from services.policies.fairness.bounds import Room
from services.policies.fairness.cost import WeightedTokens
from services.policies.fairness.vtc import Rules, VirtualTokenCounters
from services.simulator import metrics
from services.simulator.arrivals import arrivals
from services.simulator.fleet import Move, Moved, replay_moving
from services.simulator.recording import Outcome
from services.simulator.replay import replay
from services.simulator.workloads import overload, steady

POOL = 5000  # of each of two
FIRST, SECOND = TenantId("1"), TenantId("2")
COST = WeightedTokens()


def back_and_forth(every: float, until: float) -> list[Move]:
    """What tenant 1 has running."""
    times = [every * n for n in range(1, int(until / every))]
    return [Move(at, n % 2, 1 - n % 2, FIRST) for n, at in enumerate(times)]


@cache
def two_that_want_all(band: float) -> tuple[Moved, VirtualTokenCounters, float]:
    """All that tenant 1 has running moves every 3 seconds for 90 seconds, then no more; and the
    largest gap between counters before an admission."""
    policy, gaps = VirtualTokenCounters(Rules(band=band)), [0.0]
    moved = replay_moving(
        steady(3, 3, seconds=120),
        policy,
        back_and_forth(3, 90),
        kv_tokens=POOL,
        until=120,
        watch=lambda now: gaps.append(policy.gap),
    )
    return moved, policy, max(gaps)


@pytest.mark.parametrize("band", [0.0, 1000.0])
def test_moving_buys_no_debt_and_no_credit(band: float) -> None:
    """B6: 2 (U + Q) holds for what tenants get, however much is computed again for one of them; for
    what devices did for them the moved tokens come to that."""
    moved, policy, gap = two_that_want_all(band)
    promise = policy.bound(Room(256, 2 * POOL))
    assert promise is not None
    assert moved.recomputed.keys() == {FIRST}
    again = COST(moved.recomputed[FIRST], 0)
    assert again > 5 * promise.service  # so that it would show
    assert gap <= promise.counters
    difference = metrics.accumulated_gap(moved.recording)
    assert difference <= promise.service
    first, second = (moved.recording.service(tenant, 0, 120) for tenant in (FIRST, SECOND))
    assert abs(first + again - second) <= promise.service + again


def test_who_was_moved_has_its_share_while_it_moves_and_after() -> None:
    recording = two_that_want_all(0.0)[0].recording
    for start, end in ((30, 90), (90, 120)):
        assert metrics.shares(recording, start, end)[FIRST] == pytest.approx(0.5, abs=0.03)


def test_no_token_is_lost_or_made_twice() -> None:
    coming = overload(30)
    moved = replay_moving(coming, VirtualTokenCounters(), back_and_forth(2, 60), kv_tokens=POOL)
    assert len(moved.recording.requests) == len(coming)
    for record in moved.recording.requests:
        assert record.outcome is Outcome.FINISHED
        assert record.output_tokens == record.wanted_tokens


def test_without_moves_nothing_is_computed_again() -> None:
    moved = replay_moving(overload(30), VirtualTokenCounters(), [], until=30)
    assert moved.recomputed == {}


def test_one_replica_is_what_a_replay_has() -> None:
    recording = replay(overload(30), FirstComeFirstServed())
    one = replay_moving(overload(30), FirstComeFirstServed(), [], replicas=1).recording
    assert [r.ended for r in one.requests] == pytest.approx([r.ended for r in recording.requests])


def test_two_replicas_are_twice_as_fast() -> None:
    def seconds(replicas: int) -> float:
        coming = arrivals("1", [0.0] * 160)
        shown = replay_moving(coming, FirstComeFirstServed(), [], replicas=replicas)
        return shown.recording.seconds

    assert seconds(2) == pytest.approx(seconds(1) / 2, rel=0.1)


def test_a_request_that_never_fits_is_rejected() -> None:
    coming = arrivals("1", [0.0], [(POOL, 1)])
    [record] = replay_moving(coming, FirstComeFirstServed(), [], kv_tokens=POOL).recording.requests
    assert record.outcome is Outcome.REJECTED
