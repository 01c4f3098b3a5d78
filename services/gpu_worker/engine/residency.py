"""Which adapters are on the device: their pages, pins, and what each is worth keeping."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from services.core.types import Digest

HALF_LIFE_STEPS = 512
LATENCY_PAGES = 8.0  # a load costs this many pages' worth of time before its first page


@dataclass(slots=True)
class _Resident:
    pages: list[int]
    pins: int = 0
    uses: float = 0.0  # halves every HALF_LIFE_STEPS
    used_at: int = 0


class Residency:
    """A pinned adapter never leaves. `step` counts the engine's steps."""

    def __init__(self) -> None:
        self._residents: dict[Digest, _Resident] = {}
        self.step = 0

    @property
    def resident(self) -> tuple[Digest, ...]:
        return tuple(self._residents)

    @property
    def pins(self) -> int:
        return sum(resident.pins for resident in self._residents.values())

    @property
    def idle_pages(self) -> int:
        return sum(len(r.pages) for r in self._residents.values() if r.pins == 0)

    def holds(self, adapter: Digest) -> bool:
        return adapter in self._residents

    def is_idle(self, adapter: Digest) -> bool:
        return self._residents[adapter].pins == 0

    def pages_of(self, adapter: Digest) -> int:
        return len(self._residents[adapter].pages)

    def used_at(self, adapter: Digest) -> int:
        """The step at which it was last loaded, pinned or unpinned."""
        return self._residents[adapter].used_at

    def pin(self, adapter: Digest) -> None:
        resident = self._residents[adapter]
        resident.uses = self._reuse(resident) + 1
        resident.used_at = self.step
        resident.pins += 1

    def unpin(self, adapter: Digest) -> None:
        resident = self._residents[adapter]
        if resident.pins == 0:
            raise ValueError("an adapter was unpinned that nobody pinned")
        resident.uses = self._reuse(resident)
        resident.used_at = self.step
        resident.pins -= 1

    def add(self, adapter: Digest, pages: list[int]) -> None:
        """As if it were used now, so that what was just loaded is not what leaves next."""
        self._residents[adapter] = _Resident(pages, uses=1.0, used_at=self.step)

    def drop(self, adapter: Digest) -> list[int]:
        """Its pages, which the caller releases."""
        if self._residents[adapter].pins:
            raise ValueError("a pinned adapter was dropped")
        return self._residents.pop(adapter).pages

    def by_worth(self) -> Iterator[Digest]:
        """Idle adapters, the one to lose first. Worth is reload cost x reuse rate / bytes."""
        idle = [(self._worth(r), name) for name, r in self._residents.items() if r.pins == 0]
        return (name for _, name in sorted(idle))

    def _worth(self, resident: _Resident) -> float:
        size = len(resident.pages)
        return (LATENCY_PAGES + size) * self._reuse(resident) / size

    def _reuse(self, resident: _Resident) -> float:
        age = (self.step - resident.used_at) / HALF_LIFE_STEPS
        return resident.uses * math.pow(0.5, age)
