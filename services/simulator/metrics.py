"""How fair and how fast a replay was; as the artifact of VTC (OSDI'24) measures it, where it does.

A service of so much is w_p for every token of prompt and w_q for every token of output.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations

from services.core.types import TenantId
from services.policies.fairness.measures import service_difference
from services.simulator.recording import Outcome, Recording

WINDOW_SECONDS = 60.0
WARM_UP_SECONDS = 30.0
TICKS = 20


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds; percentiles are values that occurred (nearest rank)."""

    mean: float
    p50: float
    p99: float


def shares(
    recording: Recording, start: float, end: float, *, w_p: float = 1, w_q: float = 2
) -> dict[TenantId, float]:
    """Of the service that was given from `start` to before `end`; all 0 if there was none."""
    given = {
        tenant: recording.service(tenant, start, end, w_p=w_p, w_q=w_q)
        for tenant in recording.tenants
    }
    total = sum(given.values())
    return {tenant: service / total if total else 0.0 for tenant, service in given.items()}


def accumulated_gap(recording: Recording, *, w_p: float = 1, w_q: float = 2) -> float:
    """The largest |W_f - W_g| of any two tenants in any interval all through which both were
    backlogged: what 2U bounds (theorem 4.4). Exact: service changes at recorded instants only."""
    return max(
        (
            _spread(recording, (f, g), start, end, w_p=w_p, w_q=w_q)
            for f, g in combinations(recording.tenants, 2)
            for start, end in _both(
                recording.backlogged.get(f, ()), recording.backlogged.get(g, ())
            )
        ),
        default=0.0,
    )


def service_differences(
    recording: Recording, *, seconds: float | None = None, w_p: float = 1, w_q: float = 2
) -> list[float]:
    """How much service tenants miss, in the windows of a minute around the ticks: for each, what
    it lacks of the best served or of its own demand, whichever is less. Its maximum, mean and
    (population) variance are the columns of the paper's tables.

    A request's service is spread evenly from its first token to its end; its demand is counted
    when it comes, rejected or not. `seconds`: how long it was measured; until the last arrival if
    not given.
    """
    spans = {tenant: list(_spans(recording, tenant, w_p, w_q)) for tenant in recording.tenants}
    differences = []
    for tick in _ticks(recording, seconds):
        start, end = tick - WINDOW_SECONDS / 2, tick + WINDOW_SECONDS / 2
        served = {t: _served(spans[t], start, end) / WINDOW_SECONDS for t in recording.tenants}
        demand = dict.fromkeys(recording.tenants, 0.0)
        for record in recording.requests:
            if start <= record.arrived <= end:
                cost = w_p * record.prompt_tokens + w_q * record.wanted_tokens
                demand[record.tenant] += cost / WINDOW_SECONDS
        differences.append(service_difference(served, demand))
    return differences


def accumulated_differences(
    recording: Recording, *, seconds: float | None = None, w_p: float = 1, w_q: float = 2
) -> list[float]:
    """At every tick: the most less the least service of a tenant since the warm-up."""
    spans = [list(_spans(recording, tenant, w_p, w_q)) for tenant in recording.tenants]
    differences = []
    for tick in _ticks(recording, seconds):
        served = [_served(of_one, WARM_UP_SECONDS, tick) for of_one in spans]
        differences.append(max(served, default=0.0) - min(served, default=0.0))
    return differences


def response_times(recording: Recording) -> dict[TenantId, Times]:
    """From arrival to first token, of those that had one; tenants of whom none had are left out."""
    waited = {
        tenant: sorted(
            record.first_token - record.arrived
            for record in recording.requests
            if record.tenant == tenant and record.first_token is not None
        )
        for tenant in recording.tenants
    }
    return {tenant: _times(seconds) for tenant, seconds in waited.items() if seconds}


def throughput(recording: Recording) -> float:
    """Tokens of prompt and output a second, of the requests that finished."""
    done = (r for r in recording.requests if r.outcome is Outcome.FINISHED)
    tokens = sum(record.prompt_tokens + record.output_tokens for record in done)
    return tokens / recording.seconds if tokens else 0.0


def _spread(
    recording: Recording,
    pair: tuple[TenantId, TenantId],
    start: float,
    end: float,
    *,
    w_p: float,
    w_q: float,
) -> float:
    """How far W_f - W_g moves: its highest less its lowest value is its largest change."""
    changes: defaultdict[float, float] = defaultdict(float)
    for sign, tenant in zip((1, -1), pair, strict=True):
        for charge in recording.charged(tenant, start, end):
            changes[charge.at] += sign * charge.cost(w_p, w_q)
    differences = list(accumulate((changes[at] for at in sorted(changes)), initial=0.0))
    return max(differences) - min(differences)


def _both(
    one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]
) -> Iterator[tuple[float, float]]:
    """Where intervals of both overlap; each are in order and apart."""
    i = j = 0
    while i < len(one) and j < len(other):
        start, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if start < end:
            yield start, end
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1


def _ticks(recording: Recording, seconds: float | None) -> list[float]:
    """TICKS - 1 instants after the warm-up; neither it nor the end is one."""
    if seconds is None:
        seconds = max((record.arrived for record in recording.requests), default=0.0)
    apart = (seconds - WARM_UP_SECONDS) / TICKS
    return [WARM_UP_SECONDS + apart * number for number in range(1, TICKS)]


def _spans(
    recording: Recording, tenant: TenantId, w_p: float, w_q: float
) -> Iterator[tuple[float, float, float]]:
    """From when to when each request was served, and how much a second."""
    for record in recording.requests:
        if record.tenant == tenant and record.first_token is not None:
            end = recording.seconds if record.ended is None else record.ended
            if end - record.first_token >= 1e-5:
                cost = w_p * record.prompt_tokens + w_q * record.output_tokens
                yield record.first_token, end, cost / (end - record.first_token)


def _served(spans: Sequence[tuple[float, float, float]], start: float, end: float) -> float:
    return sum(rate * max(0.0, min(end, last) - max(start, first)) for first, last, rate in spans)


def _times(seconds: Sequence[float]) -> Times:
    """`seconds`: in order."""
    p50, p99 = (seconds[math.ceil(part * len(seconds)) - 1] for part in (0.5, 0.99))
    return Times(statistics.fmean(seconds), p50, p99)
