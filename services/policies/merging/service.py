"""What clients were given, as VTC counts it (OSDI'24, algorithm 2), of those who are here."""

from collections.abc import Collection, Mapping

MOST_REMEMBERED = 1024  # clients that are not here


class Service:
    """Who comes to wait is raised to who waits already; if nobody does, to who did last."""

    def __init__(self) -> None:
        self._given: dict[str, float] = {}
        self._waiting: frozenset[str] = frozenset()
        self._left = 0.0  # what the last who waited had then

    @property
    def known(self) -> int:
        """Clients."""
        return len(self._given)

    @property
    def waiting(self) -> Mapping[str, float]:
        return {client: self._given[client] for client in self._waiting}

    @property
    def gap(self) -> float:
        """Of those who wait."""
        given = self.waiting.values()
        return max(given, default=0.0) - min(given, default=0.0)

    def meet(self, waiting: frozenset[str], here: Collection[str]) -> None:
        """Who waits now, and who has requests at all. Others are forgotten when they have no more
        than they would be raised to."""
        stay = self._waiting & waiting
        if gone := self._waiting - waiting:
            self._left = max(self._given[client] for client in gone)
        floor = min((self._given[client] for client in stay), default=self._left)
        for client in waiting - self._waiting:
            self._given[client] = max(floor, self._given.get(client, 0.0))
        self._waiting = waiting
        if len(self._given) > len(here):
            away = sorted(self._given.keys() - set(here), key=self._given.__getitem__)
            for number, client in enumerate(away):
                if self._given[client] > floor and len(away) - number <= MOST_REMEMBERED:
                    break
                del self._given[client]

    def charge(self, client: str, amount: float) -> None:
        self._given[client] = self._given.get(client, self._left) + amount
