"""A site's base model as it is quickest to load: a process of each round loads it."""

import json
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors.torch import save_file

from services.core.types import Fingerprint
from services.runtime.model_files import files_of, fingerprint_of, found_model
from services.trainer.training.loading import load_weights


def unpacked(model: Path, cache: Path) -> tuple[Path, Fingerprint]:
    """A Hugging Face folder of the same weights, and the fingerprint of what was given: a GGUF file
    is unpacked into `cache`, once. Raises FailedPrecondition."""
    found = found_model(model)
    fingerprint = fingerprint_of(files_of(found))
    if found.is_dir():
        return found, fingerprint
    folder = cache / fingerprint
    if not folder.exists():
        draft = cache / f".{uuid4().hex}"
        try:
            _write(load_weights(found, torch.device("cpu")), draft)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder, fingerprint


def _write(model: Any, folder: Path) -> None:
    """Weights as they were unpacked: transformers itself would not save what was quantised."""
    folder.mkdir(parents=True)
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config, default=str))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
