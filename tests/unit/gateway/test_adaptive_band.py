"""The band of a gateway: a number, or as wide as what workers say of loads makes it."""

from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from services.core.types import AdapterWait, FinishReason, TokenPiece
from services.gateway.course import Job
from services.gateway.fair_queue import FairQueue
from services.gateway.fairness import QueueReports
from services.gateway.gateway import Gateway
from services.gateway.settings import GatewaySettings
from services.policies.fairness.band import AUTO, AdaptiveBand
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.tiers import Tiers
from services.policies.fairness.vtc import Rules
from tests.completions import completion
from tests.paper_worker import PaperWorker


class Loading(PaperWorker):
    """Every request waits a second for its adapter."""

    async def follow(self, job: Job, seconds: float) -> AsyncGenerator[TokenPiece, None]:
        yield TokenPiece((1,), adapter_wait=AdapterWait(seconds=1.0, sequences=6, slots=2))
        yield TokenPiece((2,), finish_reason=FinishReason.LENGTH)


async def test_a_band_hears_what_workers_say_of_loads() -> None:
    """In the gateway's own queue, whose policies are measured."""
    band, unused = AdaptiveBand(), cast(Any, None)
    knobs = Knobs(band=band)
    reports = QueueReports(
        "vtc-adapter", lambda *_: POLICIES["vtc-adapter"](knobs), cost=Rules().cost
    )
    queue: Any = FairQueue(Loading(), lambda base: Tiers(lambda tier: reports.policy(base, tier)))
    gateway = Gateway(base_models=unused, store=unused, queue=queue, prompts=unused)
    assert band.width == 0
    for _ in range(2):
        assert [piece async for piece in gateway.stream(completion("t", prompt=3), seconds=10)]
    assert band.lost == pytest.approx(2 / 20, rel=0.01)
    assert band.width == pytest.approx(6 / 2 * (3 + 2 * 2), rel=0.01)


@pytest.mark.parametrize("policy", list(POLICIES))
def test_every_policy_may_be_told(policy: str) -> None:
    POLICIES[policy](Knobs()).awaited(AdapterWait(1.0, 1, 1), 0.0)


@pytest.mark.parametrize("band", [AUTO, "0", "1500"])
def test_a_band_is_a_number_or_auto(band: str) -> None:
    assert _settings(band=band).band == band


@pytest.mark.parametrize("band", ["wide", "-1", "nan", ""])
def test_other_bands_are_refused(band: str) -> None:
    with pytest.raises(ValueError, match="band"):
        _settings(band=band)


def _settings(**changed: str) -> GatewaySettings:
    needed: dict[str, Any] = {
        "database_url": "sqlite+aiosqlite://",
        "service_token": "t" * 40,
        "operator_token": "o" * 40,
        "key_pepper": "p" * 40,
    }
    return GatewaySettings(**needed | changed)
