"""Which functions are offered, and that a demanded call is a call, whatever the model would say."""

import json
import random
from typing import Any

import jsonschema_rs
import pytest
from llguidance import LLMatcher, LLTokenizer

from services.core.errors import InvalidRequest
from services.core.types import Constraint, ConstraintKind
from services.gateway.sampling import Asked
from services.gateway.tool_calls import CallFinder
from services.gateway.tools import MOST_CALLS, Function, Must, Tools, offered

WEATHER = Function(
    "get_weather",
    parameters={
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/City"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"City": {"enum": ["Oslo", "Łódź", 'the "Hague"']}},
    },
)
NOW = Function("now")
ANSWER = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}},
    "required": ["sure"],
    "additionalProperties": False,
}


def tools(choice: Must | str, *, parallel: bool = True) -> Tools:
    found = offered([WEATHER, NOW], choice, parallel=parallel)
    assert found is not None
    return found


def written(asked: Asked, seed: int) -> str:
    """What a model writes that knows nothing, but follows the constraint."""
    assert asked.constraint is not None
    assert asked.constraint.kind is ConstraintKind.GRAMMAR
    matcher = LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_lark(asked.constraint.text))
    draw, text = random.Random(seed), b""
    while True:
        mask = matcher.compute_bitmask()
        assert not matcher.is_error(), matcher.get_error()
        may = [token for token in range(256) if mask[token // 8] >> token % 8 & 1]
        digits = [token for token in may if chr(token).isdigit()]
        others = [token for token in may if token not in digits]
        if not may:
            return text.decode()
        token = draw.choice(others if others and draw.random() < 0.8 else may)
        matcher.consume_token(token)
        text += bytes([token])
        if matcher.is_stopped():
            return text.decode()


def calls_in(text: str) -> list[tuple[str, Any]]:
    finder = CallFinder({"get_weather", "now"})
    said, pieces = finder.push(text)
    assert said + finder.flush() == ""
    return [(piece.name, json.loads(piece.arguments)) for piece in pieces]


@pytest.mark.parametrize("seed", range(20))
def test_a_required_call_is_one_and_its_arguments_are_valid(seed: int) -> None:
    calls = calls_in(written(tools(Must.REQUIRED).constrained(Asked()), seed))
    assert 1 <= len(calls) <= MOST_CALLS
    for name, arguments in calls:
        function = WEATHER if name == "get_weather" else NOW
        assert jsonschema_rs.is_valid(function.arguments_schema(), arguments)


@pytest.mark.parametrize("seed", range(10))
def test_a_named_function_is_called_once(seed: int) -> None:
    [(name, arguments)] = calls_in(written(tools("get_weather").constrained(Asked()), seed))
    assert name == "get_weather"
    assert arguments["city"] in ("Oslo", "Łódź", 'the "Hague"')


@pytest.mark.parametrize("seed", range(10))
def test_one_call_where_they_cannot_be_parallel(seed: int) -> None:
    asked = tools(Must.REQUIRED, parallel=False).constrained(Asked())
    assert len(calls_in(written(asked, seed))) == 1


def test_an_answer_follows_its_schema_or_is_calls() -> None:
    schema = Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(ANSWER))
    asked = tools(Must.AUTO).constrained(Asked(constraint=schema))
    texts = {written(asked, seed) for seed in range(40)}
    answers = {text for text in texts if text.startswith("{")}
    assert answers == {'{"sure": true}', '{"sure": false}'}
    assert all(calls_in(text) for text in texts - answers)
    assert texts > answers


def test_where_nothing_is_demanded_nothing_is_enforced() -> None:
    assert tools(Must.AUTO).constrained(Asked()) == Asked()
    assert offered([WEATHER], Must.NONE, parallel=True) is None
    assert offered([], Must.AUTO, parallel=True) is None


def test_a_grammar_of_ones_own_leaves_no_room_for_calls() -> None:
    regex = Asked(constraint=Constraint(ConstraintKind.REGEX, "a*"))
    for choice in (Must.AUTO, Must.REQUIRED):
        with pytest.raises(InvalidRequest, match="constraint"):
            tools(choice).constrained(regex)


@pytest.mark.parametrize(
    ("functions", "choice", "field"),
    [
        ([Function("a b")], Must.AUTO, "tools[0].name"),
        ([Function("")], Must.AUTO, "tools[0].name"),
        ([Function("a" * 65)], Must.AUTO, "tools[0].name"),
        ([NOW, NOW], Must.AUTO, "tools[1].name"),
        ([Function("a", parameters={"type": "array"})], Must.AUTO, "tools[0].parameters"),
        ([Function(f"f{i}") for i in range(129)], Must.AUTO, "tools"),
        ([NOW], "later", "tool_choice"),
        ([], "now", "tool_choice"),
        ([], Must.REQUIRED, "tool_choice"),
    ],
)
def test_what_cannot_be_offered_is_named(
    functions: list[Function], choice: Must | str, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        offered(functions, choice, parallel=True)
    assert [violation.field for violation in caught.value.violations] == [field]
