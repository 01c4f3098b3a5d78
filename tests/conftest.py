"""What holds for every test, before anything else is imported."""

import os
import signal
from collections.abc import Iterator

# Helpers of products that spin while they wait take the cores from the tests beside them, and from
# the services under test: four times the processor time, where three parts of the tests share two.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before OpenMP is loaded

import pytest
import structlog
import torch
from hypothesis import settings

# An example that takes long has found a busy machine; what is slow is found by bench/.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

# Without a GPU kernels, Triton's own among them, are interpreted; Triton asks when it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A shell starts what it puts into the background with Ctrl-C ignored, and so would be its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Traces are plain in logs: with everybody's locals, as is the default, each takes seconds.
_plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _plain])


@pytest.fixture(scope="module", params=["in Python", "in C"])
def either_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Greedy moves are planned so."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in Python":
            patch.setattr("services.policies.migration.greedy_round.module", lambda: None)
        yield
