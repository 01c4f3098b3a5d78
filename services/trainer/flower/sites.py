"""Participants as the rounds see them, whatever carries the messages."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.trainer.federated.words import Arrays, Plan
from services.trainer.task import Base


@dataclass(frozen=True, slots=True)
class Order:
    """What one participant is to do."""

    client: str
    round: int
    attempt: int
    plan: Plan
    arrays: Arrays


@dataclass(frozen=True, slots=True)
class Brief:
    """What all participants are told of a job: the base model without its files, the tokens of the
    longest example, and which labels there are (none: any)."""

    base: Base
    pack_tokens: int
    seed: int
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """`refusal`: why there is no update. `data_sha256` and `rows`: what it learnt from."""

    client: str
    round: int
    attempt: int
    arrays: Arrays
    examples: int
    metrics: Mapping[str, float]
    data_sha256: str
    rows: int
    refusal: str = ""

    @classmethod
    def refused(cls, order: Order, why: str) -> "Answer":
        return cls(order.client, order.round, order.attempt, {}, 0, {}, "", 0, why)


class Sites(Protocol):
    def present(self) -> Collection[str]:
        """Who has dialled in."""
        ...

    def ask(self, orders: Sequence[Order]) -> None: ...

    def answers(self) -> Sequence[Answer]:
        """To all that was asked, as far as they are new."""
        ...
