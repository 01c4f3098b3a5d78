"""What a request costs its tenant: h(prompt, output), as VTC has it (OSDI'24, section 4.2).

A cost grows with both. What is charged token by token telescopes: it comes to h in the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Cost(Protocol):
    def __call__(self, prompt_tokens: float, output_tokens: float) -> float: ...


@dataclass(frozen=True, slots=True)
class WeightedTokens:
    """A token of output costs two of input, as the prices of hosted models have it."""

    prompt: float = 1.0
    output: float = 2.0

    def __call__(self, prompt_tokens: float, output_tokens: float) -> float:
        return self.prompt * prompt_tokens + self.output * output_tokens


@dataclass(frozen=True, slots=True)
class Flops:
    """GFLOP of a decoder: two for each parameter and token, and four for each layer, width and
    token that a token attends to."""

    parameters: float
    layers: int
    width: int

    def __call__(self, prompt_tokens: float, output_tokens: float) -> float:
        tokens = prompt_tokens + output_tokens
        attended = tokens * (tokens + 1) / 2
        return (2 * self.parameters * tokens + 4 * self.layers * self.width * attended) / 1e9


@dataclass(frozen=True, slots=True)
class ProfiledQuadratic:
    """Milliseconds, fitted to a device. The defaults are the VTC artifact's, of an A10G with
    Llama-2-7B."""

    prompt: float = 0.21001891
    output: float = 0.10075395
    product: float = 0.0039868
    output_squared: float = 0.00324733
    constant: float = 1.14601454

    def __call__(self, prompt_tokens: float, output_tokens: float) -> float:
        return (
            self.prompt * prompt_tokens
            + self.output * output_tokens
            + self.product * prompt_tokens * output_tokens
            + self.output_squared * output_tokens * output_tokens
            + self.constant
        )


Band = tuple[float, float]  # the first token that has the price, and the price


@dataclass(frozen=True, slots=True)
class PiecewiseLinear:
    """Tokens whose price depends on how many came before them, as price lists have it. The first
    band of each begins at 0. Raises ValueError."""

    prompt: Sequence[Band]
    output: Sequence[Band]

    def __post_init__(self) -> None:
        for bands in (self.prompt, self.output):
            starts = [start for start, _ in bands]
            if not starts or starts[0] != 0 or starts != sorted(set(starts)):
                raise ValueError("bands must begin at 0 and rise")
            if any(price < 0 for _, price in bands):
                raise ValueError("prices must be at least 0")

    def __call__(self, prompt_tokens: float, output_tokens: float) -> float:
        return _summed(self.prompt, prompt_tokens) + _summed(self.output, output_tokens)


def bound(cost: Cost, *, longest_prompt: int, pool_tokens: int) -> float:
    """U, by which the counters of those who wait may differ (lemma 4.3): who was lowest is charged
    a prompt, and fills the rest of the pool with tokens at the price of the first or the last one.

    That is max(w_p L, w_q M) for weighted tokens with w_p <= w_q, as the paper has it. Holds if
    tokens of a prompt cost no more than those of output, or become no cheaper the more they are.
    """
    first = cost(longest_prompt, 1) - cost(longest_prompt, 0)
    last = cost(longest_prompt, pool_tokens) - cost(longest_prompt, pool_tokens - 1)
    price = max(first, last)
    rest = max(0, pool_tokens - longest_prompt)
    return max(price * pool_tokens, cost(longest_prompt, 0) + price * rest)


def _summed(bands: Sequence[Band], tokens: float) -> float:
    ends = [start for start, _ in bands[1:]] + [float("inf")]
    return sum(
        price * max(0.0, min(tokens, end) - start)
        for (start, price), end in zip(bands, ends, strict=True)
    )
