"""Keys and values that outlive their sequence: a radix tree of whole pages.

A path is a space (tenant's salt and adapter digest) and then the tokens of page after page, so
that no version and no tenant ever sees another's (SGLang's RadixAttention, arXiv 2312.07104).
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from services.gpu_worker.engine.pages import PagePool

Tokens = tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Node:
    space: Hashable
    tokens: Tokens
    page: int
    parent: "_Node | None"
    used_at: int  # step
    children: dict[Tokens, "_Node"] = field(default_factory=dict)


class PrefixCache:
    """Holds one reference to each of its pages; those that nobody else holds can be had back."""

    def __init__(self, pages: PagePool, *, page_tokens: int, enabled: bool = True) -> None:
        self._pages = pages
        self._page_tokens = page_tokens
        self._enabled = enabled
        self._roots: dict[Hashable, dict[Tokens, _Node]] = {}
        self._by_page: OrderedDict[int, _Node] = OrderedDict()  # the longest unused first
        self.idle = 0  # pages that only the cache holds
        self.step = 0

    def __len__(self) -> int:
        return len(self._by_page)

    def match(self, space: Hashable, tokens: Sequence[int]) -> list[int]:
        """Pages of the longest known prefix, shared with the caller.

        At least one token is left to compute, for the logits that follow it.
        """
        level, pages = self._roots.get(space, {}), []
        for tokens_of_page in self._whole_pages(tokens[:-1]):
            node = level.get(tokens_of_page)
            if node is None:
                break
            self._take(node)
            pages.append(node.page)
            level = node.children
        return pages

    def give_back(self, space: Hashable, tokens: Sequence[int], pages: Sequence[int]) -> None:
        """A sequence's pages, of which `tokens` are filled. Whole ones are kept, others freed."""
        wanted = self._whole_pages(tokens) if self._enabled else []
        level: dict[Tokens, _Node] = self._roots.setdefault(space, {}) if wanted else {}
        parent: _Node | None = None
        for tokens_of_page, page in zip(wanted, pages, strict=False):
            node = level.get(tokens_of_page)
            if node is None:
                node = level[tokens_of_page] = _Node(space, tokens_of_page, page, parent, self.step)
                self._by_page[page] = node
                self.idle += 1
            else:
                self._let_go(page)
            level, parent = node.children, node
        for page in pages[len(wanted) :]:
            self._let_go(page)

    def oldest(self) -> int | None:
        """The step at which the page that leaves next was last used; None if none can leave."""
        node = self._next_to_leave()
        return None if node is None else node.used_at

    def evict(self) -> None:
        """Free the page that was not used for longest."""
        node = self._next_to_leave()
        if node is not None:
            self._remove(node)

    def _next_to_leave(self) -> _Node | None:
        """A page that others are reached through, or that a sequence holds, stays."""
        return next(
            (
                node
                for page, node in self._by_page.items()
                if not node.children and self._pages.holders(page) == 1
            ),
            None,
        )

    def _whole_pages(self, tokens: Sequence[int]) -> list[Tokens]:
        size = self._page_tokens
        return [tuple(tokens[at : at + size]) for at in range(0, len(tokens) - size + 1, size)]

    def _take(self, node: _Node) -> None:
        if self._pages.holders(node.page) == 1:
            self.idle -= 1
        self._pages.share(node.page)
        self._by_page.move_to_end(node.page)
        node.used_at = self.step

    def _let_go(self, page: int) -> None:
        self._pages.release([page])
        if page in self._by_page and self._pages.holders(page) == 1:
            self.idle += 1

    def _remove(self, node: _Node) -> None:
        siblings = self._roots[node.space] if node.parent is None else node.parent.children
        del siblings[node.tokens]
        if not self._roots[node.space]:
            del self._roots[node.space]
        del self._by_page[node.page]
        self.idle -= 1
        self._pages.release([node.page])
