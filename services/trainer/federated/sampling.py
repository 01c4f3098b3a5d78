"""Who takes part in a round."""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np


def sampled(clients: Collection[str], count: int, *, round: int, seed: int) -> Sequence[str]:
    """So many at random, or all if `count` is 0; the same for the same arguments, in order."""
    there = sorted(clients)
    if not 0 < count < len(there):
        return there
    number = int.from_bytes(hashlib.sha256(f"{seed} {round}".encode()).digest()[:8], "little")
    draw = np.random.Generator(np.random.Philox(number))
    return [there[n] for n in sorted(draw.choice(len(there), count, replace=False))]
