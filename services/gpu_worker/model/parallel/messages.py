"""What the leader of a group tells the others, and what they answer. Whole objects, over pipes of
the leader's own children; what is large follows as bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.core.types import Digest
from services.gpu_worker.model.layout import Layout
from services.gpu_worker.model.parallel.member import Member, Partition
from services.gpu_worker.model.step import StepNumbers


@dataclass(frozen=True, slots=True)
class Setup:
    """The first; a Ready or a Refused answers it."""

    member: Member
    meeting: Path
    model: Path
    device: str
    dtype: str
    threads: int
    page_tokens: int
    partition: Partition


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""

    spare_bytes: int


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str


@dataclass(frozen=True, slots=True)
class Begin:
    """So many pages; then there are only steps."""

    pages: int


@dataclass(frozen=True, slots=True)
class Bound:
    """An adapter that is in these pages from now on."""

    adapter: Digest
    layout: Layout
    pages: Sequence[int]


@dataclass(frozen=True, slots=True)
class Step:
    """Of each step one message: what has changed since the last, and what is to be computed."""

    changes: Sequence[Bound | Digest]  # a digest: the adapter leaves its pages
    numbers: StepNumbers


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes for pages, which follow; True answers once they are there."""

    pages: Sequence[int]


@dataclass(frozen=True, slots=True)
class Read:
    """The bytes of pages answer."""

    pages: Sequence[int]
