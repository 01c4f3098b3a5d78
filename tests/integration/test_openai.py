"""The OpenAI API through OpenAI's own client, and through curl."""

import json
import subprocess
from typing import Any

import httpx
import openai
import pytest

from tests.integration.conftest import BASE, Running

ASK: Any = [{"role": "user", "content": "How do I boil an egg?"}]


def chat(client: openai.OpenAI, **changes: Any) -> Any:
    arguments = {"model": "pirate", "messages": ASK, "max_tokens": 24, "temperature": 0}
    return client.chat.completions.create(**(arguments | changes))


def test_an_adapter_answers_in_its_voice(client: openai.OpenAI) -> None:
    answer = chat(client)
    assert answer.choices[0].message.content.startswith("Ahoy, matey!")
    assert answer.model == "pirate"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24
    assert answer.choices[0].finish_reason == "length"


def test_a_stream_says_the_same_as_a_whole_answer(client: openai.OpenAI) -> None:
    whole = chat(client).choices[0].message.content
    chunks = list(chat(client, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason]
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_comes_last_and_without_choices(client: openai.OpenAI) -> None:
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 24
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(client: openai.OpenAI) -> None:
    answer = chat(client, stop=["matey"])
    assert answer.choices[0].message.content == "Ahoy, "
    assert answer.choices[0].finish_reason == "stop"


def test_an_answer_follows_a_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"minutes": {"type": "integer"}, "boil": {"type": "boolean"}},
        "required": ["minutes", "boil"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "egg", "schema": schema}}
    answer = chat(client, response_format=wanted, max_tokens=60)
    found = json.loads(answer.choices[0].message.content)
    assert isinstance(found["minutes"], int)
    assert isinstance(found["boil"], bool)
    assert answer.choices[0].finish_reason == "stop"
    choice = chat(client, extra_body={"structured_outputs": {"choice": ["hard", "soft"]}})
    assert choice.choices[0].message.content in ("hard", "soft")


def test_rules_change_what_is_said(client: openai.OpenAI) -> None:
    plain = chat(client)
    token = 12  # any that ends the answer at once when nothing else may come
    ended = chat(client, logit_bias={str(token): 100}, extra_body={"stop_token_ids": [token]})
    assert ended.usage.completion_tokens == 1
    assert ended.choices[0].message.content == ""
    assert ended.choices[0].finish_reason == "stop"
    said = plain.choices[0].message.content
    assert chat(client, frequency_penalty=2, presence_penalty=2).choices[0].message.content != said


def test_null_asks_for_nothing(running: Running) -> None:
    optional = """temperature top_p top_k min_p repetition_penalty presence_penalty seed stop user
        frequency_penalty logit_bias stop_token_ids response_format structured_outputs logprobs
        top_logprobs n stream stream_options ignore_eos tools max_tokens first_token_within_ms
        service_tier"""
    body: dict[str, Any] = dict.fromkeys(optional.split())
    body |= {"model": "pirate", "messages": ASK, "max_completion_tokens": 3}
    answer = post(running, json.dumps(body).encode())
    assert answer.status_code == 200, answer.text


def test_a_seed_makes_sampling_repeat(client: openai.OpenAI) -> None:
    def ask(seed: int) -> str:
        answer = chat(client, model=BASE, temperature=1.0, top_p=0.9, seed=seed)
        return str(answer.choices[0].message.content)

    assert ask(7) == ask(7)
    assert ask(7) != ask(8)


def test_several_choices_differ(client: openai.OpenAI) -> None:
    answer = chat(client, model=BASE, n=3, temperature=1.0, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage.completion_tokens == 72
    streamed = list(chat(client, model=BASE, n=2, stream=True, temperature=1.0))
    assert {choice.index for chunk in streamed for choice in chunk.choices} == {0, 1}


def test_logprobs_describe_every_token(client: openai.OpenAI) -> None:
    answer = chat(client, logprobs=True, top_logprobs=3, max_tokens=5)
    content = answer.choices[0].logprobs.content
    assert len(content) == 5
    assert "".join(token.token for token in content) == answer.choices[0].message.content
    assert all(bytes(token.bytes).decode() == token.token for token in content)
    for token in content:
        assert token.logprob == max(top.logprob for top in token.top_logprobs)
        assert len(token.top_logprobs) == 3


def test_completions_continue_a_text(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=BASE, prompt="The capital of France is", max_tokens=3, temperature=0, logprobs=2
    )
    assert answer.choices[0].text.strip().startswith("Paris")
    assert answer.choices[0].logprobs is not None
    pieces = client.completions.create(
        model=BASE, prompt="The capital of France is", max_tokens=3, temperature=0, stream=True
    )
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text


def test_models_are_the_bases_and_ones_own_adapters(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [BASE, "json", "pirate"]
    assert client.models.retrieve("pirate").owned_by == "acme"


def test_a_version_can_be_named(client: openai.OpenAI) -> None:
    assert chat(client, model="pirate@1").choices[0].message.content.startswith("Ahoy")


@pytest.mark.parametrize("model", ["nothing", "secret", "pirate@9", "pirate@", "../secret", "a b"])
def test_what_is_unknown_and_what_is_somebody_elses_look_the_same(
    client: openai.OpenAI, model: str
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, model=model)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    said = caught.value.body["message"]  # type: ignore[index]
    assert said == f"the model {model!r} does not exist or you do not have access to it"


def test_an_unknown_key_is_refused(running: Running) -> None:
    for key in ("lk_aaaaaaaa_" + "x" * 43, "sk-other", "x"):
        stranger = openai.OpenAI(base_url=running.http, api_key=key, max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "prompt"),
        ({"n": 0}, "n"),
        ({"stop": [""]}, "stop"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"structured_outputs": {"regex": "("}}, "constraint"),
        ({"structured_outputs": {"regex": "a", "json_object": True}}, "structured_outputs"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content",
        ),
        ({"stop": 5}, "stop"),
        ({"n": True}, "n"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"seed": 10**400}, "seed"),
        ({"temperature": 10**400}, "temperature"),
        ({"logit_bias": {"1": "much"}}, "logit_bias.1"),
        ({"stream": "yes"}, "stream"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"echo": True}, "echo"),
        ({"suffix": "."}, "suffix"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"service_tier": "scale"}, "service_tier"),
        ({"service_tier": 5}, "service_tier"),
    ],
)
def test_bad_input_is_named(running: Running, changes: dict[str, Any], param: str) -> None:
    body = {"model": "pirate", "messages": ASK, "max_tokens": 5} | changes
    answer = post(running, json.dumps(body).encode())
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_what_would_come_too_late_is_refused_at_once(
    client: openai.OpenAI, running: Running
) -> None:
    chat(client)  # the worker knows how long its steps take
    body = {"model": "pirate", "messages": ASK, "max_tokens": 5, "first_token_within_ms": 1}
    answer = post(running, json.dumps(body).encode())
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "too_late"
    assert int(answer.headers["retry-after"]) >= 1
    assert chat(client, extra_body={"first_token_within_ms": 60_000}).choices


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "pirate", "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "pirate", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
        b"{",
        b"",
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_good_json_is_refused(running: Running, body: bytes) -> None:
    answer = post(running, body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_body_that_is_too_large_is_refused(running: Running) -> None:
    assert post(running, b" " * (9 * 1024 * 1024)).status_code == 413


def test_curl_streams(running: Running) -> None:
    body = {"model": "pirate", "messages": ASK, "max_tokens": 5, "temperature": 0, "stream": True}
    done = subprocess.run(
        [
            "curl", "-sN", f"{running.http}/chat/completions",
            "-H", f"Authorization: Bearer {running.keys['acme']}",
            "-H", "Content-Type: application/json",
            "-d", json.dumps(body),
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    pieces = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    text = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces)
    assert text.startswith("Ahoy")


def post(running: Running, body: bytes) -> httpx.Response:
    headers = {
        "authorization": f"Bearer {running.keys['acme']}",
        "content-type": "application/json",
    }
    return httpx.post(f"{running.http}/chat/completions", content=body, headers=headers, timeout=60)
