"""One block of memory for keys, values and adapters alike, cut into equal pages."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from services.gpu_worker.model.config import ModelConfig

ELEMENT_BYTES = 4


def page_elements(config: ModelConfig, page_tokens: int) -> int:
    """A page holds the keys and values of so many tokens in all layers."""
    return config.layers * 2 * config.kv_width * page_tokens


class Arena:
    """S-LoRA's unified paging (arXiv 2311.03285, section 4.1), with a page that spans layers:
    it is wide enough for any module of an adapter, however narrow a key is.
    """

    def __init__(self, config: ModelConfig, *, pages: int, page_tokens: int) -> None:
        self.memory = torch.zeros(pages, page_elements(config, page_tokens))
        self._by_layer = self.memory.view(
            pages, config.layers, 2, config.kv_heads, page_tokens, config.head_dim
        )

    def keys(self, layer: int) -> Tensor:
        """[pages, kv_heads, page_tokens, head_dim]"""
        return self._by_layer[:, layer, 0]

    def values(self, layer: int) -> Tensor:
        return self._by_layer[:, layer, 1]

    def fill(self, image: Tensor, pages: Sequence[int]) -> None:
        """Copy an adapter's image [pages, elements] into pages that nobody else uses."""
        for row, page in enumerate(pages):
            self.memory[page].copy_(image[row])


def free_memory() -> int:
    """Bytes that this process may still take, by the machine's count and its container's."""
    cgroup = Path("/sys/fs/cgroup")
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    try:
        most = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free
    return min(free, most - used)
