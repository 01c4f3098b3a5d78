"""Which adapters are on the device: their pages, pins, and what each is worth keeping."""

import math
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
        self.pages = 0  # of all
        self.idle_pages = 0  # of adapters that nobody pins
        self.step = 0
        self.kept: set[Digest] = set()  # for the operator, whoever needs them
        self.kept_pages = 0

    @property
    def resident(self) -> tuple[Digest, ...]:
        return tuple(self._residents)

    @property
    def pins(self) -> int:
        return sum(resident.pins for resident in self._residents.values())

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
        self.idle_pages -= len(resident.pages) if resident.pins == 0 else 0
        resident.pins += 1

    def unpin(self, adapter: Digest) -> None:
        resident = self._residents[adapter]
        if resident.pins == 0:
            raise ValueError("an adapter was unpinned that nobody pinned")
        resident.uses = self._reuse(resident)
        resident.used_at = self.step
        resident.pins -= 1
        self.idle_pages += len(resident.pages) if resident.pins == 0 else 0

    def kept_beside(self, adapter: Digest | None) -> int:
        """Pages of others that never leave."""
        own = self.pages_of(adapter) if adapter is not None and adapter in self.kept else 0
        return self.kept_pages - own

    def keep(self, adapter: Digest) -> None:
        """It is pinned until it is let go; a second time is no error."""
        if adapter not in self.kept:
            self.kept.add(adapter)
            self.kept_pages += self.pages_of(adapter)
            self.pin(adapter)

    def let_go(self, adapter: Digest) -> None:
        """What is not kept is no error."""
        if adapter in self.kept:
            self.kept.discard(adapter)
            self.kept_pages -= self.pages_of(adapter)
            self.unpin(adapter)

    def add(self, adapter: Digest, pages: list[int]) -> None:
        """As if it were used now, so that what was just loaded is not what leaves next."""
        self._residents[adapter] = _Resident(pages, uses=1.0, used_at=self.step)
        self.pages += len(pages)
        self.idle_pages += len(pages)

    def drop(self, adapter: Digest) -> list[int]:
        """Its pages, which the caller releases."""
        if self._residents[adapter].pins:
            raise ValueError("a pinned adapter was dropped")
        pages = self._residents.pop(adapter).pages
        self.pages -= len(pages)
        self.idle_pages -= len(pages)
        return pages

    def least_worthy(self) -> Digest | None:
        """The idle adapter to lose first. Worth is reload cost x reuse rate / bytes."""
        idle = [(self._worth(r), name) for name, r in self._residents.items() if r.pins == 0]
        return min(idle)[1] if idle else None

    def _worth(self, resident: _Resident) -> float:
        size = len(resident.pages)
        return (LATENCY_PAGES + size) * self._reuse(resident) / size

    def _reuse(self, resident: _Resident) -> float:
        age = (self.step - resident.used_at) / HALF_LIFE_STEPS
        return resident.uses * math.pow(0.5, age)
