"""Which examples run together: packs of whole examples, and steps of packs. Only integers."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import count

from services.trainer.config import TrainingConfig

Pack = tuple[int, ...]  # examples, by index


def pack(lengths: Sequence[int], order: Sequence[int], most_tokens: int) -> list[Pack]:
    """In this order, each pack as full as the next example lets it be; none is longer."""
    packs: list[Pack] = []
    current: list[int] = []
    tokens = 0
    for index in order:
        if current and tokens + lengths[index] > most_tokens:
            packs.append(tuple(current))
            current, tokens = [], 0
        current.append(index)
        tokens += lengths[index]
    return [*packs, tuple(current)] if current else packs


def steps(lengths: Sequence[int], config: TrainingConfig) -> Iterator[list[Pack]]:
    """Without end: epoch after epoch, each in an order of its own, which the seed decides."""
    for epoch in count():
        yield from _epoch(lengths, config, epoch)


def total_steps(lengths: Sequence[int], config: TrainingConfig) -> int:
    if config.steps:
        return config.steps
    whole, part = int(config.epochs), config.epochs - int(config.epochs)
    total = sum(len(_epoch(lengths, config, epoch)) for epoch in range(whole))
    return max(1, total + math.ceil(part * len(_epoch(lengths, config, whole))))


def held_out(lines: Sequence[int], config: TrainingConfig) -> set[int]:
    """Lines to measure by: the same ones for the same seed, and never all."""
    known = sorted(set(lines))
    wanted = math.ceil(config.validation_share * len(known))
    return set(random.Random(f"{config.seed}/held out").sample(known, min(wanted, len(known) - 1)))


def _epoch(lengths: Sequence[int], config: TrainingConfig, epoch: int) -> list[list[Pack]]:
    order = list(range(len(lengths)))
    random.Random(f"{config.seed}/{epoch}").shuffle(order)
    packs = pack(lengths, order, config.pack_tokens)
    size = config.packs_a_step
    return [packs[start : start + size] for start in range(0, len(packs), size)]
