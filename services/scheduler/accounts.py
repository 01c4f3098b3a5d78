"""The gateways' fairness counters, one account for each base model."""

import secrets

from services.core.clock import Clock
from services.core.types import Fingerprint
from services.policies.fairness.clearing import Answer, ClearingHouse, Statement


class Accounts:
    """A gateway that has not settled for `lease_seconds` is gone: it holds nobody's floor down."""

    def __init__(self, clock: Clock, *, lease_seconds: float) -> None:
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._name = secrets.token_hex(8)
        self._houses: dict[Fingerprint, ClearingHouse] = {}
        self._settled: dict[tuple[Fingerprint, str], float] = {}

    def settle(self, base: Fingerprint, statement: Statement) -> Answer:
        self._forget_the_gone()
        house = self._houses.setdefault(base, ClearingHouse(self._name))
        self._settled[base, statement.gateway] = self._clock.now()
        return house.settle(statement)

    def _forget_the_gone(self) -> None:
        oldest = self._clock.now() - self._lease_seconds
        for base, gateway in [who for who, when in self._settled.items() if when < oldest]:
            del self._settled[base, gateway]
            self._houses[base].forget(gateway)
