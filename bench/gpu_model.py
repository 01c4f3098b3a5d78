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
class Claim:
    """`value` is `this` divided by `that`."""

    claim: str
    this: float
    that: float
    value: float
    target: str


def claim(name: str, this: float, that: float, target: str) -> Claim:
    return Claim(name, this, that, this / that, target)


Found = tuple[list[Row], list[Claim]]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: all of it on a GPU, next to nothing interpreted."""

    config: ModelConfig
    tokens: Sequence[int]  # of kernels alone
    adapters: Sequence[int]  # of kernels and decode steps
    swept: Sequence[int]  # of whole runs
    many: int  # adapters that are resident, and more than run
    pressed: int  # adapters, where memory is little
    peers: Sequence[int]  # of transformers and peft
    requests: int  # of whole runs
    batch: int  # of decode steps
    steps: int  # timed
    prompt: int
    outputs: int
    context: int
    prefill: int  # tokens of a step of prompts
    copies: int  # bytes of the copy that the memory's speed is measured by
    square: int  # width of the product that the device's is


FULL = Size(
    LLAMA_8B,
    tokens=(1, 8, 32, 128, 1024),
    adapters=(1, 8, 32),
    swept=(0, 1, 5, 8, 32, 128, 1000),
    many=1000,
    pressed=200,
    peers=(0, 1, 8, 32, 100),
    requests=128,
    batch=32,
    steps=40,
    prompt=128,
    outputs=64,
    context=1024,
    prefill=2048,
    copies=1 << 31,
    square=8192,
)
SMALL = Size(
    TINY,
    tokens=(1, 4),
    adapters=(1, 2),
    swept=(0, 2),
    many=3,
    pressed=3,
    peers=(0, 1),
    requests=2,
    batch=2,
    steps=1,
    prompt=20,
    outputs=2,
    context=40,
    prefill=24,
    copies=1 << 20,
    square=64,
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
