"""The words that every service uses."""

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, NewType

TenantId = NewType("TenantId", str)
KeyId = NewType("KeyId", str)
AdapterName = NewType("AdapterName", str)
Digest = NewType("Digest", str)  # of an adapter version: 64 hexadecimal digits
Fingerprint = NewType("Fingerprint", str)  # of a base model: 64 hexadecimal digits
RequestId = NewType("RequestId", str)
WorkerId = NewType("WorkerId", str)

LONGEST_STOP = 256
MOST_STOPS = 16
MOST_TOP_LOGPROBS = 20
MOST_STOP_TOKENS = 64
MOST_BIASES = 1024
LONGEST_CONSTRAINT = 64 * 1024


class Tier(Enum):
    """Of service, the highest first: each has its part of what there is, whoever asks for it."""

    PRIORITY = "priority"
    DEFAULT = "default"
    FLEX = "flex"


@dataclass(frozen=True, slots=True)
class Share:
    """Of what there is, a tenant's part: by `weight` against others, and its organisation's by
    `organisation_weight` against other organisations. Without one it is one of its own. It may ask
    for `highest_tier` and those below."""

    organisation: str = ""
    weight: float = 1.0
    organisation_weight: float = 1.0
    highest_tier: Tier = Tier.DEFAULT

    @property
    def top_weight(self) -> float:
        """Where organisations are compared."""
        return self.organisation_weight if self.organisation else self.weight


EQUAL = Share()


class FinishReason(Enum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"  # said by the gateway, never by a worker


class ConstraintKind(Enum):
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    GRAMMAR = "grammar"  # Lark, as llguidance reads it


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a whole completion must match."""

    kind: ConstraintKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """How the next token is chosen and what ends a generation; see generation.proto."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    constraint: Constraint | None = None

    def values(self) -> dict[str, Any]:
        """By name, for another class with these fields."""
        return {field.name: getattr(self, field.name) for field in fields(TokenRules)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams(TokenRules):
    max_tokens: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and the natural logarithm of the model's probability for it."""

    token: int
    logprob: float


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """The chosen token and the most likely ones, most likely first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """The largest step that a request was part of."""

    peak_sequences: int = 0
    peak_adapters: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """What a worker could start beyond what it has. `tokens`: that one more may come to hold, its
    prompt and so much of its max_tokens as `output_share` says."""

    sequences: int = 0
    tokens: int = 0
    output_share: float = 1.0
    running: int = 0
    waiting: int = 0
    pool_tokens: int = 0  # that the whole pool can hold
    goes_on: bool = True  # with what another worker has begun
    beat: float = 0.0  # seconds, in which it says something; 0 if it does not promise that


@dataclass(frozen=True, slots=True)
class AdapterWait:
    """What a request waited for its adapter, a slot and the load together, from the moment it could
    have run otherwise; 0 if it was there. `sequences`: that ran when it began. `slots`: adapters
    that could be resident then, at least 1."""

    seconds: float
    sequences: int
    slots: int


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a sequence goes on: the worker, and host:port of it."""

    worker: WorkerId
    address: str


@dataclass(frozen=True, slots=True)
class Departure:
    """A sequence leaves its worker. `cached_tokens`: of its prompt, where it began."""

    to: Destination
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """Tokens that a sequence gained, and how it ended if it did."""

    tokens: tuple[int, ...] = ()
    logprobs: tuple[PositionLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    batch: BatchFacts | None = None
    cached_tokens: int = 0  # of the prompt; in the last
    adapter_wait: AdapterWait | None = None  # in the first, once the worker has had an adapter
