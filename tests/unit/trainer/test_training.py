"""LoRA on a small random model: exact, resumable, and honest about what it cannot learn."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from services.core.errors import InvalidRequest
from services.trainer.examples import Example
from services.trainer.jobs import Checkpoint, DataKind, Point
from services.trainer.task import News, Task, Trained, news_from_json, news_to_json
from services.trainer.training.beginning import begin
from services.trainer.training.centralised import Training
from services.trainer.training.encoding import Encoded, Encoder
from services.trainer.training.network import Network, load_base
from tests.training import WORDS, base_of, saved_base, task_of, written

Make = Callable[..., Task]
CLASSES = [{"text": words, "label": f"w{90 + index % 3}"} for index, words in enumerate(WORDS)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_base(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def make(model: Path, tmp_path: Path) -> Make:
    """A task on these rows."""

    def make(rows: Any = None, **config: Any) -> Task:
        path = tmp_path / "data.jsonl"
        return task_of(model, written(path) if rows is None else written(path, rows), **config)

    return make


def network(model: Path, **config: Any) -> Network:
    torch.manual_seed(3)
    made = Network(
        load_base(model, torch.device("cpu")),
        task_of(model, model, **config).config,
        base_name="tiny",
    )
    with torch.no_grad():
        for parameter in made.parameters.values():
            parameter.normal_(std=0.2)
    made.learning(False)
    return made


def news_of(task: Task) -> list[News]:
    return list(begin(task).run())


def weights(task: Task) -> dict[str, torch.Tensor]:
    return load_file(task.folder / f"{task.prefix}result" / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_packed_examples_do_not_see_each_other(model: Path) -> None:
    tested = network(model)
    examples = [
        Encoded(1, (5, 6, 7, 8, 9), 2),
        Encoded(2, (11, 12), 1),
        Encoded(3, (21, 22, 23), 1),
    ]
    with torch.no_grad():
        together, owners = tested.losses(examples)
        alone = [tested.losses([example])[0] for example in examples]
    assert owners.tolist() == [0, 0, 0, 1, 2, 2]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    dense: Any = AutoModelForCausalLM.from_pretrained(model)
    network_free = torch.nn.functional.cross_entropy(
        dense(input_ids=torch.tensor([[5, 6, 7, 8, 9]])).logits[0, 1:4], torch.tensor([7, 8, 9])
    )
    assert not math.isclose(alone[0].mean().item(), network_free.item(), abs_tol=1e-3)  # it adapts


def test_packs_of_a_step_add_up_to_one_larger(make: Make) -> None:
    one = make(pack_tokens=200, steps=3, packs_a_step=1)
    news_of(one)
    several = replace(make(pack_tokens=16, steps=3, packs_a_step=50), prefix="2-")
    news_of(several)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(several)[name], rtol=0, atol=2e-5)


def test_a_resumed_job_ends_with_the_same_weights_bit_for_bit(make: Make) -> None:
    task = make(
        steps=6, dropout=0.2, validation_share=0.3, evaluate_steps=1, patience=5,
        checkpoint_steps=2, packs_a_step=2,
    )  # fmt: skip
    whole = news_of(task)
    saved = [news for news in whole if isinstance(news, Checkpoint)]
    assert [each.steps for each in saved] == [2, 4, 6]
    for checkpoint in saved:
        resumed = replace(task, checkpoint=checkpoint.name, prefix=f"{checkpoint.steps}-")
        torch.manual_seed(99)  # another process stands elsewhere
        rest = news_of(resumed)
        told = [news for news in rest if isinstance(news, Point)]
        assert told == [n for n in whole if isinstance(n, Point) and n.step > checkpoint.steps]
        assert same(weights(resumed), weights(task))


def test_the_result_is_what_peft_reads(make: Make, model: Path) -> None:
    task = make()
    training = begin(task)
    news = [news_from_json(news_to_json(each).encode()) for each in training.run()]
    assert isinstance(news[-1], Trained)
    folder = task.folder / news[-1].result.name
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    base: Any = AutoModelForCausalLM.from_pretrained(model)
    adapted = PeftModel.from_pretrained(base, str(folder)).eval()
    example = Encoded(1, (5, 6, 7, 8, 9), 1)
    with torch.no_grad():
        training._network.learning(False)
        ours, _ = training._network.losses([example])
        logits = adapted(input_ids=torch.tensor([example.tokens])).logits[0, :-1]
    theirs = torch.nn.functional.cross_entropy(
        logits, torch.tensor(example.tokens[1:]), reduction="none"
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_it_learns(make: Make) -> None:
    points = [news for news in news_of(make(steps=25)) if isinstance(news, Point)]
    assert points[-1].loss < points[0].loss - 0.5


def test_it_stops_early_with_the_best_weights(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(
        steps=9, validation_share=0.3, evaluate_steps=1, patience=2, checkpoint_steps=1
    )  # fmt: skip
    scripted = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    monkeypatch.setattr(
        "services.trainer.training.measuring.HeldOut.measure",
        lambda self, network: (next(scripted), None),
    )
    training: Training = begin(task)
    states = {}
    for news in training.run():
        if isinstance(news, Point):
            states[news.step] = {
                name.replace(".default.", "."): each.detach().clone()
                for name, each in training._network.parameters.items()
            }
    assert isinstance(news, Trained)
    assert news.result.steps == 4
    assert news.metrics == {"validation_loss": 2.0, "best_step": 2.0}
    assert same(weights(task), states[2])


def test_a_loss_that_is_not_finite_names_step_and_lines(make: Make) -> None:
    task = make(learning_rate=1.0, max_gradient_norm=1e30, steps=50)
    training = begin(task)
    for parameter in training._network.parameters.values():
        parameter.data.fill_(1e30)
    with pytest.raises(InvalidRequest, match=r"data\.jsonl:\d+: the loss is \w+ at step 1"):
        list(training.run())


def test_an_example_that_is_too_long_is_named(make: Make) -> None:
    with pytest.raises(InvalidRequest, match=r"data\.jsonl:1: has \d+ tokens, more than the 6"):
        begin(make(pack_tokens=6))


def test_labels_are_told_apart(make: Make) -> None:
    task = make(
        CLASSES * 4, kind=DataKind.CLASSIFICATION, steps=40, validation_share=0.25,
        evaluate_steps=20, learning_rate=0.05, pack_tokens=64, rank=8,
    )  # fmt: skip
    news = news_of(task)
    assert isinstance(news[-1], Trained)
    assert news[-1].metrics["accuracy"] == 1.0
    measured = [n for n in news if isinstance(n, Point) and n.accuracy is not None]
    assert [point.step for point in measured] == [20, 40]


def test_tokens_are_those_of_a_request_and_end_with_the_end(model: Path) -> None:
    encoder = Encoder(base_of(model), name="d", most_tokens=99)
    ids = encoder.encode(Example(1, "w20 w21", ({"role": "user", "content": "w10"},)))
    assert ids.tokens[ids.learnt :] == (20, 21, 1)
    assert ids.tokens[: ids.learnt] == (3, 2, 10, 1, 3, 2)  # w2 is for what it does not know
    raw = encoder.encode(Example(1, "w20", prompt="w10 w11"))
    assert (raw.tokens, raw.learnt) == ((10, 11, 20, 1), 2)
    plain = encoder.encode(Example(1, "w20 w21"))
    assert (plain.tokens, plain.learnt) == ((20, 21, 1), 1)
    bare = Encoder(base_of(model, chat_template=""), name="d", most_tokens=99)
    asked = bare.encode(Example(1, "w20", ({"role": "user", "content": "w10"},)))
    assert asked.tokens == (10, 20, 1)
