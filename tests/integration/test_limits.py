"""Limits and scopes on both faces of a running gateway."""

import time
from collections.abc import Callable
from itertools import count
from typing import Any

import grpc
import httpx
import openai
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as store_pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as store_rpc
from lorikeet.gateway.v1 import quota_service_pb2 as pb
from lorikeet.gateway.v1 import quota_service_pb2_grpc as rpc
from lorikeet.gateway.v1 import tenant_service_pb2 as tenants_pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as tenants_rpc
from tests.integration.conftest import BASE, EXAMPLES, Running, bearer
from tests.integration.test_grpc import failure

ASK: Any = [{"role": "user", "content": "Count to a thousand."}]
_NUMBERS = count()


class Limited:
    """A tenant of its own, and what the operator may do about it."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.name = f"limited-{next(_NUMBERS)}"
        self.key = running.add_tenant(self.name)
        self._quotas = rpc.QuotaServiceStub(running.channel)

    def limit(self, **limits: int) -> pb.Quota:
        request = pb.SetLimitsRequest(tenant=self.name, limits=pb.Limits(**limits))
        return self._quotas.SetLimits(request, metadata=bearer(self.running.operator)).quota

    def usage(self) -> pb.Usage:
        """As the tenant itself sees it."""
        return self._quotas.GetLimits(pb.GetLimitsRequest(), metadata=bearer(self.key)).quota.usage

    def ask(self, **changes: Any) -> Any:
        body = {"model": BASE, "messages": ASK, "max_tokens": 4, "ignore_eos": True} | changes
        url = f"{self.running.http}/chat/completions"
        headers = {"authorization": f"Bearer {self.key}", "x-lorikeet-tenant": "acme"}
        return httpx.post(url, json=body, headers=headers, timeout=60)


@pytest.fixture
def limited(running: Running) -> Limited:
    return Limited(running)


def test_grpc_says_which_limit_and_for_how_long(running: Running, limited: Limited) -> None:
    limited.limit(requests_per_minute=1)
    request = running.ask(BASE, "Hi")
    who = {"tenant": limited.name}
    assert list(running.generate(request, **who))
    code, details, text = failure(running.generate(request, **who))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details["ErrorInfo"].reason == "RATE_LIMITED"
    assert details["ErrorInfo"].metadata["limit"] == "requests_per_minute"
    assert details["QuotaFailure"].violations[0].subject == f"tenant:{limited.name}"
    assert 1 <= details["RetryInfo"].retry_delay.seconds <= 61
    assert "requests per minute" in text
    limited.limit(requests_per_minute=100, tokens_in_total=5)
    code, details, text = failure(running.generate(request, **who))
    assert details["ErrorInfo"].reason == "QUOTA_EXCEEDED"
    assert "RetryInfo" not in details
    assert "however long you wait" in text


@pytest.mark.parametrize("stream", [False, True])
def test_http_says_how_much_is_left(limited: Limited, stream: bool) -> None:
    limited.limit(requests_per_minute=2, tokens_per_minute=10_000)
    first = limited.ask(stream=stream)
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"] == "61s"
    assert first.headers["x-ratelimit-limit-tokens"] == "10000"
    prompt = limited.usage().tokens_in_minute - 4
    assert first.headers["x-ratelimit-remaining-tokens"] == str(10_000 - prompt - 4)
    assert limited.ask(stream=stream).status_code == 200
    refused = limited.ask(stream=stream)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-request-id"]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


def test_openais_client_knows_it_for_what_it_is(running: Running, limited: Limited) -> None:
    limited.limit(tokens_in_total=1)
    client = openai.OpenAI(base_url=running.http, api_key=limited.key)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model=BASE, messages=ASK, max_tokens=4)
    assert caught.value.code == "insufficient_quota"


def test_without_limits_nothing_is_said_of_them(limited: Limited) -> None:
    answer = limited.ask()
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


def test_what_was_delivered_is_what_counts(limited: Limited) -> None:
    limited.limit(tokens_in_total=1_000_000, concurrent_requests=8)
    usage = limited.ask(n=3, max_tokens=5).json()["usage"]
    assert limited.usage().tokens_in_total == 3 * usage["prompt_tokens"] + 15
    assert limited.ask(model="nothing").status_code == 404  # never got as far
    assert limited.usage().requests_in_minute == 3
    assert limited.usage().running_requests == 0


def test_a_client_that_leaves_gives_back_what_it_did_not_get(
    running: Running, limited: Limited
) -> None:
    limited.limit(tokens_in_total=1_000_000, concurrent_requests=1)
    request = running.ask(BASE, "Count to a thousand.", max_tokens=2000, ignore_eos=True)
    call = running.generate(request, tenant=limited.name)
    got = len(next(call).tokens)
    assert limited.usage().running_requests == 1
    assert limited.usage().reserved_tokens > 2000
    assert limited.ask().status_code == 429
    call.cancel()
    deadline = time.monotonic() + 10
    while limited.usage().running_requests:
        assert time.monotonic() < deadline, "its place was not given back"
        time.sleep(0.05)
    usage = limited.usage()
    assert usage.reserved_tokens == 0
    assert got < usage.tokens_in_total < 1000
    assert limited.ask().status_code == 200


def test_limits_are_the_operators_to_set_and_a_tenants_to_see(
    running: Running, limited: Limited
) -> None:
    limited.limit(requests_per_minute=7)
    stub = rpc.QuotaServiceStub(running.channel)
    who = bearer(limited.key)
    assert stub.GetLimits(pb.GetLimitsRequest(), metadata=who).quota.limits.requests_per_minute == 7
    change = pb.SetLimitsRequest(tenant=limited.name, limits=pb.Limits(requests_per_minute=9))
    others = pb.GetLimitsRequest(tenant="acme")
    for refused in (
        lambda: stub.SetLimits(change, metadata=who),
        lambda: stub.GetLimits(others, metadata=who),
    ):
        code, _, _ = failure(refused)
        assert code is grpc.StatusCode.PERMISSION_DENIED
    operator = bearer(running.operator)
    for request, code, field in (
        (pb.SetLimitsRequest(tenant="nobody"), grpc.StatusCode.NOT_FOUND, ""),
        (
            pb.SetLimitsRequest(tenant="acme", limits=pb.Limits(requests_per_minute=-1)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "limits.requests_per_minute",
        ),
        (
            pb.SetLimitsRequest(tenant="acme", update_mask=FieldMask(paths=["speed"])),
            grpc.StatusCode.INVALID_ARGUMENT,
            "update_mask",
        ),
    ):
        found, details, _ = failure(lambda r=request: stub.SetLimits(r, metadata=operator))
        assert found is code
        if field:
            assert details["BadRequest"].field_violations[0].field == field
    foreign = tenants_rpc.TenantServiceStub(running.channel).CreateKey(
        tenants_pb.CreateKeyRequest(tenant="acme"), metadata=operator
    )
    request = pb.SetLimitsRequest(tenant=limited.name, key_id=foreign.key.id)
    code, _, _ = failure(lambda: stub.SetLimits(request, metadata=operator))
    assert code is grpc.StatusCode.NOT_FOUND


def test_a_forged_tenant_pays_for_nobody(running: Running, limited: Limited) -> None:
    """`ask` says that it is acme; so does this call. Both are their key's."""
    other = Limited(running)
    other.limit(requests_per_minute=0)
    limited.limit(requests_per_minute=100)
    forged = (("x-lorikeet-tenant", other.name), ("x-lorikeet-key", "k2345678"))
    metadata = (*bearer(limited.key), *forged)
    assert list(running.gateway.Generate(running.ask(BASE, "Hi"), metadata=metadata))
    headers = {"authorization": f"Bearer {limited.key}", **dict(forged)}
    body = {"model": BASE, "messages": ASK, "max_tokens": 2}
    url = f"{running.http}/chat/completions"
    assert httpx.post(url, json=body, headers=headers, timeout=60).status_code == 200
    assert limited.usage().requests_in_minute == 2
    assert other.usage().requests_in_minute == 0
    models = httpx.get(f"{running.http}/models", headers=headers | {"x-lorikeet-tenant": "acme"})
    assert "pirate" not in {model["id"] for model in models.json()["data"]}


@pytest.fixture
def scoped(running: Running, limited: Limited) -> Callable[..., str]:
    """Makes keys that may do less."""
    stub = tenants_rpc.TenantServiceStub(running.channel)

    def key(*scopes: str) -> str:
        request = tenants_pb.CreateKeyRequest(tenant=limited.name, scopes=scopes)
        secret: str = stub.CreateKey(request, metadata=bearer(running.operator)).secret
        return secret

    return key


def test_a_key_that_may_generate_may_not_upload(
    running: Running, scoped: Callable[..., str]
) -> None:
    key = scoped("generate")
    assert list(running.gateway.Generate(running.ask(BASE, "Hi"), metadata=bearer(key)))
    running.keys["scoped"] = key
    with pytest.raises(grpc.RpcError) as caught:
        running.upload("scoped", "talk", EXAMPLES / "pirate")
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    store = store_rpc.AdapterStoreServiceStub(running.channel)
    request = store_pb.ListAdaptersRequest()
    code, _, text = failure(lambda: store.ListAdapters(request, metadata=bearer(key)))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "adapters:read" in text
    headers = {"authorization": f"Bearer {key}"}
    assert httpx.get(f"{running.http}/models", headers=headers).status_code == 200


def test_a_key_for_adapters_may_not_generate(running: Running, scoped: Callable[..., str]) -> None:
    key = scoped("adapters:read", "adapters:write")
    running.keys["scoped"] = key
    assert running.upload("scoped", "talk", EXAMPLES / "pirate").number == 1
    code, _, _ = failure(running.gateway.Generate(running.ask("talk", "Hi"), metadata=bearer(key)))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": "talk", "messages": ASK, "prompt": "x", "max_tokens": 2}
    for path in ("chat/completions", "completions"):
        answer = httpx.post(f"{running.http}/{path}", json=body, headers=headers)
        assert answer.status_code == 403
        assert "'generate'" in answer.json()["error"]["message"]
