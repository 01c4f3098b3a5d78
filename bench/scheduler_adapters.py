"""100,000 adapters of which few are asked for often, as bench.scheduler draws them."""

import random
from bisect import bisect
from itertools import accumulate

ADAPTERS = 100_000
EXPONENT = 1.0

_WEIGHTS = list(accumulate((rank + 1) ** -EXPONENT for rank in range(ADAPTERS)))


def popular(draws: random.Random) -> int:
    """By Zipf's law; 0 is asked for most often."""
    return min(bisect(_WEIGHTS, draws.random() * _WEIGHTS[-1]), ADAPTERS - 1)


def digest(adapter: int) -> str:
    return f"{adapter:064x}"
