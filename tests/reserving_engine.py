"""The engine of VTC's proofs: whole requests are reserved, and each step is a token of each."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from services.core.types import EQUAL, Digest, RequestId, Share, TenantId
from services.policies.fairness.admission import AdmissionPolicy, Request


def request(
    name: str,
    tenant: str,
    *,
    prompt: int = 8,
    output: int = 8,
    adapter: str = "",
    share: Share = EQUAL,
) -> Request:
    wanted = Digest(adapter) if adapter else None
    return Request(RequestId(name), TenantId(tenant), prompt, output, wanted, share)


def burst(
    tenant: str, count: int, *, at: float = 0, **facts: int | str | Share
) -> list[tuple[float, Request]]:
    """So many requests at one moment."""
    return [(at, request(f"{tenant}-{at}-{i}", tenant, **facts)) for i in range(count)]  # type: ignore[arg-type]


@dataclass
class ReservingEngine:
    """Every request produces its max_tokens. Service is as of WeightedTokens, by tenant."""

    policy: AdmissionPolicy
    pool_tokens: int
    before_admission: Callable[[], None] = lambda: None
    resident: Sequence[Digest] = ()
    step: int = -1
    waiting: dict[RequestId, Request] = field(default_factory=dict)
    running: dict[RequestId, list[int]] = field(default_factory=dict)  # tokens left
    requests: dict[RequestId, Request] = field(default_factory=dict)
    service: Counter[TenantId] = field(default_factory=Counter)
    first_tokens: dict[RequestId, int] = field(default_factory=dict)
    rows: list[tuple[frozenset[TenantId], Counter[TenantId]]] = field(default_factory=list)
    """By step: who still waited after it had admitted, and the service of each until then."""

    def play(self, arrivals: Iterable[tuple[float, Request]], *, steps: int) -> None:
        coming = sorted(arrivals, key=lambda arrival: arrival[0])
        for _ in range(steps):
            self.step += 1
            while coming and coming[0][0] <= self.step:
                self.arrive(coming.pop(0)[1])
            self._admit()
            waiting = frozenset(one.tenant for one in self.waiting.values())
            self.rows.append((waiting, self.service.copy()))
            self._produce()

    def drain(self, *, most: int = 50_000) -> None:
        """Until nothing waits or runs."""
        while (self.waiting or self.running) and most:
            self.play([], steps=1)
            most -= 1

    def arrive(self, one: Request) -> None:
        self.policy.enqueue(one, self.step)
        self.waiting[one.id] = self.requests[one.id] = one

    def cancel(self, name: RequestId) -> None:
        self.policy.end(name)
        self.waiting.pop(name, None)
        self.running.pop(name, None)

    def widest_gap(self, one: str, other: str) -> float:
        """The largest difference of their service over any time in which both waited."""
        widest, first, second = 0.0, TenantId(one), TenantId(other)
        low = high = None
        for waiting, service in self.rows:
            ahead = service[first] - service[second]
            if {first, second} <= waiting:
                low = ahead if low is None else min(low, ahead)
                high = ahead if high is None else max(high, ahead)
                widest = max(widest, high - low)
            else:
                low = high = None
        return widest

    def shares(self, *, since: int = 0) -> dict[str, float]:
        """Of the service since a step."""
        before = self.rows[since][1]
        served = {tenant: n - before[tenant] for tenant, n in self.service.items()}
        return {tenant: n / sum(served.values()) for tenant, n in served.items()}

    def _admit(self) -> None:
        while (fitting := self._first_that_fits()) is not None:
            self.before_admission()
            self.policy.admit(fitting.id, self.step)
            del self.waiting[fitting.id]
            self.running[fitting.id] = [fitting.max_tokens]
            self.service[fitting.tenant] += fitting.prompt_tokens

    def _first_that_fits(self) -> Request | None:
        used = sum(self._size(self.requests[name]) for name in self.running)
        found = self.policy.candidates(self.step, self.resident)
        return next((one for one in found if used + self._size(one) <= self.pool_tokens), None)

    def _produce(self) -> None:
        for name, left in list(self.running.items()):
            self.first_tokens.setdefault(name, self.step)
            self.policy.produced(name)
            self.service[self.requests[name].tenant] += 2
            left[0] -= 1
            if not left[0]:
                self.policy.end(name)
                del self.running[name]

    @staticmethod
    def _size(one: Request) -> int:
        return one.prompt_tokens + one.max_tokens
