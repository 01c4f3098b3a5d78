"""Tools through OpenAI's client and through gRPC. So small a model calls only what it must."""

import json
from typing import Any

import jsonschema_rs
import openai
import pytest

from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.types.v1 import generation_pb2
from tests.integration.conftest import BASE, Running

ASK: Any = [{"role": "user", "content": "What is the weather like in Oslo and in Paris?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Oslo", "Paris", "São Paulo"]},
                "unit": {"$ref": "#/$defs/Unit"},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city", "unit", "days"],
            "additionalProperties": False,
            "$defs": {"Unit": {"enum": ["celsius", "fahrenheit"]}},
        },
    },
}
NOW: Any = {"type": "function", "function": {"name": "now"}}


def chat(client: openai.OpenAI, **changes: Any) -> Any:
    arguments = {
        "model": BASE,
        "messages": ASK,
        "tools": [WEATHER, NOW],
        "max_tokens": 800,
        "temperature": 0.7,
        "seed": 3,
    }
    return client.chat.completions.create(**arguments | changes)


def check(name: str, arguments: str) -> None:
    assert name in ("get_weather", "now")
    found = json.loads(arguments)
    if name == "now":
        assert found == {}
    else:
        assert jsonschema_rs.is_valid(WEATHER["function"]["parameters"], found), found


@pytest.mark.parametrize("seed", range(3))
def test_required_calls_follow_their_schemas(client: openai.OpenAI, seed: int) -> None:
    choice = chat(client, tool_choice="required", seed=seed).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert len({call.id for call in choice.message.tool_calls}) == len(choice.message.tool_calls)
    for call in choice.message.tool_calls:
        assert call.type == "function"
        check(call.function.name, call.function.arguments)


def test_a_named_function_is_called_once(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    choice = chat(client, tool_choice=named).choices[0]
    [call] = choice.message.tool_calls
    assert call.function.name == "get_weather"
    check(call.function.name, call.function.arguments)
    assert choice.finish_reason == "tool_calls"


def test_one_call_at_most_without_parallel_ones(client: openai.OpenAI) -> None:
    answer = chat(client, tool_choice="required", parallel_tool_calls=False, n=3)
    assert [len(choice.message.tool_calls) for choice in answer.choices] == [1, 1, 1]


def test_calls_stream_in_pieces(client: openai.OpenAI) -> None:
    chunks = list(
        chat(client, tool_choice="required", stream=True, stream_options={"include_usage": True})
    )
    calls: dict[int, list[str]] = {}
    for chunk in chunks[:-1]:
        for choice in chunk.choices:
            assert not choice.delta.content
            for piece in choice.delta.tool_calls or ():
                if piece.id:
                    assert piece.index == len(calls)
                    assert piece.type == "function"
                    calls[piece.index] = [piece.function.name, ""]
                calls[piece.index][1] += piece.function.arguments
    assert calls
    for name, arguments in calls.values():
        check(name, arguments)
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens >= 0
    whole = chat(client, tool_choice="required").choices[0].message
    assert [[c.function.name, c.function.arguments] for c in whole.tool_calls] == [*calls.values()]


def test_the_clients_own_accumulation_agrees(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=BASE,
        messages=ASK,
        tools=[WEATHER],
        tool_choice="required",
        max_tokens=800,
        seed=3,
        temperature=0.7,
        parallel_tool_calls=False,
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls
    for call in message.tool_calls:
        check(call.function.name, call.function.arguments)


def test_a_conversation_goes_on_after_calls(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    first = chat(client, tool_choice=named).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "rain, 4 degrees"}
    messages = [*ASK, first.model_dump(), result]
    answer = chat(client, messages=messages, tool_choice="none", max_tokens=8).choices[0]
    assert answer.message.content
    assert answer.message.tool_calls is None
    without = chat(client, messages=messages, tools=openai.omit, max_tokens=8, n=1)
    assert (
        without.usage.prompt_tokens
        < chat(client, messages=messages, max_tokens=8).usage.prompt_tokens
    )


def test_an_answer_may_follow_a_schema_beside_tools(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"sure": {"type": "boolean"}},
        "required": ["sure"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    choice = chat(client, response_format=wanted).choices[0]
    for call in choice.message.tool_calls or ():
        check(call.function.name, call.function.arguments)
    if not choice.message.tool_calls:
        assert jsonschema_rs.is_valid(schema, json.loads(choice.message.content))


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "later"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [NOW, NOW]}, "tools[1].function.name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"extra_body": {"structured_outputs": {"regex": "a"}}}, "constraint"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}]},
            "messages[0].tool_calls",
        ),
        (
            {"messages": [*ASK, {"role": "assistant", "content": None, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}}]}]},
            "messages[1].tool_calls[0].function.arguments",
        ),
    ],
)  # fmt: skip
def test_bad_tools_are_named(client: openai.OpenAI, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **changes)
    assert caught.value.param == param


def request(running: Running, choice: pb.ToolChoice) -> pb.GenerateRequest:
    function = WEATHER["function"]
    asked = running.ask(BASE, ASK[0]["content"], max_tokens=800)
    asked.tools.add(
        name=function["name"],
        description=function["description"],
        parameters=json.dumps(function["parameters"]),
    )
    asked.tools.add(name="now")
    asked.tool_choice.CopyFrom(choice)
    return asked


def test_the_grpc_twin_calls_the_same(running: Running, client: openai.OpenAI) -> None:
    required = pb.ToolChoice(mode=pb.ToolChoice.MODE_REQUIRED)
    pieces = list(running.generate(request(running, required)))
    calls: dict[int, list[str]] = {}
    for piece in pieces:
        assert piece.text == ""
        for call in piece.tool_calls:
            if call.id:
                calls[call.index] = [call.name, ""]
            calls[call.index][1] += call.arguments
    assert pieces[-1].finish_reason == generation_pb2.FINISH_REASON_TOOL_CALLS
    whole = chat(client, tool_choice="required", temperature=0).choices[0].message
    twin = [[call.function.name, call.function.arguments] for call in whole.tool_calls]
    assert [*calls.values()] == twin


def test_the_grpc_twin_calls_what_is_named(running: Running) -> None:
    pieces = running.generate(request(running, pb.ToolChoice(name="now")))
    calls = [call for piece in pieces for call in piece.tool_calls]
    assert {call.index for call in calls} == {0}
    assert calls[0].name == "now"
    assert json.loads("".join(call.arguments for call in calls)) == {}
