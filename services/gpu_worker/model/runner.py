"""A step plan through the network: integers become tensors here and nowhere else."""

from collections.abc import Sequence

import torch
from torch import Tensor

from services.core.types import Digest
from services.gpu_worker.engine.carrying import Memory
from services.gpu_worker.engine.engine import Sampled, Weights
from services.gpu_worker.engine.plan import StepPlan
from services.gpu_worker.engine.sequence import Sequence as Running
from services.gpu_worker.kernels.device import Bank, Segment
from services.gpu_worker.kernels.reference import Places
from services.gpu_worker.model.adapters import AdapterWeights
from services.gpu_worker.model.arena import Arena
from services.gpu_worker.model.graphs import Graphs
from services.gpu_worker.model.llama import Llama
from services.gpu_worker.model.merging import Beside, Folding, SecondWeights, Sites
from services.gpu_worker.model.sampler import Draw, sample
from services.gpu_worker.model.step import StepInputs, StepNumbers, numbers_of


class TorchRunner:
    """Owns the weights and the arena of one device."""

    def __init__(
        self,
        network: Llama,
        *,
        pages: int,
        page_tokens: int,
        second: SecondWeights | None = None,
        graph_bytes: int = 0,
    ) -> None:
        """Without `second` weights adapters are never folded into any; without `graph_bytes` no
        step is recorded."""
        config = network.config
        self._network = network
        self._second = second
        self._folding: Folding | None = None
        self._beside: Beside | None = None  # while the second weights are used
        self._page_tokens = page_tokens
        self._device = network.device
        spare = int(graph_bytes > 0)  # the page behind those of the pool
        self._arena = Arena(config, self._device, pages=pages + spare, page_tokens=page_tokens)
        self._graphs = self._graphs_of(graph_bytes, page=pages) if graph_bytes else None
        self._banks: dict[Digest, Bank] = {}
        self._bound: dict[Digest, AdapterWeights] = {}
        self._sites: dict[Digest, Sites] = {}

    @property
    def memory(self) -> Memory:
        """What is in pages."""
        return self._arena

    def fill(self, weights: Weights, pages: Sequence[int]) -> None:
        assert isinstance(weights, AdapterWeights)
        self._device.fill(self._arena.memory, weights.packing.image, pages)

    def bind(self, adapter: Digest, weights: Weights, pages: Sequence[int]) -> None:
        assert isinstance(weights, AdapterWeights)
        memory = self._arena.memory
        self._bound[adapter] = weights
        self._sites[adapter] = weights.packing.bind(memory, pages)
        self._banks[adapter] = self._device.bank(self._sites[adapter], memory)

    def unbind(self, adapter: Digest) -> None:
        del self._banks[adapter], self._bound[adapter], self._sites[adapter]
        if self._beside is not None:
            self._beside.forget(adapter)

    @property
    def folds(self) -> int:
        return 0 if self._second is None else len(self._second)

    def begin_fold(self, adapter: Digest, pages: Sequence[int]) -> None:
        """See engine.merging.Folder."""
        assert self._second is not None
        negated = self._bound[adapter].packing.bind(self._arena.memory, pages)
        self._beside = None
        self._folding = Folding(self._second, adapter, self._sites[adapter], negated)

    @torch.inference_mode()
    def fold(self) -> bool:
        assert self._folding is not None
        return self._folding.advance()

    def use_folded(self) -> None:
        assert self._folding is not None
        self._beside = Beside(self._device, self._arena.memory, self._folding)

    def use_own(self) -> None:
        self._folding = self._beside = None

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> list[Sampled | None]:
        draws = [_draw_of(part.sequence) for part in plan.slices if part.samples]
        logits = self.forward(plan)
        sampled = iter(sample(logits, draws) if draws else ())
        self._device.wait()
        return [next(sampled) if part.samples else None for part in plan.slices]

    def forward(self, plan: StepPlan) -> Tensor:
        """Logits of the slices that sample, in order: [B, vocabulary]."""
        return self.compute(numbers_of(plan))

    def compute(self, step: StepNumbers) -> Tensor:
        """See forward."""
        network, segments = self._network, self._segments(step)
        if self._beside is not None:
            assert self._second is not None
            network = self._second.network
        if self._graphs is not None:
            folded = self._beside is not None
            logits = self._graphs.run(network, step, segments, folded=folded)
            if logits is not None:
                return logits
        return network.forward(self._inputs(step, segments), self._arena.caches)

    def _graphs_of(self, size_bytes: int, *, page: int) -> Graphs | None:
        config, arena = self._network.config, self._arena
        recorder = self._device.recorder(
            arena.memory, page_tokens=self._page_tokens, window=config.sliding_window
        )
        if recorder is None:
            return None
        return Graphs(
            recorder, arena.caches, page=page, context=config.context, most_bytes=size_bytes
        )

    def _inputs(self, step: StepNumbers, segments: Sequence[Segment]) -> StepInputs:
        size, config, device = self._page_tokens, self._network.config, self._device
        group = config.heads // config.kv_heads
        positions = [at for span in step.spans for at in span.positions]
        pages = [span.pages[at // size] for span in step.spans for at in span.positions]
        return StepInputs(
            tokens=device.integers(step.tokens),
            places=Places(
                *self._network.rope.at(device.integers(positions)),
                pages=device.integers(pages),
                offsets=device.integers([at % size for at in positions]),
            ),
            layout=device.layout(
                step.spans, page_tokens=size, group=group, window=config.sliding_window
            ),
            deltas=device.deltas(segments, len(step.tokens)),
            sampling_rows=device.integers(step.sampling_rows),
        )

    def _segments(self, step: StepNumbers) -> list[Segment]:
        """Neighbouring slices of one adapter are one segment; whom the weights are right for, as
        a rule the base model, has none."""
        banks = ((first, end, self._bank_of(adapter)) for first, end, adapter in step.adapters)
        return [Segment(first, end, bank) for first, end, bank in banks if bank is not None]

    def _bank_of(self, adapter: Digest | None) -> Bank | None:
        if self._beside is not None:
            return self._beside.bank_of(adapter, self._sites[adapter] if adapter else ())
        if adapter is None:
            return None
        return self._banks[adapter]


def _draw_of(sequence: Running) -> Draw:
    request = sequence.request
    return Draw(request.sampling, sequence.tokens, len(request.prompt), request.filter)
