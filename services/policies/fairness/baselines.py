"""What fairness is measured against: first come first served, rate limits, deficit round robin."""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterator

from services.core.errors import ResourceExhausted
from services.core.types import AdapterWait, Digest, RequestId, TenantId
from services.policies.fairness.admission import Request
from services.policies.fairness.cost import Cost, WeightedTokens

WINDOW_SECONDS = 60.0


class FirstComeFirstServed:
    """An AdmissionPolicy in which nobody is overtaken."""

    def __init__(self) -> None:
        self._waiting: dict[RequestId, Request] = {}

    def enqueue(self, request: Request, now: float) -> None:
        self._waiting[request.id] = request

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        if self._waiting:
            yield next(iter(self._waiting.values()))

    def admit(self, request: RequestId, now: float) -> None:
        del self._waiting[request]

    def awaited(self, wait: AdapterWait, now: float) -> None:
        """Changes nothing."""

    def owed(self, request: RequestId) -> float:
        return 0.0

    def produced(self, request: RequestId, tokens: int = 1) -> None:
        """Costs nothing."""

    def end(self, request: RequestId) -> None:
        self._waiting.pop(request, None)


class _Windows:
    """How many of each tenant there were in the last minute; nothing else is kept."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: deque[tuple[float, TenantId]] = deque()
        self._counts: Counter[TenantId] = Counter()

    def __len__(self) -> int:
        """Tenants that are known, when last asked."""
        return len(self._counts)

    def has_room(self, tenant: TenantId, now: float) -> bool:
        self._expire(now)
        return self._counts.get(tenant, 0) < self._most

    def note(self, tenant: TenantId, now: float) -> None:
        self._expire(now)
        self._times.append((now, tenant))
        self._counts[tenant] += 1

    def _expire(self, now: float) -> None:
        """Whosever they are: each is looked at once when it comes, and once when it goes."""
        while self._times and self._times[0][0] <= now - WINDOW_SECONDS:
            _, tenant = self._times.popleft()
            self._counts[tenant] -= 1
            if not self._counts[tenant]:
                del self._counts[tenant]


class RejectingRateLimit(FirstComeFirstServed):
    """So many requests of a tenant a minute; what is more is refused, whatever room there is."""

    def __init__(self, requests_per_minute: int) -> None:
        super().__init__()
        self._windows = _Windows(requests_per_minute)

    def enqueue(self, request: Request, now: float) -> None:
        if not self._windows.has_room(request.tenant, now):
            raise ResourceExhausted("too many requests a minute")
        self._windows.note(request.tenant, now)
        super().enqueue(request, now)


class DelayingRateLimit(FirstComeFirstServed):
    """What is more waits, and is overtaken by those who have not had as much. Looks through all
    who wait."""

    def __init__(self, requests_per_minute: int) -> None:
        super().__init__()
        self._windows = _Windows(requests_per_minute)

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        full: set[TenantId] = set()
        for request in self._waiting.values():
            if request.tenant in full:
                continue
            if self._windows.has_room(request.tenant, now):
                yield request
                return
            full.add(request.tenant)

    def admit(self, request: RequestId, now: float) -> None:
        self._windows.note(self._waiting[request].tenant, now)
        super().admit(request, now)


class DeficitRoundRobin:
    """An AdmissionPolicy: tenants in turns, each until it has used up its quantum.

    As VTC adapts it (OSDI'24, appendix C.2): the length of an output is not known before, so that a
    deficit may become negative, and the next turns pay for it. Who owes and wants nothing more lets
    its turns pass until it has paid; while nobody waits they take no time. Then it is forgotten.
    """

    def __init__(self, quantum: float, cost: Cost | None = None) -> None:
        self._quantum = quantum
        self._cost = cost or WeightedTokens()
        self._deficits: dict[TenantId, float] = {}
        # In the order of their turns. An empty one is of somebody idle that owes.
        self._queues: OrderedDict[TenantId, dict[RequestId, Request]] = OrderedDict()
        self._tenants: dict[RequestId, TenantId] = {}  # of those who wait
        self._running: dict[RequestId, tuple[Request, int]] = {}  # and tokens of output
        self._active: dict[TenantId, int] = {}  # requests that run

    def enqueue(self, request: Request, now: float) -> None:
        self._queues.setdefault(request.tenant, {})[request.id] = request
        self._tenants[request.id] = request.tenant
        self._deficits.setdefault(request.tenant, 0.0)

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        tenant = self._whose_turn()
        if tenant is not None:
            yield next(iter(self._queues[tenant].values()))

    def admit(self, request: RequestId, now: float) -> None:
        admitted = self._queues[self._tenants[request]][request]
        self._running[request] = (admitted, 0)
        self._active[admitted.tenant] = self._active.get(admitted.tenant, 0) + 1
        self._deficits[admitted.tenant] -= self._cost(admitted.prompt_tokens, 0)
        self._leave(request)

    def awaited(self, wait: AdapterWait, now: float) -> None:
        """Changes nothing."""

    def owed(self, request: RequestId) -> float:
        return 0.0

    def produced(self, request: RequestId, tokens: int = 1) -> None:
        running, before = self._running[request]
        after = before + tokens
        self._running[request] = (running, after)
        charge = self._cost(running.prompt_tokens, after) - self._cost(
            running.prompt_tokens, before
        )
        self._deficits[running.tenant] -= charge

    def end(self, request: RequestId) -> None:
        if request in self._tenants:
            self._leave(request)
        if request in self._running:
            tenant = self._running.pop(request)[0].tenant
            self._active[tenant] -= 1
            if not self._active[tenant]:
                del self._active[tenant]
            self._rest(tenant)

    @property
    def num_known(self) -> int:
        """Those who wait, run, or owe to those who wait."""
        return len(self._deficits)

    def _whose_turn(self) -> TenantId | None:
        while self._tenants:
            for _ in range(len(self._queues)):
                tenant, queue = next(iter(self._queues.items()))
                if queue and self._deficits[tenant] > 0:
                    return tenant
                self._deficits[tenant] += self._quantum
                self._queues.move_to_end(tenant)
                if not queue and self._deficits[tenant] >= 0:
                    self._forget(tenant)
            self._skip_rounds()
        return None

    def _skip_rounds(self) -> None:
        """Those in which nobody would come to have anything."""
        most = max(self._deficits[tenant] for tenant, queue in self._queues.items() if queue)
        rounds = math.floor(-most / self._quantum)
        if rounds > 0:
            for tenant in self._queues:
                self._deficits[tenant] += rounds * self._quantum

    def _leave(self, request: RequestId) -> None:
        tenant = self._tenants.pop(request)
        del self._queues[tenant][request]
        if not self._queues[tenant]:
            del self._queues[tenant]
            self._deficits[tenant] = min(0.0, self._deficits[tenant])  # unused turns are lost
            self._rest(tenant)
        if not self._tenants:
            for debtor in list(self._queues):
                self._forget(debtor)

    def _rest(self, tenant: TenantId) -> None:
        if tenant in self._queues or tenant in self._active:
            return
        if self._deficits[tenant] < 0 and self._tenants:
            self._queues[tenant] = {}
        else:
            del self._deficits[tenant]

    def _forget(self, tenant: TenantId) -> None:
        del self._queues[tenant], self._deficits[tenant]
