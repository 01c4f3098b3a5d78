"""Fetches a version's canonical weights, from wherever an earlier try stopped."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import grpc

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from services.cli.connection import Metadata

Advance = Callable[[int, int], None]  # bytes done, bytes in all


def download_version(
    channel: grpc.Channel,
    metadata: Metadata,
    reference: str,
    to: Path,
    *,
    tenant: str = "",
    advance: Advance = lambda done, total: None,
) -> None:
    """`to` appears whole and verified, or not at all: until then it is "`to`.DIGEST.part".

    Raises grpc.RpcError, or OSError for weights that are not their digest's.
    """
    stub = rpc.AdapterStoreServiceStub(channel)
    resolved = pb.ResolveAdapterRequest(tenant=tenant, reference=reference)
    version = stub.ResolveAdapter(resolved, metadata=metadata).version
    part = to.with_name(f"{to.name}.{version.digest[:12]}.part")
    with part.open("ab") as file:
        done = file.tell()
        try:
            if done < version.size_bytes:
                request = pb.DownloadRequest(digest=version.digest, offset=done)
                for piece in stub.Download(request, metadata=metadata):
                    file.write(piece.data)
                    done += len(piece.data)
                    advance(done, version.size_bytes)
        finally:
            if done == 0:
                part.unlink()
    with part.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != version.digest:
            part.unlink()
            raise OSError(f"what arrived is not {reference}; try again")
    part.replace(to)
