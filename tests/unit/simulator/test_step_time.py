"""What a step takes by the fit, worked out by hand."""

import pytest

from services.simulator.step_time import A10G, StepTime


def test_a_step_without_work_takes_no_time() -> None:
    assert A10G.seconds(0, 0, 0) == 0


def test_a_prompt_takes_three_milliseconds_and_a_fifth_of_one_a_token() -> None:
    assert A10G.seconds(1000, 0, 0) == pytest.approx(0.217)


def test_decodes_take_thirty_milliseconds_and_more_for_what_they_read() -> None:
    assert A10G.seconds(0, 10, 5000) == pytest.approx(0.0352)


def test_a_mixed_step_takes_both() -> None:
    assert A10G.seconds(1000, 10, 5000) == pytest.approx(0.217 + 0.0352)


def test_another_machine_is_another_set_of_figures() -> None:
    twice = StepTime(prefill_seconds=0.006, prefill_token_seconds=0.000428)
    assert twice.seconds(1000, 0, 0) == pytest.approx(2 * A10G.seconds(1000, 0, 0))
