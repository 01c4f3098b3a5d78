"""Who takes part in a round."""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np


def sampled(clients: Collection[str], count: int, *, round: int, seed: int) -> Sequence[str]:
    """So many at random, or all if `count` is 0; the same for the same arguments, in order."""
    there = sorted(clients)
    if not 0 < count < len(there):
        return there
    draw = _draw(round, seed)
    return [there[n] for n in sorted(draw.choice(len(there), count, replace=False))]


def drawn(clients: Collection[str], share: float, *, round: int, seed: int) -> Sequence[str]:
    """Each with this probability, whoever else is: what privacy.epsilon counts with. May be none.
    `seed` is a secret: whoever knows it knows who took part."""
    there = sorted(clients)
    there_is = _draw(round, seed).random(len(there)) < share
    return [client for client, takes_part in zip(there, there_is, strict=True) if takes_part]


def _draw(round: int, seed: int) -> np.random.Generator:
    number = int.from_bytes(hashlib.sha256(f"{seed} {round}".encode()).digest()[:8], "little")
    return np.random.Generator(np.random.Philox(number))
