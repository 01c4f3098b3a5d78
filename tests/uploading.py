"""Uploads as tests make them, chunk by chunk."""

import hashlib
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

from safetensors.torch import save

from services.adapter_store.records import Chunk, Provenance, Upload
from services.adapter_store.uploads import Uploads
from services.core.types import TenantId
from tests.peft_folders import peft_config, peft_tensors
from tests.unit.adapter_store.test_validation import SHAPES

ACME = TenantId("acme")
DATA = save(peft_tensors(SHAPES, names=["q_proj", "v_proj"], rank=4, seed=1))


async def begin(uploads: Uploads, data: bytes = DATA, **changes: Any) -> Upload:
    arguments: dict[str, Any] = {
        "tenant": ACME,
        "adapter": "sql",
        "config_json": json.dumps(peft_config(base_model_name_or_path="tiny")),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
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
