"""What an alias may mean next, and whom a canary serves."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.adapter_store.aliases import (
    Change,
    check_name,
    deleted,
    drawn,
    pointed,
    promoted,
    rolled_back,
    with_canary,
)
from services.adapter_store.records import Canary, Move, MoveKind, Split, Target
from services.core.errors import FailedPrecondition, InvalidRequest
from services.core.types import AdapterName, TenantId

ACME = TenantId("acme")


class History:
    """Applies changes as the repository does."""

    def __init__(self) -> None:
        self.moves: list[Move] = []

    @property
    def now(self) -> Move | None:
        return self.moves[-1] if self.moves else None

    @property
    def undone(self) -> Move | None:
        undo = self.now and self.now.undo
        return self.moves[undo - 1] if undo else None

    def apply(self, change: Change | None) -> Target | None:
        if change is not None:
            move = Move(
                tenant=ACME,
                adapter=AdapterName("sql"),
                alias="production",
                generation=len(self.moves) + 1,
                kind=change.kind,
                target=change.target,
                undo=change.undo,
                by="acme",
                reason="",
                created=datetime.now(UTC),
            )
            self.moves.append(move)
        return self.moves[-1].target

    def promote(self, number: int | None) -> Target | None:
        return self.apply(promoted(self.now, number))

    def rollback(self) -> Target | None:
        return self.apply(rolled_back(self.now, self.undone))

    def canary(self, number: int, percent: int) -> Target | None:
        return self.apply(with_canary(self.now, number, percent, Split.REQUEST))


def test_each_rollback_goes_one_promotion_further_back() -> None:
    alias = History()
    for number in (1, 2, 3):
        alias.promote(number)
    assert alias.rollback() == Target(2)
    assert alias.rollback() == Target(1)
    with pytest.raises(FailedPrecondition, match="no earlier version"):
        alias.rollback()
    alias.promote(3)
    assert alias.rollback() == Target(1)


def test_a_rollback_ends_a_canary_first() -> None:
    alias = History()
    alias.promote(1)
    alias.promote(2)
    assert alias.canary(3, 10) == Target(2, Canary(3, 10, Split.REQUEST))
    assert alias.rollback() == Target(2)
    assert alias.rollback() == Target(1)


def test_a_canary_that_is_promoted_can_be_rolled_back_to_what_was_stable() -> None:
    alias = History()
    with pytest.raises(FailedPrecondition, match="no canary"):
        alias.promote(None)
    alias.promote(1)
    alias.canary(2, 10)
    alias.canary(2, 50)
    assert alias.promote(None) == Target(2)
    assert alias.rollback() == Target(1)
    alias.canary(2, 10)
    assert alias.canary(0, 0) == Target(1)  # given up
    assert alias.canary(2, 10) is not None
    assert alias.promote(1) == Target(1)  # another way to give it up
    with pytest.raises(FailedPrecondition):
        alias.rollback()


def test_what_changes_nothing_makes_no_generation() -> None:
    alias = History()
    alias.promote(1)
    assert promoted(alias.now, 1) is None
    assert pointed(alias.now, 1, MoveKind.SET) is None
    assert with_canary(alias.now, 0, 0, Split.REQUEST) is None
    assert deleted(None) is None
    alias.apply(deleted(alias.now))
    assert deleted(alias.now) is None
    for lost in (lambda: rolled_back(alias.now, None), lambda: alias.canary(2, 10)):
        with pytest.raises(FailedPrecondition, match="nowhere"):
            lost()
    assert alias.promote(1) == Target(1)


@pytest.mark.parametrize("percent", [-1, 100, 1000])
def test_a_canary_is_a_share(percent: int) -> None:
    alias = History()
    alias.promote(1)
    with pytest.raises(InvalidRequest, match="percent"):
        alias.canary(2, percent)
    with pytest.raises(InvalidRequest, match="stable"):
        alias.canary(1, 10)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("promote"), st.integers(1, 4)),
            st.tuples(st.just("canary"), st.integers(1, 4)),
            st.tuples(st.just("rollback"), st.just(0)),
        ),
        max_size=30,
    )
)
def test_rollbacks_undo_promotions_in_order(steps: list[tuple[str, int]]) -> None:
    """Against a stack of what was stable."""
    alias, trying = History(), False
    stack: list[int] = []
    for step, number in steps:
        try:
            if step == "promote":
                alias.promote(number)
                if not stack or stack[-1] != number:
                    stack.append(number)
                trying = False
            elif step == "canary":
                alias.canary(number, 10)
                trying = True
            else:
                alias.rollback()
                if not trying:
                    stack.pop()
                trying = False
        except (FailedPrecondition, InvalidRequest):
            continue
        assert alias.now is not None
        assert alias.now.target is not None
        assert alias.now.target.number == stack[-1]
        assert (alias.now.target.canary is not None) == trying


def test_a_canary_gets_its_share_of_requests_and_no_tenant_changes_sides_as_it_grows() -> None:
    keys = [f"key-{index}" for index in range(4000)]

    def chosen(split: Split, percent: int) -> set[str]:
        target = Target(1, Canary(2, percent, split))
        tenant_is_key = split is Split.TENANT
        return {
            key
            for key in keys
            if drawn(
                target,
                "acme/sql@production",
                tenant=TenantId(key if tenant_is_key else "acme"),
                request="r" if tenant_is_key else key,
            )
            == 2
        }

    for split in Split:
        small, large = chosen(split, 10), chosen(split, 50)
        assert 0.08 < len(small) / len(keys) < 0.12
        assert 0.47 < len(large) / len(keys) < 0.53
        assert small < large
    assert drawn(Target(7), "any", tenant=ACME, request="r") == 7


@pytest.mark.parametrize(
    "name", ["", "A", "1", "7a", "a b", "a" * 64, "deadbeefcafe", "f" * 63, "a@b"]
)
def test_a_name_that_could_mean_something_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="alias"):
        check_name(name)


@pytest.mark.parametrize("name", ["production", "a", "v1.2_b-c", "deadbeef", "deadbeefcafes"])
def test_other_names_are_good(name: str) -> None:
    check_name(name)
