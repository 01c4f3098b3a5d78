"""Adapters near the border of validity, from any source of choices, and what the store says.

One generator draws its choices from hypothesis or from bytes. It begins with an adapter that is
valid for the tiny base model, told in one of the ways that PEFT allows, and damages it.
"""

import json
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from services.adapter_store.peft import read_config
from services.core.errors import InvalidAdapter
from tests.fuzz.damage import DAMAGES
from tests.fuzz.draft import (
    BASE,
    MAX_RANK,
    NAMES,
    ByteChoices,
    Choices,
    Draft,
    DrawnChoices,
    Entry,
    pick,
)
from tests.peft_folders import peft_config
from tests.validated import Validated, validated

MOST_SECONDS = 10.0  # of processor time


@dataclass(frozen=True, slots=True)
class Case:
    config_json: str
    data: bytes


def judge(config_json: str, data: bytes) -> Validated | InvalidAdapter:
    """What the store says; it says nothing else, and it says it in time."""
    started = time.process_time()
    try:
        return validated(data, read_config(config_json), BASE, max_rank=MAX_RANK)
    except InvalidAdapter as refusal:
        return refusal
    finally:
        assert time.process_time() - started < MOST_SECONDS, "took too long"


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    return make(DrawnChoices(draw))


def from_bytes(data: bytes) -> Case:
    return make(ByteChoices(data))


def make(choices: Choices) -> Case:
    draft = _valid(choices)
    for _ in range(pick(choices, (0, 1, 1, 1, 2, 3))):
        pick(choices, DAMAGES)(draft, choices)
    data = _written(draft)
    for damage in draft.file_damage:
        data = damage(data)
    text = draft.config_text
    return Case(json.dumps(draft.config) if text is None else text, data)


def _valid(choices: Choices) -> Draft:
    """Some modules of some layers, named in one of PEFT's ways."""
    some = choices.whole(1, 2 ** len(NAMES) - 1)
    names = [name for bit, name in enumerate(NAMES) if some >> bit & 1]
    layers = [[0, 1, 2], [1], [0, 2]][choices.whole(0, 2)]
    rank = choices.whole(1, 4)
    config = peft_config(
        r=rank, lora_alpha=choices.whole(1, 8), use_rslora=bool(choices.whole(0, 1))
    )
    ranks = dict.fromkeys(names, rank)
    if choices.whole(0, 1):
        config["rank_pattern"] = {names[0]: 5}
        ranks[names[0]] = 5
    if choices.whole(0, 1):
        config["alpha_pattern"] = {names[-1]: 3, "nothing": 7}
    modules = [
        module
        for module in BASE.modules
        if module.path.rsplit(".", 1)[-1] in names and int(module.site.split(".")[0]) in layers
    ]
    config |= pick(choices, _TELLINGS)(names, layers, [module.path for module in modules])
    random = np.random.default_rng(choices.whole(0, 255))
    dtype = pick(choices, ("F32", "F16", "BF16"))
    entries = []
    infix = pick(choices, ("", "", "", ".default"))
    for module in modules:
        own = ranks[module.path.rsplit(".", 1)[-1]]
        for side, shape in (("A", (own, module.in_features)), ("B", (module.out_features, own))):
            name = f"base_model.model.{module.path}.lora_{side}{infix}.weight"
            values = random.standard_normal(shape, np.float32) * np.float32(0.05)
            entries.append(Entry(name, dtype, list(shape), _bytes(values, dtype)))
    return Draft(config, entries)


def _by_list(names: list[str], layers: list[int], paths: list[str]) -> dict[str, Any]:
    more = {} if len(layers) == 3 else {"layers_to_transform": layers}
    return {"target_modules": names} | more


def _by_pattern(names: list[str], layers: list[int], paths: list[str]) -> dict[str, Any]:
    which = "".join(map(str, layers))
    return {"target_modules": rf".*\.layers\.[{which}]\..*\.({'|'.join(names)})"}


def _by_paths(names: list[str], layers: list[int], paths: list[str]) -> dict[str, Any]:
    return {"target_modules": paths}


def _by_exclusion(names: list[str], layers: list[int], paths: list[str]) -> dict[str, Any]:
    others = [module.path for module in BASE.modules if module.path not in paths]
    return {"target_modules": "all-linear", "exclude_modules": others}


def _by_layer_names(names: list[str], layers: list[int], paths: list[str]) -> dict[str, Any]:
    pattern = {"layers_to_transform": layers, "layers_pattern": ["blocks", "layers"]}
    return {"target_modules": names} | pattern


_TELLINGS = (_by_list, _by_pattern, _by_paths, _by_exclusion, _by_layer_names)


def _bytes(values: Any, dtype: str) -> bytes:
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return bytes(values.astype({"F32": np.float32, "F16": np.float16}[dtype]).tobytes())


def _written(draft: Draft) -> bytes:
    """By hand: the library would refuse to write most of this."""
    parts, at = [], 0
    if draft.metadata is not None:
        parts.append(f'"__metadata__":{json.dumps(draft.metadata)}')
    for entry in draft.entries:
        offsets = [at, at + len(entry.data)] if entry.offsets is None else entry.offsets
        at += len(entry.data)
        facts = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}
        parts.append(f"{json.dumps(entry.name)}:{json.dumps(facts)}")
    header = f"{{{','.join(parts)}}}".encode(errors="surrogatepass")
    header += b" " * (-len(header) % 8)
    body = b"".join(entry.data for entry in draft.entries)
    return struct.pack("<Q", len(header)) + header + body + draft.tail
