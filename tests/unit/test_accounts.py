"""The gateways' accounts, which the scheduler keeps."""

from services.core.clock import ManualClock
from services.core.types import Fingerprint
from services.policies.fairness.clearing import Statement
from services.scheduler.accounts import Accounts

BASE = Fingerprint("b" * 64)


def test_what_is_charged_in_one_account_is_not_in_another() -> None:
    accounts = Accounts(ManualClock(), lease_seconds=10)

    def told(gateway: str, amount: float) -> Statement:
        return Statement(gateway, 1, {"a": 0.0}, {"a": amount}, frozenset("a"), 0.0)

    assert accounts.settle(BASE, told("g", 7.0), "flex").counters == {"a": 7.0}
    assert accounts.settle(BASE, told("g", 5.0), "priority").counters == {"a": 5.0}
    assert accounts.settle(Fingerprint("c" * 64), told("g", 3.0), "flex").counters == {"a": 3.0}
    assert accounts.settle(BASE, told("h", 1.0), "flex").counters == {"a": 8.0}
