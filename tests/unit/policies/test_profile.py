"""Costs in milliseconds of a device, learnt from its steps."""

import random
from dataclasses import dataclass, field, replace

import pytest

from services.policies.fairness.baselines import FirstComeFirstServed
from services.policies.fairness.profile import FEWEST_STEPS, Step, StepProfile
from services.simulator.replay import replay
from services.simulator.step_time import StepTime
from services.simulator.workloads import overload


@dataclass(frozen=True)
class Told(StepTime):
    """Writes down what ran. All prompts have 256 tokens."""

    told: list[Step] = field(default_factory=list)

    def seconds(self, prefill_tokens: int, decodes: int, kv_tokens: int) -> float:
        taken = super().seconds(prefill_tokens, decodes, kv_tokens)
        sequences = decodes + prefill_tokens // 256
        self.told.append(Step(prefill_tokens, sequences, kv_tokens, 1000 * taken))
        return taken


def steps(count: int, *, noise: float = 0.0, seed: int = 0) -> list[Step]:
    """Of 5 ms, 0.2 a token of a prompt, 0.3 a sequence, 0.001 a token that is read."""
    draws, made = random.Random(seed), []
    for _ in range(count):
        prefill, sequences = draws.choice([0, 0, 64, 256]), draws.randrange(1, 40)
        read = sequences * draws.randrange(20, 500)
        taken = 5 + 0.2 * prefill + 0.3 * sequences + 0.001 * read
        made.append(Step(prefill, sequences, read, taken * (1 + draws.gauss(0, noise))))
    return made


def learnt(told: list[Step]) -> StepProfile:
    profile = StepProfile()
    for step in told:
        profile.observe(step)
    return profile


@pytest.mark.parametrize(("noise", "within"), [(0.0, 1e-4), (0.1, 0.1)])
def test_what_each_thing_takes_is_found(noise: float, within: float) -> None:
    told = steps(4000, noise=noise)
    cost = learnt(told).cost()
    assert cost is not None
    mean = sum(step.sequences for step in told[-1000:]) / 1000
    assert cost.prompt == pytest.approx(0.2, rel=within)
    assert cost.output == pytest.approx(0.3 + 5 / mean, rel=max(within, 0.05))
    assert cost.product == pytest.approx(0.001, rel=max(within, 1e-3) * 3)


def test_a_device_that_changes_is_learnt_anew() -> None:
    profile = learnt(steps(4000))
    for step in steps(12_000, seed=1):
        profile.observe(replace(step, milliseconds=3 * step.milliseconds))
    cost = profile.cost()
    assert cost is not None
    assert cost.prompt == pytest.approx(0.6, rel=0.01)


def test_all_requests_together_pay_for_all_of_the_time() -> None:
    """On the production engine, while there is always enough to do."""
    time = Told()
    recording = replay(overload(120), FirstComeFirstServed(), step_time=time, until=120)
    cost = learnt(time.told).cost()
    assert cost is not None
    ran = [one for one in recording.requests if one.admitted is not None]
    paid = sum(cost(one.prompt_tokens, one.output_tokens) for one in ran)
    assert paid == pytest.approx(sum(step.milliseconds for step in time.told), rel=0.05)


def test_nothing_is_said_before_enough_was_seen() -> None:
    assert learnt(steps(FEWEST_STEPS - 1)).cost() is None
    assert learnt(steps(FEWEST_STEPS)).cost() is not None


def test_nothing_is_ever_a_gift() -> None:
    """Steps that take less the more they run, by chance."""
    told = [Step(n, 40 - n, 10 * n, 50.0 - n) for n in range(FEWEST_STEPS)]
    cost = learnt(told).cost()
    assert cost is not None
    assert min(cost.prompt, cost.output, cost.product, cost.output_squared) >= 0


def test_steps_that_are_all_alike_can_be_told_apart_from_nothing() -> None:
    cost = learnt([Step(0, 8, 800, 20.0)] * 100).cost()
    assert cost is not None
    assert 8 * (cost(0, 1) + 100 * cost.product) == pytest.approx(20.0, rel=0.01)
