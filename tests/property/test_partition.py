"""Splits of rows among clients: each row has one owner, however owners are drawn."""

from collections import Counter
from collections.abc import Callable
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import InvalidRequest
from services.trainer.partition import (
    Partition,
    by_dirichlet,
    by_label,
    by_source,
    counts,
    held_out,
)

LABELS = st.lists(st.sampled_from("abcdefg"), min_size=12, max_size=80)
CLIENTS, SEEDS = st.integers(1, 12), st.integers(0, 2**32)
ALPHAS = st.floats(1e-4, 1e4)
TWENTY = [f"label-{row % 20:02}" for row in range(4000)]


def has_every_row_once(partition: Partition, rows: int) -> bool:
    assert all(len(its) for its in partition.values()), "a client without rows"
    assert all((np.diff(its) > 0).all() for its in partition.values())
    return sorted(chain.from_iterable(partition.values())) == list(range(rows))


@given(LABELS, CLIENTS, ALPHAS, SEEDS)
def test_dirichlet_gives_every_row_to_one_client(
    labels: list[str], clients: int, alpha: float, seed: int
) -> None:
    found = by_dirichlet(labels, clients=clients, alpha=alpha, seed=seed)
    assert has_every_row_once(found, len(labels))
    assert len(found) <= clients


@given(LABELS, CLIENTS, st.integers(1, 7), SEEDS)
def test_no_client_has_more_labels_than_it_may(
    labels: list[str], clients: int, each: int, seed: int
) -> None:
    kinds = len(set(labels))
    if each > kinds or clients * each < kinds:
        with pytest.raises(InvalidRequest, match="labels_each"):
            by_label(labels, clients=clients, labels_each=each, seed=seed)
        return
    found = by_label(labels, clients=clients, labels_each=each, seed=seed)
    assert has_every_row_once(found, len(labels))
    assert all(len({labels[row] for row in its}) <= each for its in found.values())


@given(LABELS)
def test_a_source_is_a_client(sources: list[str]) -> None:
    found = by_source(sources)
    assert has_every_row_once(found, len(sources))
    for client, rows in found.items():
        assert {sources[row] for row in rows} == {client}


@given(LABELS, CLIENTS, ALPHAS, SEEDS)
def test_the_seed_says_all(labels: list[str], clients: int, alpha: float, seed: int) -> None:
    def drawn(seed: int) -> dict[str, list[int]]:
        found = by_dirichlet(labels, clients=clients, alpha=alpha, seed=seed)
        return {client: rows.tolist() for client, rows in found.items()}

    assert drawn(seed) == drawn(seed)


SPLITS: dict[str, Callable[[int], Partition]] = {
    "dirichlet": lambda seed: by_dirichlet(TWENTY, clients=20, alpha=1.0, seed=seed),
    "label": lambda seed: by_label(TWENTY, clients=20, labels_each=3, seed=seed),
}


@pytest.mark.parametrize("split", SPLITS)
def test_another_seed_splits_otherwise(split: str) -> None:
    one, other = SPLITS[split](1), SPLITS[split](2)
    assert any(not np.array_equal(one[client], other[client]) for client in one)


def test_rows_of_one_label_are_drawn() -> None:
    found = by_dirichlet(["a"] * 100, clients=2, alpha=100.0, seed=0)
    assert all(rows[-1] - rows[0] >= len(rows) for rows in found.values())


def test_who_has_a_label_has_as_much_as_others() -> None:
    found = by_label(TWENTY, clients=20, labels_each=3, seed=0)
    assert {rows for has in counts(found, TWENTY).values() for rows in has.values()} == {0, 66, 67}


def share_of_first(alpha: float) -> float:
    """Of a client's rows, those of its most frequent label: a mean over clients and seeds."""
    shares = []
    for seed in range(5):
        found = by_dirichlet(TWENTY, clients=20, alpha=alpha, seed=seed)
        for has in counts(found, TWENTY).values():
            shares.append(max(has.values()) / sum(has.values()))
    return sum(shares) / len(shares)


def test_the_smaller_alpha_the_more_one_label_rules() -> None:
    even, some, most = map(share_of_first, (100.0, 0.1, 0.03))
    assert even < 0.1
    assert even < some - 0.2
    assert some < most - 0.1


def test_who_gets_nothing_is_no_client() -> None:
    found = by_dirichlet(["a"] * 30, clients=20, alpha=0.001, seed=0)
    assert has_every_row_once(found, 30)
    assert len(found) < 20


@given(LABELS, st.integers(1, 3), SEEDS)
def test_what_is_held_out_is_balanced(labels: list[str], each: int, seed: int) -> None:
    if min(Counter(labels).values()) <= each:
        with pytest.raises(InvalidRequest, match="leave none"):
            held_out(labels, each=each, seed=seed)
        return
    rest, apart = held_out(labels, each=each, seed=seed)
    assert sorted([*rest, *apart]) == list(range(len(labels)))
    assert Counter(labels[row] for row in apart) == dict.fromkeys(set(labels), each)


@given(LABELS, CLIENTS, SEEDS)
def test_counts_are_of_all_rows(labels: list[str], clients: int, seed: int) -> None:
    table = counts(by_dirichlet(labels, clients=clients, alpha=0.5, seed=seed), labels)
    total = Counter[str]()
    for has in table.values():
        assert list(has) == sorted(set(labels))
        total.update(has)
    assert total == Counter(labels)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_an_alpha_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(InvalidRequest, match="alpha: must be a finite number above 0"):
        by_dirichlet(TWENTY, clients=2, alpha=alpha, seed=0)


@pytest.mark.parametrize("clients", [0, -1, 4001])
def test_a_number_of_clients_that_cannot_be_is_refused(clients: int) -> None:
    with pytest.raises(InvalidRequest, match="clients: must be 1 to 4000"):
        by_dirichlet(TWENTY, clients=clients, alpha=1, seed=0)


def test_nothing_cannot_be_split() -> None:
    for split in (by_source, lambda none: by_label(none, clients=1, labels_each=1, seed=0)):
        with pytest.raises(InvalidRequest, match="data: has no rows"):
            split([])
