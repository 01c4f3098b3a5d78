"""What the CPU's kernels reach of what this machine can do: python -m bench.kernels

Every kernel is timed beside torch's own product or beside the memory it has to read; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from bench.engines import engine_request, prepare, settled_thread
from bench.results import save
from bench.workload import Arrival, prompt, random_adapters, saturated
from services.cli.suite import embedded_model
from services.gpu_worker.engine.engine import Engine, Sampled
from services.gpu_worker.engine.plan import StepPlan
from services.gpu_worker.kernels.cpu.attention import attend, lay_out
from services.gpu_worker.kernels.cpu.linear import Linear
from services.gpu_worker.kernels.device import Span
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.runner import TorchRunner

MEBIBYTE = 1 << 20
SHAPES = {"qkv": (576, 960), "down": (1536, 576), "gate_up": (576, 3072), "head": (576, 49152)}


@dataclass(frozen=True, slots=True)
class Row:
    measured: str
    value: float
    unit: str
    target: str = ""


def seconds(work: Callable[[], object], *, least: float = 0.3) -> float:
    """Median of as many calls as fit."""
    work()
    taken: list[float] = []
    while sum(taken) < least or len(taken) < 5:
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def bandwidth() -> float:
    """Bytes a second, read and written, of the fastest copy of what no cache holds."""
    source, target = torch.ones(128 * MEBIBYTE), torch.empty(128 * MEBIBYTE)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source)) for _ in range(3))


def products() -> list[Row]:
    rows = []
    for name, (wide, tall) in SHAPES.items():
        # So many copies that none is in a cache when its turn comes, as in a model.
        copies = max(1, 64 * MEBIBYTE // (4 * wide * tall))
        weights = [torch.randn(tall, wide) for _ in range(copies)]
        ours = [Linear(weight) for weight in weights]
        for count in (1, 8, 32, 128, 512):
            x = torch.randn(count, wide)
            us = seconds(partial(_all, ours, x))
            torchs = seconds(partial(_all, [partial(linear, weight=w) for w in weights], x))
            rows.append(Row(f"{name}, {count} rows, torch's time over ours", torchs / us, "x"))
            flops = 2.0 * count * wide * tall * copies / us / 1e9
            rows.append(Row(f"{name}, {count} rows", flops, "GFLOP/s"))
    return rows


def _all(products: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> None:
    for product in products:
        product(x)


def attention(speed: float) -> Row:
    """64 sequences of 512 tokens, SmolLM2's heads."""
    pages = torch.randn(64 * 32, 2, 3, 16, 64)
    q = torch.randn(64, 9, 64)
    tables = torch.randperm(64 * 32).view(64, 32).tolist()
    spans = [Span(row, 1, 511, tables[row]) for row in range(64)]
    layout = lay_out(spans, page_tokens=16, group=3, window=None)
    taken = seconds(partial(attend, q, pages[:, 0], pages[:, 1], layout, torch.empty_like(q)))
    reached = pages.nbytes / taken / speed
    return Row("decode attention, 64 x 512 tokens, of copy bandwidth", reached, "x")


def single_stream(model: LoadedModel, speed: float) -> Row:
    """A decode step of one sequence against reading every weight once."""
    engine, _ = prepare(model, [])
    engine.submit(engine_request(0, Arrival(0.0, prompt(0), 64, None), []))
    engine.step()
    step = statistics.median(_timed(engine.step) for _ in range(50))
    network = model.network
    read = sum(module.in_features * module.out_features for module in model.card.modules)
    read += network.config.vocabulary * network.config.hidden
    ideal = 4 * read / speed
    return Row("single-stream step over bytes / bandwidth", step / ideal, "x", "<= 1.3")


class _Timed(TorchRunner):
    """Knows how much of the steps was the model's."""

    spent = 0.0

    def run(self, plan: StepPlan) -> list[Sampled | None]:
        begun = time.perf_counter()
        try:
            return super().run(plan)
        finally:
            self.spent += time.perf_counter() - begun


def accounting(model: LoadedModel) -> Row:
    """What of a step is not the model: 64 sequences over 8 adapters."""
    engine, digests = prepare(model, random_adapters(model.card, 8), runner=_Timed)
    runner = engine._runner
    assert isinstance(runner, _Timed)
    _fill(engine, digests)
    runner.spent = 0.0
    whole = sum(_timed(engine.step) for _ in range(25))
    return Row("accounting, of a step with 64 sequences", 1 - runner.spent / whole, "", "< 0.02")


def _fill(engine: Engine, digests: list) -> None:  # type: ignore[type-arg]
    for index, arrival in enumerate(saturated(64, 8)):
        engine.submit(engine_request(index, arrival, digests))
    while engine.step().tokens != 64:
        pass


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _measure() -> list[Row]:
    model = load_model(embedded_model())
    speed = bandwidth()
    return [
        Row("copy bandwidth, read and written", speed / 1e9, "GB/s"),
        single_stream(model, speed),
        accounting(model),
        attention(speed),
        *products(),
    ]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, prog="python -m bench.kernels").parse_args()
    with settled_thread() as thread:
        rows = thread.submit(_measure).result()
    for row in rows:
        print(f"{row.measured:58} {row.value:8.3g} {row.unit:8} {row.target}")
    save("kernels", {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
