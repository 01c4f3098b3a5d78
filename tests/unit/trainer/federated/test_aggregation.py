"""What a server makes of updates, against what the sums are by definition."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.core.errors import InvalidRequest
from services.trainer.config import MOST_RANK
from services.trainer.federated.averaging import AVERAGES, mean
from services.trainer.federated.config import FederatedConfig
from services.trainer.federated.exact import FlexLora
from services.trainer.federated.methods import METHODS, Method
from services.trainer.federated.state import State
from services.trainer.federated.words import Array, Layer, Model, Update

Matrix = np.ndarray[Any, np.dtype[np.floating[Any]]]

LAYERS = Layer("x", 12, 20), Layer("y", 16, 8)
MODEL = Model(LAYERS, {"head.w": np.ones((3, 4), np.float32)})
CONFIG = FederatedConfig(rank=4, alpha=8.0, first_rounds=2, density=0.1, residual_rank=64)
RANKS = replace(CONFIG, ranks={"a": 2, "c": 8})
SIZES = {"a": 10, "b": 30, "c": 60}


def near(of: Matrix, wanted: Matrix) -> float:
    return float(np.linalg.norm(of - wanted) / np.linalg.norm(wanted))


def updates_of(method: Method, state: State, draw: np.random.Generator) -> list[Update]:
    """As if each client had gone somewhere at random from what it was told."""
    found = []
    for client, examples in SIZES.items():
        _, sent = method.told(state, client)
        arrays = {
            name: (array + draw.standard_normal(array.shape)).astype(np.float32)
            for name, array in sent.items()
            if not name.endswith((".FA", ".FB"))
        }
        found.append(Update(client, state.round, 0, arrays, examples))
    return found


def delta_of(update: Update, layer: Layer) -> Matrix:
    b, a = (update.arrays[f"{layer.name}.{side}"].astype(np.float64) for side in "BA")
    found: Matrix = CONFIG.scaling * (b @ a)
    return found


def truth(updates: Sequence[Update], layer: Layer) -> Matrix:
    """The mean of what clients add, by their examples."""
    return np.sum([each.examples / 100 * delta_of(each, layer) for each in updates], axis=0)


def test_fedavg_is_the_plain_mean() -> None:
    """Of an independent sum, to 1e-6."""
    method = METHODS["fedit"]()
    begun = method.begin(MODEL, CONFIG)
    updates = updates_of(method, begun, np.random.default_rng(0))
    after = method.after(begun, updates)
    for name, array in after.arrays.items():
        plain = np.average([u.arrays[name] for u in updates], axis=0, weights=list(SIZES.values()))
        assert np.abs(array - plain).max() <= 1e-6


@pytest.mark.parametrize(
    ("name", "config"), [("flora", CONFIG), ("flora", RANKS), ("fedex", CONFIG)]
)
def test_stacks_and_residuals_add_exactly_the_mean(name: str, config: FederatedConfig) -> None:
    """In the second round too, on top of the first."""
    method, draw = METHODS[name](), np.random.default_rng(1)
    state = method.begin(MODEL, config)
    before = {layer.name: np.zeros((layer.rows, layer.columns)) for layer in LAYERS}
    for _ in range(2):
        updates = updates_of(method, state, draw)
        state = method.after(state, updates)
        for layer in LAYERS:
            wanted = before[layer.name] + truth(updates, layer)
            found = method.adapter(state)[layer.name].delta
            assert near(found, wanted) <= 1e-5
            frozen = found - method_own(state, layer)
            before[layer.name] = frozen.astype(np.float64)


def method_own(state: State, layer: Layer) -> Array:
    """What A and B themselves add, which clients go on from."""
    arrays = state.arrays
    own: Array = state.config.scaling * (arrays[f"{layer.name}.B"] @ arrays[f"{layer.name}.A"])
    return own


def test_flexlora_of_full_rank_is_exact_and_fedavg_is_not() -> None:
    full = replace(CONFIG, rank=8, alpha=16.0)
    found = {}
    for name in ("flexlora", "fedit"):
        method = METHODS[name]()
        begun = method.begin(Model((LAYERS[1],)), full)
        updates = updates_of(method, begun, np.random.default_rng(2))
        adapter = method.adapter(method.after(begun, updates))
        found[name] = near(adapter["y"].delta, truth(updates, LAYERS[1]))
    assert found["flexlora"] <= 1e-5
    assert found["fedit"] > 0.1


def test_fedavg_is_exact_where_all_share_a_and_of_one_client() -> None:
    method, ffa = METHODS["fedit"](), METHODS["ffa"]()
    begun = ffa.begin(MODEL, CONFIG)
    updates = updates_of(ffa, begun, np.random.default_rng(3))
    after = ffa.after(begun, updates)
    whole = [replace(u, arrays={**begun.arrays, **u.arrays}) for u in updates]
    for layer in LAYERS:
        assert near(ffa.adapter(after)[layer.name].delta, truth(whole, layer)) <= 1e-5
    one = [replace(whole[0], examples=100)]
    alone = method.adapter(method.after(begun, one))
    assert all(near(alone[e.name].delta, truth(one, e)) <= 1e-5 for e in LAYERS)


def test_each_rank_gets_the_best_of_it() -> None:
    """Ranks may differ, and each client's part is what Eckart and Young say."""
    method = FlexLora()
    begun = method.begin(MODEL, RANKS)
    updates = updates_of(method, begun, np.random.default_rng(4))
    assert [len(each.arrays["x.A"]) for each in updates] == [2, 4, 8]
    state = method.after(begun, updates)
    for layer in LAYERS:
        values = np.linalg.svd(truth(updates, layer), compute_uv=False)
        for client in SIZES:
            plan, sent = method.told(state, client)
            b, a = sent[f"{layer.name}.B"], sent[f"{layer.name}.A"]
            assert a.shape[0] == plan.rank == RANKS.rank_of(client)
            off = truth(updates, layer) - plan.alpha / plan.rank * (b @ a)
            best = np.sqrt((values[plan.rank :] ** 2).sum())
            assert np.linalg.norm(off) <= best + 1e-5 * np.linalg.norm(values)


def test_a_method_says_what_it_cannot_do() -> None:
    """Rather than do something else."""
    for name, make in METHODS.items():
        method = make()
        if name in {"flexlora", "flora"}:
            assert method.begin(MODEL, RANKS).arrays["x.A"].shape == (8, 20)
        else:
            with pytest.raises(InvalidRequest, match="all clients to have one"):
                method.begin(MODEL, RANKS)
        robust = replace(CONFIG, average="median")
        if name in {"flexlora", "flora", "fedex"}:
            with pytest.raises(InvalidRequest, match="the mean alone"):
                method.begin(MODEL, robust)
        else:
            assert method.begin(MODEL, robust).config.average == "median"
    with pytest.raises(InvalidRequest, match="one of mean, median, trimmed"):
        replace(CONFIG, average="mode")


def test_a_stack_is_published_at_a_rank_that_can_be_served() -> None:
    """However many rounds have been stacked."""
    model = Model((Layer("x", 300, 280),))
    config = FederatedConfig(rank=100, alpha=100.0)
    method, draw = METHODS["flora"](), np.random.default_rng(8)
    state = method.begin(model, config)
    state = method.after(state, updates_of(method, state, draw))
    found = method.adapter(state)["x"]
    whole = (state.arrays["x.FB"] @ state.arrays["x.FA"]).astype(np.float64)
    values = np.linalg.svd(whole, compute_uv=False)
    assert found.a.shape == (MOST_RANK, 280)
    best = np.sqrt((values[MOST_RANK:] ** 2).sum())
    assert np.linalg.norm(whole - found.delta) <= best + 1e-5 * np.linalg.norm(values)


def test_order_and_repetition_change_nothing() -> None:
    for name in METHODS:
        method = METHODS[name]()
        begun = method.begin(MODEL, CONFIG)
        updates = updates_of(method, begun, np.random.default_rng(5))
        again = [updates[2], replace(updates[0], arrays=updates[1].arrays), *updates[:2]]
        again[1] = replace(again[1], attempt=-1)  # of an earlier try: the newest counts
        wanted, found = method.after(begun, updates), method.after(begun, again)
        for array in wanted.arrays:
            assert wanted.arrays[array].tobytes() == found.arrays[array].tobytes(), name


def test_who_has_no_examples_is_refused() -> None:
    update = Update("a", 0, 0, {"x": np.ones(1, np.float32)}, 0)
    with pytest.raises(InvalidRequest, match="no examples"):
        mean([update])


def test_identical_adapters_average_to_themselves() -> None:
    arrays = {"x.A": np.random.default_rng(6).standard_normal((4, 9)).astype(np.float32)}
    for average in AVERAGES.values():
        found = average([Update(c, 0, 0, arrays, n) for c, n in SIZES.items()])
        assert np.abs(found["x.A"] - arrays["x.A"]).max() <= 1e-6
