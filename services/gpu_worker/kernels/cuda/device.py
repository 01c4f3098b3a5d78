"""A CUDA device: torch for products with the base, Triton for adapters and attention."""

from collections.abc import Sequence

import torch
from torch import Tensor

from services.gpu_worker.kernels import device, reference
from services.gpu_worker.kernels.cuda.attention import attend
from services.gpu_worker.kernels.cuda.banks import Bank
from services.gpu_worker.kernels.cuda.beside import Beside
from services.gpu_worker.kernels.cuda.config import Config, config_for
from services.gpu_worker.kernels.cuda.deltas import Deltas, deltas_of
from services.gpu_worker.kernels.cuda.graph import Recorder
from services.gpu_worker.kernels.cuda.layouts import Layout, lay_out
from services.gpu_worker.kernels.cuda.linear import Linear
from services.gpu_worker.kernels.cuda.quantised import QuantisedLinear
from services.gpu_worker.kernels.device import Layer, Segment, Span
from services.gpu_worker.kernels.layers import Layers
from services.gpu_worker.kernels.reference import Piece
from services.gpu_worker.kernels.rounding import Kind
from services.gpu_worker.kernels.transfer import SideStream, integers


class CudaDevice:
    """See device.Device. Under TRITON_INTERPRET=1 any torch device will do."""

    add_norm = staticmethod(reference.add_norm)
    gate = staticmethod(reference.gate)
    enter_heads = staticmethod(reference.enter_heads)

    def __init__(
        self,
        place: torch.device,
        dtype: torch.dtype,
        config: Config | None = None,
        *,
        weights: Kind = "float32",
    ) -> None:
        """Without `config`, as was found to be fast on GPUs of its model. `weights`: int8 or, if
        they are as all else, float32. Raises ValueError."""
        self.place = place
        self.config = config or config_for(place)
        self._beside = Beside(place, wanted=self.config.beside)
        self.dtype = dtype
        self.weights = weights
        self._side = SideStream(place)

    @property
    def numbers(self) -> str:
        return str(self.dtype) if self.weights == "float32" else f"{self.dtype}, {self.weights}"

    def spare_memory(self) -> int:
        """Nine tenths of what is free: activations take the rest."""
        torch.cuda.empty_cache()  # what loading took and needs no more
        free, _ = torch.cuda.mem_get_info(self.place)
        return free * 9 // 10

    def pages(self, count: int, elements: int) -> Tensor:
        return torch.zeros(count, elements, dtype=self.dtype, device=self.place)

    def linear(self, weight: Tensor, bias: Tensor | None = None, *, site: int = 0) -> Linear:
        if self.weights == "float32":
            return Linear(weight, bias, site=site)
        return QuantisedLinear(weight, bias, self.config.multiply, site=site)

    def twin(self, linear: device.Linear) -> Linear:
        assert isinstance(linear, Linear)
        return linear.twin()

    def fold(self, twin: device.Linear, linear: device.Linear, pieces: Sequence[Piece]) -> None:
        assert isinstance(twin, Linear)
        assert isinstance(linear, Linear)
        twin.become(linear, pieces)

    def layers(self, of: Sequence[Layer], eps: float) -> Layers:
        return Layers(self, of, eps)

    def stage(self, image: Tensor) -> Tensor:
        """Pinned, in the device's precision."""
        staged = image.to(self.dtype)
        return staged.pin_memory() if self.place.type == "cuda" else staged

    def fill(self, memory: Tensor, image: Tensor, pages: Sequence[int]) -> None:
        self._side.fill(memory, image, pages)

    def bank(self, sites: Sequence[Sequence[Piece]], memory: Tensor) -> Bank:
        return Bank(sites, memory)

    def deltas(self, segments: Sequence[Segment], rows: int) -> Deltas:
        return deltas_of(segments, rows, self.place, self.config, self._beside)

    def layout(
        self, spans: Sequence[Span], *, page_tokens: int, group: int, window: int | None
    ) -> Layout:
        return lay_out(
            spans,
            page_tokens=page_tokens,
            window=window,
            place=self.place,
            config=self.config,
        )

    def attention(self, q: Tensor, keys: Tensor, values: Tensor, layout: device.Layout) -> Tensor:
        assert isinstance(layout, Layout)
        return attend(q.contiguous(), keys, values, layout)

    def recorder(self, memory: Tensor, *, page_tokens: int, window: int | None) -> Recorder:
        return Recorder(memory, self.config, self._beside, page_tokens=page_tokens, window=window)

    def wait(self) -> None:
        if self.place.type == "cuda":
            torch.cuda.current_stream(self.place).synchronize()

    def integers(self, values: Sequence[int]) -> Tensor:
        return integers(values, self.place)
