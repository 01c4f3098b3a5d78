"""Adapters in host memory, ready to be copied to the device."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from services.core.types import Digest
from services.gpu_worker.model.arena import page_elements
from services.gpu_worker.model.loading import LoadedModel
from services.gpu_worker.model.packing import HeldImage, Packing
from services.gpu_worker.model.unpacking import Unpacker


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


class AdapterReader:
    """Makes canonical adapters ready for one model's pages."""

    def __init__(
        self, model: LoadedModel, *, page_tokens: int, unpacker: Unpacker | None = None
    ) -> None:
        """`unpacker` is not the model's own where a group has the model."""
        self.unpacker = unpacker or Unpacker(
            model.card.fingerprint,
            {module.site: module.out_features for module in model.card.modules},
            page_elements(model.network.config, page_tokens),
        )
        self._device = model.network.device

    def read(self, pieces: Iterable[bytes], digest: Digest) -> AdapterWeights:
        """Raises what Unpacker.unpack does."""
        image = HeldImage()
        layout = self.unpacker.unpack(pieces, digest, image)
        return self.stage(Packing(torch.from_numpy(image.values), layout))

    def stage(self, packing: Packing) -> AdapterWeights:
        return AdapterWeights(replace(packing, image=self._device.stage(packing.image)))
