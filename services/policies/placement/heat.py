"""How much work an adapter brings: moving averages that come late, and know how sure they are."""

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Heat:
    """Workers that an adapter keeps busy, as exponentially weighted averages: a fast one, with its
    variance if arrivals are Poisson's, and a slow one."""

    at: float
    fast: float = 0.0
    variance: float = 0.0
    slow: float = 0.0

    def add(self, times: int, busy_seconds: float, now: float, *, fast: float, slow: float) -> None:
        """So many came, each of which keeps one worker busy for so long. `fast`, `slow`: seconds
        that the averages look back."""
        self.decay(now, fast=fast, slow=slow)
        self.fast += times * busy_seconds / fast
        self.variance += times * (busy_seconds / fast) ** 2
        self.slow += times * busy_seconds / slow

    def decay(self, now: float, *, fast: float, slow: float) -> None:
        passed = max(0.0, now - self.at)
        self.at = max(self.at, now)
        kept = math.exp(-passed / fast)
        self.fast *= kept
        self.variance *= kept * kept
        self.slow *= math.exp(-passed / slow)

    def surely(self, deviations: float) -> float:
        """What it is at least, chance aside."""
        return self.fast - deviations * math.sqrt(self.variance)

    @property
    def most(self) -> float:
        """What it is or was a while ago."""
        return max(self.fast, self.slow)
