"""Which worker gets a request: the one where it costs least, in milliseconds, its own and those of
others alike."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.core.reports import AdapterPlace
from services.core.types import WorkerId
from services.policies.placement.views import UNKNOWN_FETCH_MS, Wish, WorkerView

DISTINCT_SHARE = 0.0003
"""Of a step, by which it is longer for each rank of an adapter that nobody else there uses: sixteen
of rank 16 make a step of an 8B model 8% longer, for their weights are read."""
GAP_SHARE = 0.0002
"""Of a step, by which it is longer for each rank that the highest is above the others: kernels
are as slow as their longest rows."""
LOAD_SHADOW = 2.0
"""Of a load that is begun, what it costs those who come later: the link is taken, and one worker
more attracts the adapter and keeps another out. In `bench.placement` it takes a third of the loads
away, and whole requests take no longer."""
MOST_URGENT = 4.0
FETCH_BASE_MS, FETCH_BYTES_A_MS = 20.0, 200e3
"""Of an adapter that a worker has to fetch: what any fetch takes, and a store's bytes."""
COPY_BASE_MS = 1.0
"""Of any copy to a device."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a request on a worker, in milliseconds. `excluded`: why it cannot run there; empty if it
    can."""

    worker: WorkerId
    home: bool
    place: AdapterPlace | None
    load_ms: float
    queue_ms: float
    slowdown_ms: float
    excluded: str = ""

    @property
    def total_ms(self) -> float:
        return self.load_ms + self.queue_ms + self.slowdown_ms


def place(wish: Wish, fleet: Iterable[WorkerView]) -> WorkerId | None:
    """The cheapest worker that can run the wish at all; ties go to the one with most free pages,
    then to the lowest id. Affinity yields to load: a queue costs more than most loads."""
    return cheapest(wish, (view for view in fleet if not obstacle(view, wish)))


def cheapest(wish: Wish, able: Iterable[WorkerView]) -> WorkerId | None:
    best = min(((total_ms(view, wish), -view.free_pages, view.id) for view in able), default=None)
    return best[-1] if best else None


def explain(wish: Wish, fleet: Iterable[WorkerView]) -> list[Cost]:
    """Every worker: the best first, then those that cannot run it."""
    views = {view.id: view for view in fleet}
    paces = [view.step_times.of(1, 0) for view in views.values() if not obstacle(view, wish)]
    wish = replace(wish, pace_ms=min(paces, default=0.0))
    return sorted(
        (_explained(view, wish) for view in views.values()),
        key=lambda cost: (
            cost.excluded != "", cost.total_ms, -views[cost.worker].free_pages, cost.worker
        ),
    )  # fmt: skip


def obstacle(view: WorkerView, wish: Wish) -> str:
    """Why it cannot run there; empty if it can."""
    if view.draining:
        return "takes nothing new"
    if view.id in wish.excluded:
        return "has failed it"
    if view.base_model != wish.base_model:
        return f"serves {view.base_model}"
    if wish.base_fingerprint not in {None, view.base_fingerprint}:
        return "serves another version of the base model"
    if wish.needs_room and not view.has_room(wish.prompt_tokens + wish.output_tokens):
        return "has no room"
    return ""


def urgency(owed: float, bound: float) -> float:
    """Of a tenant whose service is so much below that of others; from `bound` (of how far they may
    come apart) on it grows no further than to MOST_URGENT. Who is owed nothing counts as others."""
    if bound <= 0:
        raise ValueError("the bound of what may be owed must be above 0")
    return 1.0 + (MOST_URGENT - 1.0) * min(1.0, max(0.0, owed / bound))


def fetch_ms(size_bytes: int) -> float:
    """0: of one whose size is not known."""
    return FETCH_BASE_MS + size_bytes / FETCH_BYTES_A_MS if size_bytes else UNKNOWN_FETCH_MS


def total_ms(view: WorkerView, wish: Wish) -> float:
    load = load_ms(view, wish)
    return load + _queue_ms(view, wish, load) + _slowdown_ms(view, wish, load)


def load_ms(view: WorkerView, wish: Wish) -> float:
    """Until the adapter is on the device."""
    adapter = wish.adapter
    if adapter is None or adapter in view.resident:
        return 0.0
    if adapter in view.loading:
        return view.loading[adapter]
    return _copy_ms(view, wish) if adapter in view.host else _fetch_ms(view, wish)


def _fetch_ms(view: WorkerView, wish: Wish) -> float:
    times = view.load_times.fetch
    return wish.fetch_ms if times is None else times.of(wish.adapter_bytes)


def _copy_ms(view: WorkerView, wish: Wish) -> float:
    times = view.load_times.copy
    return wish.copy_ms if times is None else times.of(wish.adapter_bytes)


def _queue_ms(view: WorkerView, wish: Wish, load: float) -> float:
    """Until its prompt has run, after the load: what waits there goes on meanwhile."""
    times = view.step_times
    ahead = times.token * view.queued_tokens
    is_full = view.most_sequences and view.running >= view.most_sequences
    if view.waiting or is_full:
        life = wish.output_tokens * times.of(view.running, 0)
        ahead += (view.waiting + 1) * life / max(view.most_sequences, view.running, 1)
    return max(0.0, ahead - load) + times.of(0, wish.prompt_tokens)


def _slowdown_ms(view: WorkerView, wish: Wish, load: float) -> float:
    """By which its own tokens take longer than elsewhere, and by which it makes those of others
    later: their steps, and what they have to load again if it takes their room."""
    times, ranks = view.step_times, view.ranks
    highest = max(ranks.values(), default=0)
    shared = wish.adapter is None or wish.adapter in ranks
    brings = 0.0 if shared else DISTINCT_SHARE * wish.rank
    raises = GAP_SHARE * max(0, wish.rank - highest) if ranks else 0.0
    found = DISTINCT_SHARE * sum(ranks.values()) + GAP_SHARE * max(0, highest - wish.rank)
    own = times.of(view.running + 1, 0) + times.base * (brings + found) - wish.pace_ms
    others = view.running * (
        times.token * wish.prompt_tokens
        + wish.output_tokens * (times.sequence + times.base * (brings + raises))
    )
    return wish.output_tokens * own + (others + _later_ms(view, wish, load)) / wish.urgency


def _later_ms(view: WorkerView, wish: Wish, load: float) -> float:
    """Of those who come later. At home the adapter takes no room that is another's. Where it takes
    the last place, about one comes before another is free, and has to load elsewhere."""
    turned_away = 0.0
    if view.most_sequences and view.running + 1 >= view.most_sequences:
        turned_away = (1.0 + LOAD_SHADOW) * _fetch_ms(view, wish)
    if load == 0.0 or wish.adapter in view.loading:
        return turned_away
    displaced = 0.0 if view.id in wish.homes else view.evicts_ms
    return LOAD_SHADOW * load + displaced + turned_away


def _explained(view: WorkerView, wish: Wish) -> Cost:
    load = load_ms(view, wish)
    return Cost(
        worker=view.id,
        home=view.id in wish.homes,
        place=view.place_of(wish.adapter),
        load_ms=load,
        queue_ms=_queue_ms(view, wish, load),
        slowdown_ms=_slowdown_ms(view, wish, load),
        excluded=obstacle(view, wish),
    )
