"""What the store makes of an adapter's bytes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from services.adapter_store.canonical import CanonicalAdapter
from services.adapter_store.peft import PeftConfig
from services.adapter_store.validation import validate
from services.core.base_model import BaseModel
from services.core.types import Digest


@dataclass(frozen=True, slots=True)
class Validated:
    """`data`: the canonical file."""

    adapter: CanonicalAdapter
    data: bytes

    @property
    def digest(self) -> Digest:
        return self.adapter.digest


def validated(weights: bytes, config: PeftConfig, base: BaseModel, *, max_rank: int) -> Validated:
    """Raises InvalidAdapter."""
    with NamedTemporaryFile() as file:
        file.write(weights)
        file.flush()
        adapter = validate(Path(file.name), config, base, max_rank=max_rank)
        data = b"".join(adapter.pieces())
    assert hashlib.sha256(data).hexdigest() == adapter.digest
    assert len(data) == adapter.size_bytes
    return Validated(adapter, data)
