"""A small model that a group can have, and adapters of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from services.gpu_worker.model.loading import LoadedModel, load_model
from tests.parallel import divisible, lora, written
from tests.references import EVERY_LINEAR, adapter_configs
from tests.tiny_models import reference_of, save_reference


@pytest.fixture(scope="module", autouse=True)
def _one_thread_a_member() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reference() -> Any:
    return reference_of(divisible())


@pytest.fixture(scope="module")
def folder(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reference(reference, tmp_path_factory.mktemp("parallel") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load_model(folder)


@pytest.fixture(scope="module")
def adapters(reference: Any, model: LoadedModel) -> dict[str, bytes]:
    """Of ranks from 4 to 64, of which one is no multiple of four."""
    return written(reference, model, adapter_configs() | {"all-6": lora(6, EVERY_LINEAR)})
