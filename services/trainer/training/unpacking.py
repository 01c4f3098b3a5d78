"""A site's base model as it is quickest to load: a process of each round loads it."""

import shutil
from pathlib import Path
from uuid import uuid4

import torch

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
            load_weights(found, torch.device("cpu")).save_pretrained(draft)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder, fingerprint
