"""Real engines that remember the logits that every token was chosen from."""

import hashlib
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from services.core.types import Digest, RequestId, SamplingParams
from services.gpu_worker.engine.batcher import Batcher
from services.gpu_worker.engine.engine import Engine, Sampled
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.merging import Merging
from services.gpu_worker.engine.plan import StepPlan
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.adapters import AdapterReader, AdapterWeights
from services.gpu_worker.model.llama import Llama
from services.gpu_worker.model.loading import LoadedModel
from services.gpu_worker.model.merging import SecondWeights
from services.gpu_worker.model.runner import TorchRunner
from services.policies.merging.batches import Policy


class RecordingRunner(TorchRunner):
    """Keeps what the sampler saw. Its pages begin as another tenant may have left them: NaN."""

    def __init__(
        self,
        network: Llama,
        *,
        pages: int,
        page_tokens: int,
        second: SecondWeights | None = None,
        graph_bytes: int = 0,
    ) -> None:
        super().__init__(
            network, pages=pages, page_tokens=page_tokens, second=second, graph_bytes=graph_bytes
        )
        self._arena.memory.fill_(torch.nan)
        self.logits: dict[RequestId, list[Tensor]] = {}
        self.tokens = 0  # that were run

    def run(self, plan: StepPlan) -> list[Sampled | None]:
        self.tokens += sum(part.count for part in plan.slices)
        self._ids = [part.sequence.request.id for part in plan.slices if part.samples]
        return super().run(plan)

    def forward(self, plan: StepPlan) -> Tensor:
        logits = super().forward(plan)
        for request, row in zip(self._ids, logits, strict=True):
            self.logits.setdefault(request, []).append(row.to("cpu", copy=True))
        return logits


class TestBench:
    """An engine with its parts in reach."""

    __test__ = False

    def __init__(
        self,
        model: LoadedModel,
        limits: Limits = Limits(),
        pages: int = 1200,
        keeps_prefixes: bool = False,
        merging: Policy | None = None,
        graph_bytes: int = 0,
    ) -> None:
        self.model = model
        self.pool = Pool(pages, page_tokens=limits.page_tokens, keeps_prefixes=keeps_prefixes)
        self._reader = AdapterReader(model, page_tokens=limits.page_tokens)
        self.runner = RecordingRunner(
            model.network,
            pages=pages,
            page_tokens=limits.page_tokens,
            second=None if merging is None else SecondWeights(model.network),
            graph_bytes=graph_bytes,
        )
        self.batcher = Batcher(
            limits=limits, pool=self.pool, context_tokens=model.card.context_tokens
        )
        self.engine = Engine(
            batcher=self.batcher,
            runner=self.runner,
            pool=self.pool,
            end_tokens=model.card.end_tokens,
            memory=self.runner.memory,
            merging=None
            if merging is None
            else Merging(
                merging,
                self.runner,
                self.pool,
                seats=limits.max_sequences,
                clock=time.perf_counter,
            ),
        )

    def load(self, data: bytes) -> Digest:
        digest = digest_of(data)
        fill = self.engine.reserve(digest, self.parse(data))
        assert fill is not None
        fill()
        self.engine.activate(digest)
        return digest

    def parse(self, data: bytes) -> AdapterWeights:
        return self._reader.read([data], digest_of(data))

    def generate(self, requests: Sequence[EngineRequest]) -> dict[RequestId, list[int]]:
        """Run all requests to their end, in one batch as far as limits allow."""
        out: dict[RequestId, list[int]] = {request.id: [] for request in requests}
        for request in requests:
            self.engine.submit(request)
        while not (report := self.engine.step()).is_idle:
            for request_id, piece in report.pieces:
                out[request_id] += piece.tokens
        return out

    def logits(self, request: RequestId) -> Tensor:
        """[generated, vocabulary]"""
        return torch.stack(self.runner.logits[request])


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def greedy(
    name: str, prompt: Sequence[int], adapter: Digest | None, tokens: int = 64
) -> EngineRequest:
    sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    return EngineRequest(RequestId(name), tuple(prompt), sampling, adapter)


def by_name(requests: Sequence[EngineRequest]) -> Mapping[RequestId, EngineRequest]:
    return {request.id: request for request in requests}
