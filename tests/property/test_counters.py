"""Counters in a heap are those of a plain dictionary, whatever is charged and given back."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.policies.fairness.counters import Counters

KEYS = "abcdefgh"
OPERATIONS = ("join", "leave", "charge", "start", "end")


@dataclass
class Plain:
    """All of it looked through every time, and nobody forgotten."""

    counters: dict[str, float] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)  # in the order in which they came
    last: str = ""

    def join(self, key: str) -> None:
        floor = min((self.counters[other] for other in self.waiting), default=None)
        if floor is None:
            floor = self.counters.get(self.last, 0.0)
        self.counters[key] = max(self.counters.get(key, 0.0), floor)
        self.waiting.append(key)

    def leave(self, key: str) -> None:
        self.waiting.remove(key)
        self.last = key

    def owed(self, key: str) -> float:
        waiting = [self.counters[other] for other in self.waiting]
        if not waiting:
            return 0.0
        return max(0.0, sum(waiting) / len(waiting) - max(self.counters[key], min(waiting)))

    def lowest(self, most: int, band: float) -> list[str]:
        ranked = sorted(self.waiting, key=lambda key: self.counters[key])
        within = [k for k in ranked if self.counters[k] <= self.counters[ranked[0]] + band]
        return within[:most]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(KEYS), st.integers(1, 9)),
                max_size=120), st.booleans())  # fmt: skip
def test_they_agree(operations: list[tuple[str, str, int]], refunds: bool) -> None:
    """Who is forgotten would have been raised to as much: nobody can tell. With refunds the lowest
    may fall, and who was forgotten be a little higher; so then nobody is."""
    plain, running = Plain(), dict.fromkeys(KEYS, 0)
    counters = Counters(forget=lambda key: None)
    if refunds:
        counters._forget_below = lambda lowest: None  # type: ignore[method-assign]
    for operation, key, amount in operations:
        if operation == "join" and key not in plain.waiting:
            plain.join(key)
            counters.join(key)
        elif operation == "leave" and key in plain.waiting:
            plain.leave(key)
            counters.leave(key)
        elif operation == "start" and key in plain.waiting:
            running[key] += 1
            counters.started(key)
        elif operation == "end" and running[key]:
            running[key] -= 1
            counters.ended(key)
        elif operation == "charge" and running[key]:
            due = -amount if refunds and amount % 3 == 0 else amount
            plain.counters[key] += due
            counters.charge(key, due)
        for most, band in ((1, 0.0), (8, 0.0), (3, 5.0)):
            assert counters.lowest(most, band) == plain.lowest(most, band)
        assert counters.waiting == {k: plain.counters[k] for k in plain.waiting}


def test_what_is_owed_is_what_is_missing_to_the_mean() -> None:
    draw, plain, counters = random.Random(5), Plain(), Counters(forget=lambda key: None)
    owed = 0
    for _ in range(2000):
        key, amount = draw.choice(KEYS), draw.randint(-3, 9)
        if key in plain.waiting and draw.random() < 0.3:
            plain.leave(key)
            counters.leave(key)
        elif key in plain.waiting or (draw.random() < 0.3 and key in plain.counters):
            plain.counters[key] += amount
            counters.charge(key, amount)
        elif key not in plain.waiting:
            plain.join(key)
            counters.join(key)
        for known in plain.counters:
            assert counters.owed(known) == pytest.approx(plain.owed(known))
            owed += plain.owed(known) > 0
    assert owed > 1000
