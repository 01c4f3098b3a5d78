"""Sends a PEFT folder to the adapter store, from wherever an earlier try stopped."""

import hashlib
from pathlib import Path

import grpc

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from lorikeet.types.v1.adapter_pb2 import AdapterVersion, Provenance
from services.cli.connection import Metadata
from services.cli.content import AsItIs, Content, InParts, header_of, sha256_of
from services.cli.sending import Advance, Sender

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SAMPLES, SAMPLE_BYTES = 64, 16 * 1024


def upload_folder(
    channel: grpc.Channel,
    metadata: Metadata,
    folder: Path,
    *,
    adapter: str,
    tenant: str = "",
    base_model: str = "",
    provenance: Provenance | None = None,
    advance: Advance = lambda sent, total: None,
) -> AdapterVersion:
    """Raises FileNotFoundError or grpc.RpcError."""
    weights = _weights_of(folder)
    stub = rpc.AdapterStoreServiceStub(channel)
    request = pb.StartUploadRequest(
        tenant=tenant,
        adapter=adapter,
        config_json=(folder / CONFIG).read_text(errors="replace"),
        size_bytes=weights.stat().st_size,
        base_model=base_model,
        provenance=provenance,
        content_tag=content_tag(weights),
    )
    with weights.open("rb", buffering=0) as file:
        request.header = header_of(file)
        upload = _started(stub, request, metadata, weights)
        content: Content = InParts(file, upload.parts) if upload.parts else AsItIs(file)
        Sender(stub, metadata, advance).send(content, upload)
        advance(upload.size_bytes, upload.size_bytes)
        finish = pb.FinishUploadRequest(upload_id=upload.id, sha256=content.sha256())
    return stub.FinishUpload(finish, metadata=metadata).version


def content_tag(weights: Path) -> str:
    """Of some of it: other weights have another."""
    size = weights.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with weights.open("rb") as file:
        for number in range(SAMPLES + 1):
            file.seek(max(0, size - SAMPLE_BYTES) * number // SAMPLES)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _started(
    stub: rpc.AdapterStoreServiceStub,
    request: pb.StartUploadRequest,
    metadata: Metadata,
    weights: Path,
) -> pb.Upload:
    try:
        return stub.StartUpload(request, metadata=metadata).upload
    except grpc.RpcError as error:
        if not _wants_sha256(error):
            raise
    request.sha256 = sha256_of(weights)
    return stub.StartUpload(request, metadata=metadata).upload


def _wants_sha256(error: grpc.RpcError) -> bool:
    """A store of the release before wants it at the start."""
    if not isinstance(error, grpc.Call) or error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
        return False
    return (error.details() or "").startswith("sha256:")


def _weights_of(folder: Path) -> Path:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            pickles = ", ".join(path.name for path in sorted(folder.glob("*.bin")))
            hint = f" ({pickles} is a pickle: save it as safetensors)" if pickles else ""
            raise FileNotFoundError(f"{folder} has no {name}{hint}")
    return folder / WEIGHTS
