"""Least squares that forget, and never say that more of anything takes less."""

from collections.abc import Sequence

import numpy as np

RIDGE = 1e-9  # of each one's scale: so that what never varied can be fitted at all


class Regression:
    """A value over so many factors, of which the first may be 1 always. `keep`: of what was learnt
    before, at every observation. `doubtful`: factors that what others explain as well is not put
    down to."""

    def __init__(self, factors: int, keep: float, doubtful: Sequence[int] = ()) -> None:
        self._keep = keep
        self._ridge = np.full(factors, RIDGE)
        self._ridge[list(doubtful)] *= 1000
        self._moments = np.zeros((factors, factors))
        self._products = np.zeros(factors)
        self.observations = 0

    def observe(self, factors: Sequence[float], value: float) -> None:
        x = np.array(factors)
        self._moments = self._keep * self._moments + np.outer(x, x)
        self._products = self._keep * self._products + x * value
        self.observations += 1

    def sum(self, factor: int) -> float:
        """Of what was observed of it beside a first factor of 1, less what is forgotten."""
        return float(self._moments[0, factor])

    def weights(self) -> list[float]:
        """None below 0."""
        found = np.zeros(len(self._products))
        kept = np.flatnonzero(np.diag(self._moments))
        while len(kept):
            moments = self._moments[np.ix_(kept, kept)]
            scale = np.sqrt(np.diag(moments))
            normal = moments / np.outer(scale, scale) + np.diag(self._ridge[kept])
            solved = np.linalg.solve(normal, self._products[kept] / scale)
            if solved.min() >= 0:
                found[kept] = solved / scale
                break
            kept = np.delete(kept, solved.argmin())
        return [float(each) for each in found]
