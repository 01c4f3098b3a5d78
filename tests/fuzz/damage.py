"""Everything that may be wrong with an adapter, or look so."""

import copy
import json
import struct
from collections.abc import Callable
from typing import Any

from tests.fuzz.draft import BASE, MAX_RANK, NAMES, Choices, Draft, Entry, pick

ODD_TEXTS = (
    "",
    " ",
    "\x00",
    "é",
    "q_proj\n",
    "\ud800",
    "..",
    "lora_A",
    "base_model.model.",
    "a" * 300,
)
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 17, 2**31, 2**63, 10**30, 0.0, 1.5, -0.0, 1e300, 1e-300,
    float("nan"), float("inf"), *ODD_TEXTS, "q_proj", "all-linear", "ALL-LINEAR", "none",
    "gaussian", "orthogonal", "pissa", "true", "4", [], {}, [0], [1, 2], [True], ["q_proj"], [""],
    [None], [[1]], {"q_proj": 2}, {"": 1}, {"q_proj": True}, {"q_proj": None}, {".*": 3}, {"(": 4},
)  # fmt: skip
FIELDS = (
    "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern", "peft_type", "task_type", "bias",
    "init_lora_weights", "use_dora", "lora_bias", "modules_to_save", "trainable_token_indices",
    "target_parameters", "layer_replication", "megatron_config", "loftq_config", "use_qalora",
    "alora_invocation_tokens", "arrow_config", "use_bdlora", "kasa_config", "velora_config",
    "monteclora_config", "eva_config", "corda_config", "fan_in_fan_out", "lora_dropout",
    "base_model_name_or_path", "revision", "auto_mapping", "inference_mode", "ensure_weight_tying",
    "runtime_config", "something_of_tomorrow", "é\x00",
)  # fmt: skip
PATTERNS = (
    r".*", r".*_proj", r".*\.layers\.[02]\..*(q|v)_proj", r"model\.layers\.\d+\.self_attn\.q_proj",
    "(", "[", "a{2", r"(?P<idx>.*)q_proj", r"(.*\.)?(q|v)_proj", r"(?i).*Q_PROJ", r"(?x) .* q_proj",
    r".*q_pro{1,2}j", r".*q_proj{e<=1}", "(?:" * 200 + "q" + ")" * 200, "(" * 3000 + ")" * 3000,
    r"(?:(?:(?:a{1000}){1000}){1000})", r"(\w|\w\w|\w\w\w|\.\w?|\w\.)*[^\w.]", r".*q_proj$",
    "q_proj|", r"(layers|blocks)", r".*[[:alpha:]]_proj", "\\", r"\g<1>", r"(?#", "é", r"(?R)",
    r"(?<=x*)q_proj", r".*\.layers\.[0-9]{1,2}\..*_proj",
    r"(?P<x>q|(?&x))", r"(?x)( ?R)", r"(?1)(q)", r"(?:.{1000}|x){1000}",
)  # fmt: skip


def _odd_field(draft: Draft, choices: Choices) -> None:
    draft.config[pick(choices, FIELDS)] = copy.deepcopy(pick(choices, ODD_VALUES))


def _missing_field(draft: Draft, choices: Choices) -> None:
    draft.config.pop(pick(choices, FIELDS), None)


def _odd_pattern(draft: Draft, choices: Choices) -> None:
    pattern = pick(choices, PATTERNS)
    change: Any = pick(
        choices,
        (
            {"target_modules": pattern},
            {"target_modules": [pattern, "q_proj"]},
            {"exclude_modules": pattern},
            {"rank_pattern": {pattern: 3}},
            {"alpha_pattern": {pattern: 3}},
            {"layers_pattern": pattern},
            {"layers_pattern": ["x", pattern], "layers_to_transform": [1]},
        ),
    )
    draft.config.update(change)


def _other_selection(draft: Draft, choices: Choices) -> None:
    change: Any = pick(
        choices,
        (
            {"exclude_modules": [pick(choices, NAMES)]},
            {"layers_to_transform": pick(choices, (0, 1, 7, -1, [0], [2, 2], [], True))},
            {"target_modules": [pick(choices, NAMES)]},
            {"target_modules": "all-linear"},
            {"target_modules": ["q_proj", "lm_head"]},
            {"target_modules": [BASE.modules[0].path, "v_proj"], "layers_to_transform": [1]},
            {"rank_pattern": {pick(choices, NAMES): choices.whole(1, 5)}},
            {"r": choices.whole(1, MAX_RANK + 1)},
            {"layers_pattern": "layers"},
        ),
    )
    draft.config.update(change)


def _odd_json(draft: Draft, choices: Choices) -> None:
    text = json.dumps(draft.config)
    draft.config_text = pick(
        choices,
        (
            text[:-1] + ', "r": 2}',
            text[: choices.whole(0, len(text))],
            "[" * 50_000,
            '{"a":' * 20_000,
            text + "x",
            "\ufeff" + text,
            text.replace("LORA", "\ud800"),
            text[:-1] + ', "x": ' + "9" * 5000 + "}",
            text[:-1] + ', "x": "' + "y" * 70_000 + '"}',
            json.dumps([draft.config]),
            "null",
            "",
        ),
    )


def _odd_name(draft: Draft, choices: Choices) -> None:
    entry = _some(draft, choices)
    odd = pick(choices, ODD_TEXTS)
    entry.name = pick(
        choices,
        (
            odd,
            entry.name + odd,
            odd + entry.name,
            entry.name.replace(".weight", ".default.weight"),
            entry.name.replace(".weight", ".other.weight"),
            entry.name.replace("base_model.model.", ""),
            entry.name.replace("lora_A", "lora_B"),
            entry.name.replace("lora_A", "lora_C"),
            entry.name.replace("layers.", "layers.0"),
            entry.name.replace("weight", "bias"),
            entry.name.replace(".lora_A.weight", ".lora_magnitude_vector"),
            entry.name.replace("_proj", "_pr\x00oj"),
            "base_model.model.lm_head.lora_A.weight",
        ),
    )


def _odd_entry(draft: Draft, choices: Choices) -> None:
    entry = _some(draft, choices)
    size, rows = len(entry.data), entry.shape
    entry.dtype, entry.shape, entry.offsets = pick(
        choices,
        (
            ("F64", rows, None),
            ("I8", rows, None),
            ("F8_E4M3", [size], None),
            ("U8", [size], None),
            ("F4", [2, size], None),
            ("Q4", rows, None),
            (None, rows, None),
            (7, rows, None),
            (entry.dtype, [0, 48], None),
            (entry.dtype, [], None),
            (entry.dtype, [2**32, 2**32], None),
            (entry.dtype, [2**63, 2], None),
            (entry.dtype, [2**64, 1], None),
            (entry.dtype, [-1, -48], None),
            (entry.dtype, [1.0, 48], None),
            (entry.dtype, [True, 48], None),
            (entry.dtype, "48", None),
            (entry.dtype, rows if not isinstance(rows, list) else rows[::-1], None),
            (entry.dtype, [*rows, 1] if isinstance(rows, list) else rows, None),
            (entry.dtype, rows, [0, size]),
            (entry.dtype, rows, [size, 0]),
            (entry.dtype, rows, [8, 8 + size]),
            (entry.dtype, rows, [2**63, 2**63 + size]),
            (entry.dtype, rows, [-size, 0]),
            (entry.dtype, rows, [0]),
            (entry.dtype, rows, [0.0, float(size)]),
            (entry.dtype, rows, None if choices.whole(0, 1) else []),
        ),
    )


def _odd_bytes(draft: Draft, choices: Choices) -> None:
    """Values that are not finite, more bytes or fewer."""
    entry = _some(draft, choices)
    start = choices.whole(0, max(0, len(entry.data) // 4 - 1)) * 4
    odd = pick(
        choices,
        (b"\xff\xff\xff\xff", b"\x00\x00\x80\x7f", b"\x80\x7f\x80\xff", b"\x00\x7c\x00\xfc", b""),
    )
    entry.data = entry.data[:start] + (odd or choices.blob(4)) + entry.data[start + 4 :]


def _resize(draft: Draft, choices: Choices) -> None:
    entry = _some(draft, choices)
    entry.data = pick(choices, (entry.data[:-4], entry.data + b"\0" * 4, b"", entry.data * 2))


def _without(draft: Draft, choices: Choices) -> None:
    draft.entries.remove(_some(draft, choices))


def _again(draft: Draft, choices: Choices) -> None:
    """Under the same name, or as an extra tensor."""
    entry = copy.copy(_some(draft, choices))
    if choices.whole(0, 1):
        entry.name = entry.name.replace("layers.", pick(choices, ("layers.9", "x", "layers.1")))
    draft.entries.append(entry)


def _empty_tensor(draft: Draft, choices: Choices) -> None:
    name = pick(choices, ("nothing", "base_model.model.x.lora_A.weight", *ODD_TEXTS))
    draft.entries.append(Entry(name, "F32", pick(choices, ([0], [0, 48], [])), b""))


def _other_order(draft: Draft, choices: Choices) -> None:
    draft.entries.reverse()


def _odd_metadata(draft: Draft, choices: Choices) -> None:
    draft.metadata = pick(
        choices, ({"format": "pt"}, {}, {"x": 1}, [], "x", None, {"lorikeet": "{}"}, {"x": None})
    )


def _odd_file(draft: Draft, choices: Choices) -> None:
    """After it was written: its length, its header, any byte."""
    where, value = choices.whole(0, 2**16), choices.blob(2)
    lengths = (0, 1, 2**16, 100_000_000, 2**62, 2**64 - 1)
    length = pick(choices, lengths)

    def flipped(data: bytes) -> bytes:
        at = where % max(1, len(data))
        return data[:at] + value + data[at + 2 :]

    draft.file_damage.append(
        pick(
            choices,
            (
                flipped,
                lambda data: data[: where % (len(data) + 1)],
                lambda data: data + value,
                lambda data: struct.pack("<Q", length) + data[8:],
                lambda data: struct.pack("<Q", max(0, len(data) - 8)) + data[8:],
                lambda data: b"PK\x03\x04" + data,
                lambda data: data[:8] + b"[" * (len(data) - 8),
                lambda data: data.replace(b"}", b",}", 1),
                lambda data: data.replace(b'"dtype"', b'"dtypo"', 1),
                lambda data: data.replace(b'"shape"', b'"dtype"', 1),
                lambda data: data.replace(b'"F', b'"\xff', 1),
                lambda data: b"",
            ),
        )
    )


def _some(draft: Draft, choices: Choices) -> Entry:
    if not draft.entries:
        draft.entries.append(Entry("x", "F32", [1], b"\0" * 4))
    return pick(choices, draft.entries)


DAMAGES: tuple[Callable[[Draft, Choices], None], ...] = (
    _odd_field, _odd_field, _missing_field, _odd_pattern, _other_selection, _odd_json, _odd_name,
    _odd_entry, _odd_bytes, _resize, _without, _again, _empty_tensor, _other_order, _odd_metadata,
    _odd_file,
)  # fmt: skip
