"""The gRPC face: another process's client, statuses with details, and what gRPC servers owe."""

import struct
import subprocess
import sys
import threading
import time
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as store_pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as store_rpc
from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import tenant_service_pb2 as tenants_pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as tenants_rpc
from lorikeet.types.v1 import tier_pb2
from tests.integration.conftest import BASE, Running, bearer

CLIENT = """
import sys, time, grpc
from lorikeet.gateway.v1 import gateway_service_pb2 as pb, gateway_service_pb2_grpc as rpc

address, key = sys.argv[1:]
request = pb.GenerateRequest(model="pirate")
request.chat.messages.add(role="user", content="How do I boil an egg?")
request.sampling.max_tokens, request.sampling.temperature = 24, 0.0
with grpc.insecure_channel(address) as channel:
    metadata = (("authorization", f"Bearer {key}"),)
    moments = []
    for piece in rpc.GatewayServiceStub(channel).Generate(request, metadata=metadata):
        moments.append(time.monotonic())
        print(piece.text, end="")
assert len(moments) > 5 and moments[-1] - moments[0] > 0.05, "it did not stream"
assert piece.usage.completion_tokens == 24
"""


def test_a_generated_client_in_another_process_streams(running: Running) -> None:
    arguments = [sys.executable, "-c", CLIENT, running.suite.addresses.gateway]
    done = subprocess.run(
        [*arguments, running.keys["acme"]], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Ahoy, matey!")


def failure(call: Any) -> tuple[grpc.StatusCode, dict[str, Any], str]:
    """Code, details by kind, and text of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call) if hasattr(call, "__iter__") else call()
    error: Any = caught.value
    status = rpc_status.from_call(error)
    assert status is not None, error
    details = {}
    for kind in ("ErrorInfo", "BadRequest", "QuotaFailure", "RetryInfo"):
        message = getattr(error_details_pb2, kind)()
        for detail in status.details:
            if detail.Unpack(message):
                details[kind] = message
    assert details["ErrorInfo"].domain == "lorikeet"
    return error.code(), details, error.details()


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2**32 - 1}, "max_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": -0.5}, "temperature"),
        ({"top_p": float("nan")}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"top_logprobs": 21}, "top_logprobs"),
    ],
)
def test_a_bad_parameter_is_named(running: Running, sampling: dict[str, Any], field: str) -> None:
    code, details, _ = failure(running.generate(running.ask("pirate", "Hi", **sampling)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details["ErrorInfo"].reason == "INVALID_REQUEST"
    assert [v.field for v in details["BadRequest"].field_violations] == [field]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GenerateRequest(model=BASE), "input"),
        (pb.GenerateRequest(model=BASE, chat=pb.Chat()), "chat.messages"),
        (pb.GenerateRequest(model=BASE, prompt=""), "prompt"),
        (pb.GenerateRequest(model=BASE, prompt="word " * 9000), "prompt"),
        (pb.GenerateRequest(prompt="x"), "model"),
        (pb.GenerateRequest(model=BASE, tokens={"ids": [49152]}), "prompt"),  # type: ignore[arg-type]
        (pb.GenerateRequest(model=BASE, prompt="x", service_tier=99), "service_tier"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_input_is_named(running: Running, request_: pb.GenerateRequest, field: str) -> None:
    code, details, _ = failure(running.generate(request_))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in details["BadRequest"].field_violations] == [field]


def test_the_first_piece_says_which_tier_it_has(running: Running) -> None:
    request = running.ask("pirate", "Hi", max_tokens=3)
    for asked, has in (
        (tier_pb2.SERVICE_TIER_UNSPECIFIED, tier_pb2.SERVICE_TIER_DEFAULT),
        (tier_pb2.SERVICE_TIER_FLEX, tier_pb2.SERVICE_TIER_FLEX),
    ):
        request.service_tier = asked
        first, *others = running.generate(request)
        assert first.service_tier == has
        assert {piece.service_tier for piece in others} == {tier_pb2.SERVICE_TIER_UNSPECIFIED}
    request.service_tier = tier_pb2.SERVICE_TIER_PRIORITY
    code, details, _ = failure(running.generate(request))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert details["ErrorInfo"].reason == "PERMISSION_DENIED"


def test_a_highest_tier_that_is_unknown_is_named(running: Running) -> None:
    stub, who = tenants_rpc.TenantServiceStub(running.channel), bearer(running.operator)
    unknown: Any = {"name": "acme", "highest_tier": 99}
    for call in (
        lambda: stub.CreateTenant(tenants_pb.CreateTenantRequest(**unknown), metadata=who),
        lambda: stub.UpdateTenant(tenants_pb.UpdateTenantRequest(**unknown), metadata=who),
    ):
        code, details, _ = failure(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert [v.field for v in details["BadRequest"].field_violations] == ["highest_tier"]


def test_text_that_is_not_utf8_is_the_callers_mistake(running: Running) -> None:
    model = b"\x0a\x04\xff\xfe\xfd\xfc"  # field 1 of the message, four bytes that are no text
    for data in (model, b"\xff" * 20, struct.pack("<B", 10)):
        call: Any = running.channel.unary_stream("/lorikeet.gateway.v1.GatewayService/Generate")
        code, details, _ = failure(call(data, metadata=bearer(running.keys["acme"])))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details["BadRequest"].field_violations[0].field == "request"


def test_unknown_and_foreign_models_are_told_apart_by_nobody(running: Running) -> None:
    said = set()
    for model in ("nothing", "secret", "secret@1"):
        code, details, text = failure(running.generate(running.ask(model, "Hi")))
        assert code is grpc.StatusCode.NOT_FOUND
        assert details["ErrorInfo"].reason == "MODEL_NOT_FOUND"
        said.add(text.replace(model, "?"))
    assert len(said) == 1
    assert list(running.generate(running.ask("secret", "Hi"), tenant="umbrella"))


def test_a_key_that_is_unknown_or_missing_is_refused(running: Running) -> None:
    request = running.ask("pirate", "Hi")
    for metadata in ((), bearer("lk_aaaaaaaa_" + "x" * 43), (("authorization", "Basic x"),)):
        code, details, _ = failure(running.gateway.Generate(request, metadata=metadata))
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert details["ErrorInfo"].reason == "INVALID_API_KEY"


def test_a_revoked_key_ends_at_once(running: Running) -> None:
    stub = tenants_rpc.TenantServiceStub(running.channel)
    who = bearer(running.operator)
    made = stub.CreateKey(tenants_pb.CreateKeyRequest(tenant="acme"), metadata=who)
    request = running.ask(BASE, "Hi")
    assert list(running.gateway.Generate(request, metadata=bearer(made.secret)))
    stub.RevokeKey(tenants_pb.RevokeKeyRequest(id=made.key.id), metadata=who)
    code, _, _ = failure(running.gateway.Generate(request, metadata=bearer(made.secret)))
    assert code is grpc.StatusCode.UNAUTHENTICATED


def test_a_tenant_may_not_do_what_is_the_operators(running: Running) -> None:
    stub = tenants_rpc.TenantServiceStub(running.channel)
    who = bearer(running.keys["acme"])
    code, _, _ = failure(lambda: stub.ListTenants(tenants_pb.ListTenantsRequest(), metadata=who))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    store = store_rpc.AdapterStoreServiceStub(running.channel)
    other = store_pb.ListAdaptersRequest(tenant="umbrella")
    code, _, _ = failure(lambda: store.ListAdapters(other, metadata=who))
    assert code is grpc.StatusCode.PERMISSION_DENIED


def test_a_forged_tenant_header_opens_nothing(running: Running) -> None:
    store = store_rpc.AdapterStoreServiceStub(running.channel)
    who = (*bearer(running.keys["acme"]), ("x-lorikeet-tenant", "umbrella"))
    found = store.ListAdapters(store_pb.ListAdaptersRequest(), metadata=who).versions
    assert {version.tenant for version in found} == {"acme"}


def test_tenants_keys_do_not_open_the_inner_services(running: Running) -> None:
    who = bearer(running.keys["acme"])
    with grpc.insecure_channel(running.suite.addresses.store) as channel:
        stub = store_rpc.AdapterStoreServiceStub(channel)
        request = store_pb.ListAdaptersRequest()
        code, _, _ = failure(lambda: stub.ListAdapters(request, metadata=who))
        assert code is grpc.StatusCode.UNAUTHENTICATED


def test_a_deadline_ends_the_work(running: Running) -> None:
    before = running.quiet().free_pages
    request = running.ask(BASE, "Count to a thousand.", max_tokens=2000, ignore_eos=True)
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        list(running.generate(request, timeout=1.0))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 5
    assert running.quiet(seconds=5).free_pages == before


@pytest.mark.parametrize("pieces", [1, 5])
def test_cancelling_a_stream_frees_its_pages(running: Running, pieces: int) -> None:
    before = running.quiet().free_pages
    request = running.ask(BASE, "Count to a thousand.", max_tokens=2000, ignore_eos=True)
    call = running.generate(request)
    for _ in range(pieces):
        next(call)
    call.cancel()
    report = running.quiet(seconds=5)
    assert report.free_pages == before == report.total_pages


def test_a_repeated_question_gets_the_same_answer_from_the_cache(running: Running) -> None:
    question = "Tell me about parrots. " * 20
    first, again, other = (
        list(running.generate(running.ask(BASE, question, max_tokens=12), tenant=tenant))
        for tenant in ("acme", "acme", "umbrella")
    )
    said = [[token for piece in answer for token in piece.tokens] for answer in (first, again)]
    assert said[0] == said[1]
    assert [token for piece in other for token in piece.tokens] == said[0]


def test_two_requests_of_one_name_do_not_meet(running: Running) -> None:
    request = running.ask(BASE, "Count.", max_tokens=20, ignore_eos=True)
    answers: list[str] = []

    def ask() -> None:
        metadata = (*bearer(running.keys["acme"]), ("x-request-id", "same"))
        pieces = running.gateway.Generate(request, metadata=metadata)
        answers.append("".join(piece.text for piece in pieces))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert len(set(answers)) == 1


def test_every_service_tells_its_health_and_describes_itself(running: Running) -> None:
    at = running.suite.addresses
    services = {
        at.gateway: "lorikeet.gateway.v1.GatewayService",
        at.store: "lorikeet.adapter_store.v1.AdapterStoreService",
        at.scheduler: "lorikeet.scheduler.v1.SchedulerService",
        at.worker: "lorikeet.gpu_worker.v1.GpuWorkerService",
    }
    for address, name in services.items():
        with grpc.insecure_channel(address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            for service in ("", name):
                answer = health.Check(health_pb2.HealthCheckRequest(service=service))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            database = ProtoReflectionDescriptorDatabase(channel)
            assert name in database.get_services()
            described = DescriptorPool(database).FindServiceByName(name)
            assert described.methods
