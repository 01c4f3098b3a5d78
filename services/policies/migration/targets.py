"""Where a sequence could go, found without a look at every worker."""

from collections.abc import Iterator, Mapping

from services.core.reports import SequenceLoad
from services.core.types import Fingerprint, WorkerId
from services.policies.migration.place import Place
from services.policies.placement.ranking import Ranking


class Targets:
    """Who may take something, by base model, the least busy first. Nobody's room grows in a round:
    who has none left is forgotten."""

    def __init__(self, places: Mapping[WorkerId, Place]) -> None:
        self._places = places
        self._numbers = {worker: number for number, worker in enumerate(places)}
        self._open: dict[Fingerprint, Ranking] = {}
        self._most_tokens: dict[tuple[Fingerprint, bool], float] = {}  # of what may come, or wait
        for place in places.values():
            self.changed(place)
        takers = [place for place in places.values() if place.may_take]
        self._token_ms = min((place.token_ms for place in takers), default=0.0)
        self._prompt_ms = min((place.load.step_times.token for place in takers), default=0.0)

    def changed(self, place: Place) -> None:
        """It has more or less to do, or less room."""
        ranking = self._open.setdefault(place.load.base, Ranking())
        if place.may_take:
            ranking.put(place.load.id, place.work_ms)
        else:
            ranking.drop(place.load.id)

    def able(self, source: Place, sequence: SequenceLoad) -> list[Place]:
        """In the order of the fleet."""
        found = [place for place in self._near(source) if place.has_room(sequence)]
        return sorted(found, key=lambda place: self._numbers[place.load.id])

    def best(self, source: Place, sequence: SequenceLoad) -> Place | None:
        """Where it starts at once rather than where it waits, then who has least to do with it,
        then who is first in the fleet."""
        kind = source.load.base, sequence.waiting
        length = sequence.tokens + sequence.tokens_left
        if length > self._most_tokens.get(kind, float("inf")):
            return None
        least = sequence.tokens_left * self._token_ms
        least += sequence.tokens * self._prompt_ms if sequence.waiting else 0.0
        best: tuple[bool, float, int] | None = None
        chosen: Place | None = None
        for place in self._near(source):
            if best is not None and not best[0] and place.work_ms + least > best[1]:
                break  # nor would any that has more to do be better
            if place.has_room(sequence):
                waits, number = not place.starts(sequence), self._numbers[place.load.id]
                key = waits, place.work_ms_with(sequence), number
                if best is None or key < best:
                    best, chosen = key, place
        if chosen is None:
            able = map(self._places.__getitem__, self._open[source.load.base])
            longest = (place.longest(waiting=sequence.waiting) for place in able)
            self._most_tokens[kind] = max(longest, default=-1)
        return chosen

    def _near(self, source: Place) -> Iterator[Place]:
        """Others of its base model."""
        places = (self._places[worker] for worker in self._open[source.load.base])
        return (place for place in places if place is not source)
