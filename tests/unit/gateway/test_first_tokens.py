"""How long first tokens take, and what a tier promises of them."""

from contextlib import suppress
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.core.errors import TooLate
from services.core.types import Tier
from services.gateway.fair_queue import FairQueue
from services.gateway.first_tokens import FirstTokens
from services.gateway.gateway import Gateway
from services.policies.fairness.policies import POLICIES, Knobs
from tests.completions import completion
from tests.paper_worker import PaperWorker
from tests.unit.gateway.test_adaptive_band import Loading
from tests.unit.gateway.test_gateway import prepared


async def told(worker: PaperWorker, within_ms: int | None = None) -> str:
    """What is said of two requests of different tiers."""
    registry, unused = CollectorRegistry(), cast(Any, None)
    queue: Any = FairQueue(worker, lambda _: POLICIES["vtc"](Knobs()))
    gateway = Gateway(
        base_models=unused,
        store=unused,
        queue=queue,
        prompts=unused,
        bookkeepers=[FirstTokens(registry)],
    )
    for tier in (Tier.FLEX, Tier.PRIORITY):
        asked = completion("t", tier=tier, within_ms=within_ms)
        with suppress(TooLate):
            assert [piece async for piece in gateway.stream(asked, seconds=10)]
    return generate_latest(registry).decode()


async def test_each_is_counted_in_its_tier() -> None:
    text = await told(Loading())
    for tier in ("flex", "priority"):
        labels = f'{{base_model="tiny",tier="{tier}"}}'
        assert f"lorikeet_first_token_seconds_count{labels} 1.0" in text
    assert 'tier="default"' not in text


async def test_one_that_never_came_took_no_time() -> None:
    assert "_count{" not in await told(PaperWorker(slots=0), within_ms=1)


@pytest.mark.parametrize(
    ("tier", "asked", "has"),
    [
        (Tier.PRIORITY, None, 1500),
        (Tier.PRIORITY, 9000, 9000),
        (Tier.DEFAULT, None, None),
        (Tier.DEFAULT, 9000, 9000),
    ],
)
async def test_a_tier_promises_what_requests_do_not_say(
    tier: Tier, asked: int | None, has: int | None
) -> None:
    completion = await prepared(
        "tiny",
        first_tokens_ms={Tier.PRIORITY: 1499.5},
        highest_tier=Tier.PRIORITY,
        service_tier=tier,
        first_token_within_ms=asked,
    )
    assert completion.job.first_token_within_ms == has
