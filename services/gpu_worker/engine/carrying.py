"""Keys and values that leave for another worker, or come from one: as prefixes that are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.core.types import Digest
from services.gpu_worker.engine.pool import Pool

Space = tuple[str, Digest | None]


class Memory(Protocol):
    """What is in pages; in any thread."""

    @property
    def layout(self) -> str:
        """Pages can be read where this is the same."""
        ...

    @property
    def page_bytes(self) -> int: ...
    def read(self, pages: Sequence[int]) -> bytes: ...
    def write(self, pages: Sequence[int], data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Held:
    """Pages of a prefix that is known here, and that stay while they are held."""

    space: Space
    tokens: tuple[int, ...]
    pages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """Pages, behind those that are known, for what comes."""

    known: Held
    pages: tuple[int, ...]


class Carrying:
    """The engine's thread's, but for `memory`."""

    def __init__(self, pool: Pool, memory: Memory) -> None:
        self._pool = pool
        self.memory = memory

    @property
    def page_tokens(self) -> int:
        return self._pool.page_tokens

    def hold(self, space: Space, tokens: Sequence[int]) -> Held:
        """The longest beginning that is known; the last token is never one of it."""
        pages = self._pool.prefixes.match(space, tokens)
        return Held(space, tuple(tokens), tuple(pages))

    def release(self, held: Held) -> None:
        known = held.tokens[: len(held.pages) * self.page_tokens]
        self._pool.prefixes.give_back(held.space, known, held.pages)

    def expect(self, space: Space, tokens: Sequence[int], *, keep: int) -> Expected | None:
        """Room for what is not known of all pages that will be full; None if there is too little,
        with `keep` pages promised to others, or nothing is missing."""
        known = self.hold(space, tokens)
        missing = (len(tokens) - 1) // self.page_tokens - len(known.pages)
        pages = self._pool.spare(missing, keep=keep) if missing > 0 else None
        if pages is None:
            self.release(known)
            return None
        return Expected(known, tuple(pages))

    def arrived(self, expected: Expected, count: int) -> None:
        """So many of the pages were written: a prefix that is known from now on."""
        known = expected.known
        came, unused = expected.pages[:count], expected.pages[count:]
        self._pool.pages.release(unused)
        self.release(Held(known.space, known.tokens, known.pages + came))
