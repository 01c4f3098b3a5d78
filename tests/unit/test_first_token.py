"""What is predicted of first tokens."""

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from services.policies.first_token import Forecast, Holder, StepTimes


def times(noise: float = 0.0) -> StepTimes:
    """Steps of 50 ms and 1 ms a token."""
    learnt, dice = StepTimes(), random.Random(0)
    for _ in range(300):
        tokens = dice.choice([1, 8, 32, 64, 512])
        learnt.observe(tokens, (0.05 + 0.001 * tokens) * dice.uniform(1 - noise, 1 + noise))
    return learnt


def forecast(
    running: Sequence[Holder] = (),
    *,
    pages: int = 100,
    slots: int = 10,
    learnt: StepTimes | None = None,
) -> Forecast:
    return Forecast(
        running,
        free_pages=pages,
        free_slots=slots,
        step_tokens=512,
        times=learnt or times(),
    )


def test_nobody_is_turned_away_by_a_guess() -> None:
    assert forecast(learnt=StepTimes()).seconds(Holder(10, 100, 8)) == 0.0


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_line_is_learnt(noise: float) -> None:
    for tokens in (1, 100, 512):
        assert times(noise).predict(1, tokens) == pytest.approx(
            0.05 + 0.001 * tokens, rel=noise, abs=1e-6
        )


def test_it_changes_with_the_machine() -> None:
    learnt = times()
    for _ in range(200):
        learnt.observe(10, 1.0)
    assert learnt.predict(1, 10) == pytest.approx(1.0, rel=0.01)


def test_a_prefill_takes_its_steps() -> None:
    assert forecast().seconds(Holder(10, 100, 8)) == pytest.approx(0.15)
    assert forecast().seconds(Holder(10, 1124, 8)) == pytest.approx(3 * 0.05 + 1.124)
    beside = forecast([Holder(1, 0, 99)] * 412).seconds(Holder(10, 200, 8))
    assert beside == pytest.approx(2 * (0.05 + 0.412) + 0.2)


def test_who_finds_no_room_waits_for_those_who_end_first() -> None:
    running = [Holder(pages=5, prefill_tokens=0, steps=40), Holder(5, 0, 10)]
    asked = Holder(10, 100, 8)
    assert forecast(running, slots=0).seconds(asked) == pytest.approx(11 * 0.052 + 0.1)
    assert forecast(running, pages=2).seconds(asked) == pytest.approx(41 * 0.052 + 0.1)


def test_a_queue_of_many_turns_over() -> None:
    """One slot, ten steps each: the fourth starts when three have run."""
    played = forecast(slots=1)
    starts = []
    for _ in range(4):
        asked = Holder(1, 10, 10)
        starts.append(played.seconds(asked))
        played.admit(asked)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps == pytest.approx([11 * 0.05 + 0.01] * 3, rel=0.02)
