"""What a step runs."""

from dataclasses import dataclass

from services.gpu_worker.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Slice:
    """What a step runs of one sequence: `count` tokens from `start`."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether the step reaches the sequence's end, so that a token follows."""
        return self.start + self.count == len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Complete when made. Slices of one adapter are neighbours; the base model's come first."""

    slices: tuple[Slice, ...]

    @property
    def adapters(self) -> int:
        return len({part.sequence.request.adapter for part in self.slices})
