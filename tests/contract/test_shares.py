"""What part a tenant has of what there is: organisations, weights and tiers in SQL."""

from itertools import count
from uuid import uuid4

import pytest

from services.core.errors import AlreadyExists, InvalidRequest, NotFound
from services.core.types import Share, TenantId, Tier
from services.gateway.bearers import FRESH_SECONDS
from services.gateway.models import TenantRow
from services.gateway.repository import SqlTenantRepository
from services.gateway.tenants import Tenants
from services.runtime.db import close_sessions, open_sessions, writing
from tests.contract.tenants_world import OPERATOR


async def test_a_request_brings_its_tenants_share_as_it_is_then(
    tenants: Tenants, repository: SqlTenantRepository, name: TenantId
) -> None:
    seconds = count(step=FRESH_SECONDS)
    another = Tenants(  # gateway
        repository, pepper="pepper", operator_token=OPERATOR, clock=lambda: next(seconds)
    )
    organisation = f"o{uuid4().hex[:8]}"
    _, secret = await tenants.create_key(name, "")

    async def share() -> Share:
        return (await another.authenticate(secret, {})).share

    assert await share() == Share()
    await tenants.create_organisation(organisation, 4.0)
    await tenants.change(name, organisation=organisation)
    assert await share() == Share(organisation, 1.0, 4.0)
    await tenants.change(name, weight=0.5)
    await tenants.change_organisation(organisation, 2.0)
    assert await share() == Share(organisation, 0.5, 2.0)
    changed = await tenants.change(name, organisation="")
    assert (changed.organisation, changed.weight) == ("", 0.5)
    assert await share() == Share("", 0.5, 1.0)


async def test_a_tenants_highest_tier_holds_from_the_next_request_on(
    tenants: Tenants, name: TenantId
) -> None:
    _, secret = await tenants.create_key(name, "")

    async def highest() -> Tier:
        return (await tenants.authenticate(secret, {})).share.highest_tier

    assert await highest() is Tier.DEFAULT
    for tier in Tier:
        assert (await tenants.change(name, highest_tier=tier)).highest_tier is tier
        assert await highest() is tier
    assert (await tenants.change(name, weight=2.0)).highest_tier is Tier.FLEX
    assert await highest() is Tier.FLEX
    made = await tenants.create(name + "p", highest_tier=Tier.PRIORITY)
    assert made in (await tenants.list_tenants(1000, ""))[0]


async def test_a_tier_of_a_later_release_is_the_default_here(
    tenants: Tenants, name: TenantId, url: str
) -> None:
    _, secret = await tenants.create_key(name, "")
    sessions = open_sessions(url)
    async with writing(sessions) as session:
        row = await session.get_one(TenantRow, name)
        row.highest_tier = "utmost"
    await close_sessions(sessions)
    assert (await tenants.authenticate(secret, {})).share.highest_tier is Tier.DEFAULT
    assert (await tenants.change(name, weight=2.0)).highest_tier is Tier.DEFAULT


async def test_organisations_and_weights_must_be_such(tenants: Tenants, name: TenantId) -> None:
    organisation = f"o{uuid4().hex[:8]}"
    made = await tenants.create_organisation(organisation)
    with pytest.raises(AlreadyExists, match="organisation"):
        await tenants.create_organisation(organisation, 2.0)
    member = await tenants.create(name + "m", organisation, 3.0)
    assert member in (await tenants.list_tenants(1000, ""))[0]
    assert made in (await tenants.list_organisations(1000, ""))[0]
    for missing in (
        tenants.create(name + "x", "nobody"),
        tenants.change(name, organisation="nobody"),
        tenants.change("nobody", weight=2.0),
        tenants.change_organisation("nobody", 2.0),
    ):
        with pytest.raises(NotFound):
            await missing
    for bad in (0.0, -1.0, 1e-9, 1e9, float("nan"), float("inf")):
        for refused in (
            tenants.create(name + "y", "", bad),
            tenants.change(name, weight=bad),
            tenants.create_organisation("fresh", bad),
            tenants.change_organisation(organisation, bad),
        ):
            with pytest.raises(InvalidRequest, match="weight"):
                await refused
    with pytest.raises(InvalidRequest, match="name"):
        await tenants.create_organisation("A B")
