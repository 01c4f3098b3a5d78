"""The leader's runner: each step is the whole group's, and so are pages."""

from collections.abc import Sequence

import torch
from torch import Tensor

from services.core.types import Digest
from services.gpu_worker.engine.engine import Weights
from services.gpu_worker.model.adapters import AdapterWeights
from services.gpu_worker.model.arena import Arena
from services.gpu_worker.model.llama import Llama
from services.gpu_worker.model.merging import SecondWeights
from services.gpu_worker.model.parallel.lines import Lines
from services.gpu_worker.model.parallel.messages import Bound, Step
from services.gpu_worker.model.runner import TorchRunner
from services.gpu_worker.model.step import StepNumbers


class GroupRunner(TorchRunner):
    """Only the leader samples; the others follow what it says of each step."""

    def __init__(
        self,
        network: Llama,
        *,
        pages: int,
        page_tokens: int,
        lines: Lines,
        second: SecondWeights | None = None,
        graph_bytes: int = 0,
    ) -> None:
        assert second is None, "nothing is folded into the weights of a group"
        assert not graph_bytes, "no step of a group is recorded"
        super().__init__(network, pages=pages, page_tokens=page_tokens)
        self._lines = lines
        self._changes: list[Bound | Digest] = []
        lines.begin(pages)

    @property
    def memory(self) -> "GroupMemory":
        return GroupMemory(self._arena, self._lines)

    def fill(self, weights: Weights, pages: Sequence[int]) -> None:
        assert isinstance(weights, AdapterWeights)
        own, *others = _lanes(weights.packing.image, 1 + len(self._lines))
        with self._lines.writing(pages, [_bytes_of(lane) for lane in others]):
            self._device.fill(self._arena.memory, own, pages)

    def bind(self, adapter: Digest, weights: Weights, pages: Sequence[int]) -> None:
        assert isinstance(weights, AdapterWeights)
        super().bind(adapter, weights, pages)
        self._changes.append(Bound(adapter, weights.packing.layout, pages))

    def unbind(self, adapter: Digest) -> None:
        super().unbind(adapter)
        self._changes.append(adapter)

    def compute(self, step: StepNumbers) -> Tensor:
        changes, self._changes = self._changes, []
        self._lines.step(Step(changes, step))
        return super().compute(step)


class GroupMemory:
    """See engine.carrying.Memory: pages of the whole model, as a worker without a group has them,
    so that keys and values can be carried from one kind of worker to the other.
    """

    def __init__(self, own: Arena, lines: Lines) -> None:
        self._own = own
        self._lines = lines
        self._members = 1 + len(lines)
        layers, two, heads, tokens, width = own.shape
        self._shape = (layers, two, heads * self._members, tokens, width)
        self.page_bytes = own.page_bytes * self._members
        self.layout = f"{own.numbers} {self._shape}"

    def read(self, pages: Sequence[int]) -> bytes:
        each = [self._own.read(pages), *self._lines.read(pages)]
        parts = [_tensor_of(data, self._own.memory.dtype) for data in each]
        by_head = [part.view(len(pages), *self._own.shape) for part in parts]
        return _bytes_of(torch.cat(by_head, 3))

    def write(self, pages: Sequence[int], data: bytes) -> None:
        whole = _tensor_of(data, self._own.memory.dtype).view(len(pages), *self._shape)
        own, *others = (_bytes_of(part) for part in whole.chunk(self._members, 3))
        with self._lines.writing(pages, others):
            self._own.write(pages, own)


def _lanes(image: Tensor, members: int) -> Sequence[Tensor]:
    """What each member gets of it: see factors.GroupUnpacker."""
    return image.chunk(members, 1)


def _tensor_of(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype)


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()
