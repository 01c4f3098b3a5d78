"""What tests of kernels share."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Memory that nobody wrote is NaN."""
    empty = torch.empty

    def poisoned(*size: Any, **how: Any) -> Tensor:
        made = empty(*size, **how)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", poisoned)
        yield
