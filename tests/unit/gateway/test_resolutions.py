"""What references go on meaning while the store is away, and what they do not."""

import asyncio

import pytest

from services.core.changes import Change, ChangeKind
from services.core.clock import ManualClock
from services.core.errors import DeadlineExceeded, ModelNotFound, ServingError, Unavailable
from services.core.types import Digest, Fingerprint, RequestId, TenantId
from services.gateway import resolutions
from services.gateway.course import Adapter
from services.gateway.resolutions import TRUSTED_SECONDS, Resolutions

ACME, FRIEND = TenantId("acme"), TenantId("friend")
MOVED = Change(kind=ChangeKind.ALIAS_MOVED, tenant=ACME, adapter="sql", alias="production")


class Store:
    """Version `number` of everything, an error, or an answer that is long on its way."""

    def __init__(self) -> None:
        self.number = 1
        self.error: ServingError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def resolve(self, tenant: TenantId, reference: str, request: RequestId) -> Adapter:
        if self.error is not None:
            raise self.error
        owner, _, name = reference.partition("@")[0].rpartition("/")
        found = Adapter(
            name,
            TenantId(owner) if owner else tenant,
            self.number,
            Digest(f"{self.number:064x}"),
            "tiny",
            Fingerprint("f" * 64),
            0,
        )
        await self.gate.wait()
        return found

    async def adapters(self, tenant: TenantId) -> list[Adapter]:
        return []


class World:
    def __init__(self) -> None:
        self.store, self.clock = Store(), ManualClock()
        self.known = Resolutions(self.store, self.clock.now)

    async def meant(self, reference: str, tenant: TenantId = ACME) -> int | None:
        """None if it cannot be said now."""
        try:
            return (await self.known.resolve(tenant, reference, RequestId("r"))).number
        except Unavailable:
            return None


@pytest.fixture
async def world() -> World:
    """One that follows the store and has resolved some references."""
    world = World()
    await world.known.begin()
    await world.known.up_to_date()
    for reference in ("sql", "sql@new", "other"):
        assert await world.meant(reference) == 1
    assert await world.meant("acme/sql", FRIEND) == 1
    return world


@pytest.mark.parametrize("error", [Unavailable("away"), DeadlineExceeded("slow")])
async def test_a_reference_means_what_it_meant_while_the_store_is_away(
    world: World, error: ServingError
) -> None:
    world.store.error = error
    assert await world.meant("sql") == 1
    assert await world.meant("acme/sql", FRIEND) == 1
    for reference, tenant in (("never", ACME), ("sql", FRIEND), ("acme/other", FRIEND)):
        assert await world.meant(reference, tenant) is None
    world.store.error, world.store.number = None, 2
    assert await world.meant("sql") == 2  # nobody told, and it asks all the same
    world.store.error = error
    assert await world.meant("sql") == 2
    assert await world.meant("sql@new") == 1


@pytest.mark.parametrize(
    "kind", [kind for kind in ChangeKind if kind is not ChangeKind.BASE_MODEL_REGISTERED]
)
async def test_a_change_that_touches_an_adapter_ends_what_was_known_of_it(
    world: World, kind: ChangeKind
) -> None:
    await world.known.change(Change(kind=kind, tenant=ACME, adapter="sql"))
    await world.known.up_to_date()
    world.store.error = Unavailable("away")
    for reference in ("sql", "sql@new"):
        assert await world.meant(reference) is None
    assert await world.meant("acme/sql", FRIEND) is None
    assert await world.meant("other") == 1


async def test_an_answer_that_a_change_overtook_is_not_kept(world: World) -> None:
    world.store.gate.clear()
    asking = asyncio.create_task(world.meant("sql"))
    await asyncio.sleep(0)
    await world.known.change(MOVED)
    world.store.gate.set()
    assert await asking == 1
    world.store.error = Unavailable("away")
    assert await world.meant("sql") is None


async def test_who_missed_something_knows_nothing(world: World) -> None:
    world.store.error = Unavailable("away")
    await world.known.change(Change(kind=None))  # of a release to come
    assert await world.meant("other") is None
    world.store.error = None
    assert await world.meant("other") == 1
    await world.known.begin()
    world.store.error = Unavailable("away")
    assert await world.meant("other") is None


async def test_what_is_known_is_trusted_for_a_while(world: World) -> None:
    world.store.error = Unavailable("away")
    world.clock.advance(TRUSTED_SECONDS)
    assert await world.meant("sql") == 1
    world.clock.advance(1)
    assert await world.meant("sql") is None
    never = World()
    assert await never.meant("sql") == 1
    never.store.error = Unavailable("away")
    assert await never.meant("sql") is None  # it follows nothing yet


async def test_what_is_gone_is_forgotten(world: World) -> None:
    world.store.error = ModelNotFound.named("sql")
    with pytest.raises(ModelNotFound):
        await world.meant("sql")
    world.store.error = Unavailable("away")
    assert await world.meant("sql") is None


async def test_only_so_many_are_known(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolutions, "MOST_KNOWN", 4)
    await world.meant("sql")
    for index in range(3):
        await world.meant(f"more-{index}")
    world.store.error = Unavailable("away")
    assert [await world.meant(f"more-{index}") for index in range(3)] == [1, 1, 1]
    assert await world.meant("sql") == 1
    assert await world.meant("other") is None
    await world.known.change(MOVED)
    assert await world.meant("sql") is None


async def test_a_store_that_says_nothing_is_not_waited_for_where_the_answer_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolutions, "PATIENCE_SECONDS", 0.02)
    world.store.number = 2
    world.store.gate.clear()
    async with asyncio.timeout(5):
        assert await world.meant("sql") == 1
    unknown = asyncio.create_task(world.meant("sql@later"))
    await asyncio.sleep(0.1)
    assert not unknown.done()
    world.store.gate.set()
    assert await unknown == 2


async def test_a_slow_store_is_waited_for_once_the_answer_has_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolutions, "PATIENCE_SECONDS", 0.05)
    world.store.number = 2
    world.store.gate.clear()
    asking = asyncio.create_task(world.meant("sql"))
    await asyncio.sleep(0.01)
    await world.known.change(MOVED)
    await asyncio.sleep(0.1)
    assert not asking.done()
    world.store.gate.set()
    assert await asking == 2
