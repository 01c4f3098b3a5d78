"""Updates that a round must not take, and what privacy adds."""

from dataclasses import replace

import numpy as np
import pytest

from services.trainer.federated.checking import Limits, checked, distance, is_quorum
from services.trainer.federated.methods import METHODS
from services.trainer.federated.privacy import Privacy, clipped, epsilon, noised, private
from services.trainer.federated.words import Array, Arrays, Update
from tests.unit.trainer.federated.test_aggregation import CONFIG, MODEL, updates_of

FIRST: Arrays = {"x.A": np.zeros((4, 6), np.float32), "x.B": np.ones((5, 4), np.float32)}
TOLD = dict.fromkeys(("good", "bad"), (3, FIRST))
GOOD = Update("good", 3, 0, {n: a + np.float32(0.1) for n, a in FIRST.items()}, 7, base="base")


def with_array(name: str, array: object) -> Update:
    assert isinstance(array, np.ndarray)
    return replace(GOOD, client="bad", arrays={**GOOD.arrays, name: array})


BAD = {
    "x.A has values that are not finite": with_array("x.A", np.full((4, 6), np.nan, np.float32)),
    "x.B has values that are not finite": with_array("x.B", np.full((5, 4), np.inf, np.float32)),
    "x.A is float32 [6, 4], not float32 [4, 6]": with_array("x.A", np.zeros((6, 4), np.float32)),
    "x.A is float64 [4, 6], not float32 [4, 6]": with_array("x.A", np.zeros((4, 6))),
    "y.A is missing, or should not be there": with_array("y.A", np.zeros((4, 6), np.float32)),
    "x.B is missing, or should not be there": replace(
        GOOD, client="bad", arrays={"x.A": GOOD.arrays["x.A"]}
    ),
    "it is of round 2, not 3": replace(GOOD, client="bad", round=2),
    "it says that it has no examples": replace(GOOD, client="bad", examples=0),
    "it is of another base model": replace(GOOD, client="bad", base="another"),
    "it is 1e+03 from what was sent, more than 10": with_array(
        "x.A", np.pad(np.full((1, 1), 1e3, np.float32), ((0, 3), (0, 5)))
    ),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_update_is_refused_with_why_and_the_rest_is_taken(why: str) -> None:
    good, refused = checked([GOOD, BAD[why]], dict(TOLD), Limits(10.0, "base"))
    assert good == [GOOD]
    assert refused == {"bad": why}


def test_the_last_of_a_client_counts_once() -> None:
    """So that a quorum is of clients."""
    again = replace(GOOD, attempt=1)
    assert checked([again, GOOD, again], dict(TOLD), Limits()) == ([again], {})


def test_who_was_not_asked_is_not_heard() -> None:
    good, refused = checked([replace(GOOD, client="stranger")], dict(TOLD), Limits())
    assert (good, refused) == ([], {"stranger": "it was not asked"})


def test_a_quorum_is_a_part_of_those_asked() -> None:
    assert [is_quorum(n, 4, 0.5) for n in range(4)] == [False, False, True, True]
    assert not is_quorum(0, 4, 0.0)


def test_an_update_is_cut_to_its_norm_and_counts_once() -> None:
    for clip in (0.01, 0.5, 100.0):
        cut = clipped(GOOD, FIRST, clip)
        assert distance(cut.arrays, FIRST) <= clip * (1 + 1e-5)
        assert cut.examples == 1
    assert distance(clipped(GOOD, FIRST, 100.0).arrays, GOOD.arrays) < 1e-6


def test_noise_of_a_mean_is_of_its_size() -> None:
    """noise clip / clients: and that of a mean of privatised updates."""
    zeros: Arrays = {"x": np.zeros((300, 300), np.float32)}
    of = Privacy(clip=2.0, noise=1.5)
    found = noised(zeros, of, 6, round=1, seed=11)["x"]
    assert found.std() == pytest.approx(1.5 * 2 / 6, rel=0.02)
    assert abs(found.mean()) < 0.01
    told = {str(n): zeros for n in range(6)}
    updates = [Update(str(n), 1, 0, zeros, 5) for n in range(6)]
    each = private(updates, told, of, round=1, seed=11)
    mean = np.mean([update.arrays["x"] for update in each], axis=0)
    assert mean.std() == pytest.approx(0.5, rel=0.02)
    other = noised(zeros, of, 6, round=2, seed=11)["x"]
    assert abs(np.corrcoef(found.ravel(), other.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(("name", "linear"), [("ffa", True), ("fedit", False)])
def test_noise_stays_linear_where_a_is_frozen(name: str, linear: bool) -> None:
    """In what is added to the weights: why FFA-LoRA is the method for privacy."""
    method, draw = METHODS[name](), np.random.default_rng(0)
    begun = method.begin(MODEL, CONFIG)
    updates = updates_of(method, begun, draw)
    told = {each.client: method.told(begun, each.client)[1] for each in updates}

    def added(noise: float) -> Array:
        of = Privacy(clip=10.0, noise=noise)
        after = method.after(begun, private(updates, told, of, round=0, seed=5))
        return method.adapter(after)["x"].delta

    clean, once, twice = added(0.0), added(1.0), added(2.0)
    off = np.abs((twice - clean) - 2 * (once - clean)).max()
    assert bool(off < 1e-4) is linear


@pytest.mark.parametrize(
    ("noise", "share", "rounds", "wanted"),
    [(1.0, 0.1, 100, 7.972921510380539), (0.8, 1.0, 10, 25.751631103850336),
     (1.5, 0.25, 50, 7.47739777762411)],
)  # fmt: skip
def test_epsilon_is_that_of_another_accountant(
    noise: float, share: float, rounds: int, wanted: float
) -> None:
    """dp-accounting 0.6, RdpAccountant, orders 2 to 512, Poisson sampling, delta 1e-5."""
    found = epsilon(noise, share=share, rounds=rounds, delta=1e-5)
    assert found == pytest.approx(wanted, rel=1e-9)


def test_epsilon_grows_with_rounds_and_falls_with_noise() -> None:
    spent = [epsilon(1.0, share=0.2, rounds=n, delta=1e-5) for n in (0, 1, 10, 100)]
    assert spent == sorted(spent)
    assert spent[0] == 0
    less = [epsilon(z, share=0.2, rounds=10, delta=1e-5) for z in (0.0, 0.5, 1.0, 4.0)]
    assert less == sorted(less, reverse=True)
    assert less[0] == float("inf")
