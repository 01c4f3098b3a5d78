"""What must hold of every adapter that the store is shown: peft itself says whether it is one."""

import copy
import functools
import json
import math
import re
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import get_peft_model, set_peft_model_state_dict
from peft.config import PeftConfigMixin
from peft.tuners.lora import LoraLayer
from safetensors.torch import load

from services.core.errors import InvalidAdapter
from services.gpu_worker.model.arena import page_elements
from services.gpu_worker.model.packing import HeldImage
from services.gpu_worker.model.unpacking import Unpacker
from tests.fuzz.adapters import judge
from tests.fuzz.draft import BASE, NETWORK
from tests.tiny_models import make_reference
from tests.validated import Validated

# What peft would load and Lorikeet refuses, by the words of the refusal, each with its reason.
UNSUPPORTED = {
    r"is not supported and would not be honoured exactly": "it changes what is computed, or may",
    r"^peft_type: must be LORA": "another method than LoRA",
    r"^task_type: must be CAUSAL_LM": "only text is generated",
    r"^bias: .* would not be honoured exactly": "biases are not adapted",
    r"^init_lora_weights: .* changes the base model's weights": "the base model is shared",
    r"is \w+, not F32, F16 or BF16": "peft casts anything to the parameter's type",
    r"has values that are not finite": "they would spoil a batch's numbers and mean nothing",
    r"rank \d+ is more than \d+": "the store's limit",
    r"is larger than \d+ bytes": "the store's limit",
    r"must be a number of at most a million": "no text, truth or infinity for a number",
    r"must be a whole number of at least 1": "no text or truth for a number",
    r"must be a text or a list of texts": "peft takes any container",
    r"must be a layer or a list of layers": "no fraction, text or nothing for a layer",
    r"(NaN|Infinity) is not a number": "JSON has neither",
    r"^target_modules: must name at least one module": "peft guesses them by architecture",
    r"takes too long to match": "a tenant's patterns may explode",
    r"repeats too much": "so may they when they are compiled",
    r"is nested too deeply": "the regex package gives up before re does",
    r"which is not supported in patterns": "free spacing, braces that are no count",
}
# What the store takes and peft does not, by the words of peft.
TOLERATED = {
    r"Target module .* is not supported": "a store knows of a base model its linear layers alone",
    r"^error: ": "the regex package reads more than re: a lookbehind of any width, a name twice",
    r"missing or unexpected: .*(lm_head|embed_tokens)": "so it does not miss what is beside them; "
    "peft would begin with an update of zero there",
}
# Fields about training alone: a store need not mind nonsense in them, peft's constructor does.
TRAINING = (
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
    "inference_mode", "lora_dropout", "lora_ga_config", "megatron_core", "monteclora_config",
    "qalora_group_size", "revision", "runtime_config",
)  # fmt: skip
PEFT_SECONDS = 4.0  # of processor time: a pattern that re takes longer with is none for peft either
LARGEST_RANK = 1024  # peft would allocate what any larger one asks for

Loaded = dict[str, tuple[torch.Tensor, torch.Tensor, float]]  # by module path: A, B, scaling


class NotLoaded(Exception):
    """Why peft does not take an adapter as it is."""


def check(config_json: str, data: bytes) -> Validated | InvalidAdapter:
    """Raises AssertionError if the store's word does not hold."""
    said = judge(config_json, data)
    if isinstance(said, InvalidAdapter):
        if not _is_documented(said):
            try:
                load_with_peft(config_json, data)
            except NotLoaded:
                return said
            raise AssertionError(f"peft loads it, the store says: {said}")
        return said
    _unpacker().unpack([said.data], said.digest, HeldImage())
    try:
        theirs = load_with_peft(config_json, data)
    except NotLoaded as error:
        if any(re.search(words, str(error), re.DOTALL) for words in TOLERATED):
            return said
        raise AssertionError(f"the store takes it, peft says: {error}") from error
    _agree(said, theirs)
    return said


def load_with_peft(config_json: str, data: bytes) -> Loaded:
    """Raises NotLoaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _no_longer_than(PEFT_SECONDS):
                model: Any = get_peft_model(copy.deepcopy(_reference()), _config(config_json))
                result: Any = set_peft_model_state_dict(model, load(data))
        except Exception as error:
            raise NotLoaded(f"{type(error).__name__}: {error}") from error
    lost = [key for key in result.missing_keys if "lora_" in key] + list(result.unexpected_keys)
    if lost:
        raise NotLoaded(f"missing or unexpected: {lost[:3]}")
    loaded: Loaded = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            if module.lora_variant or module.lora_bias["default"]:
                raise NotLoaded(f"{name} is more than LoRA")
            a, b = (getattr(module, side)["default"].weight for side in ("lora_A", "lora_B"))
            path = name.removeprefix("base_model.model.")
            loaded[path] = (a.detach(), b.detach(), float(module.scaling["default"]))
    return loaded


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Raises TimeoutError, in the middle of a match too. For the main thread."""

    def end(*_: object) -> None:
        raise TimeoutError("it takes too long")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _config(config_json: str) -> Any:
    raw = json.loads(config_json)
    if raw["peft_type"] != "LORA":
        raise NotLoaded("another method")
    raw = {name: value for name, value in raw.items() if name not in TRAINING}
    if raw.get("init_lora_weights") in (None, False, "gaussian", "eva", "orthogonal"):
        raw["init_lora_weights"] = True  # how weights begin is nothing to one who brings them
    config: Any = PeftConfigMixin.from_peft_type(**raw)
    if max([config.r, *(config.rank_pattern or {}).values()]) > LARGEST_RANK:
        raise NotLoaded("a rank too large to try")
    return config


def _agree(said: Validated, theirs: Loaded) -> None:
    ours = load(said.data)
    header = json.loads(said.data[8 : 8 + int.from_bytes(said.data[:8], "little")])
    scaling = json.loads(header["__metadata__"]["lorikeet"])["scaling"]
    sites = {module.path: module.site for module in BASE.modules}
    assert {sites[path] for path in theirs} == scaling.keys()
    for path, (a, b, scale) in theirs.items():
        site = sites[path]
        assert torch.equal(ours[f"{site}.A"].float(), a), path
        assert torch.equal(ours[f"{site}.B"].float().T, b), path
        assert math.isclose(scaling[site], scale), path


def _is_documented(refusal: InvalidAdapter) -> bool:
    said = [f"{violation.field}: {violation.description}" for violation in refusal.violations]
    return any(re.search(words, text) for text in said for words in UNSUPPORTED)


@functools.cache
def _reference() -> Any:
    return make_reference("llama")


@functools.cache
def _unpacker() -> Unpacker:
    widths = {module.site: module.out_features for module in BASE.modules}
    return Unpacker(BASE.fingerprint, widths, page_elements(NETWORK, 16))
