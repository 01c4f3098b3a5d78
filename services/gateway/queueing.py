"""The queue that is asked for: measured, and settled with other gateways."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.core.types import Fingerprint, Tier
from services.gateway.fair_queue import FairQueue
from services.gateway.fairness import QueueReports
from services.gateway.settling import Settling
from services.gateway.workers import Workers
from services.policies.fairness.admission import AdmissionPolicy
from services.policies.fairness.band import parsed
from services.policies.fairness.levels import by_organisation, by_tenant
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.tiers import WEIGHTS, Tiers
from services.policies.fairness.vtc import Rules

ALL_TIERS = "tiers"  # their account


@dataclass(frozen=True, slots=True)
class Plan:
    """As in the settings of the same names; `tiers`: weights, of those that are not the usual."""

    policy: str
    requests_per_minute: int
    band: str
    tiers: Mapping[Tier, float]
    most_waiting: int


def fair_queue(plan: Plan, workers: Workers, settling: Settling) -> tuple[FairQueue, QueueReports]:
    """Before the workers, who tell it when there may be more room."""
    weights = {**WEIGHTS, **plan.tiers}

    def policy(base: Fingerprint, tier: Tier) -> AdmissionPolicy:
        # A band that adapts is for one policy only.
        knobs = Knobs(requests_per_minute=plan.requests_per_minute, band=parsed(plan.band))
        return settling.shared(base, _account(tier), POLICIES[plan.policy](knobs))

    def tiers(base: Fingerprint) -> AdmissionPolicy:
        each = Tiers(lambda tier: reports.policy(base, tier), weights)
        return settling.shared(base, ALL_TIERS, each)

    reports = QueueReports(plan.policy, policy, cost=Rules().cost)
    queue = FairQueue(
        workers,
        tiers,
        weights=weights,
        levels=by_organisation if plan.policy == "vtc-hierarchy" else by_tenant,
        most_waiting=plan.most_waiting,
    )
    reports.follow(queue)
    workers.changed = queue.dispatch
    return queue, reports


def _account(tier: Tier) -> str:
    """What gateways of the release before settle is of the default tier."""
    return "" if tier is Tier.DEFAULT else tier.value
