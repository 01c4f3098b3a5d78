"""Which worker gets a request that is bound when it comes: dLoRA's dispatch (OSDI'24) and what it
is compared with. Ties go to whoever has fewer requests, then to the first."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.core.types import Digest

BATCH = 16
MERGED_COST = 0.6  # of a batch of one adapter, where one of many costs 1


@dataclass(frozen=True, slots=True)
class Host:
    """A worker: its requests by adapter, those that have any, and what is resident."""

    requests: Mapping[Digest, int]
    resident: Collection[Digest]
    slots: int


@dataclass(frozen=True, slots=True)
class Dispatched:
    host: int
    instead_of: Digest | None = None  # who leaves for the adapter, where it is not resident


class Dispatch(Protocol):
    def dispatch(self, adapter: Digest, hosts: Sequence[Host]) -> Dispatched: ...


class RandomHost:
    """Any of those that have the adapter; `draw`: a number from 0 to below its argument."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        self._draw = draw

    def dispatch(self, adapter: Digest, hosts: Sequence[Host]) -> Dispatched:
        able = _hosting(adapter, hosts)
        return Dispatched(able[self._draw(len(able))]) if able else _brought(adapter, hosts)


class MinCost:
    """The cheapest of those that have the adapter."""

    def dispatch(self, adapter: Digest, hosts: Sequence[Host]) -> Dispatched:
        able = _hosting(adapter, hosts)
        if not able:
            return _brought(adapter, hosts)
        return Dispatched(min(able, key=lambda number: _rank(hosts[number])))


class ProactiveMinCost:
    """Also those that could have it instead of one that has no requests there and a host elsewhere,
    at the price of its load. `load_cost`: in batches."""

    def __init__(self, load_cost: float = 0.01) -> None:
        self._load_cost = load_cost

    def dispatch(self, adapter: Digest, hosts: Sequence[Host]) -> Dispatched:
        able = _hosting(adapter, hosts)
        best = min(able, key=lambda number: _rank(hosts[number]), default=None)
        others = [n for n in range(len(hosts)) if n not in able and _spare(n, hosts)[0]]
        if others:
            other = min(others, key=lambda number: _rank(hosts[number]))
            cost, count = _rank(hosts[other])
            if best is None or (cost + self._load_cost, count) < _rank(hosts[best]):
                return Dispatched(other, _spare(other, hosts)[1])
        return _brought(adapter, hosts) if best is None else Dispatched(best)


def cost(requests: Mapping[Digest, int]) -> float:
    """Of a worker's requests, in batches of many adapters."""
    alone = sum(count // BATCH for count in requests.values())
    together = sum(count % BATCH for count in requests.values())
    return alone * MERGED_COST + together // BATCH


def _rank(host: Host) -> tuple[float, int]:
    return cost(host.requests), sum(host.requests.values())


def _hosting(adapter: Digest, hosts: Sequence[Host]) -> list[int]:
    return [number for number, host in enumerate(hosts) if adapter in host.resident]


def _spare(number: int, hosts: Sequence[Host]) -> tuple[bool, Digest | None]:
    """Whether the worker has a slot to give, and who leaves for it."""
    host = hosts[number]
    if len(host.resident) < host.slots:
        return True, None
    twice = (adapter for adapter in _idle(host) if len(_hosting(adapter, hosts)) > 1)
    leaves = next(twice, None)
    return leaves is not None, leaves


def _brought(adapter: Digest, hosts: Sequence[Host]) -> Dispatched:
    """Of an adapter that is nowhere: to the cheapest worker with a slot or with an adapter that
    nobody there uses, which leaves; if there is none, to the cheapest, to wait for one."""
    able = [n for n, host in enumerate(hosts) if len(host.resident) < host.slots or _idle(host)]
    best = min(able or range(len(hosts)), key=lambda number: _rank(hosts[number]))
    full = len(hosts[best].resident) >= hosts[best].slots
    return Dispatched(best, next(iter(_idle(hosts[best])), None) if full else None)


def _idle(host: Host) -> list[Digest]:
    return sorted(adapter for adapter in host.resident if not host.requests.get(adapter))
