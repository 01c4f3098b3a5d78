"""Parts of those who wait, level by level."""

import pytest

from services.policies.fairness.levels import Levels, Parts

A: Levels = (("default", 4.0), ("a", 1.0))
B: Levels = (("default", 4.0), ("b", 3.0))
FLEX: Levels = (("flex", 1.0), ("a", 1.0))


def waiting(*those: tuple[Levels, int]) -> Parts:
    parts = Parts()
    for levels, count in those:
        for _ in range(count):
            parts.add(levels)
    return parts


def test_turns_are_by_weight_on_every_level() -> None:
    parts = waiting((A, 2), (B, 50), (FLEX, 50))
    assert parts.before(A) == pytest.approx(2 * 4 * 5 / 4)  # a fourth of four fifths
    assert parts.before(B) == pytest.approx(50 * 4 / 3 * 5 / 4)
    assert waiting((A, 2)).before(FLEX) == 0
    assert waiting((A, 9), (FLEX, 9)).before(FLEX) == 18  # no more than there are


def test_who_has_most_for_its_weight_is_looked_for_from_the_highest_level_down() -> None:
    assert waiting((A, 3), (B, 6)).greediest() == A
    assert waiting((A, 2), (B, 9)).greediest() == B
    assert waiting((A, 3), (B, 9), (FLEX, 2)).greediest() == A
    assert waiting((A, 2), (B, 5), (FLEX, 2)).greediest() == FLEX


def test_who_waits_no_more_counts_no_more() -> None:
    parts = waiting((A, 2), (B, 1))
    for _ in range(2):
        parts.remove(A)
    assert parts.greediest() == B
    assert parts.before(B) == 1
    parts.remove(B)
    assert parts.before(B) == 0
    assert parts.greediest() == ()
    assert not parts._below
