"""The gateways' accounts, which the scheduler keeps."""

from services.core.clock import ManualClock
from services.core.types import Fingerprint
from services.policies.fairness.clearing import Statement
from services.scheduler.accounts import Accounts

BASE = Fingerprint("b" * 64)


def test_what_is_charged_in_one_account_is_not_in_another() -> None:
    accounts = Accounts(ManualClock(), lease_seconds=10)
    told = Statement("g", 1, {"a": 0.0}, {"a": 7.0}, frozenset("a"), 0.0)
    assert accounts.settle(BASE, told, "flex").counters == {"a": 7.0}
    assert accounts.settle(BASE, told, "priority").counters == {"a": 7.0}
    assert accounts.settle(Fingerprint("c" * 64), told, "flex").counters == {"a": 7.0}
    again = Statement("h", 1, {}, {"a": 1.0}, frozenset("a"), 0.0)
    assert accounts.settle(BASE, again, "flex").counters == {"a": 8.0}
