"""What a client asked of sampling, checked and completed."""

import math
import secrets
from dataclasses import dataclass

from services.core.errors import FieldViolation, InvalidRequest
from services.core.types import LONGEST_STOP, MOST_STOPS, MOST_TOP_LOGPROBS, SamplingParams


@dataclass(frozen=True, slots=True)
class Asked:
    """As a client sent it; None where it said nothing."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: bool = False
    top_logprobs: int = 0


def checked(asked: Asked, *, prompt_tokens: int, context_tokens: int) -> SamplingParams:
    """Everything set and within bounds. Raises InvalidRequest that names every wrong field."""
    room = context_tokens - prompt_tokens
    if room < 1:
        raise InvalidRequest.of(
            "prompt",
            f"{prompt_tokens} tokens leave no room for a completion "
            f"in the model's context of {context_tokens}",
        )
    max_tokens = room if asked.max_tokens is None else asked.max_tokens
    temperature = 1.0 if asked.temperature is None else asked.temperature
    top_p = 1.0 if asked.top_p is None else asked.top_p
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    rules = {
        "max_tokens": (
            1 <= max_tokens <= room,
            f"must be 1 to {room}: the context holds {context_tokens} tokens "
            f"and the prompt has {prompt_tokens}",
        ),
        "temperature": (math.isfinite(temperature) and 0 <= temperature <= 2, "must be 0 to 2"),
        "top_p": (math.isfinite(top_p) and 0 < top_p <= 1, "must be more than 0, at most 1"),
        "top_k": (0 <= asked.top_k < 2**32, "must be 0 to 4294967295"),
        "seed": (-(2**63) <= seed < 2**64, "must fit in 64 bits"),
        "stop": (
            len(asked.stop) <= MOST_STOPS
            and all(1 <= len(text) <= LONGEST_STOP for text in asked.stop),
            f"at most {MOST_STOPS} texts of 1 to {LONGEST_STOP} characters",
        ),
        "top_logprobs": (
            0 <= asked.top_logprobs <= MOST_TOP_LOGPROBS,
            f"must be 0 to {MOST_TOP_LOGPROBS}",
        ),
    }
    wrong = [FieldViolation(name, text) for name, (good, text) in rules.items() if not good]
    if wrong:
        raise InvalidRequest(wrong)
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=asked.top_k,
        seed=seed % 2**64,
        stop=asked.stop,
        ignore_eos=asked.ignore_eos,
        logprobs=asked.logprobs or asked.top_logprobs > 0,
        top_logprobs=asked.top_logprobs,
    )
