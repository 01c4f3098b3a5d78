"""A round as its server sees it: who is asked, who has answered, whether it counts. No clocks."""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

U = TypeVar("U")


def chosen(
    names: Iterable[str], present: Collection[str], many: int, *, seed: int, number: int
) -> tuple[str, ...]:
    """For round `number`: at random, who is present first."""
    order = sorted(names)
    random.Random(f"{seed}/round/{number}").shuffle(order)
    order.sort(key=lambda name: name not in present)
    return tuple(sorted(order[:many]))


@dataclass(slots=True)
class Round(Generic[U]):
    """`clients`: chosen for it. An attempt ends when all have answered, or at its deadline; another
    asks those again whose update is missing."""

    clients: Sequence[str]
    quorum: int
    attempt: int = 0
    asked: set[str] = field(default_factory=set)
    good: dict[str, U] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def to_ask(self, present: Collection[str]) -> list[str]:
        """Who has come and has not been asked in this attempt. They count as asked now."""
        found = [each for each in self.awaited if each in present and each not in self.asked]
        self.asked.update(found)
        return found

    def heard(self, client: str, update: U) -> bool:
        """False if it is of no use: it is nobody's who was asked, or a second one."""
        if client not in self.asked or client in self.good:
            return False
        self.good[client] = update
        self.refused.pop(client, None)
        return True

    def without(self, client: str, why: str) -> None:
        """It will not answer in this attempt."""
        if client in self.asked and client not in self.good:
            self.refused[client] = why

    def again(self) -> None:
        """Another attempt."""
        self.attempt += 1
        self.asked = set(self.good)
        self.refused.clear()

    @property
    def awaited(self) -> list[str]:
        return [each for each in self.clients if each not in self.good | self.refused]

    @property
    def is_complete(self) -> bool:
        return not self.awaited

    @property
    def counts(self) -> bool:
        return len(self.good) >= self.quorum

    def updates(self) -> list[U]:
        """In the clients' order, whoever was first."""
        return [self.good[client] for client in sorted(self.good)]

    def missing(self) -> str:
        """Who is, and why, for people."""
        return "; ".join(_why(self.refused, each) for each in self.clients if each not in self.good)


def _why(refused: Mapping[str, str], client: str) -> str:
    return f"{client}: {refused[client]}" if client in refused else f"{client} did not answer"
