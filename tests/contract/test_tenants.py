"""Tenants and keys on SQLite and PostgreSQL."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from services.core.errors import AlreadyExists, InvalidRequest, NotFound, Unauthenticated
from services.core.types import TenantId
from services.gateway.repository import SqlTenantRepository
from services.gateway.tenants import Tenants
from services.runtime.auth import Caller
from services.runtime.db import close_sessions, open_sessions

OPERATOR = "operator-token"


@pytest.fixture
async def tenants(url: str) -> AsyncIterator[Tenants]:
    sessions = open_sessions(url)
    yield Tenants(SqlTenantRepository(sessions), pepper="pepper", operator_token=OPERATOR)
    await close_sessions(sessions)


@pytest.fixture
async def name(tenants: Tenants) -> TenantId:
    return (await tenants.create(f"t{uuid4().hex[:8]}")).name


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
