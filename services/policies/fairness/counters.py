"""Virtual counters of those who share something: who waits, and who of them had the least."""

from collections.abc import Callable, Iterator, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count

_Entry = tuple[float, int, str]  # counter, order in which they came to wait, key


class Counters:
    """One level of VTC (OSDI'24, algorithm 2). All but `waiting` and `gap` in O(log n) of those
    who wait, however many are idle.

    The heap may hold a lower counter than the true one, which has grown since; it is corrected
    when it comes to the top. What was refunded is pushed anew, and the old entry found out.
    """

    def __init__(self, *, lifts: bool = True, forget: Callable[[str], None]) -> None:
        """`lifts`: whether who comes back is raised to those who wait (LCF has none). `forget` is
        told who is idle and had so little that it is known no more."""
        self._lifts = lifts
        self._forget = forget
        self._counters: dict[str, float] = {}
        self._waiting: dict[str, int] = {}  # the order of the entry that counts
        self._total = 0.0  # of the counters of those who wait
        self._running: dict[str, int] = {}  # requests
        self._heap: list[_Entry] = []
        self._idle: list[tuple[float, str]] = []  # who may be forgotten at which counter
        self._last = ""  # who came to wait no more most lately
        self._forgotten = 0.0  # the highest counter of those
        self._orders = count()
        self._is_shared = False
        self._charged: dict[str, float] = {}  # since the account was last taken
        self._raised: dict[str, float] = {}  # counters, less what had been charged
        self._floor_elsewhere: float | None = None

    @property
    def waiting(self) -> dict[str, float]:
        """The counters of those who wait."""
        return {key: self._counters[key] for key in self._waiting}

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    @property
    def known(self) -> Iterator[str]:
        return iter(self._counters)

    @property
    def gap(self) -> float:
        """The difference of the highest and the lowest of those who wait: at most U."""
        return max(self.waiting.values(), default=0.0) - min(self.waiting.values(), default=0.0)

    @property
    def own_floor(self) -> float | None:
        """The lowest counter of those who wait; None if nobody does."""
        top = self._top()
        return None if top is None else top[0]

    def of(self, key: str) -> float:
        return self._counters[key]

    def owed(self, key: str) -> float:
        """By how much it would have less than those who wait have on average, if it waited too."""
        if not self._waiting or key not in self._counters:
            return 0.0
        least = max(self._counters[key], self._floor()) if self._lifts else self._counters[key]
        return max(0.0, self._total / len(self._waiting) - least)

    @property
    def active(self) -> frozenset[str]:
        """Who waits or runs."""
        return frozenset(self._waiting.keys() | self._running.keys())

    def is_within(self, band: float, key: str) -> bool:
        """Above the lowest of those who wait."""
        return self._counters[key] <= self._floor() + band

    def is_waiting(self, key: str) -> bool:
        return key in self._waiting

    def join(self, key: str) -> None:
        """It waits from now on, and has as much behind it as the one who is next.

        If nobody waits, as much as the one who left last: else who was alone for an hour would
        stand behind whoever comes now, or before.
        """
        counter = self._counters.get(key, self._forgotten)
        if self._lifts:
            counter = max(counter, self._floor())
        self._counters[key] = counter
        if self._is_shared:
            self._raised[key] = counter - self._charged.get(key, 0.0)
        self._waiting[key] = next(self._orders)
        self._total += counter
        heappush(self._heap, (counter, self._waiting[key], key))

    def leave(self, key: str) -> None:
        """Nothing of it waits any more."""
        del self._waiting[key]
        self._total = self._total - self._counters[key] if self._waiting else 0.0
        self._last = key
        self._rest(key)

    def started(self, key: str) -> None:
        self._running[key] = self._running.get(key, 0) + 1

    def ended(self, key: str) -> None:
        self._running[key] -= 1
        if not self._running[key]:
            del self._running[key]
            self._rest(key)

    def charge(self, key: str, amount: float) -> None:
        """Below 0: a refund."""
        if self._is_shared:
            self._charged[key] = self._charged.get(key, 0.0) + amount
        self._become(key, self._counters[key] + amount)

    def share(self) -> None:
        """From now on an account is kept, for somebody who takes it."""
        self._is_shared = True

    def take_account(self, *, whole: bool) -> tuple[dict[str, float], dict[str, float]]:
        """What counters were raised to, less what was charged, and what was charged: since this
        was last taken; the first of all that are known if it is to be the `whole`."""
        bases, charged = self._raised, self._charged
        if whole:
            bases = {key: c - charged.get(key, 0.0) for key, c in self._counters.items()}
        self._raised, self._charged = {}, {}
        return bases, charged

    def learn(self, counters: Mapping[str, float], floor: float | None) -> None:
        """What counters were when the account was last taken, with what was charged elsewhere, and
        the lowest of those who wait elsewhere, if anybody does: nobody is raised above it."""
        self._floor_elsewhere = floor
        for key, counter in counters.items():
            now = max(counter, self._raised.get(key, counter)) + self._charged.get(key, 0.0)
            if now != self._counters.get(key):
                self._become(key, now)
                self._rest(key)

    def lowest(self, most: int = 1, band: float = 0.0) -> list[str]:
        """At most so many of those who wait within the band above the lowest, the lowest first."""
        found: list[_Entry] = []
        while len(found) < most and (entry := self._top()) is not None:
            if found and entry[0] > found[0][0] + band:
                break
            heappop(self._heap)
            if not found or entry != found[-1]:  # it was refunded and charged the same again
                found.append(entry)
        for entry in found:
            heappush(self._heap, entry)
        if found:
            self._forget_below(self._floor())
        return [key for _, _, key in found]

    def _top(self) -> _Entry | None:
        """The lowest entry that is true."""
        if len(self._heap) > 64 + 4 * len(self._waiting):
            self._heap = [(self._counters[k], order, k) for k, order in self._waiting.items()]
            heapify(self._heap)
        while self._heap:
            counter, order, key = self._heap[0]
            if self._waiting.get(key) != order or counter > self._counters[key]:
                heappop(self._heap)
            elif counter < self._counters[key]:
                heapreplace(self._heap, (self._counters[key], order, key))
            else:
                return self._heap[0]
        return None

    def _become(self, key: str, counter: float) -> None:
        before, self._counters[key] = self._counters.get(key, counter), counter
        if key in self._waiting:
            self._total += counter - before
        if counter < before and key in self._waiting:
            heappush(self._heap, (counter, self._waiting[key], key))

    def _floor(self) -> float:
        top = self._top()
        if self._floor_elsewhere is None:
            return self._counters.get(self._last, 0.0) if top is None else top[0]
        return self._floor_elsewhere if top is None else min(top[0], self._floor_elsewhere)

    def _rest(self, key: str) -> None:
        if key not in self._waiting and key not in self._running:
            heappush(self._idle, (self._counters[key], key))

    def _forget_below(self, lowest: float) -> None:
        """Those who would be raised to as much if they came back."""
        if not self._lifts:
            return
        while self._idle and self._idle[0][0] <= lowest:
            counter, key = heappop(self._idle)
            if key in self._waiting or key in self._running or counter != self._counters.get(key):
                continue  # it is not idle, or rests again with another counter
            del self._counters[key]
            self._forgotten = max(self._forgotten, counter)
            self._forget(key)
