import math
from typing import Any

import pytest

from services.core.errors import InvalidRequest
from services.core.types import Constraint, ConstraintKind
from services.gateway.sampling import Asked, checked
from tests.tiny_models import tiny_card

BASE = tiny_card()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 10**30),
        ("max_tokens", 91),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", -0.1),
        ("top_p", 0.0),
        ("top_p", math.nan),
        ("top_k", -1),
        ("seed", 2**64),
        ("stop", ("",)),
        ("stop", ("x",) * 17),
        ("top_logprobs", 21),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.nan),
        ("presence_penalty", 2.1),
        ("frequency_penalty", math.inf),
        ("logit_bias", ((50, 1.0),)),
        ("logit_bias", ((1, 101.0),)),
        ("logit_bias", ((1, 1.0),) * 1025),
        ("stop_tokens", (50,)),
        ("stop_tokens", (-1,)),
        ("constraint", Constraint(ConstraintKind.REGEX, "a" * 70_000)),
    ],
)
def test_a_bad_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked(Asked(**{field: value}), BASE, prompt_tokens=10)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_everything_wrong_is_listed_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked(Asked(max_tokens=0, temperature=9), BASE, prompt_tokens=1)
    assert len(caught.value.violations) == 2


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no room"):
        checked(Asked(), BASE, prompt_tokens=100)


def test_what_is_not_said_has_a_value() -> None:
    sampling = checked(Asked(), BASE, prompt_tokens=10)
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (90, 1.0, 1.0)


def test_a_constraint_says_where_the_text_ends() -> None:
    asked = Asked(ignore_eos=True, constraint=Constraint(ConstraintKind.REGEX, "a"))
    with pytest.raises(InvalidRequest, match="ignore_eos"):
        checked(asked, BASE, prompt_tokens=10)
