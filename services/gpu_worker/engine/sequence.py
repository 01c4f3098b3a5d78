"""One request's progress."""

from dataclasses import dataclass, field
from typing import Protocol

from services.core.types import BatchFacts, Digest, RequestId, SamplingParams


class TokenFilter(Protocol):
    """Which tokens may come next; it follows one completion."""

    def allowed(self) -> bytes:
        """A bit a token, the lowest bit of a byte first."""
        ...

    def advance(self, token: int) -> bool:
        """A token came: whether the completion is whole. Raises ServingError if it cannot go on."""
        ...


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """Tokens in; `adapter` is None for the base model. Requests of one salt may share prefixes."""

    id: RequestId
    prompt: tuple[int, ...]
    sampling: SamplingParams
    adapter: Digest | None = None
    cache_salt: str = ""
    filter: TokenFilter | None = None
    first_token_within: float | None = None
    """Seconds from its arrival; a request that is predicted to miss them is refused at once."""
    delivered: tuple[int, ...] = ()
    """Tokens that it had generated elsewhere. Its filter has seen them."""


@dataclass(slots=True, eq=False)
class Sequence:
    """A request that waits or runs. Prefill is many pending tokens, decode is one."""

    request: EngineRequest
    arrived: int  # step
    arrived_at: float = 0.0  # seconds
    tokens: list[int] = field(default_factory=list)  # prompt, then what was generated
    pages: list[int] = field(default_factory=list)
    cached: int = 0  # tokens whose keys and values are in the pages
    reused: int = 0  # of them, how many came from the prefix cache when it was first admitted
    preempted: int = 0  # how often it had to give its pages back
    stalled_at: float | None = None  # since when it would have run if its adapter were there
    adapter_wait: float = 0.0  # seconds, until it first ran
    peak: BatchFacts = field(default_factory=BatchFacts)

    def __post_init__(self) -> None:
        self.tokens = [*self.request.prompt, *self.request.delivered]

    @property
    def space(self) -> tuple[str, Digest | None]:
        """Whose keys and values these are: prefixes are shared within it only."""
        return self.request.cache_salt, self.request.adapter

    @property
    def pending(self) -> int:
        """Tokens that the model has not seen."""
        return len(self.tokens) - self.cached

    @property
    def reused_of_prompt(self) -> int:
        """One that began elsewhere may have found more than its prompt."""
        return min(self.reused, len(self.request.prompt))

    @property
    def generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)
