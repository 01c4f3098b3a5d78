"""Logits to tokens. A draw depends on its seed and position only, never on the batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from services.core.types import PositionLogprobs, SamplingParams, TokenLogprob
from services.gpu_worker.engine.engine import Sampled


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row is sampled; `position` counts the sequence's tokens."""

    sampling: SamplingParams
    position: int


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[Sampled]:
    """logits: [rows, vocabulary], one row a draw."""
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    random = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0]
    if random:
        drawn = _draw(logits[random], [draws[row] for row in random])
        for row, token in zip(random, drawn, strict=True):
            tokens[row] = token
    return [
        Sampled(token, _logprobs(logits[row], token, draw.sampling.top_logprobs))
        if draw.sampling.logprobs
        else Sampled(token)
        for row, (token, draw) in enumerate(zip(tokens, draws, strict=True))
    ]


def _draw(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Inverse transform over the kept tokens, most likely first."""
    temperature = torch.tensor([draw.sampling.temperature for draw in draws])
    top_p = torch.tensor([draw.sampling.top_p for draw in draws])
    top_k = torch.tensor([draw.sampling.top_k or logits.shape[-1] for draw in draws])
    scaled = logits.double() / temperature.double().clamp_min(1e-4).unsqueeze(1)
    probabilities, order = scaled.softmax(-1).sort(dim=-1, descending=True, stable=True)
    mass = probabilities.cumsum(-1)
    ranks = torch.arange(logits.shape[-1])
    # A token stays while the mass before it is short of top_p; the first always stays.
    keep = (mass - probabilities < top_p.unsqueeze(1)) & (ranks < top_k.unsqueeze(1))
    keep[:, 0] = True
    mass = (probabilities * keep).cumsum(-1)
    uniform = torch.tensor([_uniform(draw) for draw in draws], dtype=torch.float64)
    target = uniform.unsqueeze(1) * mass[:, -1:]
    chosen = torch.searchsorted(mass, target, right=True).clamp_max(keep.sum(-1, True) - 1)
    tokens: list[int] = order.gather(1, chosen).squeeze(1).tolist()
    return tokens


def _uniform(draw: Draw) -> float:
    """In [0, 1), from a counter-based generator: resumable at any position, on any worker."""
    bits = np.random.Philox(key=draw.sampling.seed, counter=draw.position)
    return float(np.random.Generator(bits).random())


def _logprobs(logits: Tensor, token: int, count: int) -> PositionLogprobs:
    logprobs = logits.double().log_softmax(-1)
    top = logprobs.topk(count) if count else None
    return PositionLogprobs(
        chosen=TokenLogprob(token, float(logprobs[token])),
        top=()
        if top is None
        else tuple(
            TokenLogprob(index, value)
            for index, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ),
    )
