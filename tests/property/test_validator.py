"""Whatever is uploaded is accepted or refused in time, and peft agrees with the word."""

import os

from hypothesis import HealthCheck, given, settings

from tests.fuzz.adapters import Case, cases, from_bytes
from tests.fuzz.oracle import check
from tests.validated import Validated

EXAMPLES = int(os.environ.get("LORIKEET_FUZZ_EXAMPLES", "150"))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="LORIKEET_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(cases())
def test_the_stores_word_holds(case: Case) -> None:
    check(case.config_json, case.data)


def test_what_is_not_damaged_is_accepted() -> None:
    """Every way to tell what is adapted; the zeros that follow these bytes choose no damage."""
    accepted = 0
    for seed in range(64):
        case = from_bytes(bytes([seed * 2 % 127, seed % 3, seed % 4, 1, seed % 2, 0, 0, seed % 5]))
        accepted += isinstance(check(case.config_json, case.data), Validated)
    assert accepted == 64
