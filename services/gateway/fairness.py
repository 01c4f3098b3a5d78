"""How fair this gateway is: its policies, measured, beside what they promise."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from services.core.types import Fingerprint, Tier
from services.gateway.fair_queue import FairQueue
from services.gateway.lane import LaneView, Standing
from services.gateway.refusals import Refusals
from services.policies.fairness.admission import AdmissionPolicy
from services.policies.fairness.bounds import Room
from services.policies.fairness.cost import Cost
from services.policies.fairness.levels import by_tenant
from services.policies.fairness.measured import Measured
from services.policies.fairness.measures import Fairness, Measures
from services.policies.fairness.vtc import VirtualTokenCounters

MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class TierReport:
    """Of those who want one tier of a base model. `bound`: what the policy promises that the gap
    stays below; None if it promises nothing."""

    view: LaneView
    tier: Tier
    policy: str
    fairness: Fairness
    bound: float | None

    @property
    def standings(self) -> list[Standing]:
        return [standing for standing in self.view.standings if standing.tier is self.tier]

    @property
    def too_late(self) -> Refusals:
        return self.view.too_late.get(self.tier, Refusals())


class QueueReports:
    """Measures the policies that it makes for a queue."""

    def __init__(
        self,
        name: str,
        make: Callable[[Fingerprint, Tier], AdmissionPolicy],
        *,
        cost: Cost,
        settle_seconds: float = 0.0,
    ) -> None:
        """`name`: the policies'. `settle_seconds`: as in clearing.Branch."""
        self._name = name
        self._make = make
        self._cost = cost
        self._settle_seconds = settle_seconds
        self._policies: dict[Fingerprint, dict[Tier, _Policy]] = {}
        self._queue: FairQueue | None = None

    def policy(self, base: Fingerprint, tier: Tier) -> AdmissionPolicy:
        """One for a base model and a tier, measured."""
        inner = self._make(base, tier)
        served = compared = Measured(inner, Measures(), self._cost)
        if isinstance(inner, VirtualTokenCounters) and inner.levels is not by_tenant:
            compared = Measured(served, Measures(), self._cost, inner.levels)
        self._policies.setdefault(base, {})[tier] = _Policy(inner, served, compared)
        return compared

    def follow(self, queue: FairQueue) -> None:
        """The one that these policies were made for."""
        self._queue = queue

    def look(self) -> list[TierReport]:
        """Tiers that were asked for, the highest first."""
        if self._queue is None:
            return []
        now = time.monotonic()
        return [
            self._report(view, tier, policies[tier], now)
            for view in self._queue.look()
            for policies in [self._policies.get(view.base, {})]
            for tier in Tier
            if tier in policies
        ]

    def _report(self, view: LaneView, tier: Tier, policy: "_Policy", now: float) -> TierReport:
        report = TierReport(view, tier, self._name, policy.fairness(now), None)
        return replace(report, bound=policy.bound(report))


@dataclass(frozen=True, slots=True)
class _Policy:
    """Measured twice: tenants, and whom it compares."""

    inner: AdmissionPolicy
    served: Measured
    compared: Measured

    def fairness(self, now: float) -> Fairness:
        """Service by tenant; gaps and indices are of organisations, if those are compared."""
        return replace(self.compared.report(now), service=self.served.report(now).service)

    def bound(self, report: TierReport) -> float | None:
        if not isinstance(self.inner, VirtualTokenCounters):
            return None
        shares = [standing.share for standing in report.standings]
        is_flat = self.inner.levels is by_tenant
        weights = [share.weight if is_flat else share.top_weight for share in shares]
        bound = self.inner.bound(
            Room(
                longest_prompt=report.view.longest_prompt,
                pool_tokens=report.view.pool_tokens,
                least_weight=min(weights, default=1.0),
            )
        )
        return None if bound is None else bound.service


class QueueMetrics(Collector):
    """The reports for Prometheus; tenants by name are the most served, or refused, and "other"."""

    def __init__(self, reports: QueueReports) -> None:
        self._reports = reports

    def collect(self) -> Iterator[Metric]:
        service = _by_tenant(
            "service", "What a tenant was served: input tokens, and twice those of output."
        )
        too_late = _by_tenant(
            "too_late_requests", "Refused because their first token would have come too late."
        )
        waiting = _gauge("waiting_requests", "That wait here.")
        running = _gauge("running_requests", "That run.")
        gap = _gauge(
            "service_gap", "The most that the service of two differed by while both waited."
        )
        bound = _gauge("service_gap_bound", "What the policy promises of it.")
        jain = _gauge("jain_index", "Of the last minute's service of those who waited.")
        dispersion = _gauge("service_dispersion", "The most less the least of it, a second.")
        for report in self._reports.look():
            labels, fairness = [report.view.base_model, report.tier.value], report.fairness
            for who, amount in fairness.service.items():
                service.add_metric([*labels, who], amount)
            for whose, count in report.too_late.most(MOST_NAMED).items():
                too_late.add_metric([*labels, whose], count)
            waiting.add_metric(labels, sum(s.waiting for s in report.standings))
            running.add_metric(labels, sum(s.running for s in report.standings))
            gap.add_metric(labels, fairness.gap)
            for metric, value in (
                (bound, report.bound),
                (jain, fairness.indices.jain),
                (dispersion, fairness.indices.dispersion),
            ):
                if value is not None:
                    metric.add_metric(labels, value)
        yield from (service, too_late, waiting, running, gap, bound, jain, dispersion)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"lorikeet_{name}", text, labels=["base_model", "tier"])


def _by_tenant(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"lorikeet_{name}", text, labels=["base_model", "tier", "tenant"])
