"""The base model with an adapter on it, and what it says to packs of examples."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from services.runtime.model_files import found_model
from services.trainer.config import TrainingConfig
from services.trainer.training.encoding import Encoded


def load_base(path: Path, device: torch.device) -> Any:
    """A Hugging Face folder or a GGUF file."""
    path = found_model(path)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    where = {"gguf_file": path.name} if path.is_file() else {}
    folder = path.parent if path.is_file() else path
    with contextlib.redirect_stderr(io.StringIO()):  # bars of progress
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, **where, dtype=dtype, local_files_only=True
        )
    return model.to(device)


class Network:
    """Only the adapter learns. Its first weights are as torch's generators stand."""

    def __init__(self, base: Any, config: TrainingConfig, *, base_name: str) -> None:
        alpha: Any = int(config.alpha) if config.alpha == int(config.alpha) else config.alpha
        self._model = get_peft_model(
            base,
            LoraConfig(
                r=config.rank,
                lora_alpha=alpha,
                lora_dropout=config.dropout,
                target_modules=list(config.target_modules),
                task_type="CAUSAL_LM",
            ),
        )
        self._peft: Any = self._model.peft_config["default"]
        self._peft.base_model_name_or_path = base_name
        self.device: torch.device = next(self._model.parameters()).device

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Of the adapter, by name."""
        return {
            name: parameter
            for name, parameter in self._model.named_parameters()
            if parameter.requires_grad
        }

    def learning(self, learns: bool) -> None:
        """Whether dropout is on."""
        self._model.train(learns)

    def losses(self, pack: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        """Of every token that is to be predicted: its loss in nats, and its example's place in the
        pack. Positions begin anew with each example, and none attends to another."""
        tokens = [token for each in pack for token in each.tokens]
        positions = [position for each in pack for position in range(len(each.tokens))]
        predicted: list[int] = []
        owners: list[int] = []
        start = 0
        for place, each in enumerate(pack):
            predicted += range(start + each.learnt, start + len(each.tokens))
            owners += [place] * each.targets
            start += len(each.tokens)
        ids = self._row(tokens)
        targets = self._row(predicted)[0]
        logits = self._model(
            input_ids=ids,
            position_ids=self._row(positions),
            use_cache=False,
            logits_to_keep=targets - 1,
        ).logits[0]
        losses = functional.cross_entropy(logits.float(), ids[0, targets], reduction="none")
        return losses, self._row(owners)[0]

    def load(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])

    def save(self, folder: Path) -> None:
        """As a PEFT folder: the two files that the store takes."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            name.replace(".default.", "."): parameter.detach().cpu().contiguous()
            for name, parameter in self.parameters.items()
        }
        save_file(weights, folder / "adapter_model.safetensors")
        self._peft.inference_mode = True
        self._peft.save_pretrained(folder)

    def _row(self, values: Sequence[int]) -> Tensor:
        return torch.tensor([values], dtype=torch.long, device=self.device)
