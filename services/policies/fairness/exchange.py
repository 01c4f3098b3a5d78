"""Several gateways, one account: each tells the others what it charged, and when they hear of it
their counters agree. As in a replicated counter, reports may be lost, late or doubled.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from services.policies.fairness.counters import Counters


@dataclass(frozen=True, slots=True)
class Report:
    """The whole account of a gateway, so that the newest one is enough. A gateway that starts
    anew takes another name."""

    gateway: str
    number: int
    accounts: Mapping[str, tuple[float, float]]
    """By key: what its counter is apart from all charges (the lifts), and what was charged here."""
    floor: float | None
    """The lowest counter of those who wait here; None if nobody does."""


class Exchange:
    """Of one level's counters. While reports are at most `seconds` old, and all gateways together
    serve `rate` a second, the counters of k gateways differ by at most (k - 1) * rate * seconds
    from what one gateway would have, and service by 2U for each of k and twice that.
    """

    def __init__(self, gateway: str, counters: Counters) -> None:
        self._gateway = gateway
        self._counters = counters
        self._number = 0
        self._heard: dict[str, Report] = {}

    def report(self) -> Report:
        self._number += 1
        return Report(
            gateway=self._gateway,
            number=self._number,
            accounts={
                key: (self._base(key), self._counters.charged_here(key))
                for key in self._counters.known
            },
            floor=self._counters.own_floor,
        )

    def receive(self, report: Report) -> None:
        """One that is older than what was heard, or one's own, changes nothing."""
        before = self._heard.get(report.gateway)
        is_old = before is not None and report.number <= before.number
        if is_old or report.gateway == self._gateway:
            return
        bases = {key: self._base(key) for key in self._counters.known}
        self._heard[report.gateway] = report
        for key, (base, _) in report.accounts.items():
            bases[key] = max(base, bases.get(key, base))
        # Who is known here and not in the report any more was forgotten there: what it was charged
        # there stays in its counter.
        gone = {} if before is None else before.accounts
        for key in (gone.keys() - report.accounts.keys()) & bases.keys():
            bases[key] += gone[key][1]
        self._counters.learn(
            {key: base + self._charged(key) for key, base in bases.items()}, self._floor()
        )

    def forget(self, gateway: str) -> None:
        """It is gone: what it charged stays, and it holds nobody's floor down."""
        counters = {key: self._counters.of(key) for key in self._counters.known}
        self._heard.pop(gateway, None)
        self._counters.learn(counters, self._floor())

    def _floor(self) -> float | None:
        floors = [report.floor for report in self._heard.values() if report.floor is not None]
        return min(floors, default=None)

    def _base(self, key: str) -> float:
        return self._counters.of(key) - self._charged(key)

    def _charged(self, key: str) -> float:
        """Here, and elsewhere as far as was heard."""
        elsewhere = sum(r.accounts[key][1] for r in self._heard.values() if key in r.accounts)
        return self._counters.charged_here(key) + elsewhere
