"""What a device brings to a step: memory, products and attention. The CPU is one, CUDA another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from services.gpu_worker.kernels.reference import HeadNorms, Piece, Places

if TYPE_CHECKING:
    from services.gpu_worker.kernels.graphs import Recorder


class Bank(Protocol):
    """One resident adapter, ready to multiply. Opaque to all but the device that made it."""


class Deltas(Protocol):
    """What all adapters of a step add, made once a step and used by every linear."""


class Layout(Protocol):
    """What a step's tokens may see, made once a step and used by every layer."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring rows of one adapter; rows of the base model are in none."""

    first: int
    last: int
    bank: Bank


@dataclass(frozen=True, slots=True)
class Span:
    """A step's rows of one sequence: `count` from row `first`, at `position` of the sequence."""

    first: int
    count: int
    position: int
    pages: Sequence[int]  # by position, as far as the rows see or further

    @property
    def last(self) -> int:
        """Row."""
        return self.first + self.count - 1

    @property
    def positions(self) -> range:
        return range(self.position, self.position + self.count)

    def table(self, page_tokens: int) -> Sequence[int]:
        """The pages that the rows see."""
        return self.pages[: (self.position + self.count - 1) // page_tokens + 1]


class Linear(Protocol):
    """y = x W^T + b; `site` of its maker is its number to adapters."""

    def __call__(self, x: Tensor, deltas: Deltas | None = None) -> Tensor:
        """x: [tokens, in] -> [tokens, out], with what the tokens' adapters add."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """Of a decoder of Llama's kind."""

    qkv: Linear
    o: Linear
    gate_up: Linear
    down: Linear
    attention_norm: Tensor  # [hidden]
    mlp_norm: Tensor  # [hidden]
    head_norms: HeadNorms | None

    @property
    def linears(self) -> tuple[Linear, Linear, Linear, Linear]:
        """In the order of their sites."""
        return self.qkv, self.o, self.gate_up, self.down


@dataclass(frozen=True, slots=True)
class PagedKv:
    """One layer's keys and values, each [pages, kv_heads, page_tokens, head_dim]."""

    keys: Tensor
    values: Tensor


class Layers(Protocol):
    """All layers of a decoder."""

    def __call__(
        self, x: Tensor, caches: Sequence[PagedKv], places: Places, layout: Layout, deltas: Deltas
    ) -> None:
        """x: [tokens, hidden], changed in place, with a cache for every layer."""
        ...


class Device(Protocol):
    """Its calls come from one thread, `fill` excepted."""

    @property
    def place(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, pages and activations."""
        ...

    @property
    def numbers(self) -> str:
        """How it computes: keys and values are another's only where this is the same."""
        ...

    def spare_memory(self) -> int:
        """Bytes that pages may take when the weights are loaded, if nobody says how many."""
        ...

    def pages(self, count: int, elements: int) -> Tensor:
        """Zeroed memory [count, elements]."""
        ...

    def linear(self, weight: Tensor, bias: Tensor | None = None, *, site: int = 0) -> Linear:
        """weight: [out, in]"""
        ...

    def twin(self, linear: Linear) -> Linear:
        """One of its shape, bias and site that has weights of its own, of any value."""
        ...

    def fold(self, twin: Linear, linear: Linear, pieces: Sequence[Piece]) -> None:
        """The twin's weights become the linear's and what the pieces, of its site, add."""
        ...

    def layers(self, of: Sequence[Layer], eps: float) -> Layers:
        """`of` came from this device's `linear`; eps is that of the norms."""
        ...

    def stage(self, image: Tensor) -> Tensor:
        """An adapter's image in the host memory that `fill` is fastest from."""
        ...

    def fill(self, memory: Tensor, image: Tensor, pages: Sequence[int]) -> None:
        """Copy an image [pages, elements] into pages that nobody else uses, beside any step.

        Returns when it is there.
        """
        ...

    def bank(self, sites: Sequence[Sequence[Piece]], memory: Tensor) -> Bank:
        """Pieces by site number, all of them views of `memory`."""
        ...

    def deltas(self, segments: Sequence[Segment], rows: int) -> Deltas: ...

    def add_norm(self, x: Tensor, y: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """See reference.add_norm."""
        ...

    def gate(self, gate_up: Tensor) -> Tensor:
        """See reference.gate."""
        ...

    def enter_heads(
        self,
        qkv: Tensor,
        places: Places,
        keys: Tensor,
        values: Tensor,
        norms: HeadNorms | None,
    ) -> Tensor:
        """See reference.enter_heads."""
        ...

    def layout(
        self, spans: Sequence[Span], *, page_tokens: int, group: int, window: int | None
    ) -> Layout:
        """`group` query heads share a key head; `window` is how many tokens each row sees."""
        ...

    def attention(self, q: Tensor, keys: Tensor, values: Tensor, layout: Layout) -> Tensor:
        """q: [tokens, heads, head_dim] -> the same shape.

        keys, values: [pages, kv_heads, page_tokens, head_dim], views of the pages of one layer.
        """
        ...

    def recorder(
        self, memory: Tensor, *, page_tokens: int, window: int | None
    ) -> "Recorder | None":
        """Of steps in this memory; None if nothing is gained by it here."""
        ...

    def wait(self) -> None:
        """Until all that was asked of it is done: then pages may change hands."""
        ...

    def integers(self, values: Sequence[int]) -> Tensor:
        """int64, on the device, without waiting for it."""
        ...
