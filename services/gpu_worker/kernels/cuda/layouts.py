"""What a step's tokens may see, as attention's kernels want it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from services.gpu_worker.kernels.cuda.config import Config
from services.gpu_worker.kernels.device import Span
from services.gpu_worker.kernels.reference import page_tables
from services.gpu_worker.kernels.transfer import integers, sent

UNBOUNDED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Decodes:
    """Sequences with one row each."""

    rows: Tensor  # [B]
    starts: Tensor  # [B], the first position that each sees
    ends: Tensor  # [B], one more than the last
    tables: Tensor  # [B, P]
    splits: int  # of the longest


@dataclass(frozen=True, slots=True)
class Prefills:
    """Sequences with several rows each."""

    sequences: Tensor  # [S, 3]: first row, rows, position of the first
    tables: Tensor  # [S, P]
    blocks: Tensor  # [N, 2]: sequence, first query of the block within it
    window: int  # positions that a row sees


@dataclass(frozen=True, slots=True)
class Layout:
    decodes: Decodes | None
    prefills: Prefills | None
    config: Config


def lay_out(
    spans: Sequence[Span],
    *,
    page_tokens: int,
    window: int | None,
    place: torch.device,
    config: Config,
) -> Layout:
    singles = [span for span in spans if span.count == 1]
    several = [span for span in spans if span.count > 1]
    seen = window or UNBOUNDED
    return Layout(
        decodes=_decodes(singles, page_tokens, seen, place, config) if singles else None,
        prefills=_prefills(several, page_tokens, seen, place, config) if several else None,
        config=config,
    )


def _decodes(
    spans: Sequence[Span], page_tokens: int, window: int, place: torch.device, config: Config
) -> Decodes:
    ends = [span.position + 1 for span in spans]
    return Decodes(
        rows=integers([span.first for span in spans], place),
        starts=integers([max(0, end - window) for end in ends], place),
        ends=integers(ends, place),
        tables=_tables(spans, page_tokens, place),
        splits=triton.cdiv(max(ends), config.split),
    )


def _prefills(
    spans: Sequence[Span], page_tokens: int, window: int, place: torch.device, config: Config
) -> Prefills:
    sequences = [(span.first, span.count, span.position) for span in spans]
    blocks = [
        (index, first)
        for index, span in enumerate(spans)
        for first in range(0, span.count, config.queries)
    ]
    return Prefills(
        sequences=integers([number for row in sequences for number in row], place).view(-1, 3),
        tables=_tables(spans, page_tokens, place),
        blocks=integers([number for row in blocks for number in row], place).view(-1, 2),
        window=window,
    )


def _tables(spans: Sequence[Span], page_tokens: int, place: torch.device) -> Tensor:
    return sent(page_tables([span.table(page_tokens) for span in spans]), place)
