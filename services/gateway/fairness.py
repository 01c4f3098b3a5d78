"""How fair this gateway is: its policies, measured, beside what they promise."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from services.core.types import Fingerprint, TenantId
from services.gateway.fair_queue import FairQueue
from services.gateway.lane import LaneView
from services.policies.fairness.admission import AdmissionPolicy
from services.policies.fairness.bounds import Room
from services.policies.fairness.cost import Cost
from services.policies.fairness.measured import Measured
from services.policies.fairness.measures import Fairness, Measures
from services.policies.fairness.vtc import VirtualTokenCounters, by_tenant

MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class LaneReport:
    """`bound`: what the policy promises that the gap stays below; None if it promises nothing."""

    view: LaneView
    policy: str
    fairness: Fairness
    bound: float | None


class QueueReports:
    """Measures the policies that it makes for a queue."""

    def __init__(
        self,
        name: str,
        make: Callable[[Fingerprint], AdmissionPolicy],
        *,
        cost: Cost,
        settle_seconds: float = 0.0,
    ) -> None:
        """`name`: the policies'. `settle_seconds`: as in clearing.Branch."""
        self._name = name
        self._make = make
        self._cost = cost
        self._settle_seconds = settle_seconds
        self._inner: dict[Fingerprint, AdmissionPolicy] = {}
        self._served: dict[Fingerprint, Measured] = {}  # tenants
        self._compared: dict[Fingerprint, Measured] = {}  # whom the policy compares
        self._queue: FairQueue | None = None

    def policy(self, base: Fingerprint) -> AdmissionPolicy:
        """One for a base model, measured."""
        inner = self._inner[base] = self._make(base)
        served = compared = Measured(inner, Measures(), self._cost)
        if isinstance(inner, VirtualTokenCounters) and inner.levels is not by_tenant:
            compared = Measured(served, Measures(), self._cost, inner.levels)
        self._served[base], self._compared[base] = served, compared
        return compared

    def follow(self, queue: FairQueue) -> None:
        """The one that these policies were made for."""
        self._queue = queue

    def look(self) -> list[LaneReport]:
        if self._queue is None:
            return []
        now = time.monotonic()
        return [
            LaneReport(view, self._name, self._fairness(view.base, now), self._bound(view))
            for view in self._queue.look()
        ]

    def _fairness(self, base: Fingerprint, now: float) -> Fairness:
        """Service by tenant; gaps and indices are of organisations, if those are compared."""
        service = self._served[base].report(now).service
        return replace(self._compared[base].report(now), service=service)

    def _bound(self, view: LaneView) -> float | None:
        policy = self._inner[view.base]
        if not isinstance(policy, VirtualTokenCounters):
            return None
        shares = [standing.share for standing in view.standings]
        is_flat = policy.levels is by_tenant
        weights = [share.weight if is_flat else share.top_weight for share in shares]
        bound = policy.bound(
            Room(
                longest_prompt=view.longest_prompt,
                pool_tokens=view.pool_tokens,
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
            name, fairness = report.view.base_model, report.fairness
            for who, amount in fairness.service.items():
                service.add_metric([name, TenantId(who)], amount)
            for whose, count in report.view.too_late.most(MOST_NAMED).items():
                too_late.add_metric([name, whose], count)
            waiting.add_metric([name], sum(s.waiting for s in report.view.standings))
            running.add_metric([name], sum(s.running for s in report.view.standings))
            gap.add_metric([name], fairness.gap)
            for metric, value in (
                (bound, report.bound),
                (jain, fairness.indices.jain),
                (dispersion, fairness.indices.dispersion),
            ):
                if value is not None:
                    metric.add_metric([name], value)
        yield from (service, too_late, waiting, running, gap, bound, jain, dispersion)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"lorikeet_{name}", text, labels=["base_model"])


def _by_tenant(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"lorikeet_{name}", text, labels=["base_model", "tenant"])
