"""What operators are told of the queue: beside each other, what was promised and what is."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.core.types import Fingerprint, Share, TenantId, Tier
from services.gateway.fairness import QueueMetrics, QueueReports, TierReport
from services.policies.fairness.admission import AdmissionPolicy
from services.policies.fairness.cost import WeightedTokens
from tests.paper_worker import PaperWorker
from tests.queue_world import World


class ReportedWorld(World):
    """A world whose policy is measured."""

    def __post_init__(self) -> None:
        self.reports = QueueReports(self.policy, super().made, cost=WeightedTokens())
        super().__post_init__()
        self.reports.follow(self.queue)

    def made(self, base: Fingerprint, tier: Tier) -> AdmissionPolicy:
        return self.reports.policy(base, tier)

    async def report(self) -> TierReport:
        (report,) = self.reports.look()
        return report


async def test_service_is_what_was_produced_and_the_bound_is_what_the_policy_promises() -> None:
    world = ReportedWorld([PaperWorker(slots=2, pool_tokens=1000)])
    for name, tenant in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("b2", "b")):
        await world.ask(name, tenant, prompt=30)
    report = await world.report()
    assert report.fairness.service == {"a": 32.0, "b": 32.0}  # 30 of input, one of output
    assert report.fairness.gap <= 2.0
    assert report.bound == 2 * max(30, 2 * 1000)  # theorem 4.4: 2 U
    await world.ask("h", "half", prompt=30, share=Share(weight=0.5))
    assert (await world.report()).bound == 4 * max(30, 2 * 1000)


@pytest.mark.parametrize("policy", ["fcfs", "lcf", "rpm-delay"])
async def test_a_policy_that_promises_nothing_has_no_bound(policy: str) -> None:
    world = ReportedWorld(policy=policy)
    await world.ask("a")
    assert (await world.report()).bound is None


async def test_metrics_name_the_most_served_and_no_more() -> None:
    world = ReportedWorld([PaperWorker(slots=50)])
    for n in range(40):
        await world.ask(str(n), f"t{n}", prompt=10 + n)
    registry = CollectorRegistry()
    registry.register(QueueMetrics(world.reports))
    text = generate_latest(registry).decode()
    named = [line for line in text.splitlines() if line.startswith("lorikeet_service_total")]
    assert len(named) == 21
    assert any('tenant="t39"' in line for line in named)
    assert not any('tenant="t0"' in line for line in named)
    assert sum(float(line.split()[-1]) for line in named) == sum(12 + n for n in range(40))
    assert 'lorikeet_running_requests{base_model="tiny",tier="default"} 40.0' in text
    assert "lorikeet_service_gap_bound" in text
    assert TenantId("other") in text
