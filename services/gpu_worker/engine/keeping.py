"""Adapters that the operator wants on the device, whoever needs them."""

from services.core.types import Digest
from services.gpu_worker.engine.pool import Pool


class Keeping:
    """They have half of the pool at most, and none that is promised to sequences. What has no room
    is not brought until it has."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._wanted: frozenset[Digest] = frozenset()
        self._pages: dict[Digest, int] = {}  # of those that were seen

    def want(self, adapters: frozenset[Digest]) -> None:
        """These, and no others."""
        self._wanted = adapters
        self._pages = {each: pages for each, pages in self._pages.items() if each in adapters}
        residency = self._pool.residency
        for adapter in residency.kept - adapters:
            residency.let_go(adapter)
        for adapter in sorted(adapters):
            self.arrived(adapter)

    def seen(self, adapter: Digest, pages: int) -> None:
        """What it takes."""
        if adapter in self._wanted:
            self._pages[adapter] = pages

    def arrived(self, adapter: Digest) -> None:
        """It is resident; what is not is no error."""
        residency = self._pool.residency
        if adapter in self._wanted and residency.holds(adapter):
            self.seen(adapter, residency.pages_of(adapter))
            if residency.kept_pages + self._pages[adapter] <= self._pool.size // 2:
                residency.keep(adapter)

    def absent(self, promised: int) -> set[Digest]:
        """To be brought. `promised`: pages, to sequences."""
        there = self._pool.residency
        return {a for a in self._wanted if not there.holds(a) and self.has_room(a, promised)}

    def without_room(self, promised: int) -> frozenset[Digest]:
        kept = self._pool.residency.kept
        return frozenset(a for a in self._wanted - kept if not self.has_room(a, promised))

    def has_room(self, adapter: Digest, promised: int) -> bool:
        """As far as is known: nobody knows how large one is that was never here."""
        pages, pool = self._pages.get(adapter), self._pool
        if pages is None or pool.is_reserved(adapter):
            return True
        coming = sum(size for each, size in self._pages.items() if pool.is_reserved(each))
        if pool.residency.kept_pages + coming + pages > pool.size // 2:
            return False
        return pool.residency.holds(adapter) or pages + promised <= pool.available
