"""What is measured: prompts, adapters and arrivals, the same for us and for our peers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.adapter_store.canonical import CanonicalAdapter, Pair, canonical
from services.adapter_store.peft import read_config
from services.adapter_store.tensors import WEIGHTS, Rows
from services.adapter_store.validation import validate
from services.core.base_model import BaseModel
from services.core.types import Digest

RANKS = (8, 16, 32)
PART_BYTES = 1 << 20
PROMPT_TOKENS = 64
OUTPUT_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that comes `at` seconds after the start; adapter is its index, or None."""

    at: float
    prompt: tuple[int, ...]
    output_tokens: int
    adapter: int | None


def prompt(number: int, tokens: int = PROMPT_TOKENS) -> tuple[int, ...]:
    """The prompts of ../shared/peers/workload.py."""
    return tuple((7 * number + j) % 40_000 + 100 for j in range(tokens))


def saturated(requests: int, adapters: int) -> list[Arrival]:
    """All requests at once, adapters in turn."""
    return [
        Arrival(0.0, prompt(i), OUTPUT_TOKENS, i % adapters if adapters else None)
        for i in range(requests)
    ]


def drawn(requests: int, adapters: int, *, seed: int = 42) -> list[Arrival]:
    """All requests at once, each with one of the adapters, every one as likely."""
    which = np.random.default_rng(seed).integers(0, adapters, requests)
    return [Arrival(0.0, prompt(i), OUTPUT_TOKENS, int(adapter)) for i, adapter in enumerate(which)]


def s_lora_trace(
    *, adapters: int, alpha: float, rate: float, cv: float, seconds: float, seed: int = 42
) -> list[Arrival]:
    """S-LoRA's generator (benchmarks/trace.py): power-law adapters, Gamma gaps, U[8, 512) lengths.

    alpha = 1 draws adapters uniformly; smaller is more skewed. cv = 1 is a Poisson process.
    """
    random = np.random.default_rng(seed)
    count = int(rate * seconds)
    which = (random.power(alpha, count) * adapters).astype(int)
    moments = random.gamma(1 / cv**2, cv**2 / rate, count).cumsum()
    lengths = random.integers(8, 512, (count, 2))
    return [
        Arrival(
            float(moment), prompt(i, int(inputs)), int(outputs), int(adapter) if adapters else None
        )
        for i, (moment, adapter, (inputs, outputs)) in enumerate(
            zip(moments, which, lengths, strict=True)
        )
    ]


@dataclass(frozen=True, slots=True)
class Held:
    """A tensors.Matrix of float32 in memory."""

    values: Rows

    @property
    def dtype(self) -> str:
        return "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def start(self) -> int:
        return 0

    def pieces(self) -> Iterator[Rows]:
        yield self.values


@dataclass(frozen=True, slots=True)
class Folder:
    """A fetch_process.Source: canonical files under their digests."""

    path: Path

    def download(self, digest: Digest) -> Iterator[bytes]:
        """In parts, as over a network: the kernel may not be interrupted within one."""
        with (self.path / digest).open("rb", buffering=0) as file:
            while part := file.read(PART_BYTES):
                yield part

    def filled(self, base: BaseModel, count: int) -> list[Digest]:
        """The digests of so many random adapters, which are written unless they are there."""
        self.path.mkdir(parents=True, exist_ok=True)
        listing = self.path / f"{base.fingerprint[:12]}-{count}.txt"
        if not listing.exists():
            digests = []
            for adapter in random_adapters(base, count):
                with (self.path / adapter.digest).open("wb") as file:
                    file.writelines(adapter.pieces())
                digests.append(adapter.digest)
            listing.write_text("\n".join(digests))
        return [Digest(line) for line in listing.read_text().split()]


def written_adapters(folder: Path, base: BaseModel, count: int) -> Iterator[CanonicalAdapter]:
    """PEFT folders a0, a1, ... as ../shared/peers/make_inputs.py writes them."""
    for index in range(count):
        yield read_adapter(folder / f"a{index}", base)


def read_adapter(folder: Path, base: BaseModel) -> CanonicalAdapter:
    config = read_config((folder / "adapter_config.json").read_text())
    return validate(folder / WEIGHTS, config, base, max_rank=256)


def random_adapters(
    base: BaseModel, count: int, *, ranks: Sequence[int] = RANKS, seed: int = 0
) -> Iterator[CanonicalAdapter]:
    """All-linear adapters with ranks in turn, alpha = 2 * rank, and a B that is not zero.

    Each is cut out of the same random numbers at a place of its own.
    """
    random = np.random.default_rng(seed)
    numbers = random.standard_normal(1 << 24, np.float32) * np.float32(0.02)
    for index in range(count):
        rank = ranks[index % len(ranks)]
        pairs = {}
        for module in base.modules:
            shapes = ((rank, module.in_features), (module.out_features, rank))
            starts = [int(random.integers(0, numbers.size - math.prod(shape))) for shape in shapes]
            a, b = (
                Held(numbers[start : start + math.prod(shape)].reshape(shape))
                for start, shape in zip(starts, shapes, strict=True)
            )
            pairs[module.site] = Pair(a, b, 2.0)
        yield canonical(pairs, base.fingerprint)
