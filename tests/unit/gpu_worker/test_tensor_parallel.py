"""A model dealt out to a group: the logits of the whole one, and no bytes but S-LoRA's."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import Pipe
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from peft import LoraConfig

from services.core.errors import FailedPrecondition
from services.core.types import Digest, RequestId
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.parallel.collectives import Matter
from services.gpu_worker.model.parallel.group import EXIT_MEMBER_LOST, Group, GroupOptions
from services.gpu_worker.model.parallel.lines import Line, Lines
from services.gpu_worker.model.parallel.member import COLUMNS, Member, Partition
from services.gpu_worker.model.parallel.messages import Refused, Step
from services.gpu_worker.model.parallel.network import part_of_config
from services.gpu_worker.settings import GpuWorkerSettings
from services.runtime.settings import load
from tests.engines import TestBench, digest_of, greedy
from tests.parallel import GroupBench, arenas, divisible, group
from tests.references import EVERY_LINEAR, SHORT, adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, reference_of, save_reference

PROMPTS = ([*range(2, 40)], [7, 3, 90])
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SIZES = (2, 4)
FLOAT = 4


@pytest.fixture(scope="module", autouse=True)
def _one_thread_a_member() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reference() -> Any:
    return reference_of(divisible())


@pytest.fixture(scope="module")
def folder(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reference(reference, tmp_path_factory.mktemp("parallel") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load_model(folder)


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


@pytest.fixture(scope="module")
def adapters(reference: Any, model: LoadedModel) -> dict[str, bytes]:
    """Of ranks from 4 to 64, of which one is no multiple of four."""
    return written(reference, model, adapter_configs() | {"all-6": lora(6, EVERY_LINEAR)})


def asked(digests: Mapping[str, Digest | None]) -> list[EngineRequest]:
    return [
        greedy(f"{name}/{index}", prompt, digest, 10)
        for name, digest in digests.items()
        for index, prompt in enumerate(PROMPTS)
    ]


def answers_of(bench: TestBench, files: Mapping[str, bytes]) -> dict[RequestId, list[int]]:
    """In one batch with the base model."""
    return bench.generate(
        asked({"base": None, **{name: bench.load(data) for name, data in files.items()}})
    )


def assert_the_same(bench: GroupBench, whole: TestBench, files: Mapping[str, bytes]) -> None:
    expected, found = answers_of(whole, files), answers_of(bench, files)
    assert found == expected
    for request in expected:
        torch.testing.assert_close(bench.logits(request), whole.logits(request), atol=1e-4, rtol=0)
    assert len({tuple(tokens) for tokens in found.values()}) > len(files)  # adapters do something
    assert bench.pool.available == bench.pool.size


@pytest.mark.parametrize("members", SIZES)
@pytest.mark.parametrize("partition", [Partition.SHARDED, Partition.REPLICATED])
def test_a_mixed_batch_has_the_logits_of_the_whole_model(
    members: int, partition: Partition, folder: Path, model: LoadedModel, adapters: dict[str, bytes]
) -> None:
    with group(folder, members, partition) as bench:
        assert_the_same(bench, TestBench(model, pages=400), adapters)
        assert (bench.collectives.traffic.sent[Matter.LORA] > 0) == (partition == "sharded")


@pytest.mark.parametrize("members", SIZES)
def test_so_has_one_of_block_diagonal_adapters_without_an_exchange(
    members: int, folder: Path, model: LoadedModel, reference: Any
) -> None:
    configs = {"all-8": lora(8, EVERY_LINEAR), "qv-16": lora(16, ["q_proj", "v_proj"])}
    files = written(reference, model, configs, blocks=members)
    with group(folder, members, Partition.BLOCK_DIAGONAL) as bench:
        assert_the_same(bench, TestBench(model, pages=400), files)
        assert bench.collectives.traffic.calls[Matter.LORA] == 0


def test_adapters_that_are_not_block_diagonal_are_refused_there(
    folder: Path, adapters: dict[str, bytes]
) -> None:
    with (
        group(folder, 2, Partition.BLOCK_DIAGONAL) as bench,
        pytest.raises(FailedPrecondition, match=r"0\.q is not block-diagonal over 2 processes"),
    ):
        bench.load(adapters["all-8"])


@pytest.mark.parametrize("members", SIZES)
@pytest.mark.parametrize(("targets", "factor"), [(ATTENTION, 5), (EVERY_LINEAR, 9)])
def test_bytes_for_adapters_are_what_the_formula_says(
    members: int,
    targets: list[str],
    factor: int,
    folder: Path,
    model: LoadedModel,
    reference: Any,
) -> None:
    """5 (N - 1) B r / N numbers for an attention block, 4 for an MLP, of B rows of rank r each; and
    2 (N - 1) B h / N for each of the base's sums. Each linear has one exchange a step, however
    many adapters run."""
    ranks = {f"r{rank}": lora(rank, targets) for rank in (4, 8, 32)}
    files = written(reference, model, ranks)
    with group(folder, members) as bench:
        digests = {name: bench.load(data) for name, data in files.items()}
        bench.generate(asked({"base": None, **digests}))
        rank_of = {digest: int(name[1:]) for name, digest in digests.items()} | {None: 0}
        steps, traffic = bench.runner.steps, bench.collectives.traffic
        rows = sum(len(step.tokens) for step in steps)
        of_ranks = sum(
            (end - first) * rank_of[adapter]
            for step in steps
            for first, end, adapter in step.adapters
        )
    layers, others = model.network.config.layers, members - 1
    assert traffic.sent[Matter.LORA] == layers * factor * others * of_ranks * FLOAT / members
    assert traffic.calls[Matter.LORA] == len(steps) * layers * (2 if factor == 5 else 4)
    hidden = model.network.config.hidden
    assert traffic.sent[Matter.BASE] == layers * 2 * 2 * others * rows * hidden * FLOAT / members
    assert traffic.calls[Matter.BASE] == len(steps) * layers * 2


def test_the_base_model_alone_exchanges_nothing_for_adapters(
    folder: Path, adapters: dict[str, bytes]
) -> None:
    with group(folder, 2) as bench:
        bench.load(adapters["all-8"])
        bench.generate(asked({"base": None}))
        assert bench.collectives.traffic.calls[Matter.LORA] == 0


def test_each_member_holds_its_part_and_no_more(
    folder: Path, model: LoadedModel, adapters: dict[str, bytes]
) -> None:
    """Of heads, of pages, and so of keys, values and adapters in them."""
    whole = TestBench(model, pages=20)
    with group(folder, 4, pages=20) as bench:
        own, config = bench.runner._arena, model.network.config
        assert (
            own.page_bytes * 4 == whole.runner.memory.page_bytes == bench.runner.memory.page_bytes
        )
        assert [len(each) for each in arenas(bench, [0, 1])] == [2 * own.page_bytes] * 4
        part = bench.model.network.config
        assert (part.q_width * 4, part.kv_width * 4) == (config.q_width, config.kv_width)
        for name in ("qv-4", "rs-16", "all-64"):  # as many pages, which are so much smaller
            assert bench.parse(adapters[name]).pages <= whole.parse(adapters[name]).pages * 1.1


def test_keys_and_values_are_carried_between_a_group_and_a_worker_without_one(
    folder: Path, model: LoadedModel
) -> None:
    """Split by heads and put together again: as if they had been computed there."""
    prompt = [*range(2, 70)]
    plain = TestBench(model, pages=40, keeps_prefixes=True)
    expected = plain.generate([greedy("a", prompt, None, 8)])
    with group(folder, 2, pages=40, keeps_prefixes=True) as bench:
        theirs, ours = plain.engine.carrying, bench.engine.carrying
        assert theirs is not None
        assert ours is not None
        assert theirs.memory.layout == ours.memory.layout
        held = theirs.hold(("", None), prompt)
        coming = ours.expect(("", None), prompt, keep=0)
        assert coming is not None
        ours.memory.write(coming.pages, theirs.memory.read(held.pages))
        assert ours.memory.read(coming.pages) == theirs.memory.read(held.pages)
        ours.arrived(coming, len(coming.pages))
        found = bench.generate([greedy("a", prompt, None, 8)])
        assert found == expected
        computed = sum(len(step.tokens) for step in bench.runner.steps)
        assert computed == len(prompt) - len(coming.pages) * 16 + 7


def test_members_are_told_a_step_in_one_small_message(
    folder: Path, adapters: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters that came or went since the last are in it."""
    with group(folder, 2) as bench:
        told: list[Step] = []
        send = bench.lines.step

        def tell(step: Step) -> None:
            told.append(step)
            send(step)

        monkeypatch.setattr(bench.lines, "step", tell)
        digest = bench.load(adapters["all-8"])
        requests = [greedy(str(n), [*range(2, 120)], digest, 4) for n in range(8)]
        bench.generate(requests)
        assert len(told) == len(bench.runner.steps)
        assert [len(step.changes) for step in told] == [1] + [0] * (len(told) - 1)
        assert len(pickle.dumps(told[-1])) < 1500


def test_an_adapter_that_was_evicted_and_another_in_its_pages_are_everybodys(
    folder: Path, model: LoadedModel, adapters: dict[str, bytes]
) -> None:
    names = ("all-64", "rs-16", "all-64", "all-8", "all-64")
    whole = TestBench(model, pages=70)
    with group(folder, 2, pages=70) as bench:
        for turn, name in enumerate(names):
            found = []
            for each in (whole, bench):
                digest = digest_of(adapters[name])
                if not each.pool.residency.holds(digest):
                    each.load(adapters[name])
                found.append(each.generate([greedy(f"{turn}", PROMPTS[0], digest, 6)]))
            assert found[0] == found[1]


@pytest.mark.parametrize(
    ("family", "members", "what"),
    [("llama", 4, "num_attention_heads 6, num_key_value_heads 2"), ("qwen3", 3, "hidden_size 48")],
)
def test_what_does_not_divide_is_refused(
    family: str, members: int, what: str, tmp_path: Path
) -> None:
    config = load_model(save_reference(make_reference(family), tmp_path)).network.config
    with pytest.raises(FailedPrecondition, match=f"TENSOR_PARALLEL={members} does not divide"):
        part_of_config(config, Member(0, members))


def test_a_group_that_is_to_merge_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "SERVICE_TOKEN": "s3cret",
        "MODEL_PATH": "/nowhere",
        "TENSOR_PARALLEL": "2",
        "MERGING": "auto",
    }.items():
        monkeypatch.setenv(f"GPU_WORKER_{name}", value)
    with pytest.raises(SystemExit):
        load(GpuWorkerSettings)
    assert "GPU_WORKER_TENSOR_PARALLEL=2 deals them out" in capsys.readouterr().err


def test_a_member_that_ends_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: SimpleQueue[int] = SimpleQueue()
    monkeypatch.setattr(os, "_exit", ends.put)
    nowhere = Path("nowhere")
    group = Group(GroupOptions(2, Partition.SHARDED, nowhere, "cpu", "auto", 1, 16))
    group.processes[0].kill()
    assert ends.get(timeout=20) == EXIT_MEMBER_LOST
    group.close()


def test_why_a_member_cannot_begin_is_told() -> None:
    (steps, theirs), (pages, _) = Pipe(), Pipe()
    theirs.send(Refused("there is no memory"))
    with pytest.raises(FailedPrecondition, match="process 1 of the group: there is no memory"):
        Lines([Line(steps, pages)]).ready()


def test_a_worker_without_a_group_has_nothing_of_one() -> None:
    code = (
        "import sys, services.gpu_worker.__main__\n"
        "print([name for name in sys.modules if '.model.parallel' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
