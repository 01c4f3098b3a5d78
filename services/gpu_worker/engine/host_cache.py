"""Adapters in host memory: what was fetched and checked once need not be again."""

from collections import OrderedDict

from services.core.types import Digest
from services.gpu_worker.engine.engine import Weights


class HostCache:
    """The least recently used leave when there are more than `budget_bytes` of them.

    The newest always stays, however large: it is on its way to the device.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._held: OrderedDict[Digest, Weights] = OrderedDict()
        self.used_bytes = 0

    def sizes(self) -> dict[Digest, int]:
        """Bytes, by adapter."""
        return {adapter: weights.size_bytes for adapter, weights in self._held.items()}

    def holds(self, adapter: Digest) -> bool:
        return adapter in self._held

    def get(self, adapter: Digest) -> Weights | None:
        if adapter not in self._held:
            return None
        self._held.move_to_end(adapter)
        return self._held[adapter]

    def put(self, adapter: Digest, weights: Weights) -> None:
        self._held[adapter] = weights
        self.used_bytes += weights.size_bytes
        while self.used_bytes > self._budget and len(self._held) > 1:
            _, gone = self._held.popitem(last=False)
            self.used_bytes -= gone.size_bytes
