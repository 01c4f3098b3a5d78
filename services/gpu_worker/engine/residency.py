"""Which adapters are on the device: a byte budget, pins, and who leaves first."""

from collections import OrderedDict
from dataclasses import dataclass

from services.core.errors import ResourceExhausted
from services.core.types import Digest


@dataclass(slots=True)
class _Resident:
    size_bytes: int
    pins: int = 0


class Residency:
    """Least recently used first; a pinned adapter never leaves."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._residents: OrderedDict[Digest, _Resident] = OrderedDict()

    @property
    def resident(self) -> tuple[Digest, ...]:
        return tuple(self._residents)

    @property
    def used_bytes(self) -> int:
        return sum(resident.size_bytes for resident in self._residents.values())

    @property
    def pins(self) -> int:
        return sum(resident.pins for resident in self._residents.values())

    def holds(self, adapter: Digest) -> bool:
        return adapter in self._residents

    def pin(self, adapter: Digest) -> None:
        self._residents[adapter].pins += 1
        self._residents.move_to_end(adapter)

    def unpin(self, adapter: Digest) -> None:
        resident = self._residents[adapter]
        if resident.pins == 0:
            raise ValueError("an adapter was unpinned that nobody pinned")
        resident.pins -= 1

    def victims(self, size_bytes: int) -> tuple[Digest, ...] | None:
        """Who must leave so that this many bytes fit; None if the pinned leave no room.

        Raises ResourceExhausted if it could not fit even alone.
        """
        if size_bytes > self._budget:
            raise ResourceExhausted(
                f"the adapter needs {size_bytes} bytes, there are {self._budget} for all adapters"
            )
        excess = self.used_bytes + size_bytes - self._budget
        victims: list[Digest] = []
        for adapter, resident in self._residents.items():
            if excess <= 0:
                break
            if resident.pins == 0:
                victims.append(adapter)
                excess -= resident.size_bytes
        return tuple(victims) if excess <= 0 else None

    def add(self, adapter: Digest, size_bytes: int) -> None:
        self._residents[adapter] = _Resident(size_bytes)

    def drop(self, adapter: Digest) -> None:
        if self._residents[adapter].pins:
            raise ValueError("a pinned adapter was dropped")
        del self._residents[adapter]
