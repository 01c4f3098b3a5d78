"""Conversations with tools, as templates see them. The reference is transformers."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from services.core.errors import InvalidRequest
from services.gateway.chat import ChatTemplates
from services.gateway.conversation import ChatMessage, Conversation, ToolCall
from services.gateway.tools import Function

WEATHER = Function(
    "get_weather",
    "What it is like <outside>",
    {"type": "object", "properties": {"city": {"type": "string", "description": "Łódź & co"}}},
)
NOW = Function("now")
TALK = Conversation(
    (
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "Weather in Oslo?"),
        ChatMessage("assistant", None, (ToolCall("c1", "get_weather", '{"city": "Oslo"}'),)),
        ChatMessage("tool", "rain", tool_call_id="c1", name="get_weather"),
    ),
    (WEATHER, NOW),
)

# After the templates of Qwen 2.5 and of Llama 3.1: what those use of jinja, and of transformers.
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- endif %}
    {{- "\\n# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<tool_response>\\n' + message.content + '\\n</tool_response>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
LLAMA = """{{- bos_token }}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set ns = namespace(first=true) %}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|' + message['role'] + '|>' + message['content'] | trim + '<|eot_id|>' }}
        {%- set ns.first = false %}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- generation %}{{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}{{- "}" }}{%- endgeneration %}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {%- continue %}
    {%- endif %}
{%- endfor %}
"""
PLAIN = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"


@pytest.fixture
async def templates() -> AsyncIterator[ChatTemplates]:
    templates = ChatTemplates()
    yield templates
    await templates.close()


SHORT = Conversation(TALK.messages[:2])
OFFERED = Conversation(TALK.messages[:2], (NOW,))


@pytest.mark.parametrize(
    ("template", "conversation"),
    [(QWEN, TALK), (QWEN, SHORT), (QWEN, OFFERED), (LLAMA, TALK), (LLAMA, OFFERED), (PLAIN, SHORT)],
)
async def test_a_template_reads_what_transformers_gives_it(
    templates: ChatTemplates, template: str, conversation: Conversation
) -> None:
    called = {"name": "get_weather", "arguments": {"city": "Oslo"}}
    calls = [{"id": "c1", "type": "function", "function": called}]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "rain", "tool_call_id": "c1", "name": "get_weather"},
    ]
    functions: list[dict[str, Any]] = [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "What it is like <outside>",
                "parameters": WEATHER.parameters,
            },
        },
        {"type": "function", "function": {"name": "now"}},
    ]
    given = [
        f for f in functions if f["function"]["name"] in {g.name for g in conversation.functions}
    ]
    rendered: Any = render_jinja_template(
        [messages[: len(conversation.messages)]],
        tools=list[Any](given) or None,
        chat_template=template,
        add_generation_prompt=True,
        bos_token="<s>",
    )
    assert await templates.render(template, conversation, {"bos_token": "<s>"}) == rendered[0][0]


async def test_a_template_that_knows_no_tools_gets_them_in_words(templates: ChatTemplates) -> None:
    text = await templates.render(PLAIN, TALK, {})
    assert text.startswith("[system] Be brief.\n\nYou can call these functions:\n<tools>\n")
    listed = text.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert [json.loads(line) for line in listed] == [WEATHER.shown(), NOW.shown()]
    assert text.endswith(
        "[user] Weather in Oslo?\n"
        '[assistant] <tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n'
        "</tool_call>\n"
        "[user] <tool_response>\nrain\n</tool_response>\n"
    )


async def test_without_a_system_message_there_is_one(templates: ChatTemplates) -> None:
    hello = Conversation((ChatMessage("user", "hello"),), (NOW,))
    text = await templates.render(PLAIN, hello, {})
    assert text.startswith("[system] You can call these functions:")
    assert text.endswith("[user] hello\n")


@pytest.mark.parametrize("arguments", ["{", "[]", '{"a": NaN}', '{"a": "\\ud800"}', '{"a":' * 99])
async def test_arguments_that_are_no_object_are_named(
    templates: ChatTemplates, arguments: str
) -> None:
    made = ChatMessage("assistant", None, (ToolCall("c1", "now", arguments),))
    with pytest.raises(InvalidRequest, match=r"messages\[1\]\.tool_calls\[0\]"):
        await templates.render(PLAIN, Conversation((ChatMessage("user", "x"), made)), {})


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (ChatMessage("wizard", "x"), "messages[0].role"),
        (ChatMessage("user", None), "messages[0].content"),
        (ChatMessage("user", "x", (ToolCall("c1", "now", "{}"),)), "messages[0].tool_calls"),
    ],
)
def test_a_wrong_message_is_named(message: ChatMessage, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Conversation((message,)).checked()
    assert [violation.field for violation in caught.value.violations] == [field]
