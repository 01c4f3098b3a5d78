"""A policy of merging that does as it is told."""

from collections.abc import Sequence

from services.core.types import Digest
from services.gpu_worker.engine.merging import FOLD_STEPS
from services.policies.merging.batches import Batch, Queued, Ran
from tests.engines import TestBench


class Told:
    """Merges what the test says, and runs everybody or only those of it."""

    ratio: float | None = None

    def __init__(self, *, alone: bool = False) -> None:
        self.wanted: Digest | None = None
        self.alone = alone
        self.ran_batches: list[Batch] = []

    def choose(self, queued: Sequence[Queued]) -> Batch:
        chosen = [q for q in queued if not self.alone or q.adapter == self.wanted]
        return Batch(tuple(chosen), self.wanted)

    def ran(self, ran: Ran) -> None:
        self.ran_batches.append(ran.batch)


def merge(bench: TestBench, policy: Told, wanted: Digest | None) -> None:
    """Steps until it is in the weights."""
    policy.wanted = wanted
    for _ in range(FOLD_STEPS + 2):
        bench.engine.step()
    assert bench.engine.merging is not None
    assert bench.engine.merging.state.adapter == wanted
