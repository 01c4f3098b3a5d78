"""A step plan through the network: integers become tensors here and nowhere else."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from services.core.types import Digest
from services.gpu_worker.engine import batcher
from services.gpu_worker.engine.batcher import StepPlan
from services.gpu_worker.engine.engine import Sampled, Weights
from services.gpu_worker.kernels.cpu import Bank, Deltas, Segment
from services.gpu_worker.model.adapters import AdapterWeights
from services.gpu_worker.model.arena import Arena
from services.gpu_worker.model.attention import KvLayout, PagedKv, Stretch
from services.gpu_worker.model.llama import Llama
from services.gpu_worker.model.sampler import Draw, sample
from services.gpu_worker.model.step import StepInputs


class TorchRunner:
    """Owns the weights and the arena of one device."""

    def __init__(self, network: Llama, *, pages: int, page_tokens: int) -> None:
        config = network.config
        self._network = network
        self._page_tokens = page_tokens
        self._arena = Arena(config, pages=pages, page_tokens=page_tokens)
        self._caches = [
            PagedKv(self._arena.keys(layer), self._arena.values(layer))
            for layer in range(config.layers)
        ]
        self._banks: dict[Digest, Bank] = {}

    def fill(self, weights: Weights, pages: Sequence[int]) -> None:
        assert isinstance(weights, AdapterWeights)
        self._arena.fill(weights.packing.image, pages)

    def bind(self, adapter: Digest, weights: Weights, pages: Sequence[int]) -> None:
        assert isinstance(weights, AdapterWeights)
        self._banks[adapter] = Bank(weights.packing.bind(self._arena.memory, pages))

    def unbind(self, adapter: Digest) -> None:
        del self._banks[adapter]

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> list[Sampled | None]:
        draws = [
            Draw(part.sequence.request.sampling, len(part.sequence.tokens))
            for part in plan.slices
            if part.samples
        ]
        logits = self.forward(plan)
        sampled = iter(sample(logits, draws) if draws else ())
        return [next(sampled) if part.samples else None for part in plan.slices]

    def forward(self, plan: StepPlan) -> Tensor:
        """Logits of the slices that sample, in order: [B, vocabulary]."""
        return self._network.forward(self._inputs(plan), self._caches)

    def _inputs(self, plan: StepPlan) -> StepInputs:
        tokens: list[int] = []
        positions: list[int] = []
        places: list[tuple[int, int]] = []
        sampling_rows: list[int] = []
        firsts: list[int] = []
        size = self._page_tokens
        for part in plan.slices:
            span = range(part.start, part.start + part.count)
            pages = part.sequence.pages
            firsts.append(len(tokens))
            tokens += part.sequence.tokens[part.start : part.start + part.count]
            positions += span
            places += [(pages[at // size], at % size) for at in span]
            if part.samples:
                sampling_rows.append(len(tokens) - 1)
        return StepInputs(
            tokens=torch.tensor(tokens),
            positions=torch.tensor(positions),
            kv=self._layout(plan, firsts, torch.tensor(places)),
            deltas=Deltas(self._segments(plan, firsts), len(tokens)),
            sampling_rows=torch.tensor(sampling_rows, dtype=torch.long),
        )

    def _segments(self, plan: StepPlan, firsts: Sequence[int]) -> list[Segment]:
        """Neighbouring slices of one adapter are one segment; the base model has none."""
        placed = zip(plan.slices, firsts, strict=True)
        segments = []
        for adapter, group in groupby(placed, key=lambda pair: pair[0].sequence.request.adapter):
            if adapter is None:
                continue
            members = list(group)
            last_part, last_first = members[-1]
            bank = self._banks[adapter]
            segments.append(Segment(members[0][1], last_first + last_part.count, bank))
        return segments

    def _layout(self, plan: StepPlan, firsts: Sequence[int], places: Tensor) -> KvLayout:
        """places: [tokens, 2], page and offset of each."""
        singles = [(p, row) for p, row in zip(plan.slices, firsts, strict=True) if p.count == 1]
        several = [(p, row) for p, row in zip(plan.slices, firsts, strict=True) if p.count > 1]
        window = self._network.config.sliding_window or self._network.config.context
        ends = [part.start + 1 for part, _ in singles]
        return KvLayout(
            pages=places[:, 0].contiguous(),
            offsets=places[:, 1].contiguous(),
            singles=torch.tensor([row for _, row in singles], dtype=torch.long),
            tables=self._tables([part for part, _ in singles]),
            starts=torch.tensor([max(0, end - window) for end in ends], dtype=torch.int32),
            ends=torch.tensor(ends, dtype=torch.int32),
            stretches=[self._stretch(part, row) for part, row in several],
        )

    def _tables(self, parts: Sequence[batcher.Slice]) -> Tensor:
        """Page tables [B, P], padded with any page."""
        counts = [part.start // self._page_tokens + 1 for part in parts]
        most = max(counts, default=0)
        rows = [
            part.sequence.pages[:count] + [0] * (most - count)
            for part, count in zip(parts, counts, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.int32).view(len(parts), most)

    def _stretch(self, part: batcher.Slice, first: int) -> Stretch:
        count = (part.start + part.count - 1) // self._page_tokens + 1
        rows = torch.arange(part.start, part.start + part.count).unsqueeze(1)
        config = self._network.config
        mask = self._visible(rows, count * self._page_tokens)
        return Stretch(
            first=first,
            last=first + part.count,
            table=torch.tensor(part.sequence.pages[:count]),
            mask=mask.repeat(config.heads // config.kv_heads, 1)[None, None],
        )

    def _visible(self, positions: Tensor, length: int) -> Tensor:
        """Which of `length` keys each position [N, 1] may look at: [N, length]."""
        keys = torch.arange(length)
        visible = keys <= positions
        window = self._network.config.sliding_window
        return visible if window is None else visible & (keys > positions - window)
