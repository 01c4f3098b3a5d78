"""What a step takes with an adapter folded into the weights and without, learnt from the steps."""

from services.policies.merging.batches import Batch
from services.policies.regression import Regression

KEEP = 0.999  # of what was learnt before, at every step
FEWEST_STEPS = 8  # of either kind, before they are believed
GUESS = 0.25  # that adapters add to a step, before anything is known: enough to try
OUTLIER = 2.0  # times what was expected: something else took the time


class StepCosts:
    """Steps without prompts, over how many sequences they run, and over the adapters and rows that
    products are corrected for: twice for who runs beside the adapter of others. What was never seen
    apart is put down to there being corrections at all, so that more of them are tried."""

    def __init__(self) -> None:
        self._fit = Regression(5, KEEP, doubtful=(3, 4))
        self._steps = {True: 0, False: 0}  # with corrections and without
        self._weights: list[float] | None = None

    @property
    def are_known(self) -> bool:
        return min(self._steps.values()) >= FEWEST_STEPS

    def observe(self, batch: Batch, milliseconds: float) -> None:
        if self.are_known and milliseconds > OUTLIER * self.milliseconds(batch):
            return
        factors = _factors(batch)
        self._fit.observe(factors, milliseconds)
        self._steps[factors[2] > 0] += 1
        self._weights = None

    def milliseconds(self, batch: Batch) -> float:
        """Of a step; before enough is known, comparable among batches of as many sequences."""
        factors = _factors(batch)
        if not self.are_known:
            return 1 + GUESS * factors[4] / factors[1]
        if self._weights is None:
            self._weights = self._fit.weights()
        return sum(w * f for w, f in zip(self._weights, factors, strict=True))

    def ratio(self, batch: Batch) -> float:
        """The break-even of this shape: its time if all of it were of the adapter that is merged,
        to that of the same unmerged."""
        one = next(request for request in batch.requests if request.adapter is not None)
        merged = Batch((one,) * len(batch.requests), one.adapter)
        return self.milliseconds(merged) / self.milliseconds(Batch(merged.requests))


def _factors(batch: Batch) -> tuple[float, float, float, float, float]:
    others = [each.adapter for each in batch.requests if each.adapter != batch.merged]
    adapters = len(set(others) - {None}) + (batch.merged is not None and bool(others))
    rows = sum(adapter is not None for adapter in others)
    rows += len(others) if batch.merged is not None else 0
    return 1.0, float(len(batch.requests)), float(adapters > 0), float(adapters), float(rows)
