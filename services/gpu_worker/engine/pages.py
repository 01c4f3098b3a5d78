"""Page accounting: integers only, no storage."""

from collections.abc import Sequence

from services.core.errors import ResourceExhausted


class PagePool:
    """Pages 0 to size-1, each free or held once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = list(range(size - 1, -1, -1))
        self._held: set[int] = set()

    @property
    def num_free(self) -> int:
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Raises ResourceExhausted, and changes nothing, if fewer are free."""
        if count > len(self._free):
            raise ResourceExhausted(f"{count} pages are needed, {len(self._free)} are free")
        pages = [self._free.pop() for _ in range(count)]
        self._held.update(pages)
        return pages

    def release(self, pages: Sequence[int]) -> None:
        """The pages must be held."""
        if len(set(pages)) != len(pages) or not self._held.issuperset(pages):
            raise ValueError("a page was released that nobody holds")
        self._held.difference_update(pages)
        self._free.extend(reversed(pages))
