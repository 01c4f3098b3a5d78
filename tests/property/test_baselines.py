"""What rate limits and deficit round robin remember: what they need, and nothing of who is gone."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.errors import ResourceExhausted
from services.core.types import RequestId, TenantId
from services.policies.fairness.baselines import (
    WINDOW_SECONDS,
    DeficitRoundRobin,
    DelayingRateLimit,
    RejectingRateLimit,
)
from tests.reserving_engine import ReservingEngine, request

MANY = 100_000
Times = list[tuple[float, str]]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), max_size=60), st.integers(1, 4)
)
def test_a_rate_limit_is_that_of_a_list_of_everything(
    drawn: list[tuple[int, str]], most: int
) -> None:
    policy, let_in, now = RejectingRateLimit(most), Times(), 0.0
    for number, (later, tenant) in enumerate(drawn):
        now += later
        lately = [who for at, who in let_in if at > now - WINDOW_SECONDS]
        if lately.count(tenant) < most:
            policy.enqueue(request(str(number), tenant), now)
            let_in.append((now, tenant))
            lately.append(tenant)
        else:
            with pytest.raises(ResourceExhausted):
                policy.enqueue(request(str(number), tenant), now)
        assert len(policy._windows) == len(set(lately))


@pytest.mark.parametrize("kind", [RejectingRateLimit, DelayingRateLimit])
def test_a_window_that_is_over_leaves_nothing(
    kind: type[RejectingRateLimit | DelayingRateLimit],
) -> None:
    policy = kind(1)
    for number in range(MANY):
        now = number / 1024
        policy.enqueue(request(str(number), f"t{number}"), now)
        policy.admit(next(policy.candidates(now)).id, now)
        policy.end(RequestId(str(number)))
        assert len(policy._windows) <= 1024 * WINDOW_SECONDS
    policy.enqueue(request("last", "last"), 1e6)
    next(policy.candidates(1e6))
    assert len(policy._windows) <= 1
    assert len(policy._windows._times) <= 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from("abcdef"), st.integers(1, 60)), max_size=40
    ),
    st.integers(1, 300),
)
def test_round_robin_knows_who_waits_runs_or_owes(
    drawn: list[tuple[int, str, int]], quantum: int
) -> None:
    policy = DeficitRoundRobin(quantum)
    engine = ReservingEngine(policy, 150)
    coming = [(at, request(str(i), who, output=m)) for i, (at, who, m) in enumerate(drawn)]
    for step in range(41):
        engine.play([(at, one) for at, one in coming if at == step], steps=1)
        waiting = {one.tenant for one in engine.waiting.values()}
        running = {engine.requests[name].tenant for name in engine.running}
        owing = {who for who in policy._deficits if policy._deficits[who] < 0}
        assert policy._deficits.keys() <= waiting | running | (owing if waiting else set())
    engine.drain()
    assert policy.num_known == 0
    assert not policy._queues


def test_who_owes_lets_as_many_turns_pass_as_it_has_to() -> None:
    """However many owe: with a quantum of 100, a debt of 300 is three turns."""
    policy = DeficitRoundRobin(quantum=100)
    for i in range(20):
        policy.enqueue(request(f"busy {i}", "busy", prompt=60, output=20), 0.0)
    for number in range(MANY):
        name = RequestId(str(number))
        policy.enqueue(request(name, f"t{number}", prompt=100, output=100), 0.0)
        policy.admit(name, 0.0)
        policy.produced(name, 100)
        policy.end(name)
    assert policy.num_known == MANY + 1
    turns = 0
    while policy.num_known > 1:
        chosen = next(policy.candidates(0.0))
        policy.admit(chosen.id, 0.0)
        policy.produced(chosen.id, 20)
        policy.end(chosen.id)
        turns += 1
    assert turns == math.ceil(300 / 100)
    assert policy._deficits.keys() == {TenantId("busy")}
