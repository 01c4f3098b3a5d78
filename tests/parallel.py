"""Groups whose members are threads: real engines, messages and gloo, in one process."""

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import LoraConfig
from torch import Tensor
from transformers import LlamaConfig

from services.core.types import Digest, RequestId
from services.gpu_worker.engine.batcher import Batcher
from services.gpu_worker.engine.engine import Engine, Sampled
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.plan import StepPlan
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.kernels.device import Device
from services.gpu_worker.model.adapters import AdapterReader
from services.gpu_worker.model.loading import Build, LoadedModel, load_model
from services.gpu_worker.model.parallel.collectives import Collectives, join
from services.gpu_worker.model.parallel.follower import Follower
from services.gpu_worker.model.parallel.lines import Line, Lines
from services.gpu_worker.model.parallel.member import COLUMNS, Member, Partition
from services.gpu_worker.model.parallel.part import builder, unpacker
from services.gpu_worker.model.parallel.runner import GroupRunner
from services.gpu_worker.model.step import StepNumbers
from tests.engines import TestBench, greedy
from tests.references import SHORT, adapt, canonical_of

PATIENCE_SECONDS = 20
PROMPTS = ([*range(2, 40)], [7, 3, 90])


class Load(Protocol):
    """See load_model."""

    def __call__(self, path: Path, *, device: Device, build: Build) -> LoadedModel: ...


def divisible() -> LlamaConfig:
    """With biases everywhere, and a vocabulary that four do not divide."""
    return LlamaConfig(
        vocab_size=122,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        attention_bias=True,
        mlp_bias=True,
    )


class RecordingGroupRunner(GroupRunner):
    """As engines.RecordingRunner; it also keeps what it told the others of each step."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        pages = range(named["pages"])
        nothing = torch.full((len(pages) * self.memory.page_bytes // 4,), torch.nan)
        self.memory.write(pages, nothing.numpy().tobytes())
        self.logits: dict[RequestId, list[Tensor]] = {}
        self.steps: list[StepNumbers] = []

    def run(self, plan: StepPlan) -> list[Sampled | None]:
        self._ids = [part.sequence.request.id for part in plan.slices if part.samples]
        return super().run(plan)

    def forward(self, plan: StepPlan) -> Tensor:
        logits = super().forward(plan)
        for request, row in zip(self._ids, logits, strict=True):
            self.logits.setdefault(request, []).append(row.clone())
        return logits

    def compute(self, step: StepNumbers) -> Tensor:
        self.steps.append(step)
        return super().compute(step)


class GroupBench(TestBench):
    """Of a leader and its lines to the others."""

    runner: RecordingGroupRunner  # type: ignore[assignment]

    def __init__(
        self,
        model: LoadedModel,
        lines: Lines,
        collectives: Collectives,
        partition: Partition,
        *,
        pages: int,
        keeps_prefixes: bool,
    ) -> None:
        self.model = model
        self.lines = lines
        self.collectives = collectives
        limits, members = Limits(), 1 + len(lines)
        size = limits.page_tokens
        cutting = unpacker(model, page_tokens=size, members=members, partition=partition)
        self._reader = AdapterReader(model, page_tokens=size, unpacker=cutting)
        self.pool = Pool(pages, page_tokens=size, keeps_prefixes=keeps_prefixes)
        self.runner = RecordingGroupRunner(
            model.network, pages=pages, page_tokens=size, lines=lines
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
        )


@contextmanager
def group(
    model: Path,
    members: int,
    partition: Partition = Partition.SHARDED,
    *,
    pages: int = 400,
    keeps_prefixes: bool = False,
    load: Load = load_model,
) -> Iterator[GroupBench]:
    """`load` is called by each member. All threads have ended with the block."""
    folder = tempfile.TemporaryDirectory()
    meeting = Path(folder.name) / "meeting"
    lines, threads = [], []
    for number in range(1, members):
        line, thread = _follower(load, model, meeting, Member(number, members), partition)
        lines.append(line)
        threads.append(thread)
    leading = Lines(lines)
    try:
        collectives = join(Member(0, members), meeting, on_cuda=False)
        build = builder(collectives, partition)
        loaded = load(model, device=CpuDevice(), build=build)
        yield GroupBench(
            loaded, leading, collectives, partition, pages=pages, keeps_prefixes=keeps_prefixes
        )
    finally:
        leading.close()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        folder.cleanup()
    assert not any(thread.is_alive() for thread in threads)


def _follower(
    load: Load, model: Path, meeting: Path, member: Member, partition: Partition
) -> tuple[Line, threading.Thread]:
    (steps, their_steps), (pages, their_pages) = Pipe(), Pipe()
    theirs = Line(their_steps, their_pages)

    def follow() -> None:
        torch.set_num_threads(1)
        build: Build = builder(join(member, meeting, on_cuda=False), partition)
        network = load(model, device=CpuDevice(), build=build).network
        follower = Follower(network, theirs, page_tokens=Limits().page_tokens)
        keeping = threading.Thread(target=follower.keep_pages)
        keeping.start()
        follower.follow()
        keeping.join()
        theirs.close()

    thread = threading.Thread(target=follow)
    thread.start()
    return Line(steps, pages), thread


def arenas(bench: GroupBench, pages: Sequence[int]) -> list[bytes]:
    """What each member has in these."""
    return [bench.runner._arena.read(pages), *bench.lines.read(pages)]


def lora(rank: int, targets: Sequence[str]) -> LoraConfig:
    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=list(targets), task_type="CAUSAL_LM"
    )


def written(
    reference: Any, model: LoadedModel, configs: Mapping[str, LoraConfig], blocks: int = 1
) -> dict[str, bytes]:
    files = {}
    for seed, (name, config) in enumerate(configs.items()):
        adapted: Any = adapt(reference, config, seed=seed)
        only_blocks(adapted, blocks)
        files[name] = canonical_of(adapted, model.card.fingerprint)
        adapted.unload()
    return files


def only_blocks(adapted: Any, members: int) -> None:
    """Of the factor that a group deals out both ways."""
    for name, module in adapted.named_modules():
        if getattr(module, "lora_A", None) is None:
            continue
        is_column = SHORT[name.rsplit(".", 1)[-1]] in COLUMNS
        factor = (module.lora_B if is_column else module.lora_A)["default"].weight.data
        one = torch.ones([size // members for size in factor.shape])
        factor *= torch.block_diag(*[one] * members)


def asked(digests: Mapping[str, Digest | None]) -> list[EngineRequest]:
    return [
        greedy(f"{name}/{index}", prompt, digest, 10)
        for name, digest in digests.items()
        for index, prompt in enumerate(PROMPTS)
    ]
