"""Completions that match a schema, an expression or a grammar: llguidance says what may follow.

Its masks take about a millisecond at most, with a budget for grammars that would take more.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from llguidance import LLMatcher, LLTokenizer

from services.core.base_model import BaseModel
from services.core.errors import FailedPrecondition, InvalidRequest, ResourceExhausted
from services.core.types import Constraint, ConstraintKind

if TYPE_CHECKING:  # llguidance has it for type checkers only
    from llguidance._lib import JsonCompileOptions

# Free white space is where small models lose themselves. A schema may ask for it ("x-guidance").
_COMPACT: "JsonCompileOptions" = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}


def _json(schema: str) -> str:
    return LLMatcher.grammar_from_json_schema(schema, defaults=_COMPACT)


_COMPILERS: dict[ConstraintKind, Callable[[str], str]] = {
    ConstraintKind.JSON_SCHEMA: _json,
    ConstraintKind.REGEX: LLMatcher.grammar_from_regex,
    ConstraintKind.GRAMMAR: LLMatcher.grammar_from_lark,
}


class Grammars:
    """Compiles constraints for one model's vocabulary."""

    def __init__(self, card: BaseModel) -> None:
        self._card = card

    def filter(self, constraint: Constraint) -> "GrammarFilter":
        """For one completion. May take a second: not for the event loop.

        Raises InvalidRequest, or FailedPrecondition if llguidance cannot read the vocabulary.
        """
        tokenizer = self._tokenizer
        try:
            grammar = _COMPILERS[constraint.kind](constraint.text)
        except ValueError as error:
            raise InvalidRequest.of("constraint", str(error)) from error
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()  # the first is the dearest: here, not in a step
        if matcher.is_error():
            raise InvalidRequest.of("constraint", matcher.get_error())
        return GrammarFilter(matcher)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        """Made when it is first asked for: a model that it cannot read still runs."""
        card = self._card
        try:
            return LLTokenizer(
                card.tokenizer_json.decode(),
                n_vocab=card.vocabulary_tokens,
                eos_token=list(card.end_tokens) or None,
            )
        except ValueError as error:
            raise FailedPrecondition(
                f"constraints do not work with the tokenizer of {card.name}: {error}"
            ) from error


class GrammarFilter:
    """See engine.sequence.TokenFilter."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self) -> bytes:
        return self._matcher.compute_bitmask()

    def advance(self, token: int) -> bool:
        self._matcher.consume_token(token)
        if self._matcher.is_error():
            raise ResourceExhausted(f"the constraint went too far: {self._matcher.get_error()}")
        return self._matcher.is_stopped()
