"""Adapters in a memory of so many MiB: who was used last stays longest."""

from collections import OrderedDict
from collections.abc import Container

from services.core.types import Digest
from services.simulator.placement.hardware import Adapter


class Cache:
    def __init__(self, mib: float) -> None:
        self._mib = mib
        self._used = 0.0
        self._held: OrderedDict[Digest, Adapter] = OrderedDict()
        self._names: frozenset[Digest] | None = None

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._held

    @property
    def names(self) -> frozenset[Digest]:
        if self._names is None:
            self._names = frozenset(self._held)
        return self._names

    def touch(self, digest: Digest) -> None:
        self._held.move_to_end(digest)

    def put(self, adapter: Adapter, kept: Container[Digest]) -> None:
        """What is `kept` is not evicted: if all is, it comes to hold more than it should."""
        if adapter.digest in self._held:
            self.touch(adapter.digest)
            return
        while self.is_full(adapter.mib) and (victim := self.victim(kept)) is not None:
            self._used -= self._held.pop(victim.digest).mib
        self._held[adapter.digest] = adapter
        self._used += adapter.mib
        self._names = None

    def is_full(self, mib: float) -> bool:
        return self._used + mib > self._mib

    def victim(self, kept: Container[Digest]) -> Adapter | None:
        """Who would be evicted next."""
        return next((held for name, held in self._held.items() if name not in kept), None)
