"""Logits to tokens. A draw depends on its seed and position only, never on the batch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from services.core.types import PositionLogprobs, SamplingParams, TokenLogprob
from services.gpu_worker.engine.engine import Sampled
from services.gpu_worker.engine.sequence import TokenFilter


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row is sampled, after which tokens, of which the first `prompt` were given."""

    sampling: SamplingParams
    tokens: Sequence[int]
    prompt: int
    filter: TokenFilter | None = None

    @property
    def adjusts(self) -> bool:
        """Whether the logits are changed before a token is chosen."""
        sampling = self.sampling
        return (
            self.filter is not None
            or bool(sampling.logit_bias)
            or (sampling.repetition_penalty, sampling.presence_penalty) != (1.0, 0.0)
            or sampling.frequency_penalty != 0.0
        )


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[Sampled]:
    """logits: [rows, vocabulary], one row a draw. Log-probabilities are of the logits as given."""
    adjusted = logits
    changed = [row for row, draw in enumerate(draws) if draw.adjusts]
    if changed:
        adjusted = logits.clone()
        for row in changed:
            _adjust(adjusted[row], draws[row])
    tokens: list[int] = adjusted.argmax(dim=-1).tolist()
    random = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0]
    if random:
        drawn = _draw(adjusted[random], [draws[row] for row in random])
        for row, token in zip(random, drawn, strict=True):
            tokens[row] = token
    return [
        Sampled(token, _logprobs(logits[row], token, draw.sampling.top_logprobs))
        if draw.sampling.logprobs
        else Sampled(token)
        for row, (token, draw) in enumerate(zip(tokens, draws, strict=True))
    ]


def _adjust(row: Tensor, draw: Draw) -> None:
    """In place: penalties, then biases, then what the constraint forbids."""
    sampling = draw.sampling
    if sampling.repetition_penalty != 1.0:  # CTRL (arXiv 1909.05858, section 4.1)
        seen = torch.tensor(sorted(set(draw.tokens)), device=row.device)
        score, penalty = row[seen], sampling.repetition_penalty
        row[seen] = torch.where(score > 0, score / penalty, score * penalty)
    counts = Counter(draw.tokens[draw.prompt :])
    if counts and (sampling.presence_penalty or sampling.frequency_penalty):
        often = torch.tensor(list(counts.values()), dtype=row.dtype, device=row.device)
        made = torch.tensor(list(counts), device=row.device)
        row[made] -= sampling.presence_penalty + sampling.frequency_penalty * often
    if sampling.logit_bias:
        biased, biases = zip(*sampling.logit_bias, strict=True)
        where = torch.tensor(biased, device=row.device)
        row[where] += torch.tensor(biases, dtype=row.dtype, device=row.device)
    if draw.filter is not None:
        bits = np.frombuffer(draw.filter.allowed(), dtype=np.uint8)
        allowed = np.unpackbits(bits, count=len(row), bitorder="little").astype(bool)
        row.masked_fill_(torch.from_numpy(~allowed).to(row.device), -torch.inf)


def _draw(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Inverse transform over the kept tokens, most likely first."""
    width = logits.shape[-1]

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device).unsqueeze(1)

    temperature = column([draw.sampling.temperature for draw in draws])
    scaled = logits.double() / temperature.clamp_min(1e-4)
    probabilities, order = scaled.softmax(-1).sort(dim=-1, descending=True, stable=True)
    mass = probabilities.cumsum(-1)
    ranks = torch.arange(width, device=logits.device)
    # A token stays while the mass before it is short of top_p; the first always stays.
    keep = mass - probabilities < column([draw.sampling.top_p for draw in draws])
    keep &= ranks < column([draw.sampling.top_k or width for draw in draws])
    keep &= probabilities >= column([d.sampling.min_p for d in draws]) * probabilities[:, :1]
    keep[:, 0] = True
    mass = (probabilities * keep).cumsum(-1)
    target = column([_uniform(draw) for draw in draws]) * mass[:, -1:]
    chosen = torch.searchsorted(mass, target, right=True).clamp_max(keep.sum(-1, True) - 1)
    tokens: list[int] = order.gather(1, chosen).squeeze(1).tolist()
    return tokens


def _uniform(draw: Draw) -> float:
    """In [0, 1), from a counter-based generator: resumable at any position, on any worker."""
    bits = np.random.Philox(key=draw.sampling.seed, counter=len(draw.tokens))
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
