"""Whom the suite's services believe to be calling."""

import pytest

from services.core.errors import Unauthenticated
from services.core.types import KeyId, TenantId
from services.runtime.auth import Caller, ServiceToken, bearer_of
from services.runtime.client import bearer

TOKEN = "service"
ACME = TenantId("acme")
KEY = KeyId("k2345678")


@pytest.mark.parametrize(
    ("caller", "name"),
    [(Caller(None), "operator"), (Caller(ACME), "acme"), (Caller(ACME, KEY), "acme/k2345678")],
)
async def test_a_caller_arrives_as_it_was_sent(caller: Caller, name: str) -> None:
    sent = dict(bearer(TOKEN, tenant=caller.tenant, key=caller.key))
    arrived = await ServiceToken(TOKEN).authenticate(bearer_of(sent["authorization"]), sent)
    assert arrived == caller
    assert arrived.name == name


async def test_a_key_alone_names_nobody() -> None:
    sent = dict(bearer(TOKEN, key=KEY))
    assert await ServiceToken(TOKEN).authenticate(TOKEN, sent) == Caller(None)


async def test_without_the_suites_token_nobody_arrives() -> None:
    with pytest.raises(Unauthenticated):
        await ServiceToken(TOKEN).authenticate("other", dict(bearer("other", tenant=ACME)))
