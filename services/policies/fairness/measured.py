"""An admission policy that is watched: whatever it decides, what came of it is measured."""

from collections import Counter
from collections.abc import Collection, Iterator

from services.core.types import AdapterWait, Digest, RequestId, TenantId
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.policies.fairness.cost import Cost
from services.policies.fairness.measures import Fairness, Measures


class Measured:
    """An AdmissionPolicy around another. Service is what was produced, when the policy was last
    told the time; what a policy charges beforehand is none yet."""

    def __init__(self, policy: AdmissionPolicy, measures: Measures, cost: Cost) -> None:
        self._policy = policy
        self._measures = measures
        self._cost = cost
        self._now = 0.0
        self._waiting: dict[RequestId, Request] = {}
        self._queued: Counter[TenantId] = Counter()
        self._running: dict[RequestId, tuple[Request, int]] = {}  # and tokens of output

    def report(self, now: float) -> Fairness:
        return self._measures.report(now)

    def enqueue(self, request: Request, now: float) -> None:
        self._now = now
        charge = self._cost(request.prompt_tokens, request.max_tokens)
        self._measures.asked(request.tenant, charge, now)
        self._policy.enqueue(request, now)
        self._waiting[request.id] = request
        self._queued[request.tenant] += 1
        if self._queued[request.tenant] == 1:
            self._measures.waits(request.tenant, now)

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        self._now = now
        return self._policy.candidates(now, resident)

    def admit(self, request: RequestId, now: float) -> None:
        self._now = now
        self._policy.admit(request, now)
        admitted = self._waiting[request]
        self._leave(request)
        self._running[request] = (admitted, 0)
        self._measures.served(admitted.tenant, self._cost(admitted.prompt_tokens, 0), now)

    def awaited(self, wait: AdapterWait, now: float) -> None:
        self._policy.awaited(wait, now)

    def produced(self, request: RequestId, tokens: int = 1) -> None:
        self._policy.produced(request, tokens)
        running, before = self._running[request]
        self._running[request] = (running, before + tokens)
        charge = self._cost(running.prompt_tokens, before + tokens) - self._cost(
            running.prompt_tokens, before
        )
        self._measures.served(running.tenant, charge, self._now)

    def end(self, request: RequestId) -> None:
        self._policy.end(request)
        if request in self._waiting:
            self._leave(request)
        self._running.pop(request, None)

    def _leave(self, request: RequestId) -> None:
        tenant = self._waiting.pop(request).tenant
        self._queued[tenant] -= 1
        if not self._queued[tenant]:
            del self._queued[tenant]
            self._measures.rests(tenant, self._now)
