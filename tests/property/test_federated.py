"""Of federated sums, for whatever numbers clients send."""

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.trainer.federated.averaging import AVERAGES, mean
from services.trainer.federated.checking import distance
from services.trainer.federated.factoring import product
from services.trainer.federated.masks import chosen, mask
from services.trainer.federated.privacy import clipped
from services.trainer.federated.words import Factors, Layer, Update

EXAMPLES = settings(max_examples=40, deadline=None)


@st.composite
def several(draw: st.DrawFn) -> list[Update]:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = 10.0 ** draw(st.integers(-4, 4))
    counts = draw(st.lists(st.integers(1, 10_000), min_size=1, max_size=6))
    return [
        Update(f"c{n}", 0, 0, {"x": (size * random.standard_normal(7)).astype(np.float32)}, count)
        for n, count in enumerate(counts)
    ]


@EXAMPLES
@given(several(), st.randoms(use_true_random=False))
def test_an_average_is_among_what_is_averaged_whatever_the_order(
    updates: list[Update], random: Random
) -> None:
    shuffled = list(updates)
    random.shuffle(shuffled)
    there = np.stack([each.arrays["x"] for each in updates])
    slack = 1e-6 * np.abs(there).max()
    for average in AVERAGES.values():
        found = average(updates)["x"]
        assert (found >= there.min(axis=0) - slack).all()
        assert (found <= there.max(axis=0) + slack).all()
        assert found.tobytes() == average(shuffled)["x"].tobytes()


@EXAMPLES
@given(several())
def test_a_client_of_n_examples_is_n_clients_of_one(updates: list[Update]) -> None:
    few = [Update(e.client, 0, 0, e.arrays, 1 + e.examples % 5) for e in updates]
    split = [Update(f"{e.client}/{n}", 0, 0, e.arrays, 1) for e in few for n in range(e.examples)]
    scale = max(np.abs(e.arrays["x"]).max() for e in few)
    assert np.abs(mean(few)["x"] - mean(split)["x"]).max() <= 1e-6 * scale


@EXAMPLES
@given(several(), st.floats(1e-3, 1e3))
def test_no_update_is_further_than_it_may_be(updates: list[Update], clip: float) -> None:
    first = {"x": np.ones(7, np.float32)}
    for each in updates:
        cut = clipped(each, first, clip)
        off = cut.arrays["x"].astype(np.float64) - first["x"]
        assert distance(cut.arrays, first) <= clip * (1 + 1e-4) + 1e-5
        way = each.arrays["x"].astype(np.float64) - first["x"]
        cosine = off @ way / (np.linalg.norm(off) * np.linalg.norm(way) + 1e-30)
        assert cosine > 0.99 or np.linalg.norm(off) < 1e-4


@EXAMPLES
@given(
    st.integers(1, 12), st.integers(1, 12), st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(1, 9), st.integers(0, 2**32), st.floats(0.1, 10),
)  # fmt: skip
def test_factors_of_a_sum_are_the_best_of_their_rank(
    rows: int, columns: int, ranks: list[int], rank: int, seed: int, scaling: float
) -> None:
    """Eckart and Young, of whatever shapes and ranks."""
    random = np.random.default_rng(seed)
    parts = [
        (
            1 / len(ranks),
            Factors(
                random.standard_normal((r, columns)).astype(np.float32),
                random.standard_normal((rows, r)).astype(np.float32),
                scaling,
            ),
        )
        for r in ranks
    ]
    whole = np.sum([w * f.scaling * (f.b.astype(np.float64) @ f.a) for w, f in parts], axis=0)
    values = np.linalg.svd(whole, compute_uv=False)
    found = product(parts, rank, scaling)
    assert (found.a.shape, found.b.shape) == ((rank, columns), (rows, rank))
    best = np.sqrt((values[rank:] ** 2).sum())
    assert np.linalg.norm(whole - found.delta) <= best + 1e-5 * np.linalg.norm(values)


@EXAMPLES
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.001, 1.0), st.integers(0, 2**62))
def test_a_mask_has_its_places_once_and_in_order(
    rows: int, columns: int, density: float, seed: int
) -> None:
    layer = Layer("x", rows, columns)
    found = mask(layer, density, seed)
    assert len(found) == chosen(layer, density) >= 1
    assert (np.diff(found) > 0).all()
    assert 0 <= found[0] <= found[-1] < rows * columns
