"""Engines that adapters are folded into the weights of, step by step on the processor's time."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from bench.engines import engine_request, made_resident
from bench.workload import Arrival, prompt
from services.adapter_store.canonical import CanonicalAdapter
from services.core.types import Digest, RequestId
from services.gpu_worker.engine.batcher import Batcher
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.merging import Merging
from services.gpu_worker.engine.plan import StepPlan
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.kernels.cpu.linear import Linear
from services.gpu_worker.model.adapters import AdapterReader
from services.gpu_worker.model.loading import LoadedModel
from services.gpu_worker.model.merging import SecondWeights
from services.gpu_worker.model.runner import TorchRunner
from services.policies.merging.batches import Batch, Policy, Queued, Ran

SEATS = 16
OUTPUT = 32
PAGES = 1500
WORDS = 2048
clock = time.thread_time


class Told:
    """Everybody runs, with what the bench wants in the weights."""

    ratio: float | None = None
    wanted: Digest | None = None

    def choose(self, queued: Sequence[Queued]) -> Batch:
        return Batch(tuple(queued), self.wanted)

    def ran(self, ran: Ran) -> None:
        """Nothing is to be learnt."""


class Recording(TorchRunner):
    """Keeps the logits that tokens were chosen from, if asked to."""

    logits: dict[RequestId, list[torch.Tensor]] | None = None

    def forward(self, plan: StepPlan) -> torch.Tensor:
        found = super().forward(plan)
        if self.logits is not None:
            sampling = (part.sequence.request.id for part in plan.slices if part.samples)
            for request, row in zip(sampling, found, strict=True):
                self.logits.setdefault(request, []).append(row.clone())
        return found


@dataclass(slots=True)
class Rig:
    model: LoadedModel
    engine: Engine
    runner: Recording
    pool: Pool
    digests: list[Digest]
    number: int = 0  # of the next request

    def submit(self, adapter: int | None, tokens: int = OUTPUT) -> RequestId:
        arrival = Arrival(0.0, prompt(self.number, 16), tokens, adapter)
        self.engine.submit(engine_request(self.number, arrival, self.digests))
        self.number += 1
        return RequestId(str(self.number - 1))

    def step_ms(self) -> float:
        begun = clock()
        self.engine.step()
        return (clock() - begun) * 1000


def rig(
    model: LoadedModel,
    adapters: Sequence[CanonicalAdapter],
    policy: Policy | None,
    seats: int = SEATS,
) -> Rig:
    """An engine with these adapters resident."""
    limits = Limits(max_sequences=seats)
    pool = Pool(PAGES, page_tokens=limits.page_tokens, keeps_prefixes=False)
    second = None if policy is None else SecondWeights(model.network)
    runner = Recording(model.network, pages=PAGES, page_tokens=limits.page_tokens, second=second)
    merging = None
    if policy is not None:
        merging = Merging(policy, runner, pool, seats=limits.max_sequences, clock=clock)
    engine = Engine(
        batcher=Batcher(limits=limits, pool=pool, context_tokens=model.card.context_tokens),
        runner=runner,
        pool=pool,
        end_tokens=model.card.end_tokens,
        merging=merging,
    )
    reader = AdapterReader(model, page_tokens=limits.page_tokens)
    digests = made_resident(engine, reader, adapters)
    return Rig(model, engine, runner, pool, digests)


def shortened(model: LoadedModel, layers: int) -> LoadedModel:
    """Its first layers and words, with which a step takes little."""
    network = model.network
    config = replace(network.config, layers=layers)
    stack = network.stack[:layers]
    made = network.device.layers(stack, config.norm_eps)
    card = replace(model.card, modules=config.modules())
    head = network.device.linear(network.embedding[:WORDS])
    return LoadedModel(card, replace(network, config=config, stack=stack, layers=made, head=head))


def hash_of(model: LoadedModel) -> str:
    found = hashlib.sha256()
    for layer in model.network.stack:
        for each in layer.linears:
            assert isinstance(each, Linear)
            found.update(each.weight.numpy().data)
    return found.hexdigest()
