"""Small federations: tasks, and sites that are in this process."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from services.trainer.config import TrainingConfig
from services.trainer.federation import Federation, Participant
from services.trainer.flower.meaning import expected
from services.trainer.flower.rounds import Clock, Rounds
from services.trainer.flower.sites import Answer, Order
from services.trainer.task import Base, FederatedTask, Meeting

KEY = "ecdsa-sha2-nistp384 " + "A" * 180
LAYERS = (("model.layers.0.self_attn.q_proj", 6, 4), ("model.layers.0.mlp.up_proj", 5, 4))
NAMES = ("east", "north", "west")


def participants(names: Iterable[str] = NAMES) -> tuple[Participant, ...]:
    return tuple(Participant(name, KEY[:-8] + f"{name:A<8}"[:8]) for name in names)


def federation(names: Iterable[str] = NAMES, **values: Any) -> Federation:
    asked = {"rounds": 3, "deadline_seconds": 10.0, "local_steps": 2}
    return Federation.asked(participants(names), **asked | values)


def federated_task(folder: Path, *, checkpoint: str = "", **values: Any) -> FederatedTask:
    folder.mkdir(parents=True, exist_ok=True)
    return FederatedTask(
        config=TrainingConfig.asked(rank=2, target_modules=("q_proj",), seed=7),
        federation=federation(**values),
        meeting=Meeting(address="127.0.0.1:1", folder=folder / "ca", flower=folder),
        base=Base(
            name="tiny", path=Path(), tokenizer_json="{}", chat_template="", special_tokens={},
            end_tokens=(1,), context_tokens=64, fingerprint="f" * 64, layers=LAYERS,
        ),
        folder=folder,
        prefix="1-",
        checkpoint=checkpoint,
    )  # fmt: skip


def steps_of(order: Order) -> Answer:
    """As a site would: what it was sent, moved by what is its own in this round."""
    number = sum(map(ord, order.client)) * 1000 + order.round
    draw = np.random.Generator(np.random.Philox(number))
    arrays = {
        name: (array + draw.standard_normal(array.shape)).astype(np.float32)
        for name, array in sorted(expected(order.plan, order.arrays).items())
    }
    return Answer(
        order.client, order.round, order.attempt, arrays, len(order.client), {"loss": 2.0},
        "d" * 64, 3,
    )  # fmt: skip


@dataclass
class Here:
    """`away`: who has not dialled in. `does`: what becomes of an order; None: it is silent."""

    away: set[str] = field(default_factory=set)
    does: Callable[[Order], Answer | None] = steps_of
    orders: list[Order] = field(default_factory=list)
    waiting: list[Answer] = field(default_factory=list)

    def present(self) -> Collection[str]:
        return set(NAMES) - self.away

    def ask(self, orders: Sequence[Order]) -> None:
        self.orders += orders
        answers = [self.does(order) for order in orders]
        self.waiting += [each for each in answers if each is not None]

    def answers(self) -> Sequence[Answer]:
        found, self.waiting = self.waiting[::-1], []  # the last to be asked is the first
        return found


class Watch:
    """A clock that a nap moves on by a second."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.napped: Callable[[float], None] = lambda now: None

    def nap(self) -> None:
        self.seconds += 1
        self.napped(self.seconds)


def rounds_of(task: FederatedTask, sites: Here, watch: Watch | None = None) -> Rounds:
    watch = watch or Watch()
    return Rounds(task, sites, Clock(lambda: watch.seconds, watch.nap))
