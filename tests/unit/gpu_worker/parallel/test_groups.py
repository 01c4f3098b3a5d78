"""The processes of a group: what each holds, what it is told, and that they end together."""

import os
import pickle
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path
from queue import SimpleQueue

import pytest

from services.core.errors import FailedPrecondition
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.parallel.group import EXIT_MEMBER_LOST, Group, GroupOptions
from services.gpu_worker.model.parallel.lines import Line, Lines
from services.gpu_worker.model.parallel.member import Member, Partition
from services.gpu_worker.model.parallel.messages import Refused, Step
from services.gpu_worker.model.parallel.network import part_of_config
from services.gpu_worker.settings import GpuWorkerSettings
from services.runtime.settings import load
from tests.engines import TestBench, digest_of, greedy
from tests.parallel import PROMPTS, arenas, group
from tests.tiny_models import make_reference, save_reference


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
    [
        ("llama", 4, "num_attention_heads 6, num_key_value_heads 2"),
        ("qwen3", 3, "num_key_value_heads 2, intermediate_size 80"),
    ],
)
def test_what_does_not_divide_is_refused(
    family: str, members: int, what: str, tmp_path: Path
) -> None:
    config = load_model(save_reference(make_reference(family), tmp_path)).network.config
    said = f"GPU_WORKER_TENSOR_PARALLEL={members} does not divide the model's {what}$"
    with pytest.raises(FailedPrecondition, match=said):
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
