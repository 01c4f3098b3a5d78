"""A loaded model and budgets, made into an engine."""

from services.gpu_worker.engine.batcher import Batcher, Limits
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.pages import PagePool
from services.gpu_worker.engine.residency import Residency
from services.gpu_worker.model.loading import LoadedModel
from services.gpu_worker.model.runner import TorchRunner


def build_engine(
    model: LoadedModel, *, kv_bytes: int, adapter_bytes: int, limits: Limits
) -> Engine:
    config = model.network.config
    token_bytes = 2 * config.layers * config.kv_width * 4  # keys and values, fp32
    count = max(1, kv_bytes // (token_bytes * limits.page_tokens))
    pages, residency = PagePool(count), Residency(adapter_bytes)
    return Engine(
        batcher=Batcher(
            limits=limits,
            pages=pages,
            residency=residency,
            context_tokens=model.card.context_tokens,
        ),
        runner=TorchRunner(model.network, pages=count, page_tokens=limits.page_tokens),
        pages=pages,
        residency=residency,
        end_tokens=model.card.end_tokens,
    )
