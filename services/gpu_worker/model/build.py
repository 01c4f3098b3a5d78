"""A loaded model and a memory budget, made into an engine."""

import time
from collections.abc import Callable

from services.core.errors import FailedPrecondition
from services.gpu_worker.engine.batcher import Batcher
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.merging import Merging
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.model.arena import page_elements
from services.gpu_worker.model.loading import LoadedModel
from services.gpu_worker.model.merging import SecondWeights
from services.gpu_worker.model.runner import TorchRunner
from services.policies.merging.batches import Policy


def build_engine(
    model: LoadedModel,
    *,
    memory_bytes: int,
    limits: Limits,
    keeps_prefixes: bool = True,
    runner: Callable[..., TorchRunner] = TorchRunner,
    merging: Policy | None = None,
    graph_bytes: int = 0,
) -> Engine:
    """`memory_bytes` are for keys, values and adapters together; with `merging` as much again as
    the decoder's weights is taken beside them, and with `graph_bytes` about as many for steps that
    are recorded. Raises FailedPrecondition."""
    elements = page_elements(model.network.config, limits.page_tokens)
    page_bytes = elements * model.network.device.dtype.itemsize
    count = memory_bytes // page_bytes
    if count < 2:
        raise FailedPrecondition(f"{memory_bytes} bytes are not two pages of {page_bytes}")
    pool = Pool(count, page_tokens=limits.page_tokens, keeps_prefixes=keeps_prefixes)
    second = None if merging is None else SecondWeights(model.network)
    running = runner(
        model.network,
        pages=count,
        page_tokens=limits.page_tokens,
        second=second,
        graph_bytes=graph_bytes,
    )
    return Engine(
        batcher=Batcher(limits=limits, pool=pool, context_tokens=model.card.context_tokens),
        runner=running,
        pool=pool,
        end_tokens=model.card.end_tokens,
        memory=running.memory,
        merging=None if merging is None else _merging(merging, running, pool, limits),
    )


def _merging(policy: Policy, running: TorchRunner, pool: Pool, limits: Limits) -> Merging:
    return Merging(policy, running, pool, seats=limits.max_sequences, clock=time.perf_counter)
