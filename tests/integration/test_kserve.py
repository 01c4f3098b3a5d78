"""The Open Inference Protocol over HTTP and gRPC."""

import struct
from typing import Any

import grpc
import httpx
import pytest

from lorikeet.kserve.v2 import inference_pb2 as pb
from lorikeet.kserve.v2 import inference_pb2_grpc as rpc
from tests.integration.conftest import BASE, Running, bearer

TEXTS = ["The capital of France is", "One, two, three,"]


def call(running: Running, path: str, body: Any = None, *, key: str = "") -> httpx.Response:
    url = running.http.removesuffix("/v1") + path
    headers = {"authorization": f"Bearer {key or running.keys['acme']}"}
    if body is None:
        return httpx.get(url, headers=headers, timeout=60)
    return httpx.post(url, json=body, headers=headers, timeout=60)


def question(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "text_input", "shape": [2], "datatype": "BYTES", "data": TEXTS}
    parameters = {"max_tokens": 4, "temperature": 0}
    return {"id": "42", "inputs": [tensor], "parameters": parameters} | changes


def test_texts_are_continued_side_by_side(running: Running) -> None:
    answer = call(running, f"/v2/models/{BASE}/infer", question())
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["id"] == "42"
    assert body["model_name"] == BASE
    assert "model_version" not in body
    outputs = {output["name"]: output for output in body["outputs"]}
    assert outputs["text_output"]["shape"] == [2]
    assert outputs["text_output"]["data"][0].strip().startswith("Paris")
    assert outputs["completion_tokens"]["data"] == [4, 4]
    assert outputs["finish_reason"]["data"] == ["length", "length"]
    assert all(count > 3 for count in outputs["prompt_tokens"]["data"])
    assert outputs["prompt_tokens"]["datatype"] == "INT64"


@pytest.mark.parametrize("path", ["/v2/models/pirate", "/v2/models/pirate/versions/1"])
def test_an_adapter_is_a_model_with_versions(running: Running, path: str) -> None:
    facts = call(running, path).json()
    assert facts["name"] == "pirate"
    assert facts["versions"] == ["1"]
    assert [tensor["name"] for tensor in facts["inputs"]] == ["text_input"]
    assert call(running, f"{path}/ready").json() == {"name": "pirate", "ready": True}
    answer = call(running, f"{path}/infer", question(outputs=[{"name": "text_output"}])).json()
    assert answer["model_version"] == "1"
    assert [output["name"] for output in answer["outputs"]] == ["text_output"]


def test_the_server_says_how_it_is(running: Running) -> None:
    root = running.http.removesuffix("/v1")
    assert httpx.get(f"{root}/v2/health/live").json() == {"live": True}
    assert httpx.get(f"{root}/v2/health/ready").json() == {"ready": True}
    assert httpx.get(f"{root}/v2").status_code == 401
    assert call(running, "/v2").json()["name"] == "lorikeet"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v2/models/secret/infer", question(), 404, "does not exist"),
        ("/v2/models/pirate/versions/9/infer", question(), 404, "does not exist"),
        (f"/v2/models/{BASE}/versions/1", None, 404, "does not exist"),
        ("/v2/nowhere", None, 404, "Not Found"),
        ("/v2/models/pirate/infer", question(inputs=[]), 400, "inputs"),
        ("/v2/models/pirate/infer", {}, 400, "inputs"),
        ("/v2/models/pirate/infer", question(parameters={"warmth": 1}), 400, "parameters.warmth"),
        (
            "/v2/models/pirate/infer",
            question(parameters={"temperature": 9}),
            400,
            "temperature",
        ),
        (
            "/v2/models/pirate/infer",
            question(parameters={"max_tokens": "many"}),
            400,
            "parameters.max_tokens",
        ),
        ("/v2/models/pirate/infer", question(outputs=[{"name": "x"}]), 400, "outputs[0].name"),
        (
            "/v2/models/pirate/infer",
            question(parameters={"service_tier": "scale"}),
            400,
            "parameters.service_tier: must be one of",
        ),
        (
            "/v2/models/pirate/infer",
            question(parameters={"service_tier": 5}),
            400,
            "parameters.service_tier",
        ),
        (
            "/v2/models/pirate/infer",
            question(parameters={"service_tier": "priority"}),
            403,
            "'default' at most",
        ),
    ],
)
def test_errors_are_one_sentence(
    running: Running, path: str, body: Any, status: int, said: str
) -> None:
    answer = call(running, path, body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "prompt"}, "inputs[0].name"),
        ({"datatype": "FP32"}, "inputs[0].datatype"),
        ({"shape": [3]}, "inputs[0].shape"),
        ({"shape": [-1, -2]}, "inputs[0].shape"),
        ({"data": [1, 2]}, "inputs[0].data"),
    ],
)
def test_a_wrong_tensor_is_named(running: Running, changes: dict[str, Any], field: str) -> None:
    body = question()
    body["inputs"][0] |= changes
    answer = call(running, f"/v2/models/{BASE}/infer", body)
    assert answer.status_code == 400
    assert field in answer.json()["error"]


@pytest.fixture(scope="module")
def stub(running: Running) -> Any:
    return rpc.GRPCInferenceServiceStub(running.channel)


def infer(**changes: Any) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="text_input", datatype="BYTES", shape=[2])
    tensor.contents.bytes_contents.extend(text.encode() for text in TEXTS)
    parameters = {
        "max_tokens": pb.InferParameter(int64_param=4),
        "service_tier": pb.InferParameter(string_param="flex"),
        "temperature": pb.InferParameter(string_param="0"),
    }
    arguments = {"model_name": "pirate", "id": "42", "inputs": [tensor], "parameters": parameters}
    return pb.ModelInferRequest(**arguments | changes)


def test_grpc_says_the_same_as_http(running: Running, stub: Any) -> None:
    who = bearer(running.keys["acme"])
    answer = stub.ModelInfer(infer(), metadata=who)
    expected = call(running, "/v2/models/pirate/infer", question()).json()
    assert answer.model_version == expected["model_version"] == "1"
    assert answer.id == "42"
    for output, other in zip(answer.outputs, expected["outputs"], strict=True):
        assert (output.name, output.datatype, list(output.shape)) == (
            other["name"],
            other["datatype"],
            other["shape"],
        )
        contents = output.contents
        texts = [text.decode() for text in contents.bytes_contents]
        assert (texts or list(contents.int64_contents)) == other["data"]


def test_raw_tensors_are_answered_raw(running: Running, stub: Any) -> None:
    who = bearer(running.keys["acme"])
    texts = [text.encode() for text in TEXTS]
    raw = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="text_input", datatype="BYTES", shape=[2, 1]
    )
    answer = stub.ModelInfer(infer(inputs=[tensor], raw_input_contents=[raw]), metadata=who)
    plain = stub.ModelInfer(infer(), metadata=who)
    for output, packed in zip(plain.outputs, answer.raw_output_contents, strict=True):
        counts, said = output.contents.int64_contents, output.contents.bytes_contents
        expected = struct.pack(f"<{len(counts)}q", *counts) + b"".join(
            struct.pack("<I", len(text)) + text for text in said
        )
        assert packed == expected
    for cut in (raw[:-1], raw[:2], struct.pack("<I", 2**32 - 1)):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(infer(inputs=[tensor], raw_input_contents=[cut]), metadata=who)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_needs_a_key_over_grpc(running: Running, stub: Any) -> None:
    who = bearer(running.keys["acme"])
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ServerMetadata(pb.ServerMetadataRequest(), metadata=who).name == "lorikeet"
    assert stub.ModelReady(pb.ModelReadyRequest(name="pirate"), metadata=who).ready
    facts = stub.ModelMetadata(pb.ModelMetadataRequest(name="pirate", version="1"), metadata=who)
    assert list(facts.versions) == ["1"]
    for method, request in [
        (stub.ServerMetadata, pb.ServerMetadataRequest()),
        (stub.ModelReady, pb.ModelReadyRequest(name="pirate")),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name="pirate")),
        (stub.ModelInfer, infer()),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            method(request)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("model", ["secret", "nothing", "pirate@9"])
def test_somebody_elses_model_is_not_found(running: Running, stub: Any, model: str) -> None:
    who = bearer(running.keys["acme"])
    for method, request in [
        (stub.ModelReady, pb.ModelReadyRequest(name=model)),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name=model)),
        (stub.ModelInfer, infer(model_name=model)),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            method(request, metadata=who)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
