"""Logits to tokens. A draw depends on its seed and position only, never on the batch."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from services.core.types import PositionLogprobs, SamplingParams, TokenLogprob
from services.gpu_worker.engine.engine import Sampled
from services.gpu_worker.engine.sequence import TokenFilter
from services.gpu_worker.kernels.transfer import fetched, integers, sent


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
    """logits: [rows, vocabulary], one row a draw. Log-probabilities are of the logits as given.

    All is chosen where the logits are, and comes to the host at once.
    """
    adjusted = _adjusted(logits, draws)
    tokens = adjusted.argmax(dim=-1)
    random = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0]
    if random:
        rows = integers(random, logits.device)
        tokens.index_copy_(0, rows, _draw(adjusted[rows], [draws[row] for row in random]))
    # Tokens are exact as float64, of which everything else is.
    found = fetched(torch.cat([tokens.double(), *_logprobs(logits, tokens, draws)])).tolist()
    others = iter(found[len(draws) :])
    return [
        Sampled(int(token), _read(others, int(token), draw.sampling.top_logprobs))
        if draw.sampling.logprobs
        else Sampled(int(token))
        for token, draw in zip(found, draws, strict=False)
    ]


def _adjusted(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    changed = [row for row, draw in enumerate(draws) if draw.adjusts]
    adjusted = logits.clone() if changed else logits
    for row in changed:
        _adjust(adjusted[row], draws[row])
    return adjusted


def _adjust(row: Tensor, draw: Draw) -> None:
    """In place: penalties, then biases, then what the constraint forbids."""
    sampling = draw.sampling
    if sampling.repetition_penalty != 1.0:  # CTRL (arXiv 1909.05858, section 4.1)
        seen = integers(sorted(set(draw.tokens)), row.device)
        score, penalty = row[seen], sampling.repetition_penalty
        row[seen] = torch.where(score > 0, score / penalty, score * penalty)
    counts = Counter(draw.tokens[draw.prompt :])
    if counts and (sampling.presence_penalty or sampling.frequency_penalty):
        often = sent(torch.tensor(list(counts.values()), dtype=row.dtype), row.device)
        made = integers(list(counts), row.device)
        row[made] -= sampling.presence_penalty + sampling.frequency_penalty * often
    if sampling.logit_bias:
        biased, biases = zip(*sampling.logit_bias, strict=True)
        where = integers(biased, row.device)
        row[where] += sent(torch.tensor(biases, dtype=row.dtype), row.device)
    if draw.filter is not None:
        bits = np.frombuffer(draw.filter.allowed(), dtype=np.uint8)
        allowed = np.unpackbits(bits, count=len(row), bitorder="little").astype(bool)
        row.masked_fill_(sent(torch.from_numpy(~allowed), row.device), -torch.inf)


def _draw(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Tokens. Inverse transform over the kept tokens, most likely first."""
    width = logits.shape[-1]

    def column(values: Sequence[float]) -> Tensor:
        return sent(torch.tensor(values, dtype=torch.float64), logits.device).unsqueeze(1)

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
    return order.gather(1, chosen).squeeze(1)


def _uniform(draw: Draw) -> float:
    """In [0, 1), from a counter-based generator: resumable at any position, on any worker."""
    bits = np.random.Philox(key=draw.sampling.seed, counter=len(draw.tokens))
    return float(np.random.Generator(bits).random())


def _logprobs(logits: Tensor, tokens: Tensor, draws: Sequence[Draw]) -> Iterator[Tensor]:
    """As _read takes them, of the draws that ask for any."""
    asked = [row for row, draw in enumerate(draws) if draw.sampling.logprobs]
    if not asked:
        return
    rows = integers(asked, logits.device)
    logprobs = logits[rows].double().log_softmax(-1)
    chosen = logprobs.gather(1, tokens[rows].unsqueeze(1))
    for row, own, every in zip(asked, chosen, logprobs, strict=True):
        yield own
        if count := draws[row].sampling.top_logprobs:
            top = every.topk(count)
            yield from (top.indices.double(), top.values)


def _read(numbers: Iterator[float], token: int, count: int) -> PositionLogprobs:
    """The token's, then so many of the likeliest tokens, then theirs."""
    chosen = next(numbers)
    indices, values = (list(islice(numbers, count)) for _ in range(2))
    top = (TokenLogprob(int(at), value) for at, value in zip(indices, values, strict=True))
    return PositionLogprobs(chosen=TokenLogprob(token, chosen), top=tuple(top))
