"""An admission policy that is watched: whatever it decides, what came of it is measured."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator

from services.core.types import AdapterWait, Digest, RequestId, TenantId
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.policies.fairness.cost import Cost
from services.policies.fairness.levels import Levels, by_tenant
from services.policies.fairness.measures import Fairness, Measures


class Measured:
    """An AdmissionPolicy around another. Service is what was produced, when the policy was last
    told the time; what a policy charges beforehand is none yet."""

    def __init__(
        self,
        policy: AdmissionPolicy,
        measures: Measures,
        cost: Cost,
        levels: Callable[[Request], Levels] = by_tenant,
    ) -> None:
        """Measured is who is on the highest of the levels."""
        self._policy = policy
        self._measures = measures
        self._cost = cost
        self._levels = levels
        self._now = 0.0
        self._waiting: dict[RequestId, Request] = {}
        self._queued: Counter[TenantId] = Counter()
        self._running: dict[RequestId, tuple[Request, int]] = {}  # and tokens of output

    def report(self, now: float) -> Fairness:
        return self._measures.report(now)

    def enqueue(self, request: Request, now: float) -> None:
        self._now = now
        charge = self._cost(request.prompt_tokens, request.max_tokens)
        who, weight = self._top(request)
        self._measures.asked(who, charge, now, weight)
        self._policy.enqueue(request, now)
        self._waiting[request.id] = request
        self._queued[who] += 1
        if self._queued[who] == 1:
            self._measures.waits(who, now)

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        self._now = now
        return self._policy.candidates(now, resident)

    def admit(self, request: RequestId, now: float) -> None:
        self._now = now
        self._policy.admit(request, now)
        admitted = self._waiting[request]
        self._leave(request)
        self._running[request] = (admitted, 0)
        self._serve(admitted, self._cost(admitted.prompt_tokens, 0))

    def awaited(self, wait: AdapterWait, now: float) -> None:
        self._policy.awaited(wait, now)

    def owed(self, request: RequestId) -> float:
        return self._policy.owed(request)

    def produced(self, request: RequestId, tokens: int = 1) -> None:
        self._policy.produced(request, tokens)
        running, before = self._running[request]
        self._running[request] = (running, before + tokens)
        charge = self._cost(running.prompt_tokens, before + tokens) - self._cost(
            running.prompt_tokens, before
        )
        self._serve(running, charge)

    def end(self, request: RequestId) -> None:
        self._policy.end(request)
        if request in self._waiting:
            self._leave(request)
        self._running.pop(request, None)

    def _serve(self, request: Request, charge: float) -> None:
        who, weight = self._top(request)
        self._measures.served(who, charge, self._now, weight)

    def _leave(self, request: RequestId) -> None:
        who, _ = self._top(self._waiting.pop(request))
        self._queued[who] -= 1
        if not self._queued[who]:
            del self._queued[who]
            self._measures.rests(who, self._now)

    def _top(self, request: Request) -> tuple[TenantId, float]:
        who, weight = self._levels(request)[0]
        return TenantId(who), weight
