"""Canonical adapters, from the store's bytes to pages that are ready to be copied."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import safetensors
import torch
from safetensors.torch import load
from torch import Tensor

from services.core.errors import CorruptData, FailedPrecondition
from services.core.types import Digest, Fingerprint
from services.gpu_worker.model.arena import page_elements
from services.gpu_worker.model.loading import LoadedModel
from services.gpu_worker.model.packing import Factors, Packing, pack


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """A verified adapter in host memory."""

    packing: Packing

    @property
    def pages(self) -> int:
        return len(self.packing.image)

    @property
    def size_bytes(self) -> int:
        return self.packing.image.nbytes


@dataclass(frozen=True, slots=True)
class Unpacker:
    """Lays one base model's adapters out in pages of so many elements. Processes can pass it on.

    `widths`: output features by site name ("0.q").
    """

    fingerprint: Fingerprint
    widths: Mapping[str, int]
    elements: int

    def unpack(
        self, data: bytes, digest: Digest, allocate: Callable[[int, int], Tensor] = torch.zeros
    ) -> Packing:
        """The adapter in `data`, a canonical safetensors file (see adapter_store/canonical.py).

        Its image is `allocate(pages, elements)`, zeros. Raises CorruptData if the bytes are not
        the digest's, FailedPrecondition if they are for another base model, ResourceExhausted if
        a page cannot hold even one rank of it.
        """
        if hashlib.sha256(data).hexdigest() != digest:
            raise CorruptData(f"the bytes of adapter {digest[:12]} are not what its digest says")
        try:
            tensors = load(data)
            facts = json.loads(_metadata(data)["lorikeet"])
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise CorruptData(f"adapter {digest[:12]} is not a canonical adapter") from error
        if facts["base_fingerprint"] != self.fingerprint:
            raise FailedPrecondition(f"adapter {digest[:12]} is for another base model")
        sites = {
            site: Factors(
                a=tensors[f"{site}.A"].float(),
                b=tensors[f"{site}.B"].float().T.mul(scale).contiguous(),
            )
            for site, scale in facts["scaling"].items()
        }
        layers = 1 + max(int(site.split(".")[0]) for site in self.widths)
        return pack(sites, self.widths, layers=layers, elements=self.elements, allocate=allocate)


class AdapterReader:
    """Makes canonical adapters ready for one model's pages."""

    def __init__(self, model: LoadedModel, *, page_tokens: int) -> None:
        self.unpacker = Unpacker(
            model.card.fingerprint,
            {module.site: module.out_features for module in model.card.modules},
            page_elements(model.network.config, page_tokens),
        )
        self._device = model.network.device

    def read(self, data: bytes, digest: Digest) -> AdapterWeights:
        """Raises what Unpacker.unpack does."""
        return self.stage(self.unpacker.unpack(data, digest))

    def stage(self, packing: Packing) -> AdapterWeights:
        return AdapterWeights(replace(packing, image=self._device.stage(packing.image)))


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return metadata
