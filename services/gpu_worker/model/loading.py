"""A model on disk, made ready: a Hugging Face folder or a GGUF file."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from services.core.base_model import BaseModel
from services.core.errors import FailedPrecondition
from services.core.types import Fingerprint
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.kernels.device import Device
from services.gpu_worker.model.config import ModelConfig, read_config
from services.gpu_worker.model.llama import Llama, build_llama
from services.runtime.model_files import (
    files_of,
    fingerprint_of,
    found_model,
    read_json,
    shards_of,
)

SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")

Build = Callable[[ModelConfig, Mapping[str, Tensor], Device, Tensor | None], Llama]
"""See build_llama."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    card: BaseModel
    network: Llama


def load_model(
    path: Path,
    *,
    name: str | None = None,
    device: Device | None = None,
    build: Build = build_llama,
) -> LoadedModel:
    """On the CPU if no device is given.

    Raises FailedPrecondition that says what is missing, corrupt or not supported.
    """
    path = found_model(path)
    load = _load_folder if path.is_dir() else _load_gguf
    return load(path, name, device or CpuDevice(), build)


def _load_folder(folder: Path, name: str | None, device: Device, build: Build) -> LoadedModel:
    raw = read_json(folder / "config.json")
    config = read_config(raw)
    shards = shards_of(folder)
    weights: dict[str, Tensor] = {}
    for shard in shards:
        try:
            weights |= load_file(shard)
        except (safetensors.SafetensorError, OSError) as error:
            raise FailedPrecondition(f"{shard.name} cannot be read: {error}") from error
    said = str(raw.get("_name_or_path") or "")
    generation = read_json(folder / "generation_config.json", optional=True)
    tokens = read_json(folder / "tokenizer_config.json", optional=True)
    card = _card(
        config,
        name=name or _slug(said or folder.resolve().name),
        said=said,
        fingerprint=fingerprint_of(files_of(folder)),
        end_tokens=[raw.get("eos_token_id"), generation.get("eos_token_id")],
        chat_template=_chat_template(folder, tokens),
        special_tokens={key: _token_text(tokens.get(key)) for key in SPECIAL_TOKENS},
        tokenizer_json=(folder / "tokenizer.json").read_bytes(),
    )
    return LoadedModel(card, build(config, weights, device, None))


def _load_gguf(path: Path, name: str | None, device: Device, build: Build) -> LoadedModel:
    # Only GGUF files need the package that reads them.
    from services.gpu_worker.model.gguf import read_gguf  # noqa: PLC0415

    found = read_gguf(path)
    config = read_config(found.config)
    stem = _slug(_QUANTISATION.sub("", path.stem))
    card = _card(
        config,
        name=name or stem,
        said=_HUB_NAMES.get(stem, found.name),
        fingerprint=fingerprint_of(files_of(path)),
        end_tokens=[list(found.end_tokens)],
        chat_template=found.chat_template,
        special_tokens=found.special_tokens,
        tokenizer_json=found.tokenizer_json,
    )
    return LoadedModel(card, build(config, found.weights, device, found.rope_divisors))


def _card(
    config: ModelConfig,
    *,
    name: str,
    said: str,
    fingerprint: Fingerprint,
    end_tokens: Iterable[int | list[int] | None],
    chat_template: str,
    special_tokens: Mapping[str, str],
    tokenizer_json: bytes,
) -> BaseModel:
    ends: set[int] = set()
    for entry in end_tokens:
        ends.update([entry] if isinstance(entry, int) else entry or [])
    try:
        Tokenizer.from_str(tokenizer_json.decode())
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise FailedPrecondition(f"the tokenizer cannot be read: {error}") from error
    return BaseModel(
        name=name,
        also_known_as=tuple(sorted({said} - {"", name})),
        fingerprint=fingerprint,
        architecture=config.architecture,
        context_tokens=config.context,
        vocabulary_tokens=config.vocabulary,
        end_tokens=tuple(sorted(ends)),
        chat_template=chat_template,
        special_tokens={key: text for key, text in special_tokens.items() if text},
        modules=config.modules(),
        tokenizer_json=tokenizer_json,
        head_dim=config.head_dim,
    )


def _chat_template(folder: Path, tokens: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text()
    template = tokens.get("chat_template") or ""
    if isinstance(template, list):  # several by name
        named = {entry["name"]: entry["template"] for entry in template}
        return str(named.get("default", ""))
    return str(template)


def _token_text(token: str | dict[str, Any] | None) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else token or ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.rsplit("/", maxsplit=1)[-1].lower()).strip("-")


_QUANTISATION = re.compile(r"[.-](I?Q\d\w*|B?F16|F32)$", re.IGNORECASE)

# A GGUF file does not say what its model is called on the hub, as adapters do.
_HUB_NAMES = {
    f"smollm2-{size}-instruct": f"HuggingFaceTB/SmolLM2-{size.upper()}-Instruct"
    for size in ("135m", "360m")
}
