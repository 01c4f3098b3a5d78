"""The base model with an adapter on it, and what it says to packs of examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor

from services.runtime.model_files import found_model
from services.trainer.config import TrainingConfig
from services.trainer.training.encoding import Encoded
from services.trainer.training.loading import load_weights
from services.trainer.training.losses import losses_of


def load_base(path: Path, device: torch.device) -> Any:
    """A Hugging Face folder, a GGUF file or the folder of one."""
    return load_weights(found_model(path), device)


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
        """As losses_of says."""
        return losses_of(self._model, pack, self.device)

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
