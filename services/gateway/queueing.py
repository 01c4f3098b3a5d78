"""The queue that the settings ask for: measured, and settled with other gateways."""

from services.core.types import Fingerprint, Tier
from services.gateway.fair_queue import FairQueue
from services.gateway.fairness import QueueReports
from services.gateway.settings import GatewaySettings
from services.gateway.settling import Settling
from services.gateway.workers import Workers
from services.policies.fairness.admission import AdmissionPolicy
from services.policies.fairness.band import parsed
from services.policies.fairness.levels import by_organisation, by_tenant
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.tiers import WEIGHTS, Tiers, by_tier
from services.policies.fairness.vtc import Rules

ALL_TIERS = "tiers"  # their account


def fair_queue(
    settings: GatewaySettings, workers: Workers, settling: Settling
) -> tuple[FairQueue, QueueReports]:
    """Before the workers, who tell it when there may be more room."""
    weights = {**WEIGHTS, **by_tier(settings.tiers)}

    def policy(base: Fingerprint, tier: Tier) -> AdmissionPolicy:
        return settling.shared(base, _account(tier), _policy(settings))

    def tiers(base: Fingerprint) -> AdmissionPolicy:
        each = Tiers(lambda tier: reports.policy(base, tier), weights)
        return settling.shared(base, ALL_TIERS, each)

    reports = QueueReports(settings.policy, policy, cost=Rules().cost)
    queue = FairQueue(
        workers,
        tiers,
        weights=weights,
        levels=by_organisation if settings.policy == "vtc-hierarchy" else by_tenant,
        most_waiting=settings.most_waiting,
    )
    reports.follow(queue)
    workers.changed = queue.dispatch
    return queue, reports


def _policy(settings: GatewaySettings) -> AdmissionPolicy:
    knobs = Knobs(requests_per_minute=settings.requests_per_minute, band=parsed(settings.band))
    return POLICIES[settings.policy](knobs)


def _account(tier: Tier) -> str:
    """What gateways of the release before settle is of the default tier."""
    return "" if tier is Tier.DEFAULT else tier.value
