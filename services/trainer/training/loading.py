"""A base model out of its files."""

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM


def load_weights(path: Path, device: torch.device) -> Any:
    """`path`: a Hugging Face folder or a GGUF file itself."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    where = {"gguf_file": path.name} if path.is_file() else {}
    folder = path.parent if path.is_file() else path
    with contextlib.redirect_stderr(io.StringIO()):  # bars of progress
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, **where, dtype=dtype, local_files_only=True
        )
    return model.to(device)
