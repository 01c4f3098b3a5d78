"""Every family of models against transformers and peft, adapters mixed in one batch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from services.core.errors import FailedPrecondition
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.model.loading import load_model
from tests.engines import TestBench, greedy
from tests.parity import assert_a_mixed_batch_agrees
from tests.references import logits_of
from tests.tiny_models import VOCABULARY, configs, make_reference, save_reference

# Longer than a page, than Mistral's window, and than a step of the smallest budget.
PROMPTS = [
    torch.randint(
        2, VOCABULARY, (length,), generator=torch.Generator().manual_seed(length)
    ).tolist()
    for length in (1, 5, 16, 17, 40)
]
TOKENS = 24


@pytest.mark.parametrize("step_tokens", [512, 7], ids=["whole", "chunked"])
@pytest.mark.parametrize("family", list(configs()))
def test_a_mixed_batch_agrees_with_the_reference(
    family: str, step_tokens: int, tmp_path: Path
) -> None:
    reference: Any = make_reference(family)
    model = load_model(save_reference(reference, tmp_path))
    bench = TestBench(model, Limits(max_step_tokens=step_tokens), pages=400)
    assert_a_mixed_batch_agrees(bench, reference, PROMPTS, TOKENS)


def test_shards_are_put_together(tmp_path: Path) -> None:
    reference: Any = make_reference("llama")
    folder = save_reference(reference, tmp_path, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    bench = TestBench(load_model(folder), pages=50)
    request = greedy("one", PROMPTS[1], None, 8)
    answer = bench.generate([request])[request.id]
    expected = logits_of(reference, [*PROMPTS[1], *answer[:-1]])[len(PROMPTS[1]) - 1 :]
    assert expected.argmax(-1).tolist() == answer


def _edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "large"}, "hidden_size"),
        ({"num_key_value_heads": 4}, "6 heads over 4"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "x"}}, "wrong value"),
        ({"intermediate_size": 96}, "mlp.gate_proj.weight has shape"),
        ({"num_hidden_layers": 4}, "the weights have no model.layers.3"),
    ],
)
def test_a_model_that_cannot_be_honoured_is_refused_by_name(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    save_reference(make_reference("llama"), tmp_path)
    _edit_config(tmp_path, **changes)
    with pytest.raises(FailedPrecondition, match=says):
        load_model(tmp_path)


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.safetensors", "config.json"])
def test_a_folder_that_lacks_a_file_is_refused(missing: str, tmp_path: Path) -> None:
    save_reference(make_reference("llama"), tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(FailedPrecondition, match=missing):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "config.json"])
def test_a_file_that_is_cut_short_is_refused(name: str, tmp_path: Path) -> None:
    path = save_reference(make_reference("llama"), tmp_path) / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FailedPrecondition, match=Path(name).stem):
        load_model(tmp_path)
