"""Differential privacy of clients: what each adds is clipped, and noise is added to the mean.

The mean is of clients, not of examples: else one client's part has no bound.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.trainer.federated.averaging import in_order
from services.trainer.federated.checking import distance
from services.trainer.federated.words import Array, Arrays, Update


@dataclass(frozen=True, slots=True)
class Privacy:
    """`clip`: norm that an update is cut to; `noise`: standard deviation of what is added to the
    sum, in clips; 0 adds none, and promises nothing."""

    clip: float
    noise: float
    delta: float = 1e-5


def clipped(update: Update, first: Arrays, clip: float) -> Update:
    """As far from what was sent as `clip` at most, and one example."""
    part = min(1.0, clip / max(distance(update.arrays, first), 1e-30))
    arrays = {
        name: (first[name] + np.float32(part) * (array - first[name])).astype(np.float32)
        for name, array in update.arrays.items()
    }
    return replace(update, arrays=arrays, examples=1)


def noised(arrays: Arrays, privacy: Privacy, clients: int, *, round: int, seed: int) -> Arrays:
    """A mean of so many clipped updates, with noise of standard deviation noise clip / clients.
    `seed` is a secret: whoever knows it can take the noise away."""
    draw = np.random.Generator(np.random.Philox(key=[seed, round]))
    deviation = privacy.noise * privacy.clip / clients
    return {name: _noised(array, draw, deviation) for name, array in sorted(arrays.items())}


def private(
    updates: Sequence[Update], told: dict[str, Arrays], privacy: Privacy, *, round: int, seed: int
) -> list[Update]:
    """Instead of the updates: as their mean has the noise, so has each of them."""
    there = [clipped(each, told[each.client], privacy.clip) for each in in_order(updates)]
    if not there:
        return []
    zeros = {name: np.zeros_like(array) for name, array in there[0].arrays.items()}
    noise = noised(zeros, privacy, len(there), round=round, seed=seed)
    return [
        replace(each, arrays={name: each.arrays[name] + noise[name] for name in each.arrays})
        for each in there
    ]


def epsilon(noise: float, *, share: float, rounds: int, delta: float) -> float:
    """Spent after so many rounds in each of which every client took part with the probability
    `share` (sampling.drawn; where a fixed number does, only the 1 of all is a promise): Renyi
    orders of the sampled Gaussian mechanism (Mironov, Talwar, Zhang, arXiv 1908.10530), made
    epsilon as Canonne, Kamath and Steinke do (arXiv 2004.00010, proposition 12)."""
    if rounds == 0 or share == 0:
        return 0.0
    if noise == 0:
        return math.inf
    found = math.inf
    for order in range(2, 513):
        spent = rounds * _renyi(noise, share, order)
        extra = math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        found = min(found, spent + extra)
    return max(0.0, found)


def _renyi(noise: float, share: float, order: int) -> float:
    """Of a whole order: the binomial sum of section 3.3 there."""
    if share == 1:
        return order / (2 * noise**2)
    logs = [
        math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1)
        + k * math.log(share) + (order - k) * math.log1p(-share)
        + (k * k - k) / (2 * noise**2)
        for k in range(order + 1)
    ]  # fmt: skip
    most = max(logs)
    return (most + math.log(sum(math.exp(each - most) for each in logs))) / (order - 1)


def _noised(array: Array, draw: np.random.Generator, deviation: float) -> Array:
    return (array + deviation * draw.standard_normal(array.shape)).astype(np.float32)
