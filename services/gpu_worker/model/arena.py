"""One block of memory for keys, values and adapters alike, cut into equal pages."""

from collections.abc import Sequence

import torch

from services.gpu_worker.kernels.device import Device, PagedKv
from services.gpu_worker.model.config import ModelConfig


def page_elements(config: ModelConfig, page_tokens: int) -> int:
    """A page holds the keys and values of so many tokens in all layers."""
    return config.layers * 2 * config.kv_width * page_tokens


class Arena:
    """S-LoRA's unified paging (arXiv 2311.03285, section 4.1), with a page that spans layers:
    it is wide enough for any module of an adapter, however narrow a key is.
    """

    def __init__(
        self, config: ModelConfig, device: Device, *, pages: int, page_tokens: int
    ) -> None:
        elements = page_elements(config, page_tokens)
        self._device = device
        self.memory = device.pages(pages, elements)
        self.page_bytes = elements * device.dtype.itemsize
        shape = (config.layers, 2, config.kv_heads, page_tokens, config.head_dim)
        self.shape = shape  # of a page
        self.numbers = device.numbers
        self.layout = f"{self.numbers} {shape}"
        by_layer = self.memory.view(
            pages, config.layers, 2, config.kv_heads, page_tokens, config.head_dim
        )
        self.caches = [
            PagedKv(by_layer[:, layer, 0], by_layer[:, layer, 1]) for layer in range(config.layers)
        ]

    def read(self, pages: Sequence[int]) -> bytes:
        """That nobody writes meanwhile. In any thread."""
        taken = self.memory[list(pages)].to("cpu").contiguous()
        return taken.view(torch.uint8).numpy().tobytes()

    def write(self, pages: Sequence[int], data: bytes) -> None:
        """Of `page_bytes` each, that nobody else uses. In any thread."""
        image = torch.frombuffer(bytearray(data), dtype=self.memory.dtype).view(len(pages), -1)
        self._device.fill(self.memory, self._device.stage(image), pages)
