"""What runs next on a worker that can fold one adapter into its weights, and how to decide it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.core.types import Digest, RequestId


@dataclass(frozen=True, slots=True)
class Queued:
    """A request that has not ended, of the base model if it names no adapter. `client`: whom its
    service is counted for."""

    id: RequestId
    adapter: Digest | None
    client: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """`requests` run, with the adapter `merged`, if any, folded into the weights. If others than
    its own are among them it is taken away from those again: a mixed batch."""

    requests: tuple[Queued, ...]
    merged: Digest | None = None

    @property
    def minority(self) -> int:
        """Requests that the weights are not right for as they are."""
        return sum(request.adapter != self.merged for request in self.requests)


@dataclass(frozen=True, slots=True)
class Ran:
    """So many steps of one batch, and what each of them took."""

    batch: Batch
    steps: int
    milliseconds: float
    prompt_tokens: Mapping[str, int] = field(default_factory=dict)
    """By client, in all of the steps; every request made a token besides."""


class Policy(Protocol):
    """Deciding changes nothing but what is remembered; what ran is told afterwards, and may be less
    than what was decided, or unmerged as long as the weights are not there."""

    @property
    def ratio(self) -> float | None:
        """What a merged step takes of an unmerged one's time; None if that is not known."""
        ...

    def choose(self, queued: Sequence[Queued]) -> Batch:
        """`queued`: all requests that have not ended, in order of arrival, at least one."""
        ...

    def ran(self, ran: Ran) -> None: ...


def largest(queued: Sequence[Queued], preferred: Digest | None = None) -> Digest | None:
    """The adapter of the most requests; of equals the preferred one, then the first to come."""
    counts = Counter(request.adapter for request in queued)
    del counts[None]
    if not counts:
        return None
    most = max(counts.values())
    return preferred if counts.get(preferred) == most else max(counts, key=counts.__getitem__)


def of_adapter(queued: Sequence[Queued], adapter: Digest, most: int) -> tuple[Queued, ...]:
    return tuple([request for request in queued if request.adapter == adapter][:most])
