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
    Inferred,
    ModelFacts,
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
    _add_server(router, inferences, tenant)
    # Versions come first in each: a model's name may hold slashes. For the same reason the bare
    # name of a model comes last.
    _add_readiness(router, inferences, tenant)
    _add_inference(router, inferences, speaker)
    _add_metadata(router, inferences, tenant)
    return router


def _add_server(router: APIRouter, inferences: Inferences, tenant: Callable[..., TenantId]) -> None:
    @router.get("", response_model=ServerMetadata, responses=_FACTS)
    async def server(tenant: Annotated[TenantId, Depends(tenant)]) -> dict[str, Any]:
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


def _add_readiness(
    router: APIRouter, inferences: Inferences, tenant: Callable[..., TenantId]
) -> None:
    Tenant = Annotated[TenantId, Depends(tenant)]

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


def _add_inference(
    router: APIRouter, inferences: Inferences, speaker: Callable[..., Caller]
) -> None:
    Speaker = Annotated[Caller, Depends(speaker)]

    async def inferred(
        caller: Caller, model: str, version: str, body: InferRequest, request: Request
    ) -> Response:
        asked = _asked(reference(model, version), body)
        work = inferences.infer(caller, asked, request_id_of(request))
        return _answer(model, body.id, await unless_disconnected(request, work))

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


def _add_metadata(
    router: APIRouter, inferences: Inferences, tenant: Callable[..., TenantId]
) -> None:
    Tenant = Annotated[TenantId, Depends(tenant)]

    @router.get(
        "/models/{model:path}/versions/{version}", response_model=ModelMetadata, responses=_FACTS
    )
    async def version_metadata(
        model: Model, version: Version, tenant: Tenant, request: Request
    ) -> dict[str, Any]:
        """One version of a model."""
        named = reference(model, version)
        return _metadata(await inferences.facts(tenant, named, request_id_of(request)))

    @router.get("/models/{model:path}", response_model=ModelMetadata, responses=_FACTS)
    async def model_metadata(model: Model, tenant: Tenant, request: Request) -> dict[str, Any]:
        """A model: its tensors, and the version that its name means now."""
        return _metadata(await inferences.facts(tenant, model, request_id_of(request)))


def _answer(model: str, asked_id: str, done: Inferred) -> Response:
    outputs = [
        {"name": t.name, "datatype": t.datatype, "shape": [len(t.data)], "data": t.data}
        for t in done.outputs
    ]
    known = {"model_version": done.version} if done.version else {}
    return JSONResponse({"model_name": model, **known, "id": asked_id, "outputs": outputs})


def _metadata(facts: ModelFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "versions": facts.versions,
        "platform": facts.platform,
        "inputs": [_tensor_facts(INPUT, "BYTES")],
        "outputs": [_tensor_facts(name, datatype) for name, datatype in OUTPUTS.items()],
    }


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
