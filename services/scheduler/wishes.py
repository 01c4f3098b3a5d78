"""What the operator wants of the fleet, and what a worker is seen to do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.core.types import Digest, WorkerId
from services.policies.placement.homes import homes


class WorkerWish(Enum):
    SERVE = "serve"
    CORDON = "cordon"  # nothing new; what runs goes on
    DRAIN = "drain"  # nothing new; what runs is moved away, and then its process ends


class WorkerState(Enum):
    SERVING = "serving"
    CORDONED = "cordoned"
    DRAINING = "draining"
    AWAY = "away"  # its lease ran out, or it has yet to come
    STUCK = "stuck"  # it reports, something runs, and its steps have stopped


@dataclass(frozen=True, slots=True)
class Pin:
    """An adapter to be kept on the device of so many workers."""

    adapter: Digest
    base_model: str
    workers: int


@dataclass(frozen=True, slots=True)
class Pinned:
    """A pin, who has it on the device, and who should and has no room."""

    pin: Pin
    there: list[WorkerId]
    full: list[WorkerId]


@dataclass(slots=True)
class Wishes:
    """As they are in SQL; whoever leads keeps them up to date here."""

    workers: dict[WorkerId, WorkerWish] = field(default_factory=dict)
    pins: dict[Digest, Pin] = field(default_factory=dict)

    def kept_on(self, serving: Mapping[str, Iterable[WorkerId]]) -> dict[WorkerId, list[Digest]]:
        """Which adapters each worker keeps. `serving`: workers by base model."""
        kept: dict[WorkerId, list[Digest]] = {}
        for _, pin in sorted(self.pins.items()):
            capacities = dict.fromkeys(serving.get(pin.base_model, ()), 1.0)
            for worker in homes(pin.adapter, capacities, pin.workers):
                kept.setdefault(worker, []).append(pin.adapter)
        return kept
