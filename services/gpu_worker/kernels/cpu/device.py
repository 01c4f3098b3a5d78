"""The CPU as a device: fp32, kernels in C."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from services.gpu_worker.kernels import device, reference
from services.gpu_worker.kernels.cpu import attention, layers
from services.gpu_worker.kernels.cpu.linear import Bank, Deltas, Linear
from services.gpu_worker.kernels.cpu.native import huge, library
from services.gpu_worker.kernels.cpu.quantised import QuantisedLinear
from services.gpu_worker.kernels.device import Layer, Layout, Segment, Span
from services.gpu_worker.kernels.layers import Layers
from services.gpu_worker.kernels.reference import Piece
from services.gpu_worker.kernels.rounding import Kind


class CpuDevice:
    """See device.Device."""

    add_norm = staticmethod(reference.add_norm)
    gate = staticmethod(reference.gate)
    enter_heads = staticmethod(reference.enter_heads)

    place = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, weights: Kind = "float32") -> None:
        """`weights`: of the base model's products; int8-dynamic rounds their inputs too."""
        self.weights = weights

    @property
    def numbers(self) -> str:
        return str(self.dtype) if self.weights == "float32" else f"{self.dtype}, {self.weights}"

    def spare_memory(self) -> int:
        """Two fifths of what the machine, or its container, has left: others live here too."""
        cgroup = Path("/sys/fs/cgroup")
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
        try:
            most = int((cgroup / "memory.max").read_text())
            used = int((cgroup / "memory.current").read_text())
        except (OSError, ValueError):  # no container, or one without a limit ("max")
            return free * 2 // 5
        return min(free, most - used) * 2 // 5

    def pages(self, count: int, elements: int) -> Tensor:
        return huge(torch.zeros(count, elements))

    def linear(self, weight: Tensor, bias: Tensor | None = None, *, site: int = 0) -> Linear:
        if self.weights == "float32":
            return Linear(weight, bias, site=site)
        dynamic = self.weights == "int8-dynamic"
        return QuantisedLinear(weight, bias, site=site, dynamic=dynamic)

    def twin(self, linear: device.Linear) -> Linear:
        assert isinstance(linear, Linear)
        return linear.twin()

    def fold(self, twin: device.Linear, linear: device.Linear, pieces: Sequence[Piece]) -> None:
        assert isinstance(twin, Linear)
        assert isinstance(linear, Linear)
        twin.become(linear, pieces)

    def layers(self, of: Sequence[Layer], eps: float) -> device.Layers:
        native = library()
        return Layers(self, of, eps) if native is None else layers.Layers(native, of, eps)

    def stage(self, image: Tensor) -> Tensor:
        return image

    def fill(self, memory: Tensor, image: Tensor, pages: Sequence[int]) -> None:
        for row, page in enumerate(pages):
            memory[page].copy_(image[row])

    def bank(self, sites: Sequence[Sequence[Piece]], memory: Tensor) -> Bank:
        return Bank(sites)

    def deltas(self, segments: Sequence[Segment], rows: int) -> Deltas:
        return Deltas(segments, rows)

    def layout(
        self, spans: Sequence[Span], *, page_tokens: int, group: int, window: int | None
    ) -> Layout:
        return attention.lay_out(spans, page_tokens=page_tokens, group=group, window=window)

    def attention(self, q: Tensor, keys: Tensor, values: Tensor, layout: Layout) -> Tensor:
        assert isinstance(layout, attention.Layout)
        out = torch.empty(q.shape)
        attention.attend(q, keys, values, layout, out)
        return out

    def recorder(self, memory: Tensor, *, page_tokens: int, window: int | None) -> None:
        """A step is a few calls: there is nothing to gain."""

    def wait(self) -> None:
        """Nothing here is done later than it is asked for."""

    def integers(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long)
