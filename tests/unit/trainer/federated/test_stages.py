"""Masks, the switch from sparse weights to factors, and where a federation stands."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.trainer.federated.factoring import energy, energy_of_noise, factored
from services.trainer.federated.masks import chosen, mask, spread
from services.trainer.federated.methods import METHODS
from services.trainer.federated.sampling import drawn, sampled
from services.trainer.federated.state import State
from services.trainer.federated.traffic import array_bytes, payload_bytes
from services.trainer.federated.words import HEAD, Layer, Model
from tests.unit.trainer.federated.test_aggregation import CONFIG, LAYERS, MODEL, updates_of

SQUARE = Layer("layers.0", 384, 384)


def test_a_mask_is_the_same_in_another_process() -> None:
    program = (
        "from services.trainer.federated.masks import mask; import hashlib\n"
        "from services.trainer.federated.words import Layer\n"
        "found = mask(Layer('layers.0', 384, 384), 0.01, 7)\n"
        "print(hashlib.sha256(found.tobytes()).hexdigest())"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        for _ in range(2)
    ]
    assert told[0] == told[1]
    assert len(told[0].strip()) == 64


def test_a_mask_is_of_its_density_and_of_its_seed_and_layer() -> None:
    for density in (0.005, 0.01, 0.1):
        found = mask(SQUARE, density, 3)
        assert len(found) == len(set(found.tolist())) == chosen(SQUARE, density)
        assert chosen(SQUARE, density) == pytest.approx(density * 384 * 384, abs=1)
    other = replace(SQUARE, name="layers.1")
    assert set(mask(SQUARE, 0.01, 3)) != set(mask(SQUARE, 0.01, 4))
    assert set(mask(SQUARE, 0.01, 3)) != set(mask(other, 0.01, 3))
    rows = np.bincount(mask(SQUARE, 0.1, 3) // 384, minlength=384)  # no row is left out
    assert abs(rows - 38.4).max() < 6 * np.sqrt(38.4)


def test_factors_are_the_best_of_their_rank() -> None:
    """Against the singular values, whatever the scaling."""
    delta = np.random.default_rng(0).standard_normal((24, 40)).astype(np.float32)
    values = np.linalg.svd(delta.astype(np.float64), compute_uv=False)
    for scaling in (0.5, 2.0):
        for rank in (1, 8, 24, 30):
            off = np.linalg.norm(delta - factored(delta, rank, scaling).delta)
            best = np.sqrt((values[rank:] ** 2).sum())
            assert abs(off - best) <= 1e-5 * np.linalg.norm(values)


def test_noise_has_little_energy_in_few_factors() -> None:
    """What an SVD of a sparse update must be compared with (measured .114)."""
    positions = mask(SQUARE, 0.01, 0)
    values = np.random.default_rng(0).standard_normal(len(positions)).astype(np.float32)
    assert 0.09 <= energy(spread(values, SQUARE, positions), 8) <= 0.14
    low = np.outer(np.arange(1.0, 9.0), np.arange(1.0, 7.0)).astype(np.float32)
    assert energy(low, 1) > 0.99
    assert energy(np.zeros((3, 3), np.float32), 1) == 1.0


def test_slora_goes_on_from_the_factors_of_what_was_sparse() -> None:
    method, draw = METHODS["slora"](), np.random.default_rng(1)
    state = method.begin(MODEL, CONFIG)
    for _ in range(CONFIG.first_rounds - 1):
        state = method.after(state, updates_of(method, state, draw))
    last = updates_of(method, state, draw)
    sparse = METHODS["sparse"]()
    whole = sparse.after(state, last)
    switched = method.after(state, last)
    for layer in LAYERS:
        wanted = spread(
            whole.arrays[f"{layer.name}.S"], layer, mask(layer, CONFIG.density, CONFIG.seed)
        )
        best = factored(wanted, CONFIG.rank, CONFIG.scaling).delta
        found = method.adapter(switched)[layer.name].delta
        assert np.abs(found - best).max() <= 1e-5 * np.abs(wanted).max()
    kept, noise = (switched.facts[f"svd_energy{of}"] for of in ("", "_of_noise"))
    assert noise == pytest.approx(kept, rel=0.2)  # what was sparse had come at random
    plan, sent = method.told(switched, "a")
    assert plan.rank == CONFIG.rank
    assert f"{HEAD}w" in sent


def test_what_was_learnt_is_told_from_noise() -> None:
    """By the same numbers at other places."""
    draw = np.random.default_rng(4)
    learnt = draw.standard_normal((64, 2)) @ draw.standard_normal((2, 48))
    low = learnt.astype(np.float32)
    assert energy(low, 2) > 0.999
    assert 0.05 < energy_of_noise(low, 2, seed=0) < 0.3
    random = draw.standard_normal((256, 192)).astype(np.float32)
    assert energy_of_noise(random, 2, seed=0) == pytest.approx(energy(random, 2), rel=0.1)
    assert energy_of_noise(low, 2, seed=0) == energy_of_noise(low, 2, seed=0)


def test_a_switch_of_a_higher_rank_is_published_at_the_serving_rank() -> None:
    config = replace(CONFIG, switch_rank=6)
    method, draw = METHODS["primed"](), np.random.default_rng(2)
    state = method.begin(MODEL, config)
    for _ in range(3):
        state = method.after(state, updates_of(method, state, draw))
    plan, sent = method.told(state, "a")
    assert (plan.rank, sent["x.A"].shape[0]) == (6, 6)
    for name, published in method.adapter(state).items():
        assert published.a.shape[0] == config.rank
        b, a = state.arrays[f"{name}.B"], state.arrays[f"{name}.A"]
        whole = plan.alpha / plan.rank * (b @ a)
        best = factored(whole, config.rank, config.scaling).delta
        assert np.abs(published.delta - best).max() <= 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize("name", METHODS)
def test_a_state_goes_on_from_a_file_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    method = METHODS[name]()
    state = method.begin(MODEL, CONFIG)
    for number in range(3):
        updates = updates_of(method, state, np.random.default_rng(number))
        state.save(tmp_path / "state")
        resumed = METHODS[name]().after(State.load(tmp_path / "state"), updates)
        state = method.after(state, updates)
        assert (resumed.round, resumed.facts) == (state.round, state.facts)
        for array in state.arrays:
            assert resumed.arrays[array].tobytes() == state.arrays[array].tobytes()


def test_what_travels_is_what_the_formulas_say() -> None:
    """Upwards for every method, in both of SLoRA's stages."""
    for name, make in METHODS.items():
        method = make()
        state = method.begin(MODEL, CONFIG)
        for number in range(3):
            plan, sent = method.told(state, "a")
            updates = updates_of(method, state, np.random.default_rng(number))
            travels = {
                n: a
                for n, a in sent.items()
                if not n.endswith((".FA", ".FB")) and not (plan.rank and n.endswith(".S"))
            }
            assert array_bytes(travels) == payload_bytes(plan, MODEL), name
            state = method.after(state, updates)


def test_the_literature_s_sizes() -> None:
    """Three layers of MiniLM, all six linears, rank 8, a head of 7,700."""
    shapes = [(384, 384)] * 4 + [(1536, 384), (384, 1536)]
    layers = tuple(Layer(f"{n}.{k}", *s) for n in range(3) for k, s in enumerate(shapes))
    model = Model(layers, {"head.w": np.zeros(7700, np.float32)})
    config = replace(CONFIG, rank=8, density=0.01, first_rounds=1)
    wanted = {"full": 5_316_116, "fedit": 173_588, "ffa": 90_644, "slora": 60_794}
    for name, numbers in wanted.items():
        method = METHODS[name]()
        plan, _ = method.told(method.begin(model, config), "a")
        assert payload_bytes(plan, model) == 4 * numbers, name


def test_who_takes_part_depends_on_round_and_seed_alone() -> None:
    clients = [f"c{n}" for n in range(20)]
    first = sampled(clients, 5, round=1, seed=0)
    assert len(set(first)) == 5
    assert sampled(clients[::-1], 5, round=1, seed=0) == first
    assert {tuple(sampled(clients, 5, round=r, seed=0)) for r in range(9)} != {tuple(first)}
    assert sampled(clients, 0, round=1, seed=0) == sorted(clients)


def test_who_is_drawn_is_so_whoever_else_is() -> None:
    """With the probability that was asked for."""
    clients = [f"c{n:03}" for n in range(200)]
    rounds = [drawn(clients, 0.3, round=r, seed=1) for r in range(50)]
    assert drawn(clients[::-1], 0.3, round=0, seed=1) == rounds[0]
    sizes = [len(each) for each in rounds]
    assert np.mean(sizes) == pytest.approx(60, abs=4)
    assert np.std(sizes) > 3  # a fixed number has none
    assert drawn(clients, 1.0, round=0, seed=1) == clients
