"""Admission policies by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from services.policies.fairness.admission import AdmissionPolicy
from services.policies.fairness.band import AdaptiveBand
from services.policies.fairness.baselines import (
    DeficitRoundRobin,
    DelayingRateLimit,
    FirstComeFirstServed,
    RejectingRateLimit,
)
from services.policies.fairness.lengths import MovingAverages
from services.policies.fairness.levels import by_organisation
from services.policies.fairness.vtc import Rules, VirtualTokenCounters


@dataclass(frozen=True, slots=True)
class Knobs:
    """Each policy takes what it has a use for. `quantum`: of deficit round robin; `band`: of VTC
    with adapters; both in what `rules.cost` counts. A band that adapts ("auto" by name) is for one
    policy only, which is told of loads by whoever admits."""

    rules: Rules = field(default_factory=Rules)
    requests_per_minute: int = 60
    quantum: float = 500.0
    band: float | AdaptiveBand = 2000.0


POLICIES: Mapping[str, Callable[[Knobs], AdmissionPolicy]] = {
    "fcfs": lambda knobs: FirstComeFirstServed(),
    "rpm-reject": lambda knobs: RejectingRateLimit(knobs.requests_per_minute),
    "rpm-delay": lambda knobs: DelayingRateLimit(knobs.requests_per_minute),
    "lcf": lambda knobs: VirtualTokenCounters(replace(knobs.rules, lifts=False)),
    "drr": lambda knobs: DeficitRoundRobin(knobs.quantum, knobs.rules.cost),
    "vtc": lambda knobs: VirtualTokenCounters(knobs.rules),
    "vtc-predict": lambda knobs: VirtualTokenCounters(
        replace(knobs.rules, lengths=MovingAverages())
    ),
    "vtc-adapter": lambda knobs: VirtualTokenCounters(replace(knobs.rules, band=knobs.band)),
    "vtc-hierarchy": lambda knobs: VirtualTokenCounters(
        replace(knobs.rules, levels=by_organisation)
    ),
}
"""First come first served; so many requests a minute, the rest refused or delayed; least counter
first (VTC without lifts); deficit round robin; virtual token counters, with predicted lengths, with
a band in which resident adapters come first, by organisation, tenant and adapter."""
