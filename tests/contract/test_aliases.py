"""Aliases and what references mean, in memory, on SQLite and on PostgreSQL alike."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from services.adapter_store.aliases import Change
from services.adapter_store.records import Canary, MoveKind, Split, Target
from services.core.errors import (
    Aborted,
    FailedPrecondition,
    InvalidRequest,
    ModelNotFound,
    NotFound,
)
from services.core.types import TenantId
from tests.stores import Store, ask


async def test_a_name_means_the_newest_until_something_is_promoted(
    store: Store, tenant: TenantId
) -> None:
    assert await store.meant(tenant, "sql") == 5
    move = await store.lifecycle.promote(tenant, "sql", "2", ask(reason="evals passed"))
    assert (move.generation, move.kind, move.target) == (1, MoveKind.PROMOTE, Target(2))
    assert (move.by, move.reason) == ("acme", "evals passed")
    assert abs(move.created - datetime.now(UTC)) < timedelta(minutes=1)
    await store.commit(tenant, 6)
    assert await store.meant(tenant, "sql") == 2
    assert await store.meant(tenant, "sql@production") == 2
    assert await store.meant(tenant, "sql@6") == 6
    await store.lifecycle.set_alias(tenant, "sql", "candidate", f"{3:064x}", ask())
    assert await store.meant(tenant, "sql@candidate") == 3
    await store.lifecycle.promote(tenant, "sql", "candidate", ask())
    assert await store.meant(tenant, "sql") == 3
    await store.lifecycle.rollback(tenant, "sql", "", ask())
    assert await store.meant(tenant, "sql") == 2


async def test_what_does_not_exist_is_not_found(store: Store, tenant: TenantId) -> None:
    await store.lifecycle.promote(tenant, "sql", "1", ask())
    wrong = (
        "sql@9",
        "sql@",
        "sql@x",
        "sq",
        "",
        "sql@0",
        "sql@1@1",
        f"sql@{'9' * 12}",
        "@",
        "sql@%",
    )
    for reference in wrong:
        with pytest.raises(ModelNotFound):
            await store.meant(tenant, reference)
    for reference in ("sql", "sql@1", "sql@production"):
        with pytest.raises(ModelNotFound):
            await store.meant(TenantId("other"), reference)
    for to in ("9", "nothing"):
        with pytest.raises(ModelNotFound):
            await store.lifecycle.promote(tenant, "sql", to, ask())
    with pytest.raises(ModelNotFound):
        await store.lifecycle.rollback(tenant, "nothing", "", ask())
    with pytest.raises(ModelNotFound):
        await store.lifecycle.set_alias(TenantId("other"), "sql", "mine", "1", ask())
    with pytest.raises(NotFound):
        await store.lifecycle.delete_alias(tenant, "sql", "nothing", ask())
    with pytest.raises(FailedPrecondition, match="no version 77"):
        await store.aliases.move(
            tenant, "sql", "x", lambda now, undone: Change(MoveKind.SET, Target(77), None), ask()
        )
    assert await store.aliases.alias(tenant, "sql", "x") is None


async def test_two_writers_race_and_one_wins_each_generation(
    store: Store, tenant: TenantId
) -> None:
    await store.lifecycle.promote(tenant, "sql", "1", ask())
    for generation in range(1, 11):
        now = await store.meant(tenant, "sql")
        answers = await asyncio.gather(
            *(
                store.lifecycle.set_alias(
                    tenant,
                    "sql",
                    "production",
                    str((now + writer) % 5 + 1),  # never what it is
                    ask(expected_generation=generation),
                )
                for writer in range(4)
            ),
            return_exceptions=True,
        )
        won = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert [move.generation for move in won] == [generation + 1]
        assert sum(isinstance(answer, Aborted) for answer in answers) == 3
    with pytest.raises(Aborted, match="generation 11, not 0"):
        await store.lifecycle.promote(tenant, "sql", "1", ask(expected_generation=0))
    fresh = await store.lifecycle.set_alias(tenant, "sql", "new", "1", ask(expected_generation=0))
    assert fresh.generation == 1


async def test_history_keeps_everything_and_knows_what_was_when(
    store: Store, tenant: TenantId
) -> None:
    before = datetime.now(UTC)
    moments = []
    for number in (1, 2, 3):
        await store.lifecycle.promote(tenant, "sql", str(number), ask())
        await asyncio.sleep(0.002)
        moments.append(datetime.now(UTC))
        await asyncio.sleep(0.002)
    await store.lifecycle.delete_alias(tenant, "sql", "production", ask())
    with pytest.raises(ModelNotFound):
        await store.meant(tenant, "sql")
    assert await store.lifecycle.aliases(tenant, "sql") == []
    for number, moment in enumerate(moments, start=1):
        found = await store.resolver.resolve(tenant, "sql", request="", as_of=moment)
        assert found.version.number == number
    # Before anything was promoted the name meant the newest.
    found = await store.resolver.resolve(tenant, "sql", request="", as_of=before)
    assert found.version.number == 5
    long_ago = before - timedelta(days=1)
    with pytest.raises(ModelNotFound):
        await store.resolver.resolve(tenant, "sql", request="", as_of=long_ago)
    back = await store.lifecycle.promote(tenant, "sql", "1", ask())
    assert back.generation == 5  # a deleted alias goes on counting
    pages, token = [], ""
    while True:
        moves, token = await store.lifecycle.history(tenant, "sql", "", 2, token)
        pages.append([(move.generation, move.kind.value) for move in moves])
        if not token:
            break
    assert pages == [
        [(5, "promote"), (4, "delete")],
        [(3, "promote"), (2, "promote")],
        [(1, "promote")],
    ]
    with pytest.raises(InvalidRequest, match="page_token"):
        await store.lifecycle.history(tenant, "sql", "", 2, "eHg=")


async def test_a_canary_draws_for_its_requests(store: Store, tenant: TenantId) -> None:
    await store.lifecycle.promote(tenant, "sql", "1", ask())

    async def canary(percent: int, split: Split) -> None:
        await store.lifecycle.canary(
            tenant, "sql", "", to="2", percent=percent, split=split, ask=ask()
        )

    await canary(30, Split.REQUEST)
    drawn = [await store.meant(tenant, "sql", f"r{index}") for index in range(100)]
    assert set(drawn) == {1, 2}
    assert drawn == [await store.meant(tenant, "sql", f"r{index}") for index in range(100)]
    await canary(30, Split.TENANT)
    assert len({await store.meant(tenant, "sql", f"r{index}") for index in range(20)}) == 1
    (alias,) = await store.lifecycle.aliases(tenant, "sql")
    assert alias.target == Target(1, Canary(2, 30, Split.TENANT))
    await canary(0, Split.REQUEST)
    assert {await store.meant(tenant, "sql", f"r{index}") for index in range(20)} == {1}


async def test_a_move_that_is_sent_again_changes_nothing(store: Store, tenant: TenantId) -> None:
    first = await store.lifecycle.promote(tenant, "sql", "1", ask(request_id="a"))
    second = await store.lifecycle.promote(tenant, "sql", "2", ask(request_id="b"))
    again = await store.lifecycle.promote(
        tenant, "sql", "1", ask(request_id="a", expected_generation=0)
    )
    assert again == first
    assert await store.aliases.alias(tenant, "sql", "production") == second
    at_once = await asyncio.gather(
        *(store.lifecycle.rollback(tenant, "sql", "", ask(request_id="c")) for _ in range(4))
    )
    assert {move.generation for move in at_once} == {3}
    with pytest.raises(InvalidRequest, match="another alias"):
        await store.lifecycle.set_alias(tenant, "sql", "x", "1", ask(request_id="a"))
    for wrong in ({"request_id": "x" * 65}, {"reason": "x" * 1025}):
        with pytest.raises(InvalidRequest, match="characters"):
            await store.lifecycle.promote(tenant, "sql", "1", ask(**wrong))


async def test_version_numbers_are_not_given_twice(store: Store, tenant: TenantId) -> None:
    contents = range(100, 108)
    made = await asyncio.gather(*(store.commit(tenant, content) for content in contents))
    assert sorted(version.number for version in made) == list(range(6, 14))
