"""Merging while it pays by what was measured, and while nobody falls behind by more than a band."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.core.types import Digest
from services.policies.merging.batches import Batch, Queued, Ran, largest, of_adapter
from services.policies.merging.costs import StepCosts
from services.policies.merging.service import Service

NEW = 0.1  # of a moving average of steps
PROMPT, OUTPUT = 1.0, 2.0  # what a token counts, as VTC has it


@dataclass(frozen=True, slots=True)
class Rules:
    """`band`: service that a client may have had beyond another that waits, before it gives way.
    `mixes`: whether others can run beside an adapter that is merged. `pauses`: whether they may be
    held up for it. `switch_ms` and the time of `switch_steps`: what it takes to merge; `back`: the
    part of it that it takes to merge no more; `patience`: times that must be lost before it is
    done. `pointless`: the ratio of a merged step's time to an
    unmerged one's above which it is left alone."""

    seats: int
    band: float = 5000.0
    mixes: bool = True
    pauses: bool = True
    switch_ms: float = 20.0
    switch_steps: float = 0.0
    back: float = 1.0
    patience: float = 1.0
    pointless: float = 0.9

    def __post_init__(self) -> None:
        if self.seats < 1 or min(self.band, self.switch_ms, self.patience) < 0:
            raise ValueError("seats must be at least 1; band, switch_ms and patience at least 0")


class Banded:
    """Of the weights there could be, those that end most requests a second; a switch waits until
    as much time was lost without it as it takes (so that, whatever comes, no more than twice the
    least is lost), or `patience` times as much. Whose client is a band behind another's runs
    first, merged or not: a client never gets further ahead of one that waits than the band and what
    one step gives.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._service = Service()
        self._behind: frozenset[str] = frozenset()
        self._merged: Digest | None = None
        self._last = Batch(())
        self._step_ms = 0.0
        self._running: frozenset[Queued] = frozenset()
        self._lost: defaultdict[Digest | None, float] = defaultdict(float)  # ms, by better weights
        self._rates: dict[Digest | None, float] = {}  # that were chosen from
        self.costs = StepCosts()

    @property
    def ratio(self) -> float | None:
        """Of the last batch's size, of one adapter."""
        batch = self._last
        if not self.costs.are_known or all(each.adapter is None for each in batch.requests):
            return None
        return self.costs.ratio(batch)

    @property
    def gap(self) -> float:
        """Of the service of those who wait."""
        return self._service.gap

    def choose(self, queued: Sequence[Queued]) -> Batch:
        self._meet(queued)
        ahead = [request for request in queued if request.client in self._behind]
        rest = [request for request in queued if request.client not in self._behind]
        first = tuple([*ahead, *rest][: self._rules.seats])
        options: dict[Digest | None, Batch] = {}
        for batch in self._options(queued, first):
            held = options.get(batch.merged)
            if held is None or self._rate(batch) > self._rate(held):
                options[batch.merged] = batch
        self._rates = {weights: self._rate(batch) for weights, batch in options.items()}
        best = max(self._rates, key=self._rates.__getitem__)
        price = self._rules.switch_ms + self._rules.switch_steps * self._step_ms
        price *= self._rules.patience
        price *= 1.0 if best is not None else self._rules.back
        if self._merged not in options or self._lost[best] >= price:
            return options[best]
        return options[self._merged]

    def ran(self, ran: Ran) -> None:
        batch = ran.batch
        if batch.merged != self._merged:
            self._merged = batch.merged
            self._lost.clear()
        self._running, self._last = frozenset(batch.requests), batch
        self._step_ms += NEW * (ran.milliseconds - self._step_ms)
        now = self._rates[batch.merged]
        for weights in self._lost.keys() | self._rates.keys():
            gain = 1 - now / self._rates[weights] if weights in self._rates else 0.0
            lost = self._lost[weights] + gain * ran.steps * ran.milliseconds
            self._lost[weights] = max(0.0, lost)
        for request in batch.requests:
            self._service.charge(request.client, OUTPUT * ran.steps)
        for client, tokens in ran.prompt_tokens.items():
            self._service.charge(client, PROMPT * tokens)
        if not ran.prompt_tokens:
            self.costs.observe(batch, ran.milliseconds)

    def _meet(self, queued: Sequence[Queued]) -> None:
        """Who comes to wait is raised to who waits already; who is a band behind is so until half
        of that. Clients all of whose requests ran in the last step do not wait."""
        here = {request.client for request in queued}
        waiting = {request.client for request in queued if request not in self._running}
        self._service.meet(frozenset(waiting | (self._behind & here)), here)
        counters, band = self._service.waiting, self._rules.band
        most = max(counters.values(), default=0.0)
        self._behind = frozenset(
            client
            for client, counter in counters.items()
            if counter < most - (band / 2 if client in self._behind else band)
        )

    def _options(self, queued: Sequence[Queued], first: tuple[Queued, ...]) -> Iterator[Batch]:
        yield Batch(first)
        for adapter in {self._merged, largest(queued, self._merged)} - {None}:
            of_one = of_adapter(queued, adapter, self._rules.seats) if adapter is not None else ()
            if not of_one or self._is_pointless(Batch(of_one, adapter)):
                continue
            if self._rules.mixes or all(request.adapter == adapter for request in first):
                yield Batch(first, adapter)
            if self._rules.pauses and not self._behind:
                yield Batch(of_one, adapter)

    def _is_pointless(self, merged: Batch) -> bool:
        return self.costs.are_known and self.costs.ratio(merged) > self._rules.pointless

    def _rate(self, batch: Batch) -> float:
        return len(batch.requests) / self.costs.milliseconds(batch)
