"""What is a call in what a model writes, and what is text."""

from collections.abc import AsyncGenerator

import pytest

from services.core.types import FinishReason
from services.gateway.course import TextPiece
from services.gateway.tool_calls import CallFinder, with_calls
from services.gateway.tools import Function, Must, offered

Calls = list[tuple[str, str]]
NAMES = ("f", "get_weather")


def found(text: str) -> tuple[str, Calls]:
    finder = CallFinder(NAMES)
    said, pieces = finder.push(text)
    said += finder.flush()
    assert [piece.index for piece in pieces] == list(range(len(pieces)))
    return said, [(piece.name, piece.arguments) for piece in pieces]


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        (
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
            "",
            [("get_weather", '{"city": "Oslo"}')],
        ),
        (
            'Let me see.\n<tool_call>{"name": "f", "arguments": {}}</tool_call>\n'
            '<tool_call>{"name": "f", "arguments": {"a": [1, {"b": "}"}]}}</tool_call>\n',
            "Let me see.",
            [("f", "{}"), ("f", '{"a": [1, {"b": "}"}]}')],
        ),
        (  # SmolLM2's form
            '<tool_call>[{"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": {}}]'
            "</tool_call>",
            "",
            [("f", '{"a": 1}'), ("f", "{}")],
        ),
        (  # Llama 3's form
            '{"name": "f", "parameters": {"a": "\\"}"}}; {"name": "get_weather", "parameters": {}}',
            "",
            [("f", '{"a": "\\"}"}'), ("get_weather", "{}")],
        ),
        (
            '{"type": "function", "name": "f", "parameters": {"a": null}}',
            "",
            [("f", '{"a": null}')],
        ),
        ('[{"name": "f", "arguments": {"a": 1}}]', "", [("f", '{"a": 1}')]),
        ('{"arguments": {"a": 1}, "name": "f"}', "", [("f", '{"a": 1}')]),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', "", [("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f"}</tool_call>', "", [("f", "{}")]),
        ('{"name": "f", "arguments": {"a": "cut off', "", [("f", '{"a": "cut off')]),
    ],
)
def test_calls_are_found(text: str, said: str, calls: Calls) -> None:
    assert found(text) == (said, calls)


@pytest.mark.parametrize(
    "text",
    [
        "  Hello <b>world</b>, 1 < 2.\n",
        '{"name": "Ada", "arguments": {}}',
        '{"name": "f", "age": 5}',
        '{"answer": [1, 2, {"name": "f"}]}',
        '[1, {"name": "f", "arguments": {}}]',
        'Like so: {"name": "f", "arguments": {}}',
        "<tool_call>nothing of the kind</tool_call>",
        "<tool_call>[]</tool_call>",
        '<tool_call>{"name": "unheard_of", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": 7}</tool_call>',
        "<tool_call",
        "<tool_call><tool_call>",
        "[]",
        "{",
        " \n ",
        "",
    ],
)
def test_whatever_is_no_call_of_an_offered_function_is_text(text: str) -> None:
    assert found(text) == (text, [])


async def spoken(*texts: str, parallel: bool = True) -> list[TextPiece]:
    async def pieces() -> AsyncGenerator[TextPiece, None]:
        for text in texts:
            yield TextPiece(text=text)
        yield TextPiece(finish_reason=FinishReason.STOP)

    tools = offered([Function("f")], Must.AUTO, parallel=parallel)
    assert tools is not None
    return [piece async for piece in with_calls(pieces(), tools)]


async def test_arguments_stream_as_they_are_written() -> None:
    told = await spoken('{"name": "f", "arg', 'uments": {"a"', ": 1", "}}")
    assert [[call.arguments for call in piece.calls] for piece in told[:-1]] == [
        [],
        ['{"a"'],
        [": 1"],
        ["}"],
    ]
    first = told[1].calls[0]
    assert first.name == "f"
    assert len(first.id) == 9
    assert first.id.isalnum()
    assert all(call.id == call.name == "" for piece in told[2:] for call in piece.calls)


async def test_an_answer_with_calls_ends_with_them() -> None:
    assert (await spoken('{"name": "f", "arguments": {}}'))[-1].finish_reason is (
        FinishReason.TOOL_CALLS
    )
    assert (await spoken("No."))[-1].finish_reason is FinishReason.STOP


async def test_text_that_was_held_comes_with_the_end() -> None:
    told = await spoken("So <tool_c")
    assert [piece.text for piece in told] == ["So", " <tool_c"]


async def test_one_call_at_most_where_more_are_not_wanted() -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    told = await spoken(call, call, parallel=False)
    assert [made.index for piece in told for made in piece.calls if made.id] == [0]
