"""Page accounting: integers only, no storage."""

from collections.abc import Sequence

from services.core.errors import ResourceExhausted


class PagePool:
    """Pages 0 to size-1, each free or held by one or more."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = list(range(size - 1, -1, -1))
        self._holders = [0] * size

    @property
    def num_free(self) -> int:
        return len(self._free)

    def holders(self, page: int) -> int:
        return self._holders[page]

    def allocate(self, count: int) -> list[int]:
        """Pages with one holder. Raises ResourceExhausted, and changes nothing, if too few."""
        if count > len(self._free):
            raise ResourceExhausted(f"{count} pages are needed, {len(self._free)} are free")
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._holders[page] = 1
        return pages

    def share(self, page: int) -> None:
        """One more holder of a page that is held."""
        if self._holders[page] == 0:
            raise ValueError("a free page was shared")
        self._holders[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """One holder fewer of each; a page that nobody holds is free."""
        if len(set(pages)) != len(pages) or any(self._holders[page] == 0 for page in pages):
            raise ValueError("a page was released that nobody holds")
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0:
                self._free.append(page)
