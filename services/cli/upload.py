"""Sends a PEFT folder to the adapter store, from wherever an earlier try stopped."""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from lorikeet.types.v1.adapter_pb2 import AdapterVersion, Provenance
from services.cli.connection import Metadata

Advance = Callable[[int, int], None]  # bytes sent, bytes in all

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


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
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    upload = stub.StartUpload(
        pb.StartUploadRequest(
            tenant=tenant,
            adapter=adapter,
            config_json=(folder / CONFIG).read_text(errors="replace"),
            size_bytes=weights.stat().st_size,
            sha256=digest,
            base_model=base_model,
            provenance=provenance,
        ),
        metadata=metadata,
    ).upload
    if upload.committed_bytes < upload.size_bytes:
        stub.WriteChunks(_chunks(weights, upload, advance), metadata=metadata)
    advance(upload.size_bytes, upload.size_bytes)
    request = pb.FinishUploadRequest(upload_id=upload.id)
    return stub.FinishUpload(request, metadata=metadata).version


def _weights_of(folder: Path) -> Path:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            pickles = ", ".join(path.name for path in sorted(folder.glob("*.bin")))
            hint = f" ({pickles} is a pickle: save it as safetensors)" if pickles else ""
            raise FileNotFoundError(f"{folder} has no {name}{hint}")
    return folder / WEIGHTS


def _chunks(path: Path, upload: pb.Upload, advance: Advance) -> Iterator[pb.WriteChunksRequest]:
    with path.open("rb") as file:
        offset = upload.committed_bytes
        file.seek(offset)
        while data := file.read(upload.chunk_bytes):
            yield pb.WriteChunksRequest(
                upload_id=upload.id, offset=offset, data=data, crc32=zlib.crc32(data)
            )
            offset += len(data)
            advance(offset, upload.size_bytes)
