"""Which workers something may move from: the others need not say what runs there."""

from collections.abc import Iterable
from heapq import nlargest

from services.core.types import Fingerprint, WorkerId
from services.policies.migration.crowding import left_by_some
from services.policies.migration.greedy import MEMORY_SHORT
from services.policies.migration.loads import WorkerLoad
from services.policies.migration.place import Place

MOST = 128
"""Workers of a base model that a round for balance takes from: twice as many as it moves."""


def sources(loads: Iterable[WorkerLoad], most: int = MOST) -> set[WorkerId]:
    """Of workers whose sequences are all `others`: those that drain or are short of memory, and
    the busiest of those that have more than run at once, or are crowded."""
    chosen: set[WorkerId] = set()
    busy: dict[Fingerprint, list[tuple[float, WorkerId]]] = {}
    places = [Place.of(load) for load in loads]
    left = left_by_some(places)
    for place in places:
        if place.count and (place.load.draining or _is_short(place.load)):
            chosen.add(place.load.id)
        elif place.load.id in left:
            busy.setdefault(place.load.base, []).append((place.work_ms, place.load.id))
    for of_base in busy.values():
        chosen.update(worker for _, worker in nlargest(most, of_base))
    return chosen


def _is_short(load: WorkerLoad) -> bool:
    has_little = load.free_tokens < MEMORY_SHORT * load.total_tokens
    return has_little and load.others.running.tokens_left > load.free_tokens
