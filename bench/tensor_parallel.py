"""A model dealt out to 1, 2 and 4 processes over gloo: python -m bench.tensor_parallel

Steps of a small random model with adapters of mixed ranks, each process with one thread, for each
way to deal adapters out, and what a member sends of them. Members that share cores, as any two do
on a machine of two that does other things as well, show what a group costs and nothing of its
speed: for that each wants cores, or a GPU, of its own.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.engines import engine_request, made_resident
from bench.results import save
from bench.workload import Arrival, Held
from services.adapter_store.canonical import CanonicalAdapter, Pair, canonical
from services.core.types import Digest
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.model.adapters import AdapterReader
from services.gpu_worker.model.build import build_engine
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.parallel.collectives import Collectives, Matter
from services.gpu_worker.model.parallel.group import Group, GroupOptions
from services.gpu_worker.model.parallel.member import COLUMNS, Partition
from tests.tiny_models import VOCABULARY, save_reference

RANKS = (8, 16, 32, 64)
SEQUENCES = 16
MEMORY_BYTES = 256 << 20
SIZES = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of decode steps; kibibytes that a member sends in one, if they go around a ring."""

    members: int
    cores_for_each: float
    adapters: str
    step_ms: float
    without_adapters_ms: float
    for_adapters_kib: float
    by_formula_kib: float
    for_the_base_kib: float
    exchanges: float


def saved_model(folder: Path, layers: int) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
    )
    return save_reference(LlamaForCausalLM(config), folder)


def adapters_for(model: LoadedModel, *, blocks: int) -> list[CanonicalAdapter]:
    """Random ones of all linears; block-diagonal in so many blocks where a group deals out both."""
    drawn = np.random.default_rng(0)
    found = []
    for rank in RANKS:
        pairs = {}
        for module in model.card.modules:
            a = drawn.standard_normal((rank, module.in_features), np.float32) * 0.02
            b = drawn.standard_normal((module.out_features, rank), np.float32) * 0.02
            kept = np.eye(blocks, dtype=np.float32)
            factor = b if module.site.rpartition(".")[2] in COLUMNS else a
            factor *= np.kron(kept, np.ones([size // blocks for size in factor.shape]))
            pairs[module.site] = Pair(Held(a), Held(b), 2.0)
        found.append(canonical(pairs, model.card.fingerprint))
    return found


@contextmanager
def engines(
    model: Path, members: int, partition: Partition
) -> Iterator[tuple[LoadedModel, Engine, AdapterReader, Collectives | None]]:
    """Of processes as a worker has them, with one thread each."""
    limits = Limits()
    if members == 1:
        loaded = load_model(model)
        engine = build_engine(loaded, memory_bytes=MEMORY_BYTES, limits=limits)
        yield loaded, engine, AdapterReader(loaded, page_tokens=limits.page_tokens), None
        return
    options = GroupOptions(
        members, partition, model, "cpu", "auto", threads=1, page_tokens=limits.page_tokens
    )
    group = Group(options)
    try:
        loaded, _ = group.load(CpuDevice(), None)
        memory = MEMORY_BYTES // members
        engine = build_engine(loaded, memory_bytes=memory, limits=limits, runner=group.runner)
        unpacker = group.unpacker(loaded)
        reader = AdapterReader(loaded, page_tokens=limits.page_tokens, unpacker=unpacker)
        yield loaded, engine, reader, group.collectives
    finally:
        group.close()


def decode(engine: Engine, digests: Sequence[Digest], steps: int) -> Callable[[], float]:
    """Begins so many streams; what is given runs their steps, and gives the median of them."""
    for number in range(SEQUENCES):
        adapter = number % len(digests) if digests else None
        prompt = tuple((7 * number + at) % (VOCABULARY - 2) + 2 for at in range(16))
        arrival = Arrival(0.0, prompt, steps + 1, adapter)
        engine.submit(engine_request(number, arrival, digests))
    engine.step()

    def run() -> float:
        took = []
        for _ in range(steps):
            began = time.perf_counter()
            engine.step()
            took.append(1000 * (time.perf_counter() - began))
        return statistics.median(took)

    return run


def measured(model: Path, members: int, partition: Partition, steps: int) -> Row:
    with engines(model, members, partition) as (loaded, engine, reader, collectives):
        without = decode(engine, [], steps)()
        blocks = members if partition is Partition.BLOCK_DIAGONAL else 1
        digests = made_resident(engine, reader, adapters_for(loaded, blocks=blocks))
        run = decode(engine, digests, steps)
        before = collectives.traffic.copy() if collectives else None
        step_ms = run()
        sent = dict.fromkeys(Matter, 0.0)
        exchanges = 0.0
        if collectives and before:
            for matter in Matter:
                sent[matter] = (collectives.traffic.sent[matter] - before.sent[matter]) / steps
            exchanges = (collectives.traffic.calls.total() - before.calls.total()) / steps
        layers = loaded.network.config.layers
    per_rank = sum(RANKS) * SEQUENCES / len(RANKS) * 4  # bytes of all rows' hidden values
    formula = layers * 9 * (members - 1) / members * per_rank
    return Row(
        members, len(os.sched_getaffinity(0)) / members,
        "none dealt out" if members == 1 else partition.value,
        step_ms, without, sent[Matter.LORA] / 1024,
        formula / 1024 if partition is Partition.SHARDED else 0.0,
        sent[Matter.BASE] / 1024, exchanges,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.tensor_parallel")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--layers", type=int, default=8)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = saved_model(Path(folder) / "model", asked.layers)
        for members in SIZES:
            for partition in Partition if members > 1 else [Partition.SHARDED]:
                rows.append(measured(model, members, partition, asked.steps))
                print(rows[-1], flush=True)
    save("tensor_parallel", {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
