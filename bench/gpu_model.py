"""What is measured on a GPU: sizes, and models of random numbers made on the device."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from services.gpu_worker.kernels.device import Device
from services.gpu_worker.model.config import ModelConfig
from services.gpu_worker.model.layout import FUSED, Factors
from services.gpu_worker.model.llama import Llama, build_llama
from services.gpu_worker.model.packing import Packing, pack

LLAMA_8B = ModelConfig(
    architecture="LlamaForCausalLM",
    hidden=4096,
    intermediate=14336,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocabulary=128256,
    context=8192,
    norm_eps=1e-5,
    rope_theta=500000.0,
)
TINY = replace(
    LLAMA_8B, hidden=64, intermediate=96, layers=2, heads=4, kv_heads=2, head_dim=16,
    vocabulary=120, context=256,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """`share` is of the memory's speed, for kernels that are bound by it; else of the base's."""

    measured: str
    value: float
    unit: str
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: all of it on a GPU, next to nothing interpreted."""

    config: ModelConfig
    tokens: Sequence[int]
    adapters: Sequence[int]
    swept: Sequence[int]
    requests: int
    prompt: int
    outputs: int
    context: int
    copies: int  # bytes of the copy that the memory's speed is measured by


FULL = Size(
    LLAMA_8B,
    (1, 8, 32, 128, 1024),
    (1, 8, 32),
    (0, 1, 8, 32, 128, 1000),
    128,
    128,
    64,
    1024,
    1 << 31,
)
SMALL = Size(
    TINY,
    tokens=(1, 4),
    adapters=(1, 2),
    swept=(0, 2),
    requests=2,
    prompt=20,
    outputs=2,
    context=40,
    copies=1 << 20,
)


PAGE = 16
RANKS: tuple[tuple[int, ...], ...] = ((8,), (16,), (64,), (8, 16, 32, 64))


class RandomWeights(Mapping[str, Tensor]):
    """Every tensor is made when it is asked for, and kept by nobody here."""

    def __init__(self, config: ModelConfig, device: Device) -> None:
        self._device = device
        attention = {"q": config.q_width, "k": config.kv_width, "v": config.kv_width}
        self._shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (config.vocabulary, config.hidden),
            "lm_head.weight": (config.vocabulary, config.hidden),
            "model.norm.weight": (config.hidden,),
        }
        for layer in range(config.layers):
            at = f"model.layers.{layer}"
            for name, width in attention.items():
                self._shapes[f"{at}.self_attn.{name}_proj.weight"] = (width, config.hidden)
            self._shapes[f"{at}.self_attn.o_proj.weight"] = (config.hidden, config.q_width)
            for name in ("gate", "up"):
                self._shapes[f"{at}.mlp.{name}_proj.weight"] = (config.intermediate, config.hidden)
            self._shapes[f"{at}.mlp.down_proj.weight"] = (config.hidden, config.intermediate)
            for name in ("input_layernorm", "post_attention_layernorm"):
                self._shapes[f"{at}.{name}.weight"] = (config.hidden,)

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        place, dtype = self._device.place, self._device.dtype
        if len(shape) == 1:
            return torch.ones(shape, device=place, dtype=dtype)
        return torch.randn(shape, device=place, dtype=dtype).mul_(shape[1] ** -0.5)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def made_model(config: ModelConfig, device: Device) -> Llama:
    return build_llama(config, RandomWeights(config, device), device)


def random_packing(
    config: ModelConfig, rank: int, elements: int, *, layers: int | None = None
) -> Packing:
    """An all-linear adapter."""
    q, kv, hidden, wide = config.q_width, config.kv_width, config.hidden, config.intermediate
    shapes = {
        "q": (hidden, q), "k": (hidden, kv), "v": (hidden, kv), "o": (q, hidden),
        "gate": (hidden, wide), "up": (hidden, wide), "down": (wide, hidden),
    }  # fmt: skip
    assert set(shapes) == {module for modules in FUSED.values() for module in modules}
    count = layers or config.layers
    sites, widths = {}, {}
    for layer in range(count):
        for name, (inputs, outputs) in shapes.items():
            a = torch.randn(rank, inputs) * inputs**-0.5
            sites[f"{layer}.{name}"] = Factors(
                a.numpy(), (torch.randn(rank, outputs) * 0.01).numpy()
            )
            widths[f"{layer}.{name}"] = outputs
    return pack(sites, widths, layers=count, elements=elements)
