"""What of a request reaches a worker."""

from typing import Any

import pytest
from tokenizers import Tokenizer, models

from services.core.errors import PermissionDenied
from services.core.types import Digest, RequestId, Share, TenantId, Tier
from services.gateway.base_models import ServedModel
from services.gateway.course import Adapter, Completion
from services.gateway.gateway import COMMON_SALT, Gateway
from services.gateway.sampling import Asked
from services.runtime.auth import Caller
from tests.tiny_models import tiny_card

CARD = tiny_card()


class World:
    """One base model; everybody has an adapter called pirate."""

    async def find(self, name: str) -> ServedModel | None:
        return ServedModel(CARD, Tokenizer(models.WordLevel({}))) if name == "tiny" else None

    async def resolve(self, tenant: TenantId, reference: str, request: RequestId) -> Adapter:
        return Adapter(reference, tenant, 1, Digest("a" * 64), "tiny", CARD.fingerprint, 0)

    async def tokens(self, base: ServedModel, prompt: Any) -> tuple[int, ...]:
        return (1, 2, 3)


async def prepared(
    model: str,
    *,
    highest_tier: Tier = Tier.DEFAULT,
    first_tokens_ms: dict[Tier, float] | None = None,
    **asked: Any,
) -> Completion:
    world: Any = World()
    gateway = Gateway(
        base_models=world, store=world, queue=world, prompts=world, first_tokens_ms=first_tokens_ms
    )
    return await gateway.prepare(
        caller=Caller(TenantId("acme"), share=Share("group", 2.0, highest_tier=highest_tier)),
        request_id=RequestId("r"),
        model=model,
        prompt="x",
        asked=Asked(**asked),
    )


@pytest.mark.parametrize(
    ("model", "shares", "salt"),
    [
        ("tiny", False, "acme"),
        ("tiny", True, COMMON_SALT),
        ("pirate", True, "acme"),  # an adapter is its tenant's own
        ("pirate", False, "acme"),
    ],
)
async def test_prefixes_are_shared_by_those_who_say_so(model: str, shares: bool, salt: str) -> None:
    completion = await prepared(model, share_prefix=shares)
    assert completion.job.cache_salt == salt


async def test_a_request_brings_its_tenants_share() -> None:
    assert (await prepared("tiny")).share == Share("group", 2.0)


@pytest.mark.parametrize(
    ("asked", "highest", "has"),
    [
        (None, Tier.PRIORITY, Tier.DEFAULT),
        (None, Tier.DEFAULT, Tier.DEFAULT),
        (None, Tier.FLEX, Tier.FLEX),
        (Tier.PRIORITY, Tier.PRIORITY, Tier.PRIORITY),
        (Tier.DEFAULT, Tier.PRIORITY, Tier.DEFAULT),
        (Tier.FLEX, Tier.PRIORITY, Tier.FLEX),
        (Tier.DEFAULT, Tier.DEFAULT, Tier.DEFAULT),
        (Tier.FLEX, Tier.FLEX, Tier.FLEX),
    ],
)
async def test_a_request_has_the_tier_that_it_asks_for(
    asked: Tier | None, highest: Tier, has: Tier
) -> None:
    assert (await prepared("tiny", highest_tier=highest, service_tier=asked)).tier is has


@pytest.mark.parametrize(
    ("asked", "highest"),
    [
        (Tier.PRIORITY, Tier.DEFAULT),
        (Tier.PRIORITY, Tier.FLEX),
        (Tier.DEFAULT, Tier.FLEX),
    ],
)
async def test_a_tier_above_the_tenants_highest_is_refused(asked: Tier, highest: Tier) -> None:
    said = f"may ask for the service tier '{highest.value}' at most, not for '{asked.value}'"
    with pytest.raises(PermissionDenied, match=said):
        await prepared("tiny", highest_tier=highest, service_tier=asked)


async def test_how_long_a_first_token_may_take_is_passed_on() -> None:
    assert (await prepared("tiny")).job.first_token_within_ms is None
    assert (await prepared("tiny", first_token_within_ms=5)).job.first_token_within_ms == 5
