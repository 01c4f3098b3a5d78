"""Virtual token counters (VTC, OSDI'24): who had the least is next.

Also weighted (4.3), with predicted lengths (4.4), in a hierarchy, so that nobody gains by splitting
into tenants, keys or adapters, and with a band: within it requests come first whose adapter is
resident, and the counters of those who wait stay within U plus the band.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from services.core.types import AdapterWait, Digest, RequestId
from services.policies.fairness.admission import Request
from services.policies.fairness.band import AdaptiveBand
from services.policies.fairness.bounds import Bound, Room, promised
from services.policies.fairness.clearing import Branch
from services.policies.fairness.cost import Cost, WeightedTokens
from services.policies.fairness.counters import Counters
from services.policies.fairness.heads import Heads, Path
from services.policies.fairness.lengths import Lengths
from services.policies.fairness.levels import Levels, by_tenant

FAR = 1, 8  # of those within the band, the lowest first: one, and only if it cannot run more


@dataclass(frozen=True, slots=True)
class Rules:
    """Knobs."""

    cost: Cost = field(default_factory=WeightedTokens)
    levels: Callable[[Request], Levels] = by_tenant
    lifts: bool = True
    lengths: Lengths | None = None
    band: float | AdaptiveBand = 0.0


@dataclass(slots=True)
class _Running:
    request: Request
    path: Path
    weights: tuple[float, ...]  # on each level of the path
    charged: float = 0.0
    predicted: float = 0.0  # tokens of output that were charged when it started
    produced: int = 0


class VirtualTokenCounters:
    """An AdmissionPolicy."""

    def __init__(self, rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._is_banded = self._rules.band != 0
        self._levels: dict[Path, Counters] = {}  # by what their members have in common
        self._highest = self._level(())
        self._queues: dict[Path, dict[RequestId, Request]] = {}
        self._paths: dict[RequestId, Path] = {}  # of those who wait
        self._running: dict[RequestId, _Running] = {}
        self._heads = Heads(lambda path: self._highest.of(path[0]))

    @property
    def counters(self) -> dict[str, float]:
        """Of those who wait, on the highest level."""
        return self._highest.waiting

    @property
    def gap(self) -> float:
        """Between them: at most U, and the band where it was widest."""
        return self._highest.gap

    @property
    def band(self) -> float:
        """As wide as it is now."""
        band = self._rules.band
        return band.width if isinstance(band, AdaptiveBand) else band

    @property
    def levels(self) -> Callable[[Request], Levels]:
        return self._rules.levels

    @property
    def num_known(self) -> int:
        """On the highest level: those who wait, run, or had more than those who wait."""
        return sum(1 for _ in self._highest.known)

    def bound(self, room: Room) -> Bound | None:
        """What these rules promise; None without lifts, which promise nothing."""
        if not self._rules.lifts:
            return None
        band = self._rules.band
        return promised(
            self._rules.cost, room, band=band.most if isinstance(band, AdaptiveBand) else band
        )

    def branch(self, gateway: str) -> Branch:
        """Makes the counters of the highest level one account with those of other gateways."""
        return Branch(gateway, self._highest)

    def enqueue(self, request: Request, now: float) -> None:
        path = tuple(key for key, _ in self._rules.levels(request))
        queue = self._queues.setdefault(path, {})
        queue[request.id] = request
        self._paths[request.id] = path
        for level, key in self._steps(path):
            if not level.is_waiting(key):
                level.join(key)
        if self._is_banded and len(queue) == 1:
            self._heads.add(request, path)

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        """Without a band the first request of the lowest, and no other: who does not fit is not
        overtaken. With one, those within it that need no load, then some of the others."""
        if not self._paths:
            return
        if not (band := self.band):
            yield from self._lowest((), 0.0, most=1)
            return
        seen = set()
        for request, path in self._heads.lowest(resident):
            if not self._highest.is_within(band, path[0]):
                break  # nor is anyone who had more
            if all(level.is_within(band, key) for level, key in self._steps(path)):
                seen.add(request.id)
                yield request
        for most in FAR:
            fresh = [head for head in self._lowest((), band, most=most) if head.id not in seen]
            seen |= {head.id for head in fresh}
            yield from fresh

    def admit(self, request: RequestId, now: float) -> None:
        """Its input is charged, and the output that is expected."""
        path = self._paths[request]
        admitted = self._queues[path][request]
        weights = tuple(weight for _, weight in self._rules.levels(admitted))
        running = _Running(admitted, path, weights)
        if self._rules.lengths is not None:
            running.predicted = self._rules.lengths.predict(running.request)
        self._running[request] = running
        for level, key in self._steps(path):
            level.started(key)
        self._charge(running, max(running.predicted, 0))
        self._leave(request)

    def awaited(self, wait: AdapterWait, now: float) -> None:
        """Tells a band that adapts what loads cost."""
        if isinstance(band := self._rules.band, AdaptiveBand):
            band.admitted(now, waited=wait.seconds, batch=wait.sequences, slots=wait.slots)

    def owed(self, request: RequestId) -> float:
        running = self._running.get(request)
        path = self._paths.get(request) or (running.path if running else None)
        return 0.0 if path is None else self._highest.owed(path[0])

    def produced(self, request: RequestId, tokens: int = 1) -> None:
        running = self._running[request]
        running.produced += tokens
        if running.produced > running.predicted:
            self._charge(running, running.produced)

    def end(self, request: RequestId) -> None:
        """What was expected and did not come is given back."""
        if request in self._paths:
            self._leave(request)
        running = self._running.pop(request, None)
        if running is None:
            return
        if running.predicted > running.produced:
            self._charge(running, running.produced)
        if self._rules.lengths is not None:
            self._rules.lengths.learn(running.request, running.produced)
        if isinstance(self._rules.band, AdaptiveBand):
            self._rules.band.charged(running.charged)
        for level, key in self._steps(running.path):
            level.ended(key)

    def _lowest(self, common: Path, band: float, *, most: int) -> Iterator[Request]:
        """The first request of each queue within the band on every level."""
        if common in self._queues:
            yield next(iter(self._queues[common].values()))
            return
        for key in self._level(common).lowest(most, band):
            yield from self._lowest((*common, key), band, most=most)

    def _charge(self, running: _Running, output_tokens: float) -> None:
        """So that it has paid for so much output; what was charged telescopes."""
        due = self._rules.cost(running.request.prompt_tokens, output_tokens) - running.charged
        running.charged += due
        for (level, key), weight in zip(self._steps(running.path), running.weights, strict=True):
            level.charge(key, due / weight)

    def _leave(self, request: RequestId) -> None:
        path = self._paths.pop(request)
        queue = self._queues[path]
        was_first = next(iter(queue)) == request
        del queue[request]
        if self._is_banded and was_first:
            self._heads.remove(request)
            if queue:
                self._heads.add(next(iter(queue.values())), path)
        if queue:
            return
        del self._queues[path]
        for level, key in reversed(list(self._steps(path))):
            level.leave(key)
            if not level.is_empty:
                return

    def _steps(self, path: Path) -> Iterator[tuple[Counters, str]]:
        """Each level of the path, the highest first, and who it is about there."""
        return ((self._level(path[:depth]), path[depth]) for depth in range(len(path)))

    def _level(self, common: Path) -> Counters:
        if common not in self._levels:
            self._levels[common] = Counters(
                lifts=self._rules.lifts, forget=lambda key: self._forget((*common, key))
            )
        return self._levels[common]

    def _forget(self, path: Path) -> None:
        level = self._levels.pop(path, None)
        for key in () if level is None else level.known:
            self._forget((*path, key))
