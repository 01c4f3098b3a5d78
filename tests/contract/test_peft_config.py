"""Our reading of adapter_config.json against what peft itself builds from it."""

import json
import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from services.adapter_store.peft import PeftConfig, read_config
from services.core.errors import InvalidAdapter
from tests.fuzz.adapters import from_bytes
from tests.fuzz.oracle import check
from tests.tiny_models import configs

Chosen = dict[str, tuple[int, float]]

CASES: dict[str, dict[str, Any]] = {
    "list": {"target_modules": ["q_proj", "v_proj"]},
    "one name": {"target_modules": ["down_proj"]},
    "suffix with dots": {"target_modules": ["self_attn.q_proj", "mlp.up_proj"]},
    "full path": {"target_modules": ["model.layers.1.self_attn.k_proj"]},
    "regex": {"target_modules": r".*\.layers\.[02]\..*(q|gate)_proj"},
    "regex that must match whole": {"target_modules": r"model\.layers\.0\.self_attn\.(q|k)_proj"},
    "all-linear": {"target_modules": "all-linear"},
    "rslora": {"target_modules": ["q_proj"], "use_rslora": True, "r": 9},
    "alpha of its own": {"target_modules": ["q_proj"], "lora_alpha": 3},
    "rank pattern": {
        "target_modules": ["q_proj", "k_proj", "v_proj"],
        "rank_pattern": {"k_proj": 2, "layers.1.self_attn.q_proj": 16},
        "alpha_pattern": {"v_proj": 1},
    },
    "rank pattern as a regex": {
        "target_modules": "all-linear",
        "rank_pattern": {r"layers\.[01]\..*": 3, "q_proj": 5},
        "alpha_pattern": {r".*mlp.*": 2, "^model.layers.2.self_attn.q_proj": 7},
        "use_rslora": True,
    },
    "layers": {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [0, 2]},
    "one layer": {"target_modules": ["q_proj"], "layers_to_transform": 1},
    "layers under a name": {
        "target_modules": ["q_proj"],
        "layers_to_transform": [1],
        "layers_pattern": "layers",
    },
    "layers under several names": {
        "target_modules": ["q_proj"],
        "layers_to_transform": [1],
        "layers_pattern": ["blocks", "layers"],
    },
    "full path, whatever its layer": {
        "target_modules": ["model.layers.1.self_attn.q_proj", "v_proj"],
        "layers_to_transform": [0],
    },
    "layers under a pattern with a group": {
        "target_modules": ["q_proj"],
        "layers_to_transform": [1],
        "layers_pattern": "(blocks|layers)",
    },
    "layers under a pattern that matches without a layer": {
        "target_modules": ["q_proj", "model.layers.1.self_attn.v_proj"],
        "layers_to_transform": [1],
        "layers_pattern": "model|layers",
    },
    "regex with flags": {"target_modules": r"(?i).*\.(?-i:q)_PROJ"},
    "all-linear in capitals": {"target_modules": "All-Linear"},
    "counted repeats": {"target_modules": r".*\.layers\.[0-9]{1,2}\..*\.q_pro{1}j"},
    "exclude list": {"target_modules": "all-linear", "exclude_modules": ["q_proj", "mlp.up_proj"]},
    "exclude regex": {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*\.0\..*"},
    "fan in fan out": {"target_modules": ["q_proj"], "fan_in_fan_out": True},
}


@pytest.fixture
def model() -> Any:
    return AutoModelForCausalLM.from_config(configs()["llama"])


def by_peft(config: LoraConfig, model: Any) -> Chosen:
    adapted: Any = get_peft_model(model, config)
    return {
        name.removeprefix("base_model.model."): (module.r["default"], module.scaling["default"])
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A") and "default" in module.lora_A
    }


def by_us(config: PeftConfig, model: Any) -> Chosen:
    linears = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    return {
        path: (config.rank(path), config.scaling(path)) for path in linears if config.selects(path)
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", list(CASES))
def test_selection_ranks_and_scalings_are_pefts_own(case: str, model: Any) -> None:
    fields: Any = {"r": 8, "lora_alpha": 16, "task_type": "CAUSAL_LM"} | CASES[case]
    config = LoraConfig(**fields)
    # What peft writes to adapter_config.json: sets become lists.
    written = json.dumps(config.to_dict(), default=sorted)
    ours = by_us(read_config(written), model)
    theirs = by_peft(config, model)
    assert ours.keys() == theirs.keys()
    assert ours
    for path, (rank, scaling) in theirs.items():
        assert ours[path][0] == rank, path
        assert math.isclose(ours[path][1], scaling), path


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("bias", "lora_only"),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [1, 2]),
        ("target_parameters", ["mlp.experts"]),
        ("layer_replication", [[0, 2]]),
        ("megatron_config", {"x": 1}),
        ("loftq_config", {"loftq_bits": 4}),
        ("use_qalora", True),
        ("alora_invocation_tokens", [5]),
        ("arrow_config", {"top_k": 1}),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "olora"),
        ("kasa_config", {}),
        ("use_bdlora", {}),
        ("layers_pattern", "layers"),
        ("rank_pattern", None),
        ("exclude_modules", False),
        ("peft_type", "IA3"),
        ("task_type", "SEQ_CLS"),
        ("something_of_tomorrow", True),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(field: str, value: Any) -> None:
    raw = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    read_config(json.dumps(raw))
    with pytest.raises(InvalidAdapter) as caught:
        read_config(json.dumps(raw | {field: value}))
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("nothing", [False, 0, "", [], {}], ids=repr)
def test_of_what_asks_for_nothing_peft_makes_nothing_or_it_is_refused(nothing: Any) -> None:
    good = from_bytes(b"\0")
    for field in fields(LoraConfig):
        if field.name != "target_modules":
            check(json.dumps(json.loads(good.config_json) | {field.name: nothing}), good.data)


def test_every_field_that_peft_knows_is_decided_about() -> None:
    """A new peft may add fields: harmless at their defaults, refused when set."""
    read_config(json.dumps(LoraConfig(target_modules=["q_proj"]).to_dict(), default=sorted))


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(?:(?:(?:a{1000}){1000}){1000})", "repeats too much"),
        (r"(?:\w{,1000}){1000}", "repeats too much"),
        ("a{" + "9" * 5000 + "}", "not supported in patterns"),
        ("(?R)", "not supported in patterns"),
        ("(?P<x>q|(?&x))", "not supported in patterns"),
        ("(?x)( ?R)", "not supported in patterns"),
        (r"(?#\)(?R)", "not supported in patterns"),
        ("(?:q_proj){e<=1}", "not supported in patterns"),
        (r"\p{L}", "not supported in patterns"),
        ("q_proj(?i)", "not supported in patterns"),
        ("[[:alpha:]]", "not supported in patterns"),
        ("(" * 5000 + ")" * 5000, "is nested too deeply"),
    ],
)
def test_a_pattern_that_would_take_all_memory_is_refused(pattern: str, says: str) -> None:
    raw = {"peft_type": "LORA", "target_modules": pattern}
    with pytest.raises(InvalidAdapter, match=says):
        read_config(json.dumps(raw)).selects("model.layers.0.self_attn.q_proj")


@pytest.mark.parametrize("name", ["layers_to_transform", "layers_pattern"])
def test_layers_and_a_pattern_of_modules_do_not_go_together(name: str) -> None:
    raw: Any = {"peft_type": "LORA", "target_modules": ".*q_proj", "layers_to_transform": None}
    read_config(json.dumps(raw))
    with pytest.raises(InvalidAdapter, match="only goes with a list of target_modules"):
        read_config(json.dumps(raw | {name: []}))
