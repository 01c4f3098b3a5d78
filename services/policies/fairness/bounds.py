"""What a policy promises: by how much counters, and service, may differ at most."""

from dataclasses import dataclass

from services.policies.fairness.cost import Cost, bound


@dataclass(frozen=True, slots=True)
class Room:
    """What promises depend on. `pool_tokens`: of all workers that are served from one queue.
    `least_weight`: of those who wait. `gateways` that share one account settle it every `seconds`,
    while all together charge at most `rate` a second."""

    longest_prompt: int
    pool_tokens: int
    least_weight: float = 1.0
    gateways: int = 1
    rate: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Bound:
    """In what the policy's cost counts, for a weight of 1."""

    counters: float
    """Of any two who wait at one gateway: U (lemma 4.3) and the band, U + Q."""
    service: float
    """Of any two, in any time all through which both waited: 2 (U + Q) (theorem 4.4). With several
    gateways each of them may be as far off, and all by what they had not heard of:
    k * 2 (U + Q) + 2 * rate * seconds."""


def promised(cost: Cost, room: Room, *, band: float) -> Bound:
    """`band`: the widest. Outputs that are charged before they come widen nothing, if there is room
    for them in the pool: what may be given back to one cannot be charged to another.

    For non-preemptive policies that leave no room unused no bound can be below half of this
    (theorem 4.8). One who waits against one who does not gets at most 4 (U + Q) less (4.9).
    """
    most = bound(cost, longest_prompt=room.longest_prompt, pool_tokens=room.pool_tokens)
    counters = most / room.least_weight + band
    unheard = 2 * room.rate * room.seconds / room.least_weight if room.gateways > 1 else 0.0
    return Bound(counters, room.gateways * 2 * counters + unheard)
