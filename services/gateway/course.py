"""A request as the gateway knows it: what was asked for, what a worker gets, what came of it."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from services.core.types import (
    EQUAL,
    BatchFacts,
    Digest,
    Fingerprint,
    FinishReason,
    KeyId,
    PositionLogprobs,
    RequestId,
    SamplingParams,
    Share,
    TenantId,
    Tier,
    WorkerId,
)
from services.gateway.base_models import ServedModel


@dataclass(frozen=True, slots=True)
class Adapter:
    """A version of an adapter, as the store resolved it."""

    name: str  # as the tenant that asked calls it
    owner: TenantId
    number: int
    digest: Digest
    base_model: str
    base_fingerprint: Fingerprint
    created_seconds: int
    rank: int = 0  # the largest of its modules; 0 if that is not known
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A request made ready for a worker: nothing in it is a name any more."""

    request_id: RequestId
    base_model: str
    base_fingerprint: Fingerprint
    adapter: Digest | None
    prompt: tuple[int, ...]
    sampling: SamplingParams
    cache_salt: str
    first_token_within_ms: int | None = None
    adapter_rank: int = 0
    adapter_bytes: int = 0
    delivered: tuple[int, ...] = ()
    """Tokens of the completion that another worker had made."""
    moved_from: str = ""
    """host:port of the worker that has its keys and values, if it was moved."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A request that was found good, ready to be streamed."""

    tenant: TenantId
    key: KeyId | None
    model: str
    base: ServedModel
    job: Job
    choices: int = 1
    """Of the same request, side by side; this is one of them."""
    party: RequestId | None = None
    """That the choices have in common, if there are several."""
    share: Share = EQUAL
    """The tenant's, when it asked."""
    tier: Tier = Tier.DEFAULT
    told: dict[str, str] = field(default_factory=dict)
    """What bookkeepers say beside the answer, by HTTP header."""


@dataclass(frozen=True, slots=True)
class CallPiece:
    """The next part of a call that the model makes; the first has its id and function."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""  # of a JSON text, some characters


@dataclass(frozen=True, slots=True)
class TextPiece:
    """The next part of a completion; the last has `finish_reason`, usage and batch facts."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[PositionLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt
    batch: BatchFacts | None = None
    calls: tuple[CallPiece, ...] = ()


@dataclass(slots=True)
class Course:
    """What becomes of a request, from when it was found good. Seconds on the monotonic clock."""

    completion: Completion
    accepted: float = field(default_factory=time.monotonic)
    started: float | None = None  # by a worker
    first_token: float | None = None
    ended: float | None = None
    worker: WorkerId | None = None
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt: those that a worker need not compute
    outcome: str = "CANCELLED"
    """A finish reason, or the reason of the error that ended it."""
    before_first: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """What is waited for before the client is told anything; a ServingError ends the request."""

    def produced(self, tokens: int) -> None:
        if self.first_token is None:
            self.first_token = time.monotonic()
        self.completion_tokens += tokens


class Bookkeeper(Protocol):
    def keep(self, course: Course) -> AbstractAsyncContextManager[None]:
        """Around all that happens to a request: it may be refused on entry, by a ServingError, and
        on exit its course has ended. What the client is told of its end, it is told after that."""
        ...
