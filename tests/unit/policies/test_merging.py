"""Policies of merging, step by step."""

from collections.abc import Sequence

import pytest

from services.core.types import Digest, RequestId
from services.policies.merging.banded import Banded, Rules
from services.policies.merging.batches import Batch, Policy, Queued, Ran
from services.policies.merging.costs import StepCosts
from services.policies.merging.credit import Credit, Rates
from services.policies.merging.fixed import BreakEven, MergedOnly, Mixed
from services.policies.merging.service import MOST_REMEMBERED, Service
from services.policies.regression import Regression


def queue(adapters: str) -> list[Queued]:
    """A letter a request, in order of arrival; "-" is the base model."""
    return [
        Queued(RequestId(str(number)), None if letter == "-" else Digest(letter), letter)
        for number, letter in enumerate(adapters)
    ]


def names(batch: Batch) -> str:
    return "".join(each.adapter or "-" for each in batch.requests)


def stepped(policy: Policy, adapters: str, steps: int = 1) -> Batch:
    batch = policy.choose(queue(adapters))
    policy.ran(Ran(batch, steps, 10.0))
    return batch


POLICIES: list[Policy] = [
    MergedOnly(4), Mixed(4), BreakEven(4, 0.5), Credit(4), Banded(Rules(4)),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
def test_the_base_model_is_never_merged(policy: Policy) -> None:
    batch = stepped(policy, "---")
    assert (names(batch), batch.merged) == ("---", None)


def test_merged_only_stays_with_an_adapter_until_it_has_no_more() -> None:
    policy = MergedOnly(4)
    assert names(stepped(policy, "abba-b")) == "bbb"
    assert names(stepped(policy, "aaab")) == "b"
    assert names(stepped(policy, "aaa-")) == "aaa"


def test_mixed_runs_who_came_first_and_stays_while_anybody_asks_for_it() -> None:
    policy = Mixed(4)
    for adapters, merged in (
        ("abbab", "a"),
        ("bbba", "a"),
        ("bbb-", "b"),
        ("----", None),
        ("-c", "c"),
    ):
        batch = stepped(policy, adapters)
        assert (names(batch), batch.merged) == (adapters[:4], merged)


def test_break_even_forgets_what_was_merged() -> None:
    policy = BreakEven(4, 0.5)
    assert names(stepped(policy, "aaba")) == "aaa"
    assert names(stepped(policy, "abcd")) == "abcd"


def test_credit_merges_at_first_only_what_fills_the_batch_and_then_stays() -> None:
    policy = Credit(4)
    assert names(stepped(policy, "aaab")) == "aaab"
    assert names(stepped(policy, "aabaa")) == "aaaa"
    assert names(stepped(policy, "aaab")) == "aaa"  # 3 of 4 are more than 0.556
    assert names(stepped(policy, "aabb")) == "aabb"


def test_who_is_overtaken_is_paid_by_who_overtook() -> None:
    policy = Credit(4)
    stepped(policy, "aaaab")
    stepped(policy, "aabaa", steps=8)
    price = 8 / (4 * Rates().ratio)
    before = 1000.0  # of each of two
    assert policy.credits == pytest.approx({"a": before - price, "b": before + price})


def test_fewer_requests_that_overtake_pay_half() -> None:
    policy = Credit(4)
    stepped(policy, "aaaa")
    stepped(policy, "aaab", steps=8)
    price = 8 / (4 * Rates().ratio) / 2
    assert policy.credits == pytest.approx({"a": 1000.0 - price, "b": 1000.0 + price})


def test_who_lost_a_share_of_credit_runs_first_until_half_of_it_is_spent() -> None:
    policy = Credit(4, scale=10.0)
    stepped(policy, "aaaab")
    lost = 0
    while names(stepped(policy, "abaaa")) == "aaaa":
        lost += 1
    assert lost == pytest.approx(10 * 4 * Rates().ratio, abs=1)
    assert policy.rescues == 1
    assert names(stepped(policy, "aaaaab")) == "baaa"  # one place is lost to it in every step
    rescued = 2
    while names(stepped(policy, "aaaaab")) == "baaa":
        rescued += 1
    assert rescued == pytest.approx(5 * 4, abs=4)


def test_thresholds_follow_what_the_time_merged_gave() -> None:
    policy = Credit(4)
    start = policy.thresholds
    stepped(policy, "aaaa", steps=100)
    stepped(policy, "abcd")  # merged was right: four in 15 ms
    merging, staying = policy.thresholds
    assert merging == pytest.approx(start[0] - 0.05)
    assert staying == start[1]
    for _ in range(100):
        stepped(policy, "abcd")
    stepped(policy, "aaaa")  # unmerged was right: one of four would have run
    assert policy.thresholds[1] == pytest.approx(staying + 0.05)


def costs_of(*, adapter_ms: float) -> StepCosts:
    costs = StepCosts()
    for adapters in ("aaaa", "aaab", "abcd", "aabb", "a", "ab") * 20:
        requests = tuple(queue(adapters))
        for merged in (None, Digest("a")):
            costs.observe(Batch(requests, merged), time_of(Batch(requests, merged), adapter_ms))
    return costs


def time_of(batch: Batch, adapter_ms: float) -> float:
    """20 ms, and so much for every adapter that products are corrected for."""
    others = {each.adapter for each in batch.requests if each.adapter != batch.merged}
    return 20 + adapter_ms * (len(others) + (batch.merged is not None and bool(others)))


def test_what_adapters_cost_is_learnt_from_steps() -> None:
    costs = costs_of(adapter_ms=5.0)
    for adapters, merged in (("abcd", None), ("abcd", "a"), ("aaaa", "a"), ("bbbb", None)):
        batch = Batch(tuple(queue(adapters)), Digest(merged) if merged else None)
        assert costs.milliseconds(batch) == pytest.approx(time_of(batch, 5.0), rel=0.01)
    assert costs.ratio(Batch(tuple(queue("ab")))) == pytest.approx(20 / 25, rel=0.01)


def test_a_step_that_something_else_held_up_is_not_learnt_from() -> None:
    costs = costs_of(adapter_ms=5.0)
    batch = Batch(tuple(queue("abcd")))
    before = costs.milliseconds(batch)
    costs.observe(batch, 3 * before)
    assert costs.milliseconds(batch) == before


def test_nobody_pauses_where_that_is_not_wanted() -> None:
    policy = Banded(Rules(4, pauses=False))
    for _ in range(100):
        assert names(stepped(policy, "aaab")) == "aaab"


@pytest.mark.parametrize("patience", [1.0, 3.0])
def test_a_switch_waits_until_as_much_was_lost_as_it_takes(patience: float) -> None:
    policy = Banded(Rules(4, switch_ms=50.0, patience=patience, pauses=False))
    unmerged = [stepped(policy, "aaaa").merged for _ in range(90)].index(Digest("a"))
    lost = 10 * (1 - 1 / 1.25)  # a step, as long as nothing is known
    assert unmerged == pytest.approx(patience * 50 / lost, abs=1)


@pytest.mark.parametrize(
    "wrong", [{"seats": 0}, {"band": -1.0}, {"switch_ms": -1.0}, {"patience": -1.0}]
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least"):
        Rules(**({"seats": 4} | wrong))  # type: ignore[arg-type]


def test_clients_that_come_and_go_are_not_remembered_for_ever() -> None:
    service = Service()
    for number in range(3000):
        client = str(number)
        service.meet(frozenset([client]), [client])
        service.meet(frozenset(), [client])
        service.charge(client, 10.0)
    assert service.known <= MOST_REMEMBERED + 1


def test_who_comes_back_has_no_more_coming_than_who_waited() -> None:
    service = Service()
    service.meet(frozenset("ab"), "ab")
    service.charge("b", 100.0)
    service.meet(frozenset("b"), "b")
    service.meet(frozenset("ab"), "ab")
    assert service.waiting == {"a": 100.0, "b": 100.0}
    service.meet(frozenset(), "")
    service.meet(frozenset("c"), "c")  # nobody waits: as much as who did last
    assert service.waiting == {"c": 100.0}


def fitted(rows: Sequence[tuple[float, float, float]], doubtful: Sequence[int]) -> list[float]:
    fit = Regression(2, 1.0, doubtful)
    for a, b, value in rows:
        fit.observe((a, b), value)
    return fit.weights()


def test_what_is_doubtful_is_not_made_responsible() -> None:
    always_together = [(1.0, 2.0, 6.0)] * 20
    assert fitted(always_together, [1]) == pytest.approx([6.0, 0.0], abs=0.05)
    assert fitted(always_together, [0]) == pytest.approx([0.0, 3.0], abs=0.05)
