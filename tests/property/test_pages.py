import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.core.errors import ResourceExhausted
from services.gpu_worker.engine.pages import PagePool

SIZE = 20


class PagesNeverLeak(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(SIZE)
        self.held: list[list[int]] = []

    @rule(count=st.integers(0, SIZE + 5))
    def allocate(self, count: int) -> None:
        free = self.pool.num_free
        if count > free:
            with pytest.raises(ResourceExhausted):
                self.pool.allocate(count)
            assert self.pool.num_free == free
        else:
            self.held.append(self.pool.allocate(count))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            index = data.draw(st.integers(0, len(self.held) - 1))
            self.pool.release(self.held.pop(index))

    @rule()
    def release_what_nobody_holds(self) -> None:
        held = {page for pages in self.held for page in pages}
        stranger = next((page for page in range(SIZE) if page not in held), None)
        if stranger is not None:
            with pytest.raises(ValueError, match="nobody holds"):
                self.pool.release([stranger])

    @invariant()
    def held_and_free_make_the_pool(self) -> None:
        pages = [page for pages in self.held for page in pages]
        assert len(pages) == len(set(pages))
        assert len(pages) + self.pool.num_free == SIZE


TestPages = PagesNeverLeak.TestCase
