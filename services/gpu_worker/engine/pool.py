"""The one pool of pages: sequences, adapters and cached prefixes share it and make room in turn."""

from collections.abc import Sequence

from services.core.errors import ResourceExhausted
from services.core.types import Digest
from services.gpu_worker.engine.pages import PagePool
from services.gpu_worker.engine.prefix_cache import PrefixCache
from services.gpu_worker.engine.residency import Residency
from services.gpu_worker.engine.sequence import Sequence as Running


class Pool:
    """Idle pages are as good as free: whoever needs them gets them, the least worth keeping first.

    S-LoRA's unified paging (arXiv 2311.03285, section 4.1), with an adapter cache that outlives
    the batch and with prefixes in the same pool.
    """

    def __init__(self, size: int, *, page_tokens: int, keeps_prefixes: bool = True) -> None:
        self.pages = PagePool(size)
        self.residency = Residency()
        self.prefixes = PrefixCache(self.pages, page_tokens=page_tokens, enabled=keeps_prefixes)
        self.page_tokens = page_tokens
        self._reserved: dict[Digest, list[int]] = {}
        self._evicted: list[Digest] = []

    @property
    def size(self) -> int:
        return self.pages.size

    @property
    def available(self) -> int:
        """Free pages, and those that can be had back."""
        return self.pages.num_free + self.prefixes.idle + self.residency.idle_pages

    def tick(self) -> None:
        """A step begins."""
        self.residency.step += 1
        self.prefixes.step += 1

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self.page_tokens)

    def match(self, sequence: Running) -> None:
        """Give a sequence without pages those of its longest known prefix."""
        sequence.pages = self.prefixes.match(sequence.space, sequence.tokens)
        sequence.cached = len(sequence.pages) * self.page_tokens

    def grow(self, sequence: Running, tokens: int) -> bool:
        """Pages for so many tokens of a sequence; False, and nothing changed, if there are none."""
        missing = self.pages_for(tokens) - len(sequence.pages)
        if missing > 0:
            if not self._make_room(missing):
                return False
            sequence.pages += self.pages.allocate(missing)
        return True

    def take_back(self, sequence: Running) -> None:
        """A sequence's pages, when it ends or has to wait; its prefix stays known."""
        filled = sequence.tokens[: sequence.cached]
        self.prefixes.give_back(sequence.space, filled, sequence.pages)
        sequence.pages, sequence.cached = [], 0

    def reserve(self, adapter: Digest, count: int, *, keep: int) -> list[int] | None:
        """Pages for an adapter to be copied into; None if there are none now.

        `keep` pages are promised to others. Raises ResourceExhausted if it could never fit.
        """
        if count >= self.size:
            raise ResourceExhausted(f"the adapter needs {count} of {self.size} pages")
        if adapter in self._reserved or self.residency.holds(adapter):
            raise ValueError("an adapter was reserved twice")
        pages = self.spare(count, keep=keep)
        if pages is not None:
            self._reserved[adapter] = pages
        return pages

    def spare(self, count: int, *, keep: int) -> list[int] | None:
        """Pages for one who can do without; None if less than `keep` would be left for others."""
        if count + keep > self.available or not self._make_room(count):
            return None
        return self.pages.allocate(count)

    def activate(self, adapter: Digest) -> None:
        """What was reserved is filled: the adapter is resident."""
        self.residency.add(adapter, self._reserved.pop(adapter))

    def adapter_slots(self, keep: int) -> int:
        """Adapters that could be here at once, if the others were as large as those that are and
        `keep` pages were promised to sequences; 0 if none is."""
        count = len(self.residency.resident) + len(self._reserved)
        if not count:
            return 0
        pages = self.residency.pages + sum(map(len, self._reserved.values()))
        spare = self.available - self.residency.idle_pages - keep
        return max(1, (pages + spare) * count // pages)

    def is_reserved(self, adapter: Digest) -> bool:
        return adapter in self._reserved

    def evicted(self) -> Sequence[Digest]:
        """Adapters that left since this was last asked."""
        gone, self._evicted = self._evicted, []
        return gone

    def _make_room(self, count: int) -> bool:
        """What was not used for longest leaves: a cached prefix, or the least worthy adapter.

        A prefix is never used later than its adapter, so it leaves first.
        """
        if count > self.available:
            return False
        while self.pages.num_free < count:
            adapter = self.residency.least_worthy()
            prefix = self.prefixes.oldest()
            if adapter is None and prefix is None:
                return False
            if adapter is not None and (prefix is None or self.residency.used_at(adapter) < prefix):
                self.pages.release(self.residency.drop(adapter))
                self._evicted.append(adapter)
            else:
                self.prefixes.evict()
        return True
