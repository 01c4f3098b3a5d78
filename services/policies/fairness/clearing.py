"""Several gateways, one account: what each charges is summed in one place, and comes back."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.policies.fairness.counters import Counters


@dataclass(frozen=True, slots=True)
class Statement:
    """What a gateway has to tell. `number`: the first is 1; one that was not answered is sent again
    as it was. A gateway that starts anew takes another name."""

    gateway: str
    number: int
    bases: Mapping[str, float]
    """Of keys that came to wait here: what their counters were raised to, less `charged`."""
    charged: Mapping[str, float]
    """By key, since the statement before."""
    active: frozenset[str]
    """Who waits or runs here."""
    floor: float | None
    """The lowest counter of those who wait here; None if nobody does."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`house`: another one knows nothing of what the one before was told."""

    house: str
    number: int
    counters: Mapping[str, float]
    """Of the gateway's active keys."""
    floor: float | None
    """The lowest of those who wait at other gateways."""


class ClearingHouse:
    """Where the counters of all gateways are one. Each statement counts once, however often it
    comes. What is idle everywhere and not above anybody who waits is forgotten."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counters: dict[str, float] = {}
        self._newest: dict[str, Statement] = {}
        self._answers: dict[str, Answer] = {}
        self._looked_at = 0  # keys, since idle ones were last looked for

    def settle(self, statement: Statement) -> Answer:
        """An old one has the answer to the newest."""
        gateway = statement.gateway
        before = self._newest.get(gateway)
        if before is not None and statement.number <= before.number:
            return self._answers[gateway]
        self._newest[gateway] = statement
        for key, base in statement.bases.items():
            self._counters[key] = max(base, self._counters.get(key, base))
        for key, amount in statement.charged.items():
            self._counters[key] = self._counters.get(key, 0.0) + amount
        answer = Answer(
            house=self._name,
            number=statement.number,
            counters={k: self._counters[k] for k in statement.active if k in self._counters},
            floor=self._floor(apart_from=gateway),
        )
        self._answers[gateway] = answer
        self._looked_at += 1 + len(statement.active)
        if self._looked_at > len(self._counters):  # so that it takes no longer than all of these
            self._forget_idle()
        return answer

    @property
    def num_known(self) -> int:
        return len(self._counters)

    def forget(self, gateway: str) -> None:
        """It is gone: what it charged stays, and it holds nobody's floor down."""
        self._newest.pop(gateway, None)
        self._answers.pop(gateway, None)

    def _floor(self, *, apart_from: str = "") -> float | None:
        floors = [
            statement.floor
            for gateway, statement in self._newest.items()
            if statement.floor is not None and gateway != apart_from
        ]
        return min(floors, default=None)

    def _forget_idle(self) -> None:
        floor = self._floor()
        active = frozenset().union(*(statement.active for statement in self._newest.values()))
        idle = [key for key in self._counters if key not in active]
        for key in idle:
            if floor is not None and self._counters[key] <= floor:
                del self._counters[key]
        self._looked_at = 0


class Branch:
    """A gateway's side: of one level's counters. While the house answers every `seconds`, and all
    gateways together serve `rate` a second, counters are off by at most what k - 1 others can
    serve meanwhile, and service differs by at most k * 2U + 2 * rate * seconds.

    While it does not answer the gateway goes on by what it knows; `lost` says that this is so.
    """

    def __init__(self, gateway: str, counters: Counters) -> None:
        counters.share()
        self._gateway = gateway
        self._counters = counters
        self._house = ""
        self._number = 0
        self._sent: Statement | None = None  # and not answered

    def statement(self) -> Statement:
        """The one that was not answered, or a new one."""
        if self._sent is None:
            self._number += 1
            bases, charged = self._counters.take_account(whole=not self._house)
            self._sent = Statement(
                gateway=self._gateway,
                number=self._number,
                bases=bases,
                charged=charged,
                active=self._counters.active,
                floor=self._counters.own_floor,
            )
        return self._sent

    def accept(self, answer: Answer) -> None:
        """To another than the newest statement: nothing changes.

        A house that is new, and had only been told what is new, is told everything next.
        """
        if self._sent is None or answer.number != self._sent.number:
            return
        self._sent = None
        is_known = self._house in ("", answer.house)
        self._house = answer.house if is_known else ""
        if is_known:
            self._counters.learn(answer.counters, answer.floor)

    def lost(self) -> None:
        """The house does not answer. What waited elsewhere when it last did says less and less:
        whoever comes back is raised to those who wait here."""
        self._counters.learn({}, None)
