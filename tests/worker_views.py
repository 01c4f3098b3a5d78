"""Workers as placement sees them, and wishes."""

from typing import Any

from services.core.reports import StepTimes
from services.core.types import Digest, Fingerprint, WorkerId
from services.policies.placement.views import Wish, WorkerView

BASE = Fingerprint("f" * 64)
ADAPTER = Digest("a" * 64)
TIMES = StepTimes(base=30.0, sequence=0.2, token=0.2)


def a_view(name: str = "w1", **facts: Any) -> WorkerView:
    """Idle, of 8 slots, without adapters, unless it says otherwise."""
    usual: dict[str, Any] = {
        "base_model": "base",
        "base_fingerprint": BASE,
        "running": 0,
        "waiting": 0,
        "free_pages": 0,
        "resident": frozenset(),
        "draining": False,
        "step_times": TIMES,
        "most_sequences": 8,
    }
    return WorkerView(id=WorkerId(name), **usual | facts)


def a_wish(adapter: Digest | None = ADAPTER, **facts: Any) -> Wish:
    return Wish("base", BASE, adapter, **facts)
