"""B3, B4: several gateways that hear of each other late, or not at all for a while."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.types import RequestId, TenantId
from services.policies.fairness.clearing import Answer, ClearingHouse, Statement
from services.policies.fairness.vtc import Rules, VirtualTokenCounters
from tests.reserving_engine import request

POOL, PROMPT, OUTPUT = 400, 8, 32
SLOTS = POOL // (PROMPT + OUTPUT)
BOUND = 2 * POOL
RATE = 2 * SLOTS + SLOTS * PROMPT / OUTPUT  # weighted tokens a step
GATEWAYS = 2


class Fleet:
    """Gateways with queues of their own before one pool: whoever has the lowest may admit."""

    def __init__(self, every: int) -> None:
        self.policies = [VirtualTokenCounters() for _ in range(GATEWAYS)]
        self.branches = [one.branch(f"g{i}") for i, one in enumerate(self.policies)]
        self.house = ClearingHouse("first")
        self.every = every  # steps between statements
        self.running: dict[RequestId, tuple[int, TenantId, int]] = {}
        self.service: Counter[TenantId] = Counter()
        self.rows: list[Counter[TenantId]] = []
        self.made = 0

    def ask(self, gateway: int, tenant: str, count: int) -> None:
        for _ in range(count):
            self.made += 1
            one = request(f"{self.made}", tenant, prompt=PROMPT, output=OUTPUT)
            self.policies[gateway].enqueue(one, 0.0)

    def settle(self) -> None:
        for branch in self.branches:
            branch.accept(self.house.settle(branch.statement()))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            if self.every and len(self.rows) % self.every == 0:
                self.settle()
            while len(self.running) < SLOTS and self._admit():
                pass
            self.rows.append(self.service.copy())
            for name, (gateway, tenant, left) in list(self.running.items()):
                self.policies[gateway].produced(name)
                self.service[tenant] += 2
                self.running[name] = (gateway, tenant, left - 1)
                if left == 1:
                    self.policies[gateway].end(name)
                    del self.running[name]

    def gap(self, one: str, other: str, *, since: int = 0) -> float:
        ahead = [row[TenantId(one)] - row[TenantId(other)] for row in self.rows[since:]]
        return max(ahead) - min(ahead)

    def _admit(self) -> bool:
        heads = [
            (policy.counters[head.tenant], number, head)
            for number, policy in enumerate(self.policies)
            for head in policy.candidates(0.0)
        ]
        if not heads:
            return False
        _, number, head = min(heads, key=lambda each: each[:2])
        self.policies[number].admit(head.id, 0.0)
        self.running[head.id] = (number, head.tenant, head.max_tokens)
        self.service[head.tenant] += head.prompt_tokens
        return True


def skewed(every: int, steps: int = 1200) -> Fleet:
    """ "both" asks at both gateways, the others at one each; all have more than enough."""
    fleet = Fleet(every)
    for gateway, tenant in [(0, "both"), (1, "both"), (0, "left"), (1, "right")]:
        fleet.ask(gateway, tenant, 1500)
    fleet.run(steps)
    return fleet


@pytest.mark.parametrize("every", [1, 5, 20, 80, 200])
def test_service_differs_by_no_more_than_what_was_not_heard_of(every: int) -> None:
    fleet = skewed(every, steps=max(1200, 15 * every))  # unheard, it would be more than this
    for other in ("left", "right"):
        assert fleet.gap("both", other) <= 2 * BOUND * GATEWAYS + 2 * RATE * every


def test_close_statements_are_as_good_as_one_gateway() -> None:
    assert skewed(5).gap("both", "left") <= 1.2 * max(skewed(1).gap("both", "left"), BOUND)


def test_gateways_that_never_hear_of_each_other_serve_twice_who_asks_both() -> None:
    fleet = skewed(0)
    assert fleet.gap("both", "left") > 2 * BOUND * GATEWAYS + 2 * RATE * 5
    assert fleet.service[TenantId("both")] > 1.8 * fleet.service[TenantId("left")]


def test_after_a_partition_what_was_missed_is_made_up_for() -> None:
    fleet = skewed(5)
    fleet.every = 0
    fleet.run(1000)
    most = 2 * BOUND * GATEWAYS
    assert max(fleet.service.values()) - min(fleet.service.values()) > most
    fleet.every = 5
    fleet.run(600)
    assert max(fleet.service.values()) - min(fleet.service.values()) <= most


def test_a_gateway_that_starts_anew_starves_nobody() -> None:
    """B4: what it knew and had queued is lost; it comes back under another name."""
    fleet = skewed(5, steps=400)
    for name, (gateway, _, _) in list(fleet.running.items()):
        if gateway == 1:
            del fleet.running[name]
    fleet.house.forget("g1")
    fleet.policies[1] = VirtualTokenCounters()
    fleet.branches[1] = fleet.policies[1].branch("g1 again")
    fleet.settle()
    start = len(fleet.rows)
    fleet.ask(1, "both", 1000)
    fleet.ask(1, "right", 1000)
    fleet.run(1200)
    for other in ("left", "right"):
        assert fleet.gap("both", other, since=start) <= 2 * BOUND * GATEWAYS + 2 * RATE * 5


def test_a_tenant_is_not_lifted_above_those_who_wait_elsewhere() -> None:
    fleet = Fleet(1)
    fleet.ask(0, "poor", 5)
    fleet.ask(1, "rich", 50)
    fleet.policies[1].admit(RequestId("6"), 0.0)
    fleet.policies[1].produced(RequestId("6"), 1000)
    fleet.settle()
    fleet.settle()  # who was first hears what the others had to tell
    fleet.ask(1, "new", 1)
    assert fleet.policies[1].counters == {"rich": 2008, "new": 0}
    fleet.branches[1].lost()
    fleet.ask(1, "newer", 1)
    assert fleet.policies[1].counters["newer"] == 0  # the lowest of those who wait here
    fleet.policies[1].end(RequestId("56"))
    fleet.policies[1].end(RequestId("57"))
    fleet.ask(1, "newest", 1)
    assert fleet.policies[1].counters == {"rich": 2008, "newest": 2008}


def test_what_a_gateway_charged_stays_when_it_is_gone() -> None:
    fleet = Fleet(1)
    fleet.ask(0, "acme", 2)
    fleet.ask(1, "acme", 2)
    fleet.policies[1].admit(RequestId("3"), 0.0)
    fleet.policies[1].produced(RequestId("3"), 100)
    fleet.settle()
    fleet.house.forget("g1")
    fleet.branches.pop()
    fleet.settle()
    assert fleet.policies[0].counters == {"acme": 208}


def test_a_house_that_starts_anew_is_told_everything() -> None:
    fleet = skewed(5, steps=400)
    before = [policy.counters for policy in fleet.policies]
    fleet.house = ClearingHouse("second")
    for _ in range(3):
        fleet.settle()
    for counters, policy in zip(before, fleet.policies, strict=True):
        assert policy.counters.keys() == counters.keys()
        assert all(policy.counters[key] >= counters[key] for key in counters)
    start = len(fleet.rows)
    fleet.run(1200)
    for other in ("left", "right"):
        assert fleet.gap("both", other, since=start) <= 2 * BOUND * GATEWAYS + 2 * RATE * 5


def test_what_is_idle_everywhere_is_forgotten() -> None:
    fleet = Fleet(1)
    fleet.ask(0, "busy", 400)
    for number in range(500):
        fleet.ask(number % GATEWAYS, f"once {number}", 1)
    fleet.run(1200)
    fleet.ask(1, "busy", 400)
    fleet.run(600)
    assert fleet.house.num_known < 200


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_statements_and_answers_may_be_lost_late_and_doubled(seed: int, gateways: int) -> None:
    """What was charged is counted once; when the newest have come, all agree."""
    draws = random.Random(seed)
    policies = [VirtualTokenCounters(Rules(lifts=False)) for _ in range(gateways)]
    branches = {f"g{i}": one.branch(f"g{i}") for i, one in enumerate(policies)}
    house = ClearingHouse("only")
    statements: list[Statement] = []
    answers: list[tuple[str, Answer]] = []
    charged: Counter[str] = Counter()
    for number in range(80):
        at = draws.randrange(gateways)
        one = request(str(number), f"t{draws.randrange(4)}", prompt=draws.randrange(1, 50))
        policies[at].enqueue(one, 0.0)
        if draws.random() < 0.6:
            head = next(policies[at].candidates(0.0))
            tokens = draws.randrange(1, 20)
            policies[at].admit(head.id, 0.0)
            policies[at].produced(head.id, tokens)
            charged[head.tenant] += head.prompt_tokens + 2 * tokens
        statements.append(branches[f"g{at}"].statement())
        if draws.random() < 0.7:
            sent = draws.choice(statements[-20:])
            answers.append((sent.gateway, house.settle(sent)))
        if answers and draws.random() < 0.7:
            gateway, answer = draws.choice(answers[-20:])
            branches[gateway].accept(answer)
    for _ in range(3):
        for branch in branches.values():
            branch.accept(house.settle(branch.statement()))
    for policy in policies:
        assert policy.counters == {key: charged[key] for key in policy.counters}
