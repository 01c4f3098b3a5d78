"""Averages that a few liars cannot move far."""

from dataclasses import replace

import numpy as np
import pytest

from services.trainer.federated.averaging import AVERAGES, mean
from services.trainer.federated.methods import METHODS
from services.trainer.federated.words import Update
from tests.unit.trainer.federated.test_local import CONFIG, model_of, network, trained


@pytest.mark.parametrize("average", ["median", "trimmed"])
@pytest.mark.parametrize("others", [2, 4])
def test_one_liar_moves_a_robust_average_little(average: str, others: int) -> None:
    draw = np.random.default_rng(7)
    honest = [
        Update(str(n), 0, 0, {"x.B": draw.normal(1.0, 0.1, (6, 4)).astype(np.float32)}, 10)
        for n in range(others)
    ]
    liar = Update("liar", 0, 0, {"x.B": np.full((6, 4), -1e6, np.float32)}, 10**9)
    found = AVERAGES[average]([*honest, liar])["x.B"]
    lowest = np.min([each.arrays["x.B"] for each in honest], axis=0)
    highest = np.max([each.arrays["x.B"] for each in honest], axis=0)
    assert ((found >= lowest) & (found <= highest)).all()
    assert np.abs(mean([*honest, liar])["x.B"] - 1).max() > 1e5


def test_one_poisoned_client_does_not_spoil_a_robust_federation() -> None:
    """It says the opposite of what it learnt, and loudly."""
    module = network()
    model, losses = model_of(module), {}
    for average in ("mean", "median", "trimmed"):
        method = METHODS["fedit"]()
        state = method.begin(model, replace(CONFIG, average=average))
        for number in range(4):
            plan, sent = method.told(state, "a")
            good = trained(module, plan, sent).arrays
            bad = {n: sent[n] - 30 * (good[n] - sent[n]) for n in good}
            updates = [Update(str(n), number, 0, good, 8) for n in range(4)]
            state = method.after(state, [*updates, Update("liar", number, 0, bad, 8)])
        plan, sent = method.told(state, "a")
        losses[average] = trained(module, replace(plan, steps=1), sent).metrics["loss"]
    untrained = trained(module, replace(plan, steps=1), method.begin(model, CONFIG).arrays)
    assert max(losses["median"], losses["trimmed"]) < 0.8 * untrained.metrics["loss"]
    assert losses["mean"] > untrained.metrics["loss"]
