"""Uploads as tests make them, chunk by chunk."""

import hashlib
import json
import zlib
from collections.abc import AsyncIterator, Sequence
from io import BytesIO
from typing import Any

from safetensors.torch import save

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from services.adapter_store.records import Chunk, Provenance, Upload
from services.adapter_store.uploads import Uploads
from services.adapter_store.wire import parts_to_wire
from services.cli.content import InParts
from services.core.types import TenantId
from tests.peft_folders import peft_config, peft_tensors
from tests.unit.adapter_store.test_validation import SHAPES

ACME = TenantId("acme")
DATA = save(peft_tensors(SHAPES, names=["q_proj", "v_proj"], rank=4, seed=1))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def begin(uploads: Uploads, data: bytes = DATA, **changes: Any) -> Upload:
    arguments: dict[str, Any] = {
        "tenant": ACME,
        "adapter": "sql",
        "config_json": json.dumps(peft_config(base_model_name_or_path="tiny")),
        "size_bytes": len(data),
        "sha256": sha256(data),
        "base_model": "",
        "provenance": Provenance(),
    }
    return await uploads.start(**(arguments | changes))


async def chunks(upload: Upload, data: bytes, size: int = 500) -> AsyncIterator[Chunk]:
    for start in range(upload.committed_bytes, len(data), size):
        part = data[start : start + size]
        yield Chunk(upload.id, start, part, zlib.crc32(part))


async def write(uploads: Uploads, upload: Upload, data: bytes) -> Upload:
    return await uploads.write(chunks(upload, data), ACME)


def header(data: bytes) -> bytes:
    return data[: 8 + int.from_bytes(data[:8], "little")]


async def begin_in_parts(
    uploads: Uploads, data: bytes = DATA, **changes: Any
) -> tuple[Upload, bytes]:
    """And what it wants to be sent."""
    tag = sha256(data)
    told = {"sha256": "", "content_tag": tag, "header": header(data)}
    upload = await begin(uploads, data, **(told | changes))
    assert upload.arrangement is not None
    return upload, as_asked(data, parts_to_wire(upload.arrangement))


def as_asked(data: bytes, parts: Sequence[pb.UploadPart]) -> bytes:
    return InParts(BytesIO(data), parts).read(0, 1 << 40)
