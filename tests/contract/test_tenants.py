"""Tenants and keys on SQLite and PostgreSQL."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.core.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from services.core.types import TenantId
from services.gateway.bearers import FRESH_SECONDS
from services.gateway.repository import SqlTenantRepository
from services.gateway.tenants import Tenants
from services.runtime.auth import Caller, Scope
from tests.contract.tenants_world import OPERATOR, Calendar

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


async def test_a_key_speaks_for_its_tenant_until_it_is_revoked(tenants: Tenants, name: str) -> None:
    key, secret = await tenants.create_key(name, "laptop")
    other, other_secret = await tenants.create_key(name, "")
    assert (await tenants.authenticate(secret, {})).tenant == name
    revoked = await tenants.revoke(key.id)
    assert revoked.revoked is not None
    assert (await tenants.revoke(key.id)).revoked == revoked.revoked  # once is enough
    with pytest.raises(Unauthenticated, match="revoked"):
        await tenants.authenticate(secret, {})
    assert (await tenants.authenticate(other_secret, {})).tenant == name
    listed, following = await tenants.list_keys(name, 10, "")
    assert {k.id for k in listed} == {key.id, other.id}
    assert following == ""


async def test_a_secret_is_not_kept(tenants: Tenants, name: str) -> None:
    key, secret = await tenants.create_key(name, "")
    assert secret not in repr(key)
    assert secret.rpartition("_")[2] not in key.secret_hmac


async def test_a_key_with_one_letter_changed_is_unknown(tenants: Tenants, name: str) -> None:
    _, secret = await tenants.create_key(name, "")
    for wrong in (
        secret[:-1] + ("a" if secret[-1] != "a" else "b"),
        secret[:-1],
        secret + "a",
        secret.upper(),
        "",
        "é",
        OPERATOR[:-1],
    ):
        with pytest.raises(Unauthenticated):
            await tenants.authenticate(wrong, {})


async def test_the_operator_speaks_for_no_tenant(tenants: Tenants) -> None:
    assert (await tenants.authenticate(OPERATOR, {})).tenant is None


async def test_metadata_gives_nobody_another_tenant_or_key(
    tenants: Tenants, name: TenantId
) -> None:
    key, secret = await tenants.create_key(name, "")
    forged = {"x-lorikeet-tenant": "victim", "x-lorikeet-key": "another"}
    assert await tenants.authenticate(secret, forged) == Caller(name, key.id)
    assert await tenants.authenticate(OPERATOR, forged) == Caller(None)


async def test_names_are_taken_once_and_must_be_names(tenants: Tenants, name: str) -> None:
    with pytest.raises(AlreadyExists):
        await tenants.create(name)
    for bad in ("", "A", "1a", "a b", "../a", "a" * 64, "é", "a\n"):
        with pytest.raises(InvalidRequest):
            await tenants.create(bad)
    with pytest.raises(NotFound):
        await tenants.create_key("nobody", "")
    with pytest.raises(NotFound):
        await tenants.revoke("nothing")
    with pytest.raises(InvalidRequest):
        await tenants.create_key(name, "x" * 101)


async def test_a_key_works_until_it_expires(
    tenants: Tenants, name: str, calendar: Calendar
) -> None:
    key, secret = await tenants.create_key(name, "", expires=calendar.now + DAY)
    calendar.now += DAY - timedelta(microseconds=1)
    assert (await tenants.authenticate(secret, {})).key == key.id
    calendar.now += timedelta(microseconds=1)
    with pytest.raises(Unauthenticated, match="expired"):
        await tenants.authenticate(secret, {})
    with pytest.raises(FailedPrecondition):
        await tenants.rotate(key.id, HOUR)
    with pytest.raises(InvalidRequest, match="expire_time"):
        await tenants.create_key(name, "", expires=calendar.now)


async def test_a_replaced_secret_works_for_the_overlap(
    tenants: Tenants, name: str, calendar: Calendar
) -> None:
    key, old = await tenants.create_key(name, "ci", scopes=["generate"])
    rotated, new = await tenants.rotate(key.id, HOUR)
    assert (rotated.id, rotated.label, rotated.scopes) == (key.id, "ci", key.scopes)
    assert old != new
    for secret in (old, new):
        assert await tenants.authenticate(secret, {}) == Caller(
            TenantId(name), key.id, frozenset({Scope.GENERATE})
        )
    calendar.now += HOUR
    with pytest.raises(Unauthenticated, match="new secret"):
        await tenants.authenticate(old, {})
    assert (await tenants.authenticate(new, {})).key == key.id
    assert new not in repr(rotated)


async def test_only_the_last_two_secrets_of_a_key_work(
    tenants: Tenants, name: str, calendar: Calendar
) -> None:
    key, first = await tenants.create_key(name, "")
    _, second = await tenants.rotate(key.id, HOUR)
    _, third = await tenants.rotate(key.id, HOUR)
    with pytest.raises(Unauthenticated):
        await tenants.authenticate(first, {})
    assert (await tenants.authenticate(second, {})).key == key.id
    _, fourth = await tenants.rotate(key.id, timedelta())  # the others are known to thieves
    for gone in (second, third):
        with pytest.raises(Unauthenticated):
            await tenants.authenticate(gone, {})
    await tenants.revoke(key.id)
    with pytest.raises(Unauthenticated, match="revoked"):
        await tenants.authenticate(fourth, {})
    with pytest.raises(FailedPrecondition):
        await tenants.rotate(key.id, HOUR)
    for overlap in (-HOUR, 31 * DAY):
        with pytest.raises(InvalidRequest, match="overlap"):
            await tenants.rotate(key.id, overlap)


async def test_of_two_rotations_at_once_one_is_done(
    tenants: Tenants, repository: SqlTenantRepository, name: str
) -> None:
    key, _ = await tenants.create_key(name, "")
    _, secret = await tenants.rotate(key.id, HOUR)  # another had read the key before
    with pytest.raises(Aborted):
        await repository.rotate(key, replace(key, secret_hmac="f" * 64))
    assert (await tenants.authenticate(secret, {})).key == key.id


async def test_a_key_may_do_what_its_scopes_say(tenants: Tenants, name: str) -> None:
    _, secret = await tenants.create_key(name, "", scopes=["generate", "adapters:read"])
    caller = await tenants.authenticate(secret, {})
    caller.need(Scope.GENERATE)
    caller.need(Scope.ADAPTERS_READ)
    caller.need(Scope.TENANT)
    with pytest.raises(PermissionDenied, match="adapters:write"):
        caller.need(Scope.ADAPTERS_WRITE)
    with pytest.raises(PermissionDenied):
        caller.need(Scope.OPERATOR)
    _, everything = await tenants.create_key(name, "")
    assert (await tenants.authenticate(everything, {})).scopes is None
    with pytest.raises(InvalidRequest, match="scopes: 'all' is none of"):
        await tenants.create_key(name, "", scopes=["all"])


async def test_tenants_are_listed_page_by_page(tenants: Tenants, name: str) -> None:
    await tenants.create(name + "a")
    found: list[str] = []
    token = ""
    while True:
        page, token = await tenants.list_tenants(1, token)
        found += [tenant.name for tenant in page]
        if not token:
            break
    assert found == sorted(found)
    assert {name, name + "a"} <= set(found)
    with pytest.raises(InvalidRequest, match="page_token"):
        await tenants.list_tenants(1, "nonsense!")
    with pytest.raises(InvalidRequest, match="page_size"):
        await tenants.list_tenants(-1, "")


async def test_what_changes_at_another_gateway_holds_here_within_a_second(
    tenants: Tenants, repository: SqlTenantRepository, name: TenantId
) -> None:
    now = 0.0
    another = Tenants(repository, pepper="pepper", operator_token=OPERATOR, clock=lambda: now)
    key, old = await tenants.create_key(name, "")
    await another.authenticate(old, {})
    _, new = await tenants.rotate(key.id, timedelta())
    await another.authenticate(new, {})  # at once
    with pytest.raises(Unauthenticated):
        await another.authenticate(old, {})
    await tenants.revoke(key.id)
    now += FRESH_SECONDS
    with pytest.raises(Unauthenticated, match="revoked"):
        await another.authenticate(new, {})
    mine, secret = await another.create_key(name, "")
    await another.authenticate(secret, {})
    await another.revoke(mine.id)
    with pytest.raises(Unauthenticated, match="revoked"):
        await another.authenticate(secret, {})
