"""What OpenAI's client makes of errors, and the shapes that litellm sends."""

from typing import Any

import httpx
import openai
import pytest

from tests.integration.conftest import BASE, Running

ASK: Any = [{"role": "user", "content": "How do I boil an egg?"}]
FLEX: Any = {"service_tier": "flex"}


def test_errors_are_those_of_the_client(running: Running, client: openai.OpenAI) -> None:
    stranger = client.with_options(api_key="lk_aaaaaaaa_" + "x" * 43)
    calls: list[tuple[type[openai.APIStatusError], Any]] = [
        (openai.AuthenticationError, stranger.models.list),
        (openai.NotFoundError, lambda: client.models.retrieve("nothing")),
        (openai.NotFoundError, lambda: client.completions.create(model="nothing", prompt="x")),
        (openai.BadRequestError, lambda: client.completions.create(model=BASE, prompt="")),
        (openai.NotFoundError, lambda: client.embeddings.create(model=BASE, input="x")),
    ]
    for kind, call in calls:
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.request_id
        assert caught.value.type


def test_a_model_is_retrieved_by_any_of_its_names(running: Running, client: openai.OpenAI) -> None:
    base = client.models.retrieve(BASE)
    assert (base.id, base.owned_by, base.model_extra["parent"]) == (BASE, "lorikeet", None)  # type: ignore[index]
    version = client.models.retrieve("pirate@1")
    assert (version.id, version.owned_by) == ("pirate@1", "acme")
    extra = version.model_extra or {}
    assert (extra["root"], extra["parent"]) == ("pirate@1", BASE)
    listed = next(model for model in client.models.list() if model.id == "pirate")
    assert listed == client.models.retrieve("pirate")
    for name in ("secret", "umbrella/secret", "pirate@9", "a/b/c"):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(name)


def test_several_prompts_have_answers_of_their_own(client: openai.OpenAI) -> None:
    prompts = ["The capital of France is", "One, two, three,"]
    rules: Any = {"model": BASE, "max_tokens": 4, "temperature": 0}
    together = client.completions.create(prompt=prompts, **rules)
    apart = [client.completions.create(prompt=prompt, **rules) for prompt in prompts]
    assert [c.text for c in together.choices] == [one.choices[0].text for one in apart]
    assert together.usage is not None
    used = [one.usage.prompt_tokens for one in apart if one.usage]
    assert together.usage.prompt_tokens == sum(used)
    said = ["", ""]
    for chunk in client.completions.create(prompt=prompts, stream=True, **rules):
        for choice in chunk.choices:
            said[choice.index] += choice.text
    assert said == [choice.text for choice in together.choices]


def test_an_answer_says_which_tier_it_had(client: openai.OpenAI) -> None:
    rules: Any = {"model": BASE, "max_tokens": 2, "temperature": 0}
    for asked, had in ({}, "default"), ({"service_tier": "auto"}, "default"), (FLEX, "flex"):
        chat = client.chat.completions.create(messages=ASK, **rules, **asked)
        assert chat.service_tier == had
    chunks = client.chat.completions.create(messages=ASK, stream=True, **rules, **FLEX)
    assert {chunk.service_tier for chunk in chunks} == {"flex"}
    text = client.completions.create(prompt="One, two,", extra_body=FLEX, **rules)
    assert (text.model_extra or {})["service_tier"] == "flex"
    with pytest.raises(openai.PermissionDeniedError, match="'default' at most, not for 'priority'"):
        client.chat.completions.create(messages=ASK, service_tier="priority", **rules)


def post(running: Running, body: Any, **headers: str) -> httpx.Response:
    key = {"authorization": f"Bearer {running.keys['acme']}"}
    return httpx.post(
        f"{running.http}/chat/completions", json=body, headers=key | headers, timeout=60
    )


def test_what_litellm_sends_is_understood(running: Running) -> None:
    body = {
        "model": "pirate",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {}}]},
            {"role": "assistant", "content": "Ahoy", "function_call": None, "tool_calls": None},
            {"role": "user", "content": [{"type": "input_text", "text": "And now?"}]},
        ],
        "max_completion_tokens": 5,
        "temperature": 0,
        "stream": False,
        "user": "u-1",
        "metadata": {"generation_name": "x"},
        "store": False,
        "service_tier": "auto",
        "reasoning_effort": "low",
        "logprobs": False,
        "top_logprobs": None,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "x",
                    "strict": True,
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "drop_params": True,
        "extra_body": {},
    }
    answer = post(
        running,
        body,
        **{
            "x-stainless-lang": "python",
            "user-agent": "litellm/1",
            "x-litellm-call-id": "1",
            "x-lorikeet-tenant": "umbrella",
            "openai-organization": "umbrella",
        },
    )
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["choices"][0]["message"]["role"] == "assistant"
    assert said["usage"]["completion_tokens"] == 5
    assert said["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    forged = post(running, body | {"model": "secret"}, **{"x-lorikeet-tenant": "umbrella"})
    assert forged.status_code == 404


def test_a_request_has_a_name_that_its_client_does_not_choose(running: Running) -> None:
    body = {"model": "pirate", "messages": ASK, "max_tokens": 1}
    names = [
        post(running, body, **{"x-request-id": "mine", "x-client-request-id": "mine"}).headers[
            "x-request-id"
        ]
        for _ in range(2)
    ]
    assert len(set(names)) == 2
    assert not any("mine" in name for name in names)
    log = (running.suite.home / "logs" / "gateway.log").read_text()
    assert '"client_request_id": "mine"' in log


def test_the_document_is_there(running: Running) -> None:
    root = running.http.removesuffix("/v1")
    document = httpx.get(f"{root}/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["description"], path
            assert "422" not in operation["responses"] or "Error" in str(operation["responses"])
    assert httpx.get(f"{root}/docs").status_code == 200
