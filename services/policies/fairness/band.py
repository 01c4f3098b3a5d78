"""How far a resident adapter may come before its turn: as far as loads cost time."""

import math
from dataclasses import dataclass

AUTO = "auto"
NEW = 0.05  # of a moving average of admissions or requests: about the last twenty count


@dataclass(frozen=True, slots=True)
class BandKnobs:
    """`least` and `most`: charges, between which the band stays; `most` is what the bound U + Q
    promises with. `dear`: the part of the time lost to loads at which the band is as wide as pays.
    `seconds`: how long ago a loss counts for 1/e of one now."""

    least: float = 0.0
    most: float = 5000.0
    dear: float = 0.1
    seconds: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most < math.inf:
            raise ValueError("a band is at least 0, and its least at most its most")
        if self.dear <= 0 or self.seconds <= 0:
            raise ValueError("dear and seconds must be above 0")


class AdaptiveBand:
    """A band that is told what loads cost.

    It pays to let an adapter that is there go on for its slot's part of a batch: batch / slots
    times what a request is charged. More buys nothing; and less is enough where loads are cheap, so
    the band is that times the part of the time that requests waited for adapters, over `dear`. With
    loads that cost nothing it goes towards `least`: without a band, VTC.
    """

    def __init__(self, knobs: BandKnobs | None = None) -> None:
        self._knobs = knobs or BandKnobs()
        self._lost = 0.0  # seconds a second
        self._told = -math.inf
        self._part: float | None = None  # sequences of a batch for each slot
        self._charge: float | None = None  # of a request

    @property
    def most(self) -> float:
        """It is never wider."""
        return self._knobs.most

    @property
    def lost(self) -> float:
        """Seconds waited for adapters, a second."""
        return self._lost

    @property
    def width(self) -> float:
        worth = (self._part or 0.0) * (self._charge or 0.0)
        wanted = worth * min(1.0, self._lost / self._knobs.dear)
        return min(self._knobs.most, max(self._knobs.least, wanted))

    def admitted(self, now: float, *, waited: float, batch: int, slots: int) -> None:
        """`waited`: seconds the request waits for its adapter from the moment it could have run
        otherwise, for a slot and for the load together; 0 if it is there. `batch`: sequences that
        run, with this one. `slots`: adapters that may be resident, at least 1."""
        knobs = self._knobs
        self._lost *= math.exp(-max(0.0, now - self._told) / knobs.seconds)
        self._lost += waited / knobs.seconds
        self._told = max(now, self._told)
        self._part = _moved(self._part, batch / slots)

    def charged(self, charge: float) -> None:
        """What a request came to."""
        self._charge = _moved(self._charge, charge)


def parsed(text: str) -> float | AdaptiveBand:
    """A charge, or "auto". Raises ValueError."""
    if text == AUTO:
        return AdaptiveBand()
    width = float(text)
    if not width >= 0:
        raise ValueError("a band is at least 0")
    return width


def _moved(average: float | None, value: float) -> float:
    return value if average is None else average + NEW * (value - average)
