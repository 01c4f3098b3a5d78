"""Everything that can be wrong with an adapter is named; what is right has one canonical form."""

import json
import pickle
import time
import zipfile
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from services.adapter_store.patterns import REGEX_SECONDS
from services.adapter_store.peft import read_config
from services.core.base_model import BaseModel, Module
from services.core.errors import InvalidAdapter
from tests.cards import CARD
from tests.peft_folders import Tensors, peft_config, peft_tensors
from tests.validated import Validated, validated

SHAPES = tuple(
    Module(f"model.layers.{layer}.self_attn.{name}_proj", f"{layer}.{name}", 48, out)
    for layer in range(2)
    for name, out in (("q", 48), ("v", 16))
)
BASE = replace(CARD, modules=SHAPES)
V1 = "base_model.model.model.layers.1.self_attn.v_proj"
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


def good() -> Tensors:
    return peft_tensors(SHAPES, names=["q_proj", "v_proj"], rank=4, seed=1)


def check(data: bytes | Tensors, *, base: BaseModel = BASE, **config: Any) -> Validated:
    raw = data if isinstance(data, bytes) else save(data)
    return validated(raw, read_config(json.dumps(peft_config(**config))), base, max_rank=64)


def refusal(data: bytes | Tensors, **config: Any) -> str:
    with pytest.raises(InvalidAdapter) as caught:
        check(data, **config)
    return str(caught.value)


def test_the_canonical_form_holds_the_same_numbers() -> None:
    checked = check(good())
    tensors = load(checked.data)
    for module in SHAPES:
        given = f"base_model.model.{module.path}"
        assert torch.equal(tensors[f"{module.site}.A"], good()[f"{given}.lora_A.weight"])
        assert torch.equal(tensors[f"{module.site}.B"], good()[f"{given}.lora_B.weight"].T)
    assert set(tensors) == {f"{s.site}.{side}" for s in SHAPES for side in "AB"}
    assert checked.adapter.ranks == {module.site: 4 for module in SHAPES}
    assert checked.adapter.parameter_count == sum(tensor.numel() for tensor in good().values())


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_every_type_stays_what_it_is(kind: torch.dtype) -> None:
    tensors = {name: tensor.to(kind) for name, tensor in good().items()}
    held = load(check(tensors).data)
    assert torch.equal(held["1.v.B"].T, tensors[f"{V1}.lora_B.weight"])


def test_the_data_lies_in_the_order_in_which_it_is_laid_out() -> None:
    data = check(good()).data
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    starts = {name: held["data_offsets"][0] for name, held in header.items() if "." in name}
    expected = [f"{module.site}.{side}" for module in SHAPES for side in "AB"]
    assert sorted(starts, key=starts.__getitem__) == expected


def test_types_may_differ() -> None:
    tensors = good()
    tensors[f"{Q0}.lora_A.weight"] = tensors[f"{Q0}.lora_A.weight"].half()
    held = load(check(tensors).data)
    assert held["0.q.A"].dtype == torch.float16
    assert torch.equal(held["1.v.B"].T, tensors[f"{V1}.lora_B.weight"])


def test_a_large_tensor_is_read_in_pieces() -> None:
    wide = Module("model.layers.0.self_attn.q_proj", "0.q", 48, 70_000)
    base = replace(BASE, modules=(wide,))
    tensors = peft_tensors(base.modules, names=["q_proj"], rank=8, seed=1)
    checked = check(tensors, base=base, r=8, target_modules=["q_proj"])
    assert torch.equal(load(checked.data)["0.q.B"].T, tensors[f"{Q0}.lora_B.weight"])


def test_the_same_adapter_is_the_same_bytes_however_it_was_written() -> None:
    digest = check(good()).digest
    backwards = dict(reversed(good().items()))
    assert check(save(backwards, {"format": "pt"})).digest == digest
    named = {k.replace(".weight", ".default.weight"): v for k, v in good().items()}
    assert check(named).digest == digest
    assert check(good(), base_model_name_or_path="elsewhere").digest == digest


def test_another_scaling_base_or_number_is_another_adapter() -> None:
    digests = {check(good()).digest, check(good(), lora_alpha=9).digest}
    other = good()
    other[f"{Q0}.lora_A.weight"][0, 0] += 1
    digests.add(check(other).digest)
    halves = {name: tensor.half() for name, tensor in good().items()}
    digests.add(check(halves).digest)
    assert len(digests) == 4


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused(kind: torch.dtype, value: float) -> None:
    tensors = {name: tensor.to(kind) for name, tensor in good().items()}
    check(tensors)
    tensors[f"{Q0}.lora_B.weight"][3, 1] = value
    assert "0.self_attn.q_proj: lora_B has values that are not finite" in refusal(tensors)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_weight_that_its_scaling_makes_infinite_is_refused(kind: torch.dtype, sign: int) -> None:
    rank = good()[f"{Q0}.lora_A.weight"].shape[0]
    tensors = {name: tensor.to(kind) for name, tensor in good().items()}
    for value, is_refused in ((1.0e38, False), (1.8e38, True)):  # float32 ends at 3.4e38
        tensors[f"{Q0}.lora_B.weight"][3, 1] = sign * value
        check(tensors, lora_alpha=rank)
        if is_refused:
            assert "not finite once scaled by 2" in refusal(tensors, lora_alpha=2 * rank)
        else:
            check(tensors, lora_alpha=2 * rank)


def test_everything_wrong_is_said_at_once() -> None:
    tensors = good()
    tensors[f"{Q0}.lora_A.weight"] = torch.zeros(5, 48)
    del tensors["base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"]
    tensors["base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 48)
    tensors["base_model.model.lm_head.weight"] = torch.zeros(2, 2)
    said = refusal(tensors)
    assert "lora_A has shape [5, 48], should have [4, 48]" in said
    assert "layers.1.self_attn.v_proj: lora_B is missing" in said
    assert "no linear model.layers.7.self_attn.q_proj" in said
    assert "base_model.model.lm_head.weight: is no LoRA tensor" in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: {k: v for k, v in t.items() if "q_proj" not in k}, "the weights lack it"),
        (lambda t: {}, "the weights lack it"),
        (lambda t: {k: v.double() for k, v in t.items()}, "is F64, not F32, F16 or BF16"),
        (lambda t: {k: v.to(torch.int8) for k, v in t.items()}, "is I8"),
        (lambda t: t | {f"{Q0}.lora_magnitude_vector": torch.ones(48)}, "is no LoRA tensor"),
        (lambda t: {k.replace("q_proj", "k_proj"): v for k, v in t.items()}, "has no linear"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: Any, says: str) -> None:
    assert says in refusal(change(good()))


def test_a_rank_beyond_the_limit_is_refused() -> None:
    tensors = peft_tensors(SHAPES, names=["q_proj", "v_proj"], rank=65, seed=1)
    assert "rank 65 is more than 64" in refusal(tensors, r=65)


def test_anything_but_a_whole_safetensors_file_is_refused() -> None:
    whole = save(good())
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.pkl", b"x" * 100)
    for data in (pickle.dumps({"x": 1}), archive.getvalue(), b"\x1f\x8b" + whole):
        assert "never opened" in refusal(data)
    for cut in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        assert "adapter_model.safetensors" in refusal(whole[:cut])
    assert refusal(whole + b"more")
    assert refusal((2**62).to_bytes(8, "little") + whole[8:])
    header = int.from_bytes(whole[:8], "little")
    garbled = bytearray(whole)
    garbled[8 : 8 + header] = b"{" * header
    assert refusal(bytes(garbled))


@pytest.mark.parametrize("magic", [b"\x80\x02", b"\x80\x04", b"\x1f\x8b", b"BZh"])
def test_a_header_may_be_as_long_as_a_pickle_or_an_archive_begins(magic: bytes) -> None:
    whole = save(good())
    length = int.from_bytes(whole[:8], "little")
    longer = int.from_bytes(magic, "little") + 256 ** len(magic) * (len(magic) < 3)
    header = whole[8 : 8 + length].ljust(longer)
    checked = check(longer.to_bytes(8, "little") + header + whole[8 + length :])
    assert checked.digest == check(whole).digest


def test_a_name_that_comes_twice_is_refused() -> None:
    whole = save(good())
    length = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + length].rstrip()
    name = f"{Q0}.lora_A.weight"
    again = header[:-1] + f',"{name}":{json.dumps(json.loads(header)[name])}}}'.encode()
    assert "twice" in refusal(len(again).to_bytes(8, "little") + again + whole[8 + length :])
    tensors = good()
    tensors[f"{Q0}.lora_A.default.weight"] = tensors[name].clone()
    assert "comes twice" in refusal(tensors)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not good JSON"),
        ("[]", "must be a JSON object"),
        ("[" * 60_000, "not good JSON"),
        (json.dumps({"x": "y" * 70_000}), "larger than"),
        ('{"peft_type": "LORA", "r": NaN}', "not good JSON"),
        (json.dumps(peft_config(r=0)), "r: must be a whole number"),
        (json.dumps(peft_config(r="8")), "r: must be a whole number"),
        (json.dumps(peft_config(r=True)), "r: must be a whole number"),
        (json.dumps(peft_config(lora_alpha="x")), "lora_alpha"),
        (json.dumps(peft_config(lora_alpha=1e300)), "lora_alpha"),
        (json.dumps(peft_config(rank_pattern=[1])), "rank_pattern: must be an object"),
        (json.dumps(peft_config(rank_pattern={"q_proj": -1})), "rank_pattern.q_proj"),
        (json.dumps(peft_config(target_modules=[])), "target_modules"),
        (json.dumps(peft_config(target_modules=[1])), "target_modules"),
        (json.dumps(peft_config(layers_to_transform=["a"])), "layers_to_transform"),
    ],
)
def test_a_config_that_is_wrong_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidAdapter, match=says):
        read_config(text)


def test_patterns_that_explode_are_cut_off_after_two_seconds_in_all() -> None:
    long = r"(\w|\w\w|\w\w\w|\.\w?|\w\.)*[^\w.]"
    started = time.process_time()  # a busy machine is not their fault
    assert "takes too long to match" in refusal(good(), target_modules=long)
    several = {f"(x{index})?{long}": 4 for index in range(50)}
    assert "takes too long to match" in refusal(good(), rank_pattern=several)
    assert time.process_time() - started < 2 * REGEX_SECONDS + 2


def test_what_is_no_pattern_is_refused() -> None:
    assert "is not a regular expression" in refusal(good(), target_modules="(")
    assert "is not a regular expression" in refusal(good(), rank_pattern={"(": 4})
    assert "is nested too deeply" in refusal(good(), target_modules="(?:" * 400 + "q" + ")" * 400)
