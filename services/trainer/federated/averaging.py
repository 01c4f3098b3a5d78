"""One of several: means by weight, and those that a few liars cannot move far."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from services.core.errors import InvalidRequest
from services.trainer.federated.words import Array, Arrays, Update

Average = Callable[[Sequence[Update]], dict[str, Array]]


def weights(updates: Sequence[Update]) -> list[float]:
    """n_k / N. Raises InvalidRequest for a client without examples."""
    for update in updates:
        if update.examples <= 0:
            raise InvalidRequest.of(update.client, "says that it has no examples")
    total = sum(update.examples for update in updates)
    return [update.examples / total for update in updates]


def in_order(updates: Sequence[Update]) -> list[Update]:
    """By client, the last attempt of each: whatever came twice, and in whatever order, the sum is
    the same."""
    newest: dict[str, Update] = {}
    for update in sorted(updates, key=lambda each: (each.client, each.attempt)):
        newest[update.client] = update
    return list(newest.values())


def mean(updates: Sequence[Update]) -> dict[str, Array]:
    """FedAvg (McMahan 2017): each by its examples."""
    there = in_order(updates)
    parts = weights(there)
    return {
        name: np.sum(
            [
                part * each.arrays[name].astype(np.float64)
                for part, each in zip(parts, there, strict=True)
            ],
            axis=0,
        ).astype(np.float32)
        for name in names(there)
    }


def median(updates: Sequence[Update]) -> dict[str, Array]:
    """Of each number by itself; how many examples a client claims does not count."""
    there = in_order(updates)
    return {
        name: np.median([each.arrays[name] for each in there], axis=0).astype(np.float32)
        for name in names(there)
    }


def trimmed(share: float) -> Average:
    """The mean without so large a share of the smallest, and of the largest, of each number: of one
    at least, where three or more are there."""

    def average(updates: Sequence[Update]) -> dict[str, Array]:
        there = in_order(updates)
        off = min(math.ceil(share * len(there) - 1e-9), (len(there) - 1) // 2)
        found = {}
        for name in names(there):
            ranked = np.sort(np.stack([each.arrays[name] for each in there]), axis=0)
            kept = ranked[off : len(there) - off]
            found[name] = kept.mean(axis=0, dtype=np.float64).astype(np.float32)
        return found

    return average


AVERAGES: dict[str, Average] = {"mean": mean, "median": median, "trimmed": trimmed(0.2)}


def names(updates: Sequence[Update]) -> list[str]:
    arrays: Arrays = updates[0].arrays
    return sorted(arrays)
