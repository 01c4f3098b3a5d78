"""The gateways' fairness counters, one account for each base model and whoever is compared."""

import secrets

from services.core.clock import Clock
from services.core.types import Fingerprint
from services.policies.fairness.clearing import Answer, ClearingHouse, Statement

_Account = tuple[Fingerprint, str]


class Accounts:
    """A gateway that has not settled for `lease_seconds` is gone: it holds nobody's floor down."""

    def __init__(self, clock: Clock, *, lease_seconds: float) -> None:
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._name = secrets.token_hex(8)
        self._houses: dict[_Account, ClearingHouse] = {}
        self._settled: dict[tuple[_Account, str], float] = {}

    def settle(self, base: Fingerprint, statement: Statement, account: str = "") -> Answer:
        """`account`: which of the base model's."""
        self._forget_the_gone()
        of = base, account
        house = self._houses.setdefault(of, ClearingHouse(self._name))
        self._settled[of, statement.gateway] = self._clock.now()
        return house.settle(statement)

    def _forget_the_gone(self) -> None:
        oldest = self._clock.now() - self._lease_seconds
        for account, gateway in [who for who, when in self._settled.items() if when < oldest]:
            del self._settled[account, gateway]
            self._houses[account].forget(gateway)
