"""What a worker says of itself."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from services.core.types import Destination, Digest, RequestId


class AdapterPlace(Enum):
    """Where an adapter is on a worker, the best first."""

    DEVICE = "device"
    HOST = "host"
    LOADING = "loading"


@dataclass(frozen=True, slots=True)
class AdapterLoad:
    """An adapter on a worker, and the sequences there that run with it or wait for it."""

    digest: Digest
    place: AdapterPlace
    bytes: int = 0
    running: int = 0
    waiting: int = 0
    pinned: bool = False  # by the operator


@dataclass(frozen=True, slots=True)
class AdapterChanges:
    """From one report to the next: those that came or are otherwise, and those that went."""

    came: tuple[AdapterLoad, ...] = ()
    gone: tuple[Digest, ...] = ()

    @classmethod
    def between(
        cls, before: tuple[AdapterLoad, ...], now: tuple[AdapterLoad, ...]
    ) -> "AdapterChanges":
        was, there = {each.digest: each for each in before}, {each.digest for each in now}
        came = tuple(each for each in now if was.get(each.digest) != each)
        return cls(came, tuple(digest for digest in was if digest not in there))

    def after(self, before: tuple[AdapterLoad, ...]) -> tuple[AdapterLoad, ...]:
        """What there is now, by digest."""
        there = {each.digest: each for each in before} | {each.digest: each for each in self.came}
        for digest in self.gone:
            there.pop(digest, None)
        return tuple(load for _, load in sorted(there.items()))


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Milliseconds of a step: `base`, and for each sequence that decodes, each token of prompts."""

    base: float
    sequence: float
    token: float

    def of(self, sequences: int, tokens: int) -> float:
        return self.base + self.sequence * sequences + self.token * tokens


@dataclass(frozen=True, slots=True)
class TransferTimes:
    """Milliseconds of bringing an adapter: `base`, and `byte` for each of its bytes in host memory.
    `typical_bytes`: of those that came."""

    base: float
    byte: float
    typical_bytes: int

    def of(self, size: int = 0) -> float:
        """0: of one whose size is not known."""
        return self.base + self.byte * (size or self.typical_bytes)


@dataclass(frozen=True, slots=True)
class LoadTimes:
    """From the store to host memory, and from there to the device; None until one came."""

    fetch: TransferTimes | None = None
    copy: TransferTimes | None = None


NO_LOAD_TIMES = LoadTimes()


@dataclass(frozen=True, slots=True)
class SequenceLoad:
    """A sequence on a worker. `tokens`: that it holds; `tokens_left`: that it is expected to
    generate yet; `waiting`: it has not run a step, so nothing is lost when it moves."""

    request: RequestId
    adapter: Digest | None
    tokens: int
    tokens_left: int
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class SequenceSum:
    """Of some sequences: how many they are, and their tokens, as those of SequenceLoad."""

    count: int = 0
    tokens: int = 0
    tokens_left: int = 0

    def __add__(self, other: "SequenceSum") -> "SequenceSum":
        return SequenceSum(
            self.count + other.count,
            self.tokens + other.tokens,
            self.tokens_left + other.tokens_left,
        )

    @property
    def length(self) -> int:
        """That they come to."""
        return self.tokens + self.tokens_left


@dataclass(frozen=True, slots=True)
class SequenceSums:
    """Of all that runs on a worker, and all that waits there."""

    running: SequenceSum
    waiting: SequenceSum

    @classmethod
    def of(cls, loads: Iterable[SequenceLoad]) -> "SequenceSums":
        run, run_tokens, run_left, wait, wait_tokens, wait_left = 0, 0, 0, 0, 0, 0
        for each in loads:
            if each.waiting:
                wait, wait_tokens = wait + 1, wait_tokens + each.tokens
                wait_left += each.tokens_left
            else:
                run, run_tokens = run + 1, run_tokens + each.tokens
                run_left += each.tokens_left
        return cls(
            SequenceSum(run, run_tokens, run_left), SequenceSum(wait, wait_tokens, wait_left)
        )


NO_SUMS = SequenceSums(SequenceSum(), SequenceSum())


class MoveOutcome(Enum):
    """What became of an order to send a sequence elsewhere."""

    LEFT = "left"
    GONE = "gone"  # it had ended before, or is not known
    FIXED = "fixed"  # its caller does not know how to follow it


@dataclass(frozen=True, slots=True)
class Moved:
    """Of the order `move`, what became of one sequence, and the tokens that it had."""

    move: str
    request: RequestId
    outcome: MoveOutcome
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """How a worker is doing. Free pages include those that are cached and given up on demand.
    `resident`: on the device; `adapters`: wherever they are, None if as it said last.
    `changes`: instead of both, to whom it has said all. `sequences`: None unless it was asked for
    them. `sums`: None if it does not say. `without_room`: of what the operator has pinned there."""

    running: int = 0
    waiting: int = 0
    total_pages: int = 0
    free_pages: int = 0
    resident: tuple[Digest, ...] = ()
    steps: int = 0
    draining: bool = False
    adapters: tuple[AdapterLoad, ...] | None = None
    step_times: StepTimes | None = None
    most_sequences: int = 0
    page_tokens: int = 0
    page_bytes: int = 0
    sequences: tuple[SequenceLoad, ...] | None = None
    moved: tuple[Moved, ...] = ()  # since the report before
    changes: AdapterChanges | None = None
    sums: SequenceSums | None = None
    without_room: frozenset[Digest] = frozenset()
    load_times: LoadTimes = NO_LOAD_TIMES


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """Sequences that are to go on elsewhere."""

    id: str
    requests: tuple[RequestId, ...]
    to: Destination


@dataclass(frozen=True, slots=True)
class Orders:
    """What the scheduler of `term` wants of a worker: `draining` and `pinned` until it says
    otherwise, the rest once. `takes_changes`: it understands `WorkerReport.changes`."""

    term: int = 0
    draining: bool = False
    pinned: frozenset[Digest] = frozenset()
    moves: tuple[MoveOrder, ...] = ()
    preloads: tuple[Digest, ...] = ()
    tell_sequences: bool = False
    takes_changes: bool = False
