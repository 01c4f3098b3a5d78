"""The Open Inference Protocol over HTTP."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response

from services.core.errors import InvalidRequest
from services.core.types import TenantId
from services.gateway.http_completions import unless_disconnected
from services.gateway.http_request_ids import request_id_of
from services.gateway.http_routes import StrictRoute
from services.gateway.kserve import (
    INPUT,
    OUTPUTS,
    VERSION,
    Inference,
    Inferences,
    check_input,
    inference,
    reference,
)
from services.gateway.kserve_schemas import (
    InferRequest,
    InferResponse,
    KserveError,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
)
from services.gateway.openai_schemas import refusals
from services.runtime.auth import Caller

Model = Annotated[
    str,
    Path(description="A base model, an adapter, or one that somebody shares (owner/adapter)."),
]
Version = Annotated[str, Path(description="Of the adapter: a number, an alias or a digest.")]

_ALL = refusals(KserveError)
_FACTS = refusals(KserveError, 400, 401, 403, 404, 500, 503, 504)


def kserve_router(
    inferences: Inferences,
    speaker: Callable[..., Caller],
    tenant: Callable[..., TenantId],
) -> APIRouter:
    """`speaker` and `tenant` are dependencies: who asks, by a key for completions or by any."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"], route_class=StrictRoute)
    Speaker = Annotated[Caller, Depends(speaker)]
    Tenant = Annotated[TenantId, Depends(tenant)]

    async def described(tenant: TenantId, model: str, request: Request) -> dict[str, Any]:
        facts = await inferences.facts(tenant, model, request_id_of(request))
        outputs = [_tensor_facts(name, datatype) for name, datatype in OUTPUTS.items()]
        return {
            "name": facts.name,
            "versions": facts.versions,
            "platform": facts.platform,
            "inputs": [_tensor_facts(INPUT, "BYTES")],
            "outputs": outputs,
        }

    async def inferred(
        caller: Caller, model: str, version: str, body: InferRequest, request: Request
    ) -> Response:
        asked = _asked(reference(model, version), body)
        work = inferences.infer(caller, asked, request_id_of(request))
        done = await unless_disconnected(request, work)
        outputs = [
            {"name": t.name, "datatype": t.datatype, "shape": [len(t.data)], "data": t.data}
            for t in done.outputs
        ]
        known = {"model_version": done.version} if done.version else {}
        return JSONResponse({"model_name": model, **known, "id": body.id, "outputs": outputs})

    @router.get("", response_model=ServerMetadata, responses=_FACTS)
    async def server(tenant: Tenant) -> dict[str, Any]:
        """The server."""
        return {"name": "lorikeet", "version": VERSION, "extensions": []}

    @router.get("/health/live", response_model=Live)
    async def live() -> dict[str, bool]:
        """Whether this process answers."""
        return {"live": True}

    @router.get("/health/ready", response_model=Ready, responses={503: {"model": Ready}})
    async def ready() -> Response:
        """Whether there is a base model to ask."""
        return JSONResponse({"ready": inferences.ready}, 200 if inferences.ready else 503)

    # Versions come first: a model's name may hold slashes.
    @router.get(
        "/models/{model:path}/versions/{version}/ready", response_model=ModelReady, responses=_FACTS
    )
    async def version_ready(
        model: Model, version: Version, tenant: Tenant, request: Request
    ) -> dict[str, Any]:
        """Whether this version can be asked."""
        await inferences.facts(tenant, reference(model, version), request_id_of(request))
        return {"name": model, "ready": True}

    @router.get("/models/{model:path}/ready", response_model=ModelReady, responses=_FACTS)
    async def model_ready(model: Model, tenant: Tenant, request: Request) -> dict[str, Any]:
        """Whether this model can be asked."""
        await inferences.facts(tenant, model, request_id_of(request))
        return {"name": model, "ready": True}

    @router.post(
        "/models/{model:path}/versions/{version}/infer",
        response_model=InferResponse,
        responses=_ALL,
    )
    async def version_infer(
        model: Model, version: Version, body: InferRequest, caller: Speaker, request: Request
    ) -> Response:
        """Continue texts with this version."""
        return await inferred(caller, model, version, body, request)

    @router.post("/models/{model:path}/infer", response_model=InferResponse, responses=_ALL)
    async def infer(
        model: Model, body: InferRequest, caller: Speaker, request: Request
    ) -> Response:
        """Continue texts."""
        return await inferred(caller, model, "", body, request)

    @router.get(
        "/models/{model:path}/versions/{version}", response_model=ModelMetadata, responses=_FACTS
    )
    async def version_metadata(
        model: Model, version: Version, tenant: Tenant, request: Request
    ) -> dict[str, Any]:
        """One version of a model."""
        return await described(tenant, reference(model, version), request)

    @router.get("/models/{model:path}", response_model=ModelMetadata, responses=_FACTS)
    async def model_metadata(model: Model, tenant: Tenant, request: Request) -> dict[str, Any]:
        """A model: its tensors, and the version that its name means now."""
        return await described(tenant, model, request)

    return router


def _asked(model: str, body: InferRequest) -> Inference:
    texts: list[str] = []
    for index, tensor in enumerate(body.inputs):
        texts = list(_texts(tensor.data, f"inputs[{index}].data"))
        check_input(index, tensor.name, tensor.datatype, tensor.shape, len(texts))
    return inference(model, texts, body.parameters, [output.name for output in body.outputs])


def _texts(data: list[Any], field: str) -> Iterator[str]:
    """In row-major order, however deep the lists are."""
    for element in data:
        if isinstance(element, list):
            yield from _texts(element, field)
        elif isinstance(element, str):
            yield element
        else:
            raise InvalidRequest.of(field, "must hold texts")


def _tensor_facts(name: str, datatype: str) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1]}
