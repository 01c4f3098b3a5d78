"""Greedy rounds of every kind, from a random generator, to be made in C and in Python."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from services.core.reports import NO_SUMS, SequenceLoad, SequenceSum, SequenceSums, StepTimes
from services.core.types import Digest, Fingerprint, RequestId, WorkerId
from services.policies.migration.greedy import Owed
from services.policies.migration.greedy_round import Greedy, reference
from services.policies.migration.loads import Debts, WorkerLoad
from services.policies.migration.native.module import module

NOBODY = Owed()
DIGESTS = [*map(Digest, "abcdefgh")]


@dataclass(frozen=True, slots=True)
class Round:
    loads: Sequence[WorkerLoad]
    frozen: frozenset[RequestId] = frozenset()
    owed: Owed = NOBODY
    most_moves: int = 64

    def in_python(self) -> Greedy:
        return reference(self.loads, self.frozen, self.owed, self.most_moves)

    def in_c(self) -> Greedy | None:
        """None if it is left to Python."""
        native = module()
        assert native is not None
        debts = dict(self.owed.debts.owed)
        found = native.play(self.loads, self.frozen, debts, self.owed.weight, self.most_moves)
        return None if found is None else Greedy(*found)


def any_round(draw: random.Random) -> Round:
    loads = any_fleet(draw)
    requests = [each.request for load in loads for each in load.sequences]
    owed = {r: draw.choice([5.0, draw.uniform(-1e4, 1e5)]) for r in requests if draw.random() < 0.3}
    return Round(
        loads,
        frozenset(r for r in requests if draw.random() < draw.choice([0.0, 0.1])),
        Owed(Debts(draw.choice([owed, {}])), draw.choice([1e-4, 0.0, 1.0])),
        draw.choice([0, 1, 3, 10, 64, 10**30]),
    )


def any_fleet(draw: random.Random) -> list[WorkerLoad]:
    """Some where all is equal, so that ties are many; some of workers that are crowded, and some
    that are full."""
    adapters = [None, *DIGESTS[: draw.randint(1, 8)]]
    length = draw.choice([0, 100])
    equal, crowded = draw.random() < 0.3, draw.random() < 0.3
    return [
        _worker(draw, number, adapters, length if equal else None, crowded=crowded)
        for number in range(draw.choice([1, 2, 4, 8, 20]))
    ]


def _worker(
    draw: random.Random,
    number: int,
    adapters: list[Digest | None],
    length: int | None,
    *,
    crowded: bool,
) -> WorkerLoad:
    there = tuple(
        SequenceLoad(
            RequestId(f"{number}-{n}"),
            draw.choice(adapters),
            draw.randint(0, 300) if length is None else length,
            draw.randint(0, 300) if length is None else length,
            not crowded and draw.random() < 0.5,
        )
        for n in range(draw.choice([0, 1, 4, 8, 20, 40]))
    )
    held = sum(each.tokens for each in there if not each.waiting)
    free = draw.choice([10**6] if crowded else [0, draw.randint(0, 1500), draw.randint(0, 20_000)])
    draining = draw.random() < 0.15
    return WorkerLoad(
        id=WorkerId(f"w{draw.randint(0, 9)}-{number}"),  # not in the order of the fleet
        base=draw.choice([*map(Fingerprint, ("base", "base", "base", "other"))]),
        sequences=there,
        most_sequences=100 if crowded else draw.randint(0, 16),
        total_tokens=held + free + draw.randint(0, 500),
        free_tokens=free,
        resident=_some(draw),
        step_times=StepTimes(
            draw.choice([5.0, 20.0]), draw.choice([0.1, 0.5, 2.0]), draw.choice([0.0, 0.2, 1.0])
        ),
        load_ms=draw.choice([0.0, 30.0, 500.0]),
        move_ms=draw.choice([None, 0.01, 1.0]),
        takes=not draining and draw.random() < 0.8,
        draining=draining,
        most_waiting=draw.choice([0, 4, 50]),
        most_adapters=draw.choice([None, 1, 2, 5]),
        adapter_tokens=draw.choice([0, 40]),
        on_host=_some(draw),
        copy_ms=draw.choice([0.0, 5.0]),
        others=draw.choice([NO_SUMS, SequenceSums(_sum(draw), _sum(draw))]),
        in_use=draw.choice([frozenset[Digest](), _some(draw)]),
    )


def _some(draw: random.Random) -> frozenset[Digest]:
    return frozenset(each for each in [*DIGESTS, Digest("z")] if draw.random() < 0.4)


def _sum(draw: random.Random) -> SequenceSum:
    return SequenceSum(draw.randint(0, 5), draw.randint(0, 500), draw.randint(0, 500))
