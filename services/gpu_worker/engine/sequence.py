"""One request's progress."""

from dataclasses import dataclass, field

from services.core.types import BatchFacts, Digest, RequestId, SamplingParams


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """Tokens in; `adapter` is None for the base model."""

    id: RequestId
    prompt: tuple[int, ...]
    sampling: SamplingParams
    adapter: Digest | None = None


@dataclass(slots=True, eq=False)
class Sequence:
    """A request that runs. Prefill is many pending tokens, decode is one; no other state."""

    request: EngineRequest
    pages: list[int]
    tokens: list[int] = field(default_factory=list)  # prompt, then what was generated
    cached: int = 0  # tokens whose keys and values are in the pages
    peak: BatchFacts = field(default_factory=BatchFacts)

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)

    @property
    def pending(self) -> int:
        """Tokens that the model has not seen."""
        return len(self.tokens) - self.cached

    @property
    def generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)
