"""What a client asked of sampling, checked and completed."""

import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

from services.core.base_model import BaseModel
from services.core.errors import FieldViolation, InvalidRequest
from services.core.types import (
    LONGEST_CONSTRAINT,
    LONGEST_STOP,
    MOST_BIASES,
    MOST_STOP_TOKENS,
    MOST_STOPS,
    MOST_TOP_LOGPROBS,
    SamplingParams,
    Tier,
    TokenRules,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(TokenRules):
    """As a client sent it; None where it said nothing."""

    max_tokens: int | None = None
    seed: int | None = None
    first_token_within_ms: int | None = None
    share_prefix: bool = False
    service_tier: Tier | None = None


def checked(asked: Asked, base: BaseModel, *, prompt_tokens: int) -> SamplingParams:
    """Everything set and within bounds. Raises InvalidRequest that names every wrong field."""
    room = base.context_tokens - prompt_tokens
    if room < 1:
        raise InvalidRequest.of(
            "prompt",
            f"{prompt_tokens} tokens leave no room for a completion "
            f"in the model's context of {base.context_tokens}",
        )
    max_tokens = room if asked.max_tokens is None else asked.max_tokens
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    wrong = list(_wrong_rules(asked, base.vocabulary_tokens))
    if not 1 <= max_tokens <= room:
        said = (
            f"must be 1 to {room}: the context holds {base.context_tokens} tokens "
            f"and the prompt has {prompt_tokens}"
        )
        wrong.append(FieldViolation("max_tokens", said))
    if not -(2**63) <= seed < 2**64:
        wrong.append(FieldViolation("seed", "must fit in 64 bits"))
    if asked.first_token_within_ms is not None and not 0 < asked.first_token_within_ms < 2**31:
        wrong.append(FieldViolation("first_token_within_ms", "must be 1 to 2147483647"))
    if wrong:
        raise InvalidRequest(wrong)
    rules = replace(asked, logprobs=asked.logprobs or asked.top_logprobs > 0)
    return SamplingParams(max_tokens=max_tokens, seed=seed % 2**64, **rules.values())


def _wrong_rules(rules: TokenRules, vocabulary: int) -> Iterator[FieldViolation]:
    for name, (good, description) in (_numbers(rules) | _lists(rules, vocabulary)).items():
        if not good:
            yield FieldViolation(name, description)


def _numbers(rules: TokenRules) -> dict[str, tuple[bool, str]]:
    return {
        "temperature": (_within(rules.temperature, 0, 2), "must be 0 to 2"),
        "top_p": (
            _within(rules.top_p, 0, 1) and rules.top_p > 0,
            "must be more than 0, at most 1",
        ),
        "top_k": (0 <= rules.top_k < 2**32, "must be 0 to 4294967295"),
        "min_p": (_within(rules.min_p, 0, 1), "must be 0 to 1"),
        "repetition_penalty": (
            _within(rules.repetition_penalty, 0, 10) and rules.repetition_penalty > 0,
            "must be more than 0, at most 10",
        ),
        "presence_penalty": (_within(rules.presence_penalty, -2, 2), "must be -2 to 2"),
        "frequency_penalty": (_within(rules.frequency_penalty, -2, 2), "must be -2 to 2"),
        "top_logprobs": (
            0 <= rules.top_logprobs <= MOST_TOP_LOGPROBS,
            f"must be 0 to {MOST_TOP_LOGPROBS}",
        ),
    }


def _lists(rules: TokenRules, vocabulary: int) -> dict[str, tuple[bool, str]]:
    constraint = "" if rules.constraint is None else rules.constraint.text
    return {
        "logit_bias": (
            len(rules.logit_bias) <= MOST_BIASES
            and all(
                0 <= token < vocabulary and _within(bias, -100, 100)
                for token, bias in rules.logit_bias
            ),
            f"at most {MOST_BIASES} token ids below {vocabulary}, each with -100 to 100",
        ),
        "stop": (
            len(rules.stop) <= MOST_STOPS
            and all(1 <= len(text) <= LONGEST_STOP for text in rules.stop),
            f"at most {MOST_STOPS} texts of 1 to {LONGEST_STOP} characters",
        ),
        "stop_tokens": (
            len(rules.stop_tokens) <= MOST_STOP_TOKENS
            and all(0 <= token < vocabulary for token in rules.stop_tokens),
            f"at most {MOST_STOP_TOKENS} token ids below {vocabulary}",
        ),
        "constraint": (
            len(constraint.encode()) <= LONGEST_CONSTRAINT,
            f"must be at most {LONGEST_CONSTRAINT} bytes",
        ),
        "ignore_eos": (
            not (rules.ignore_eos and rules.constraint is not None),
            "does not go with a constraint, which says where the text ends",
        ),
    }


def _within(number: float, least: float, most: float) -> bool:
    return math.isfinite(number) and least <= number <= most
