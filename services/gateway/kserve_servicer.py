"""The Open Inference Protocol over gRPC."""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from lorikeet.kserve.v2 import inference_pb2 as pb
from lorikeet.kserve.v2 import inference_pb2_grpc as rpc
from services.core.errors import InvalidRequest
from services.gateway.intake import Intake
from services.gateway.kserve import (
    INPUT,
    OUTPUTS,
    VERSION,
    Inferences,
    Tensor,
    check_input,
    inference,
    reference,
)
from services.runtime import call
from services.runtime.interceptors import Context


class KserveServicer(rpc.GRPCInferenceServiceServicer):
    def __init__(self, inferences: Inferences, intake: Intake) -> None:
        self._inferences = inferences
        self._intake = intake

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._inferences.ready)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        current = call.current()
        tenant, model = current.caller.acting_for(""), reference(request.name, request.version)
        await self._inferences.facts(tenant, model, current.request_id)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="lorikeet", version=VERSION)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        current = call.current()
        tenant, model = current.caller.acting_for(""), reference(request.name, request.version)
        facts = await self._inferences.facts(tenant, model, current.request_id)
        return pb.ModelMetadataResponse(
            name=facts.name,
            versions=facts.versions,
            platform=facts.platform,
            inputs=[_facts(INPUT, "BYTES")],
            outputs=[_facts(name, datatype) for name, datatype in OUTPUTS.items()],
        )

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        current = call.current()
        asked = inference(
            reference(request.model_name, request.model_version),
            _texts(request),
            {name: _value(value) for name, value in request.parameters.items()},
            [output.name for output in request.outputs],
        )
        with self._intake.place():
            done = await self._inferences.infer(current.caller, asked, current.request_id)
        raw = bool(request.raw_input_contents)
        return pb.ModelInferResponse(
            model_name=request.model_name,
            model_version=done.version,
            id=request.id,
            outputs=[_output(tensor, raw=raw) for tensor in done.outputs],
            raw_output_contents=[_packed(tensor.data) for tensor in done.outputs] if raw else (),
        )


def _facts(name: str, datatype: str) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=name, datatype=datatype, shape=[-1])


def _value(parameter: pb.InferParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)


def _texts(request: pb.ModelInferRequest) -> list[str]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest.of("raw_input_contents", "must be one for each input")
    texts: list[str] = []
    for index, tensor in enumerate(request.inputs):
        found: Sequence[bytes] = tensor.contents.bytes_contents
        if raw:
            found = list(_unpacked(raw[index], f"raw_input_contents[{index}]"))
        check_input(index, tensor.name, tensor.datatype, tensor.shape, len(found))
        try:
            texts = [text.decode() for text in found]
        except UnicodeDecodeError as error:
            raise InvalidRequest.of(f"inputs[{index}].contents", "is not UTF-8") from error
    return texts


def _unpacked(raw: bytes, field: str) -> Iterator[bytes]:
    """Elements of a raw BYTES tensor: each its length in four bytes, lowest first, and itself."""
    at = 0
    while at < len(raw):
        end = at + 4
        if end <= len(raw):
            end += struct.unpack_from("<I", raw, at)[0]
        if end > len(raw) or end < at + 4:
            raise InvalidRequest.of(field, "ends inside an element")
        yield raw[at + 4 : end]
        at = end


def _packed(data: Sequence[str] | Sequence[int]) -> bytes:
    return b"".join(
        struct.pack("<q", element)
        if isinstance(element, int)
        else struct.pack("<I", len(element.encode())) + element.encode()
        for element in data
    )


def _output(tensor: Tensor, *, raw: bool) -> pb.ModelInferResponse.InferOutputTensor:
    output = pb.ModelInferResponse.InferOutputTensor(
        name=tensor.name, datatype=tensor.datatype, shape=[len(tensor.data)]
    )
    if raw:
        return output
    for element in tensor.data:
        if isinstance(element, int):
            output.contents.int64_contents.append(element)
        else:
            output.contents.bytes_contents.append(element.encode())
    return output
