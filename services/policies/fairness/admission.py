"""Who is next? What a queue that is fair, or is not, promises to whoever has room."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from services.core.types import EQUAL, AdapterWait, Digest, RequestId, Share, TenantId, Tier


@dataclass(frozen=True, slots=True)
class Request:
    """What a policy may know of a request before it runs."""

    id: RequestId
    tenant: TenantId
    prompt_tokens: int
    max_tokens: int
    adapter: Digest | None = None
    share: Share = EQUAL  # of the tenant, when it came
    tier: Tier = Tier.DEFAULT


class AdmissionPolicy(Protocol):
    """Ranks those who wait and keeps account of those who run; whether one fits, and where, is its
    caller's business. `now`: seconds on a clock that never goes back.

    Nothing is told of a request that goes on elsewhere: it neither ends nor is admitted again, and
    only new tokens are produced. What is computed once more for it is the system's to pay: tenants
    would pay for being moved.
    """

    def enqueue(self, request: Request, now: float) -> None:
        """Raises ResourceExhausted if the request is not even to wait."""
        ...

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        """Who may be admitted now, the best first. Who comes later is for a caller that has no
        room for those before; who does not come must wait, even if there is room. Ask anew after
        each admission. `resident`: adapters that are where there is room."""
        ...

    def admit(self, request: RequestId, now: float) -> None:
        """One of the candidates runs from now on."""
        ...

    def awaited(self, wait: AdapterWait, now: float) -> None:
        """What one that was admitted waits, or waited, for its adapter."""
        ...

    def owed(self, request: RequestId) -> float:
        """Service by which whoever it is of is behind those who wait; 0 if the policy knows none,
        or does not know the request."""
        ...

    def produced(self, request: RequestId, tokens: int = 1) -> None:
        """So many more tokens of output; for one that runs."""
        ...

    def end(self, request: RequestId) -> None:
        """It waits or runs no more, finished or not; one that is not known is no error."""
        ...
