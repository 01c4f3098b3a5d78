"""What the workers and adapters of a simulated fleet are like."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from services.core.reports import StepTimes
from services.core.types import Digest

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Hardware:
    """`link_mib`, `copy_mib`: a second, from the store and from host memory; `link_ms`: before the
    first byte comes."""

    times: StepTimes
    slots: int = 8
    device_mib: int = 3072
    host_mib: int = 6144
    link_mib: float = 500.0
    copy_mib: float = 16_000.0
    link_ms: float = 30.0


SLOW = Hardware(StepTimes(base=30.0, sequence=0.22, token=0.214))
"""An A10G with Llama-2-7B, as in simulator.step_time."""
FAST = Hardware(StepTimes(base=18.0, sequence=0.15, token=0.1), link_mib=1000.0)


def mixed(count: int) -> list[Hardware]:
    """A quarter is fast."""
    return [FAST if number % 4 == 3 else SLOW for number in range(count)]


@dataclass(frozen=True, slots=True)
class Adapter:
    digest: Digest
    rank: int
    mib: float

    def fetch_ms(self, hardware: Hardware) -> float:
        return hardware.link_ms + 1000 * self.mib / hardware.link_mib + self.copy_ms(hardware)

    def copy_ms(self, hardware: Hardware) -> float:
        return 1000 * self.mib / hardware.copy_mib


RANKS = (8, 16, 8, 16, 32, 8, 16, 8, 16, 64, 8, 16, 8, 16, 32, 8, 16, 8, 16, 32)
MIB_OF_A_RANK = 5.0  # of all linear layers of a 7B model


def catalogue(count: int) -> list[Adapter]:
    """Of ranks that have nothing to do with how popular they are."""
    ranks: Iterable[int] = (RANKS[number * 7919 // 13 % len(RANKS)] for number in range(count))
    return [
        Adapter(Digest(f"{number:064x}"), rank, MIB_OF_A_RANK * rank)
        for number, rank in enumerate(islice(ranks, count))
    ]
