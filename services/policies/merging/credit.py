"""dLoRA's credit-based batching (OSDI'24, section 4; scheduler.py of its artifact).

Merged or unmerged, one adapter at a time when merged. An adapter whose requests overtake others
pays these with credit; one without credit may not be merged, and one with enough runs first.
Thresholds of merging move with what the time since the last switch would have given either way.

Other than in the artifact, the credit that lets an adapter run first can be come by (there it
takes 10,000 places lost an adapter, which never happens), only who was overtaken is paid, and a
batch that is of one adapter anyway may stay merged when starvation chose it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.core.types import Digest
from services.policies.merging.batches import Batch, Queued, Ran, of_adapter

SHIPPED = 10_000.0  # the artifact's scale


@dataclass(frozen=True, slots=True)
class Rates:
    """Milliseconds of a step merged and unmerged, and of a switch; the artifact's, of Llama-2-7B on
    an A800."""

    merged: float = 15.0
    unmerged: float = 27.0
    switch: float = 20.0

    @property
    def ratio(self) -> float:
        return self.merged / self.unmerged


@dataclass(slots=True)
class _Period:
    """Since the last switch: steps, requests that ran or would have run in them, and how often
    merging would have had to switch."""

    steps: int = 0
    merged: int = 0
    unmerged: int = 0
    switches: int = 0


@dataclass(frozen=True, slots=True)
class _Decided:
    """A batch, beside the one first come would have been, and who runs for being starved."""

    batch: Batch
    first: tuple[Queued, ...]
    of_one: int  # requests of the adapter that merging would run
    adapter: Digest | None  # that merging would choose
    starved: frozenset[Digest]


class Credit:
    """`scale`: the credit of a place lost that makes an adapter starved, in places of a merged
    step times `seats`."""

    def __init__(self, seats: int, *, rates: Rates = Rates(), scale: float = 1000.0) -> None:
        self._seats = seats
        self._rates = rates
        self._scale = scale
        self._credit: dict[Digest | None, float] = {}
        self._starved: frozenset[Digest] = frozenset()
        self._merged: Digest | None = None
        self._to_merge, self._to_stay = 1.0, rates.ratio
        self._period = _Period()
        self._would_merge: Digest | None = None
        self._decided: _Decided | None = None
        self.rescues = 0  # steps that ran somebody for being starved

    @property
    def ratio(self) -> float:
        return self._rates.ratio

    @property
    def credits(self) -> Mapping[Digest | None, float]:
        return self._credit

    @property
    def thresholds(self) -> tuple[float, float]:
        """Of merging, and of staying merged: parts of the batch of those who came first."""
        return self._to_merge, self._to_stay

    def choose(self, queued: Sequence[Queued]) -> Batch:
        self._meet(queued)
        first = tuple(queued[: self._seats])
        starved = self._those_starved(queued)
        counts = Counter(r.adapter for r in queued if self._credit[r.adapter] >= 0)
        del counts[None]
        best = max(counts, key=counts.__getitem__, default=None)
        if starved:
            batch = self._rescue(queued, first, starved)
        else:
            batch = self._by_count(queued, first, counts, best)
        of_one = min(self._seats, counts[batch.merged or best])
        self._decided = _Decided(batch, first, of_one, best, starved)
        return batch

    def ran(self, ran: Ran) -> None:
        decided, batch = self._decided, ran.batch
        assert decided is not None
        if batch.merged != self._merged:
            self._tune()
            self._merged, self._period = batch.merged, _Period()
        self._starved = decided.starved
        self.rescues += ran.steps if decided.starved else 0
        cost = 1 if decided.starved else 1 / self._rates.ratio
        self._pay(decided.batch.requests, decided.first, ran.steps * cost / self._seats)
        if batch.merged is None and decided.adapter != self._would_merge:
            self._period.switches += 1
            self._would_merge = decided.adapter
        self._period.steps += ran.steps
        self._period.merged += ran.steps * decided.of_one
        self._period.unmerged += ran.steps * len(decided.first)

    def _meet(self, queued: Sequence[Queued]) -> None:
        """Everybody begins with the same; a newcomer with what others began with, too, and they
        get what they would have had if it had been there from the start."""
        for request in queued:
            if request.adapter not in self._credit:
                for other in self._credit:
                    self._credit[other] += self._scale
                self._credit[request.adapter] = self._scale * len(self._credit)

    def _those_starved(self, queued: Sequence[Queued]) -> frozenset[Digest]:
        """With as much credit as all began with and one share more; until half a share is spent."""
        enough = self._scale * len(self._credit)
        return frozenset(
            adapter
            for adapter in {request.adapter for request in queued} - {None}
            if adapter is not None
            and self._credit[adapter]
            >= (enough - self._scale / 2 if adapter in self._starved else enough)
        )

    def _rescue(
        self, queued: Sequence[Queued], first: tuple[Queued, ...], starved: frozenset[Digest]
    ) -> Batch:
        """Theirs, those with most credit first; what room is left goes to who came first."""
        chosen: list[Queued] = []
        for adapter in sorted(starved, key=lambda a: (-self._credit[a], a)):
            chosen += of_adapter(queued, adapter, self._seats - len(chosen))
        taken = set(chosen)
        chosen += [each for each in first if each not in taken][: self._seats - len(chosen)]
        is_of_merged = all(request.adapter == self._merged for request in chosen)
        return Batch(tuple(chosen), self._merged if is_of_merged else None)

    def _by_count(
        self,
        queued: Sequence[Queued],
        first: tuple[Queued, ...],
        counts: Mapping[Digest | None, int],
        best: Digest | None,
    ) -> Batch:
        merged = self._merged
        if merged is not None and counts.get(merged, 0) >= self._to_stay * len(first):
            return Batch(of_adapter(queued, merged, self._seats), merged)
        if best is not None and counts[best] >= self._to_merge * len(first):
            return Batch(of_adapter(queued, best, self._seats), best)
        return Batch(first)

    def _pay(self, ran: Sequence[Queued], first: Sequence[Queued], price: float) -> None:
        """Those of `first` that did not run are paid: by who ran in their places, or by all who ran
        where fewer did, half the price then."""
        places, chosen = set(first), set(ran)
        ahead = [request.adapter for request in ran if request not in places]
        behind = [request.adapter for request in first if request not in chosen]
        if len(ran) != len(first):
            price /= 2
            ahead = [ran[0].adapter] * len(behind)
        for payer, paid in zip(ahead, behind, strict=True):
            self._credit[payer] -= price
            self._credit[paid] += price

    def _tune(self) -> None:
        """The side that gave less in the period now ends is entered later, or kept less long."""
        period, rates = self._period, self._rates
        if not period.steps:
            return
        merged_ms, unmerged_ms = rates.merged * period.steps, rates.unmerged * period.steps
        if self._merged is not None:
            merged_ms += rates.switch
        else:
            unmerged_ms += rates.switch
            merged_ms += rates.switch * period.switches
        was_right = period.merged / merged_ms > period.unmerged / unmerged_ms
        if self._merged is None:
            was_right = period.merged / merged_ms < period.unmerged / unmerged_ms
            if not was_right:
                self._to_stay /= 1.1
            elif self._to_stay + 0.05 < self._to_merge:
                self._to_stay += 0.05
        elif not was_right:
            self._to_merge *= 1.1
        elif self._to_merge - 0.05 > self._to_stay:
            self._to_merge -= 0.05
