"""What a worker is told to do once."""

from dataclasses import dataclass

from services.core.reports import MoveOrder
from services.core.types import Digest


@dataclass(frozen=True, slots=True)
class Preload:
    """Fetch an adapter into host memory."""

    adapter: Digest


@dataclass(frozen=True, slots=True)
class TellSequences:
    """Say with the next report what runs and waits."""


Order = MoveOrder | Preload | TellSequences
